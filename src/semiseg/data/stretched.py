"""Images that are smaller than the crop, stretched to it instead of padded."""

import random
from dataclasses import dataclass

from semiseg.data.geometry import Resize
from semiseg.data.resize import Interpolation, NearestRule

ATTEMPTS = 10
"""Draws of a size, each on top of the one before, after which an image is stretched; published in AdvSemiSeg."""


@dataclass(frozen=True)
class StretchedTo:
    """Resize by another rule until the image covers the crop, or stretch it to the crop after ten attempts.

    Args:
        height: height of the crop.
        width: width of the crop.
        resize: rule of each attempt; ``None`` keeps the size, so that smaller images are stretched at once.
    """

    height: int
    width: int
    resize: Resize | None = None

    @property
    def interpolation(self) -> Interpolation:
        """Rule by which the image is interpolated."""
        return "opencv" if self.resize is None else self.resize.interpolation

    @property
    def label_interpolation(self) -> NearestRule | None:
        """Library whose rule says which pixel of labels is nearest; ``None`` takes that of ``interpolation``."""
        return getattr(self.resize, "label_interpolation", None)

    def size(self, height: int, width: int, rng: random.Random) -> tuple[int, int]:
        """Draw the new (height, width)."""
        # Published code: dataset/voc_dataset.py, VOCGTDataSet; factors of its attempts multiply.
        for _ in range(ATTEMPTS if self.resize is not None else 1):
            if self.resize is not None:
                height, width = self.resize.size(height, width, rng)
            if height >= self.height and width >= self.width:
                return height, width
        return self.height, self.width
