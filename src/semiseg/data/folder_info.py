"""Classes of an own dataset: their names and colors."""

import re
from collections.abc import Sequence

from semiseg.contracts.dataset import DatasetInfo
from semiseg.data.palette import bit_color
from semiseg.errors import UserError
from semiseg.splits.lists import repeated, shown

MAX_CLASSES = 255


def placeholder_name(label: int) -> str:
    """Name of a class that nobody has named yet."""
    return f"class_{label}"


def is_placeholder(name: str) -> bool:
    """Whether a name is one of ``placeholder_name``."""
    return re.fullmatch(r"class_\d+", name) is not None


def folder_info(name: str, classes: Sequence[str], palette: Sequence[Sequence[int]] | None) -> DatasetInfo:
    """Return the classes and colors of the settings, after checking them.

    Raises:
        UserError: fewer than two classes or more than 255, names that are no text or occur twice, or a palette
            that is not one RGB color a class.
    """
    names = list(classes)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise UserError(
            f"dataset {name}: dataset.classes has {len(names)} names; expected 2 to {MAX_CLASSES}"
        )
    if wrong := [value for value in names if not isinstance(value, str)]:
        raise UserError(f"dataset {name}: class name {wrong[0]!r} is no text in YAML; put quotes around it")
    if twice := repeated(names):
        raise UserError(f"dataset {name}: class names occur twice: {shown(twice)}")
    if palette is None:
        return DatasetInfo(name, tuple(names), tuple(bit_color(index) for index in range(len(names))))
    colors = [tuple(int(value) for value in color) for color in palette]
    if len(colors) != len(names):
        raise UserError(f"dataset {name}: dataset.palette has {len(colors)} colors for {len(names)} classes")
    if faulty := [
        color for color in colors if len(color) != 3 or not all(0 <= value <= 255 for value in color)
    ]:
        raise UserError(
            f"dataset {name}: palette color {list(faulty[0])}; expected [red, green, blue], 0-255"
        )
    return DatasetInfo(name, tuple(names), tuple((color[0], color[1], color[2]) for color in colors))
