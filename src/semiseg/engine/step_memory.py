"""Parameters and memory of the networks of a training step, estimated for the plan of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from semiseg.contracts.training import Learner, Network, OptimizerSpec


@dataclass(frozen=True)
class NetworkCost:
    """Networks of one kind in a learner, averages of networks included.

    Args:
        kind: names of backbone and decoder, and the role of the networks where they have one.
        count: number of networks.
        trained: parameters that are trained.
        frozen: parameters that are not.
        state: bytes of the weights, and of gradients and optimizer for those that are trained.
        activations: bytes that a step keeps at once for its backward pass, losses left out.
    """

    kind: str
    count: int
    trained: int
    frozen: int
    state: int
    activations: int

    def __str__(self) -> str:
        number = f"{self.count} networks" if self.count > 1 else "1 network"
        frozen = f", {self.frozen / 1e6:.1f} M frozen" if self.frozen else ""
        return (
            f"{number} of {self.kind}: {self.trained / 1e6:.1f} M parameters trained{frozen}; a step holds about "
            f"{mebibytes(self.state)} of weights, gradients and optimizer, {mebibytes(self.activations)} of activations"
        )


class SavedTensors:
    """Bytes that autograd keeps for the backward pass, by the network whose forward pass saved them.

    Args:
        learner: learner whose networks are watched; their own tensors are not counted.
    """

    def __init__(self, learner: Learner) -> None:
        self.networks = networks_of(learner)
        self.peaks = dict.fromkeys(self.networks, 0)
        self._held = dict.fromkeys(self.networks, 0)
        self._current: Network | None = None
        # Several nodes save one tensor, which takes its memory once.
        self._users: dict[int, int] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count what is saved inside."""
        own = {value.untyped_storage().data_ptr() for each in self.networks for value in _tensors(each)}
        with ExitStack() as stack:
            for network in self.networks:
                for part in (network.backbone, network.decoder, network.classifier, *network.heads.values()):
                    for hook in self._hooks(part, network):
                        stack.callback(hook.remove)
            pack = torch.autograd.graph.saved_tensors_hooks(
                lambda tensor: self._saved(tensor, own), lambda saved: saved.tensor
            )
            stack.enter_context(pack)
            yield

    def _hooks(self, part: nn.Module, network: Network) -> Iterator[Any]:
        def enter(module: nn.Module, arguments: Any) -> None:
            self._current = network

        def leave(module: nn.Module, arguments: Any, result: Any) -> None:
            self._current = None

        yield part.register_forward_pre_hook(enter)
        yield part.register_forward_hook(leave)

    def _saved(self, tensor: Tensor, own: set[int]) -> _Saved:
        storage, network = tensor.untyped_storage(), self._current
        place = storage.data_ptr()
        if network is None or place in own:
            return _Saved(tensor, lambda: None)
        self._users[place] = self._users.get(place, 0) + 1
        size = storage.nbytes() if self._users[place] == 1 else 0
        self._held[network] += size
        self.peaks[network] = max(self.peaks[network], self._held[network])

        def drop() -> None:
            self._users[place] -= 1
            if not self._users[place]:
                del self._users[place]
            self._held[network] -= size

        return _Saved(tensor, drop)


class _Saved:
    """A tensor that autograd has saved; ``drop`` is called when it lets go of it."""

    def __init__(self, tensor: Tensor, drop: Callable[[], None]) -> None:
        self.tensor = tensor
        self._drop = drop

    def __del__(self) -> None:
        self._drop()


def networks_of(learner: Learner) -> list[Network]:
    """Return the networks of a learner at any depth, each once."""
    return list(dict.fromkeys(module for module in learner.modules() if isinstance(module, Network)))


def network_costs(
    saved: SavedTensors, spec: OptimizerSpec, config_of: Callable[[Network], Mapping[str, Any]]
) -> list[NetworkCost]:
    """Describe the networks of a learner by kind.

    Args:
        saved: what a step has kept for the backward pass.
        spec: settings of the optimizer.
        config_of: function that returns the nodes of a network.
    """
    kinds: dict[str, list[Network]] = {}
    for network in saved.networks:
        config = config_of(network)
        role = "" if network.role is None else f" (method.{network.role})"
        kinds.setdefault(f"{config['backbone']['name']} {config['model']['name']}{role}", []).append(network)
    return [_cost(kind, networks, saved.peaks, spec) for kind, networks in kinds.items()]


def _cost(
    kind: str, networks: Sequence[Network], peaks: Mapping[Network, int], spec: OptimizerSpec
) -> NetworkCost:
    parameters = [each for network in networks for each in network.parameters()]
    trained = [each for each in parameters if each.requires_grad]
    copies = 1 + max((_optimizer_copies(network, spec) for network in networks), default=0)
    state = sum(_bytes(value) for network in networks for value in _tensors(network))
    return NetworkCost(
        kind,
        len(networks),
        sum(each.numel() for each in trained),
        sum(each.numel() for each in parameters) - sum(each.numel() for each in trained),
        state + copies * sum(map(_bytes, trained)),
        sum(peaks[network] for network in networks),
    )


def _optimizer_copies(network: Network, spec: OptimizerSpec) -> int:
    """Return how many values the optimizer keeps for each parameter, found with a parameter of two elements."""
    groups = spec.groups(network)[:1]
    if not groups:
        return 0
    probe = nn.Parameter(torch.zeros(2))
    probe.grad = torch.zeros(2)
    optimizer = spec.build([{**groups[0], "params": [probe]}])
    optimizer.step()
    states = optimizer.state_dict().get("state", {}).values()
    return sum(isinstance(value, Tensor) and value.numel() == 2 for each in states for value in each.values())


def mebibytes(size: int) -> str:
    """Return a number of bytes in words."""
    return f"{size / 2**20:.0f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"


def _tensors(network: Network) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()
