"""Labels of the numbers or colors in masks."""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from semiseg.contracts.dataset import IGNORE_INDEX, Array, DatasetInfo
from semiseg.data.palette import Color, bit_color
from semiseg.errors import UserError
from semiseg.splits.lists import repeated, shown

Value = int | str
"""A number of a mask, a color as "#rrggbb", or "transparent" for what is fully transparent."""

TRANSPARENT = "transparent"
NOT_LABELED = "(not labeled)"
"""Name of pixels without label in lists of classes."""

UNSURE_COLORS: tuple[Color, ...] = ((255, 0, 254), (254, 0, 255), (0, 255, 254))
"""Colors that no tool gives to classes; the first that is free means "not labeled" among colors."""

LARGEST_NUMBER = 65535


def parse_color(text: str) -> Color:
    """Return the RGB color (0-255) that "#rrggbb" means.

    Raises:
        UserError: it is not written so.
    """
    found = re.fullmatch(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", text)
    if found is None:
        raise UserError(f"{text!r} is no color; expected red, green and blue as in '#00ff80', in quotes")
    return int(found[1], 16), int(found[2], 16), int(found[3], 16)


def color_text(code: int) -> str:
    """Write a color that is packed into a number, red in the highest of three bytes, as "#rrggbb"."""
    return f"#{code:06x}"


@dataclass(frozen=True)
class MaskLabels:
    """The labels of all numbers or colors that masks may hold.

    Args:
        numbers: label of each number; with ``None`` numbers are labels. Unused with colors.
        void: numbers that mean "not labeled".
        colors: label of each color of color-coded masks, 255 for "not labeled"; empty for other masks.
        transparent: label of fully transparent pixels; ``None`` where the settings do not name them, so that they are
            not labeled.
        refused: numbers that no mask may hold, even 255.
    """

    numbers: dict[int, int] | None
    void: tuple[int, ...] = ()
    colors: dict[Color, int] = field(default_factory=dict)
    transparent: int | None = None
    refused: tuple[int, ...] = ()

    def palette(self) -> list[Color] | None:
        """The first color of each class, a free one for what is transparent; ``None`` where masks have no colors."""
        first = {label: color for color, label in reversed(self.colors.items())}
        if self.colors and self.transparent is not None:
            first.setdefault(
                self.transparent, next(free for free in map(bit_color, range(256)) if free not in self.colors)
            )
        return [first[label] for label in sorted(first) if label != IGNORE_INDEX] or None


def mask_labels(
    name: str, classes: int, values: Sequence[Value | Sequence[Value]] | None, void: Sequence[Value]
) -> MaskLabels:
    """Read the settings ``dataset.values`` and ``dataset.void``.

    Args:
        name: name of the dataset, for messages.
        classes: number of classes.
        values: number or color of each class in the masks, "transparent", or a list of several; ``None`` takes its
            position.
        void: numbers or colors that mean "not labeled", or "transparent"; ``label_tables`` checks numbers. Without
            any, one that no class has means it where 255 cannot: see ``unsure_number`` and ``unsure_color``.

    Raises:
        UserError: not one entry a class, an entry twice, numbers mixed with colors, no byte or no color.
    """
    groups = [
        [entry] if isinstance(entry, int | str) else list(entry)
        for entry in (range(classes) if values is None else values)
    ]
    if len(groups) != classes or not all(groups):
        raise UserError(
            f"dataset {name}: dataset.values={values}: expected one entry for each of {classes} classes"
        )
    labels = [(value, label) for label, group in enumerate(groups) for value in group]
    voids = [value for value in void if isinstance(value, str)]
    if twice := repeated([str(value).lower() for value in (*(value for value, _ in labels), *voids)]):
        raise UserError(f"dataset {name}: dataset.values and dataset.void name twice: {shown(twice)}")
    clear = [label for value, label in labels if is_transparent(value)]
    labels = [(value, label) for value, label in labels if not is_transparent(value)]
    visible = [value for value in void if not is_transparent(value)]
    numbers = {value: label for value, label in labels if isinstance(value, int)}
    colors = {parse_color(value): label for value, label in labels if isinstance(value, str)}
    if (numbers and colors) or any(isinstance(value, str) != bool(colors) for value in visible):
        raise UserError(
            f"dataset {name}: dataset.values and dataset.void mix numbers and colors; take one kind"
        )
    if wrong := [value for value in numbers if not 0 <= value <= LARGEST_NUMBER]:
        raise UserError(
            f"dataset {name}: dataset.values has {wrong[0]}; expected numbers from 0 to {LARGEST_NUMBER}"
        )
    unlabeled = {parse_color(str(value)): IGNORE_INDEX for value in visible if isinstance(value, str)}
    unsure = tuple(value for value in visible if isinstance(value, int))
    if colors and not void:
        unlabeled = {unsure_color(colors): IGNORE_INDEX}
    if IGNORE_INDEX in numbers and not void:
        unsure = (unsure_number(numbers),)
    return MaskLabels(
        None if values is None else numbers,
        unsure,
        colors | unlabeled,
        clear[0] if clear else IGNORE_INDEX if len(visible) < len(void) else None,
    )


def unsure_number(classes: Container[int]) -> int:
    """Number that means "not labeled" where no setting names one: the highest byte that is no class."""
    return next(number for number in range(255, -1, -1) if number not in classes)


def unsure_color(classes: Container[Color]) -> Color:
    """Color that means "not labeled" where no setting names one, which no class has."""
    return next(color for color in (*UNSURE_COLORS, *map(bit_color, range(256))) if color not in classes)


def is_transparent(value: Value) -> bool:
    """Whether an entry of the settings stands for fully transparent pixels."""
    return isinstance(value, str) and value.lower() == TRANSPARENT


def label_tables(info: DatasetInfo, void: Sequence[int], values: Mapping[int, int]) -> tuple[Array, Array]:
    """Return two tables over the values in masks: the label of each, and 1 for values without one.

    They have 256 entries, or 65,536 where a value needs 16 bits.

    Args:
        info: classes of the dataset.
        void: values that mean "not labeled", in addition to 255.
        values: label of each other value.

    Raises:
        UserError: a void value is a class or no number of 16 bits.
    """
    if wrong := [value for value in void if value in values or not 0 <= value <= LARGEST_NUMBER]:
        raise UserError(
            f"dataset {info.name}: void value {wrong[0]} is a class, or no number of 16 bits; expected a value up to "
            f"{LARGEST_NUMBER} other than {ranges(sorted(values))}"
        )
    size = 256 if max((*values, *void, 0)) < 256 else LARGEST_NUMBER + 1
    labels = np.full(size, IGNORE_INDEX, dtype=np.uint8)
    labels[list(values)] = list(values.values())
    outside = np.ones(size, dtype=np.uint8)
    outside[[*values, *void, 255]] = 0
    return labels, outside


def ranges(values: Sequence[int]) -> str:
    """Write rising numbers with neighbors joined: "0 to 3, 7"."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in runs)
