"""Doubts about the classes of a dataset, as notes: rare values, and numbers of objects."""

from collections.abc import Sequence

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.data.mask_labels import TRANSPARENT, Value
from semiseg.onboard.edge_values import RARE
from semiseg.onboard.named_classes import joined
from semiseg.onboard.survey import Survey

OBJECTS = 8
"""Values from which on numbers may count objects."""

FEWEST_MASKS = 4
ALONE = 0.6
"""Share of values that occur in one mask alone, above which they count objects."""


def doubts(found: Survey, values: Sequence[Value], made_up: bool) -> list[str]:
    """Return notes about classes that may be none.

    Args:
        found: survey of the masks.
        values: values of the classes.
        made_up: whether the names are placeholders.
    """
    return [*_rare(found, values), *(_objects(found, values) if made_up else [])]


def _rare(found: Survey, values: Sequence[Value]) -> list[str]:
    rare = [value for value in values if 0 < found.share([value]) < RARE and value != IGNORE_INDEX]
    if not rare:
        return []
    return [f"few pixels hold {found.listed(rare)}; if that is a mistake: --void {joined(rare)}"]


def _objects(found: Survey, values: Sequence[Value]) -> list[str]:
    """A note where values seem to number the objects of each image."""
    numbers = [value for value in values if value not in (0, IGNORE_INDEX, TRANSPARENT)]
    held = [sorted(value for value in numbers if value in each) for each in found.held]
    if len(numbers) < OBJECTS or len(found.masks) < FEWEST_MASKS:
        return []
    alone = sum(len(found.holders(value)) == 1 for value in numbers)
    counted = not found.colored and len({len(each) for each in held}) > len(held) / 3
    counted = counted and all(each == list(range(1, len(each) + 1)) for each in held)
    if alone < ALONE * len(numbers) and not counted:
        return []
    how = (
        "each mask numbers its regions from 1 on"
        if counted
        else f"{alone} of {len(numbers)} values are in one mask alone"
    )
    return [
        f"{how}, as numbers of objects (instances) are and classes are not: look for masks of classes, which often lie "
        "in a folder or have an ending of their own (--masks DIR, --mask-suffix END)"
    ]
