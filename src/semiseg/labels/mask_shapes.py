"""Areas of a label map as a label file holds them: a mask a class, or outlines that are painted in an order."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from semiseg.contracts.dataset import IGNORE_INDEX, Array, DatasetInfo
from semiseg.data.palette import Color
from semiseg.labels.label_record import IGNORE_NAME
from semiseg.labels.outlines import Bits, Ring, outer_rings

UNLABELED_COLOR = (224, 224, 192)
"""Color of what is not labeled, as in PASCAL VOC."""


@dataclass(frozen=True)
class MaskedPicture:
    """A picture with its label map.

    Args:
        key: path of the picture below the folder of all pictures, with ``/`` and extension.
        file: the picture.
        label_map: labels ``(H, W) uint8`` of the picture as a viewer shows it; 255 where it is not labeled.
    """

    key: str
    file: Path
    label_map: Array

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.label_map.shape[0], self.label_map.shape[1]


@dataclass(frozen=True)
class Writing:
    """Classes, and the way in which their areas are written.

    Args:
        info: classes and colors.
        rest: class that is what nothing covers; ``None`` where that is what is not labeled.
        as_masks: whether areas are masks of pixels instead of outlines.
        tolerance: largest distance in pixels between a rim and its outline.
        reviewed: whether the labels are those of a person, and not of a network.
        address: what Label Studio puts before the names of pictures.
    """

    info: DatasetInfo
    rest: int | None
    as_masks: bool
    tolerance: float
    reviewed: bool = False
    address: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all classes, and at the end of what is not labeled."""
        return *self.info.classes, IGNORE_NAME

    @property
    def colors(self) -> dict[str, Color]:
        """Color of each of ``names``."""
        return dict(zip(self.names, (*self.info.palette, UNLABELED_COLOR), strict=True))

    @property
    def hidden(self) -> int:
        """Label whose pixels nothing covers."""
        return IGNORE_INDEX if self.rest is None else self.rest

    def masks(self, label_map: Array) -> Iterator[tuple[str, Bits]]:
        """Yield the mask ``(H, W) bool`` of each label in a picture, in the order of the labels."""
        for label in np.unique(label_map).tolist():
            if label != self.hidden:
                yield self._name(label), label_map == label

    def outlines(self, label_map: Array) -> Iterator[tuple[str, Ring]]:
        """Yield outlines that give the label map when each is filled over those before it.

        These are the outer outlines of all connected areas, larger ones first; what lies in a hole is smaller and
        comes later. Areas of ``hidden`` are left out unless they lie in a hole.
        """
        covered = np.zeros(label_map.shape, bool)
        for label, bits, (left, top, right, bottom) in _by_area(label_map):
            (ring,) = outer_rings(bits, self.tolerance)
            window = covered[top:bottom, left:right]
            if label == self.hidden and not window[bits].any():
                continue
            window[_without_holes(bits)] = True
            yield self._name(label), ring + np.array([left, top])

    def _name(self, label: int) -> str:
        return IGNORE_NAME if label == IGNORE_INDEX else self.info.classes[label]


def _by_area(label_map: Array) -> list[tuple[int, Bits, tuple[int, int, int, int]]]:
    """Connected areas with their bounds, sorted by the number of pixels with their holes, the largest first.

    Pixels are connected at sides only: areas that cross at a corner would each be in a hole of the other.
    """
    found = []
    for label in np.unique(label_map).tolist():
        count, parts, table, _ = cv2.connectedComponentsWithStats(
            (label_map == label).astype(np.uint8), connectivity=4
        )
        for part in range(1, count):
            left, top, width, height = table[part, :4].tolist()
            bits = parts[top : top + height, left : left + width] == part
            pixels = int(np.count_nonzero(_without_holes(bits)))
            found.append((pixels, label, bits, (left, top, left + width, top + height)))
    found.sort(key=lambda each: -each[0])
    return [(label, bits, limits) for _, label, bits, limits in found]


def _without_holes(bits: Bits) -> Bits:
    contours, _ = cv2.findContours(bits.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    full = cv2.drawContours(np.zeros(bits.shape, np.uint8), contours, -1, 1, cv2.FILLED)
    return np.asarray(full, dtype=bool)


def ring_area(ring: Ring) -> float:
    """Return the area inside of a ring in square pixels."""
    x, y = ring.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def ring_bounds(ring: Ring) -> tuple[float, float, float, float]:
    """Return left, top, width and height of a ring."""
    low, high = ring.min(0), ring.max(0)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def bits_bounds(bits: Bits) -> tuple[int, int, int, int]:
    """Return left, top, width and height of the pixels of a mask that has some."""
    rows, columns = np.flatnonzero(bits.any(1)), np.flatnonzero(bits.any(0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top
