"""Stages of timm's networks, found from the modules whose maps they return."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def stage_modules(net: Any, returned: Sequence[str], by_block: bool) -> dict[str, list[nn.Module]]:
    """Return the modules of a feature extractor by stage, in order of registration, which is that of computation.

    Args:
        net: network with ``features_only``.
        returned: names of the modules whose maps it returns.
        by_block: whether each block of a plain transformer is a stage, "block1", "block2", ...; otherwise the stages
            are "c1", "c2", ... for the returned maps. "stem" is what comes before.

    Returns:
        Empty where the network does not have the modules by these names.
    """
    # Feature extractors wrap the network, and take the items of its sequences out of them: "stages.0" is "stages_0".
    inner = next((getattr(net, name) for name in ("model", "body") if hasattr(net, name)), net)
    ends = [_flat(name) for name in returned]
    if by_block:
        listed, _, _ = returned[-1].rpartition(".")
        ends = [_flat(name) for name, _ in inner.named_modules() if name.rpartition(".")[0] == listed != name]
    names = [f"block{number}" if by_block else f"c{number}" for number in range(1, len(ends) + 1)]
    stages: dict[str, list[nn.Module]] = {"stem": []}
    current, left = "stem", list(ends)
    for name, module in _pieces(inner, "", ends):
        last = bool(left) and name == left[0]
        # A stage begins behind the end of the one before; the first one, with the module that returns its map.
        if last and current == "stem":
            current = names[0]
        stages.setdefault(current, []).append(module)
        if last:
            left.pop(0)
            current = names[len(ends) - len(left)] if left else names[-1]
    return {} if left else stages


def _pieces(module: nn.Module, prefix: str, ends: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parameters and children of a module, and those of children that hold the end of a stage inside."""
    if own := [each for _, each in module.named_parameters(recurse=False)]:
        yield prefix, nn.ParameterList(own)
    for name, child in module.named_children():
        whole = _flat(f"{prefix}.{name}" if prefix else name)
        inside = [end for end in ends if end.startswith(f"{whole}_")]
        if len(inside) > 1 or (inside and isinstance(child, CONTAINERS)):
            yield from _pieces(child, whole, ends)
        else:
            # A block that gives a map from its middle is not divided.
            yield (inside[0] if inside else whole), child


def _flat(name: str) -> str:
    return name.replace(".", "_")
