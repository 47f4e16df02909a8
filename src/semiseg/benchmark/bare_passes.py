"""Finding out which passes a training step makes of its networks, and repeating them bare."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from semiseg.contracts.feeding import BatchSource
from semiseg.contracts.recipe import FitResult
from semiseg.contracts.training import Learner, Network
from semiseg.engine.plan import PlanLab, PlannedLabels
from semiseg.engine.session import Networks, Session
from semiseg.engine.step_memory import networks_of
from semiseg.models.strides import safe_convolutions

Maps = Tensor | Sequence[Tensor]
"""Input or output of a part of a network: images, features, logits, or the maps of a backbone."""

SIDE = 64
"""Largest side of the images that a recipe looks at, as their content does not matter."""


@dataclass(frozen=True)
class RecordedFit:
    """A fit that a recipe asked for.

    Args:
        name: Name of the step.
        learner: Learner, as the recipe made it.
        streams: BatchSource that feed it.
        session: Session with the settings of this fit.
    """

    name: str
    learner: Learner
    streams: BatchSource
    session: Session


class FitRecorder(PlanLab):
    """Lab that keeps the fits of a recipe; nothing is trained, labeled or stored.

    Args:
        session: Session that the recipe is walked through with.
        networks: Where its networks come from.
    """

    def __init__(self, session: Session, networks: Networks) -> None:
        super().__init__(session, networks)
        self.fits: list[RecordedFit] = []

    def distinct_fits(self) -> list[RecordedFit]:
        """The first fit of each kind of learner, network and batch."""
        kinds: dict[Any, RecordedFit] = {}
        for fit in self.fits:
            trained = sum(each.numel() for each in fit.learner.parameters() if each.requires_grad)
            parts = [(name, size) for name, size, _ in fit.streams.parts]
            roles = tuple(network.role for network in networks_of(fit.learner))
            kinds.setdefault((type(fit.learner).__name__, trained, roles, *parts), fit)
        return list(kinds.values())

    def network(
        self,
        tag: str,
        weights: str | None = None,
        *,
        differs_from: str | None = None,
        role: str | None = None,
        probe_rounds: int = 0,
    ) -> Network:
        """Build a network without pretrained weights."""
        return self.networks.build("none", role)

    def fit(
        self,
        name: str,
        learner: Learner,
        streams: BatchSource,
        snapshots: Sequence[float] = (),
        *,
        lr: float | None = None,
        eval_every: int | None = None,
    ) -> FitResult:
        """Keep the fit; its networks are untrained."""
        self.fits.append(RecordedFit(name, learner, streams, self.session.for_fit(lr, eval_every)))
        return self._untrained(next(iter(learner.predictors().values())), snapshots)

    def label(
        self, name: str, network: Network, ids: Sequence[str], policy: Any, *, keep_confidence: bool = True
    ) -> PlannedLabels:
        """Label every pixel as class 0."""
        return PlannedLabels(ids, self.dataset, 0)

    def _image(self, image_id: str) -> Tensor:
        return super()._image(image_id)[..., :SIDE, :SIDE]


@dataclass
class NetworkPass:
    """One call of a part of a network.

    Args:
        kind: "encode", "decode", "classify" or the name of a head.
        network: Network that has the part.
        call: The part, from its input to its output.
        training: Whether the network was in training mode.
        grad: Whether gradients went through the call.
        source: Number of the pass whose output was the input. ``None`` where the input was something else.
        example: Input in that case.
        ends: Whether no later pass with gradient took its output.
    """

    kind: str
    network: Network
    call: Callable[[Any], Maps]
    training: bool
    grad: bool
    source: int | None
    example: Maps | None
    ends: bool = True

    def run(self, outputs: Mapping[int, Maps]) -> Maps:
        """Call it on an earlier output, or on its example."""
        if self.source is not None:
            return self.call(outputs[self.source])
        assert self.example is not None
        return self.call(self.example)


def record_passes(learner: Learner, step: Callable[[], object]) -> list[NetworkPass]:
    """Return the passes that a step makes of the networks of a learner, in their order."""
    passes: list[NetworkPass] = []
    outputs: list[Maps] = []

    def note(kind: str, network: Network, call: Callable[[Any], Maps], given: Maps, made: Maps) -> None:
        source = next((number for number, each in enumerate(outputs) if each is given), None)
        grad = any(each.requires_grad for each in _tensors(made))
        if source is not None and grad:
            passes[source].ends = False
        example = None if source is not None else _detached(given)
        passes.append(NetworkPass(kind, network, call, network.training, grad, source, example))
        outputs.append(made)

    with _watched(learner, note):
        step()
    return passes


def _tensors(maps: Maps) -> list[Tensor]:
    return [maps] if isinstance(maps, Tensor) else list(maps)


def _detached(maps: Maps) -> Maps:
    """Return the same values without history; where gradients were asked for, they still are."""
    found = [each.detach().requires_grad_(each.requires_grad) for each in _tensors(maps)]
    return found[0] if isinstance(maps, Tensor) else found


@contextmanager
def _watched(learner: Learner, note: Callable[..., None]) -> Iterator[None]:
    """Report all calls of ``encode``, ``decode``, ``classify`` and the heads of all networks."""
    networks = [module for module in learner.modules() if isinstance(module, Network)]
    handles = []

    def watch(network: Network) -> None:
        encode, decode, classify = network.encode, network.decode, network.classify

        def noted_encode(images: Tensor) -> list[Tensor]:
            made = encode(images)
            note("encode", network, encode, images, made)
            return made

        def noted_decode(maps: Sequence[Tensor]) -> Tensor:
            made = decode(maps)
            note("decode", network, decode, maps, made)
            return made

        def noted_classify(given: Tensor, size: Sequence[int]) -> Tensor:
            made = classify(given, size)
            note("classify", network, lambda maps: classify(maps, size), given, made)
            return made

        vars(network).update(encode=noted_encode, decode=noted_decode, classify=noted_classify)
        for name, head in network.heads.items():
            handles.append(head.register_forward_hook(_noted_head(name, network, note)))

    for network in networks:
        watch(network)
    try:
        yield
    finally:
        for network in networks:
            del network.encode, network.decode, network.classify
        for handle in handles:
            handle.remove()


def _noted_head(name: str, network: Network, note: Callable[..., None]) -> Callable[..., None]:
    def hook(head: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        note(name, network, head, given[0], made)

    return hook


def run_passes(
    passes: Sequence[NetworkPass], networks: Sequence[Network], autocast: Callable[[], Any]
) -> None:
    """Repeat passes, with a backward pass from ones at every output that ends a chain, and nothing else."""
    last_use = {each.source: number for number, each in enumerate(passes)}
    outputs: dict[int, Maps] = {}
    ends: list[Tensor] = []
    for number, each in enumerate(passes):
        if each.network.training != each.training:
            each.network.train(each.training)
        device = each.network.get_buffer("mean").device
        with torch.set_grad_enabled(each.grad), autocast(), safe_convolutions(device):
            made = each.run(outputs)
        if each.grad and each.ends:
            ends += [out for out in _tensors(made) if out.requires_grad]
        # Like a learner, keep nothing longer than it is needed: memory that is used again costs less.
        outputs = {kept: out for kept, out in outputs.items() if last_use.get(kept, 0) > number}
        outputs[number] = made
        del made
    outputs.clear()
    # Ones in the memory format of the output; the gradient of a mean would be laid out as that of no loss is.
    torch.autograd.backward(ends, [torch.ones_like(out) for out in ends])
    for network in networks:
        network.zero_grad(set_to_none=True)


def describe_passes(passes: Sequence[NetworkPass]) -> str:
    """Number of passes of networks, and how many of them without gradient."""
    counts = Counter(each.grad for each in passes if each.kind == "encode")
    text = f"{counts[True]} with gradient"
    return f"{text}, {counts[False]} without" if counts[False] else text
