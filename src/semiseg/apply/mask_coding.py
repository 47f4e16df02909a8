"""Numbers and colors of masks as the dataset of a run reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from semiseg.contracts.dataset import IGNORE_INDEX, Array, DatasetInfo
from semiseg.data.mask_format import MaskFormat, format_of_settings
from semiseg.data.mask_labels import (
    NOT_LABELED,
    TRANSPARENT,
    MaskLabels,
    color_text,
    mask_labels,
    parse_color,
)
from semiseg.data.palette import Color, bit_color
from semiseg.pictures import paletted

FREE_COLORS: tuple[Color, ...] = ((255, 255, 255), (255, 0, 255), (0, 255, 0), (128, 128, 128))
"""Colors of pixels without label where none is due; the first that no class has is taken."""


@dataclass(frozen=True)
class MaskCoding:
    """Numbers and colors in masks.

    Args:
        numbers: number of each class.
        unlabeled: number of pixels without label.
        palette: color of each number in masks, of all that have one.
        transparent: number that is fully transparent; ``None`` where all pixels are opaque.
    """

    numbers: tuple[int, ...]
    unlabeled: int
    palette: Mapping[int, Color]
    transparent: int | None = None

    @property
    def colors(self) -> tuple[Color, ...]:
        """Color of each class."""
        return tuple(self.palette.get(number, (0, 0, 0)) for number in self.numbers)

    @property
    def unlabeled_color(self) -> Color:
        """Color of pixels without label."""
        return self.palette[self.unlabeled]

    def picture(self, label: Array) -> Image.Image:
        """Return the palette picture of a label map ``(H, W) uint8`` with 255 ignored; a grey one of large numbers."""
        table = np.full(256, self.unlabeled, np.uint16)
        table[: len(self.numbers)] = self.numbers
        if table.max() > 255:
            return Image.fromarray(table[label])
        picture = paletted(table.astype(np.uint8)[label], self.palette)
        if self.transparent is not None:
            picture.info["transparency"] = bytes(
                0 if number == self.transparent else 255 for number in range(256)
            )
        return picture

    def rows(self, classes: Sequence[str]) -> list[tuple[str, int, str]]:
        """Name, number and color of each class and of pixels without label, as ``semiseg init`` reads them.

        Colors are empty where masks are grey, which those with large numbers are.
        """
        named = [*zip(classes, self.numbers, strict=True), (NOT_LABELED, self.unlabeled)]
        return [(name, number, self._color(number)) for name, number in named]

    def _color(self, number: int) -> str:
        if number == self.transparent:
            return TRANSPARENT
        if max(self.numbers) > 255:
            return ""
        return color_text(int.from_bytes(bytes(self.palette.get(number, (0, 0, 0)))))


def mask_coding(dataset: Mapping[str, Any], info: DatasetInfo) -> MaskCoding:
    """Return the coding in which own masks of a dataset are written, so that they can be put among the others.

    Own images keep the numbers of ``dataset.values`` and ``dataset.void``, and the palette of their masks; beside grey
    masks the palette is that of PASCAL VOC, in which each number has a color of its own. Where the settings name
    colors, the palette has them. Masks of other datasets hold labels, in the colors of the classes.

    Args:
        dataset: config node of the run's dataset.
        info: classes and colors.
    """
    if dataset.get("classes") is None:
        return _by_position(info)
    void = dataset.get("void") or ()
    labels = mask_labels(info.name, info.num_classes, dataset.get("values"), void)
    if labels.colors:
        return _by_color(labels, info)
    shared = dataset.get("mask_format")
    return _by_number(labels, info, format_of_settings(shared) if shared else None)


def _by_position(info: DatasetInfo) -> MaskCoding:
    free = next(color for color in (*FREE_COLORS, None) if color not in info.palette) or FREE_COLORS[0]
    return MaskCoding(
        tuple(range(info.num_classes)), IGNORE_INDEX, dict(enumerate(info.palette)) | {IGNORE_INDEX: free}
    )


def _by_color(labels: MaskLabels, info: DatasetInfo) -> MaskCoding:
    palette = dict(enumerate(labels.palette() or info.palette))
    void = next((color for color, label in labels.colors.items() if label == IGNORE_INDEX), (0, 0, 0))
    return MaskCoding(
        tuple(range(info.num_classes)), IGNORE_INDEX, palette | {IGNORE_INDEX: void}, labels.transparent
    )


def _by_number(labels: MaskLabels, info: DatasetInfo, shared: MaskFormat | None) -> MaskCoding:
    numbers, unlabeled = tuple(range(info.num_classes)), IGNORE_INDEX
    if labels.numbers is not None:
        first = {label: number for number, label in reversed(labels.numbers.items())}
        unlabeled = labels.void[0] if IGNORE_INDEX in labels.numbers and labels.void else IGNORE_INDEX
        clear = next(each for each in range(256) if each not in labels.numbers and each != unlabeled)
        numbers = tuple(first.get(label, clear) for label in range(info.num_classes))
    transparent = None
    if labels.transparent is not None:
        transparent = unlabeled if labels.transparent == IGNORE_INDEX else numbers[labels.transparent]
    palette = {number: bit_color(number) for number in range(256)}
    if shared is not None and shared.kind == "palette":
        used = {number: parse_color(color) for number, color in shared.colors.items()}
        free = next(color for color in (*FREE_COLORS, *palette.values()) if color not in used.values())
        palette = {number: color for number, color in palette.items() if color not in used.values()} | used
        palette.setdefault(unlabeled, free)
    return MaskCoding(numbers, unlabeled, palette, transparent)
