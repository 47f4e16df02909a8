"""Trained and frozen parameters of the networks of a fit, by part, for its plan."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from semiseg.contracts.training import Learner, Network

PARTS = {"backbone": "backbone", "decoder": "decoder", "classifier": "classifier", "heads": "heads"}
REST = "other"


@dataclass(frozen=True)
class NetworkSize:
    """Numbers of parameters of one network that is trained.

    Args:
        name: name of the network among the modules of its learner.
        trained: parameters that are trained, by part: "backbone", "decoder", "classifier", "heads".
        frozen: parameters that are not, by part; parts without such parameters are left out of both.
    """

    name: str
    trained: Mapping[str, int]
    frozen: Mapping[str, int]


def trained_networks(learner: nn.Module) -> tuple[NetworkSize, ...]:
    """Return the sizes of all networks at any depth of a learner that are trained, and of its further modules.

    Teachers are not trained.
    """
    found = [
        network_size(name, module) for name, module in learner.named_modules() if isinstance(module, Network)
    ]
    if isinstance(learner, Learner):
        found += [_module_size(name, each.module) for name, each in learner.further().items()]
    return tuple(size for size in found if size.trained)


def network_size(name: str, network: Network) -> NetworkSize:
    """Count the parameters of a network."""
    trained: dict[str, int] = {}
    frozen: dict[str, int] = {}
    for part in network.parts():
        word = PARTS.get(part.name.partition(".")[0], REST)
        for parameter in part.parameters:
            counts = trained if parameter.requires_grad else frozen
            counts[word] = counts.get(word, 0) + parameter.numel()
    return NetworkSize(name, trained, frozen)


def _module_size(name: str, module: nn.Module) -> NetworkSize:
    trained = sum(each.numel() for each in module.parameters() if each.requires_grad)
    frozen = sum(each.numel() for each in module.parameters()) - trained
    return NetworkSize(name, {REST: trained}, {REST: frozen} if frozen else {})


def render_sizes(sizes: Iterable[NetworkSize]) -> list[str]:
    """Return a line for each network of another size, with the names of all networks that have it."""
    names: dict[str, dict[str, None]] = {}
    for size in sizes:
        names.setdefault(_counts(size), {})[size.name] = None
    return [f"{', '.join(found)}: {counts}" for counts, found in names.items()]


def _counts(size: NetworkSize) -> str:
    words = []
    for part in [*PARTS, REST]:
        counts = [
            f"{number[part]:,} {word}"
            for word, number in (("trained", size.trained), ("frozen", size.frozen))
            if part in number
        ]
        if counts:
            words.append(f"{part} {' and '.join(counts)}")
    return "; ".join(words)
