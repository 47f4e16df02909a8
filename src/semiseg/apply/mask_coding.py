"""Numbers and colors of masks as the dataset of a run reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from semiseg.contracts.dataset import IGNORE_INDEX, Array, DatasetInfo
from semiseg.data.mask_labels import mask_labels
from semiseg.data.palette import Color
from semiseg.pictures import paletted

UNLABELED_COLORS = ((255, 255, 255), (255, 0, 255), (0, 255, 0), (128, 128, 128))
"""Colors of pixels without label; the first that no class has is taken."""


@dataclass(frozen=True)
class MaskCoding:
    """Numbers and colors in masks.

    Args:
        numbers: number of each class.
        unlabeled: number of pixels without label.
        colors: color of each class.
        unlabeled_color: color of pixels without label.
    """

    numbers: tuple[int, ...]
    unlabeled: int
    colors: tuple[Color, ...]
    unlabeled_color: Color

    def picture(self, label: Array) -> Image.Image:
        """Return the palette picture of a label map ``(H, W) uint8`` with 255 ignored."""
        table = np.full(256, self.unlabeled, np.uint8)
        table[: len(self.numbers)] = self.numbers
        colors = dict(zip(self.numbers, self.colors, strict=True))
        return paletted(table[label], {**colors, self.unlabeled: self.unlabeled_color})


def mask_coding(dataset: Mapping[str, Any], info: DatasetInfo) -> MaskCoding:
    """Return the coding in which own masks of a dataset are written.

    Where ``dataset.values`` and ``dataset.void`` name numbers these are used, and where they name colors the palette
    has them, so that new masks can be put among the others. Else numbers are labels, and 255 where there is none.

    Args:
        dataset: config node of the run's dataset.
        info: classes and colors.
    """
    own = {key: dataset[key] for key in ("values", "void") if dataset.get(key) is not None}
    values = own.get("values")
    labels = mask_labels(info.name, info.num_classes, values, own.get("void", ()) if values else ())
    numbers, unlabeled = tuple(range(info.num_classes)), IGNORE_INDEX
    if labels.numbers is not None and not labels.colors:
        first = {label: number for number, label in reversed(labels.numbers.items())}
        numbers = tuple(first[label] for label in range(info.num_classes))
        free = (number for number in range(255, -1, -1) if number not in labels.numbers)
        unlabeled = labels.void[0] if labels.void else next(free)
    void = [color for color, label in labels.colors.items() if label == IGNORE_INDEX]
    color = next(color for color in (*void, *UNLABELED_COLORS, None) if color not in info.palette)
    return MaskCoding(numbers, unlabeled, info.palette, color or UNLABELED_COLORS[0])
