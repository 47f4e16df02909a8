"""The box of CutMix that the UniMatch family draws for each strong view."""

import math
import random
from dataclasses import dataclass

import numpy as np

Box = tuple[int, int, int, int]
"""Top, left, height and width in pixels; zeros for no box."""

NO_BOX: Box = (0, 0, 0, 0)
RATIO = (0.3, 1 / 0.3)
"""Bounds of height / width."""

TRIES = 1000
"""Draws of shape and place, of which published boxes need six on average, before a box is cut to fit."""


@dataclass(frozen=True)
class MixBox:
    """A rule for one box an image, with a given probability (UniMatch, ``obtain_cutmix_box`` in ``transform.py``).

    The area is uniform; then shape and place are drawn until the box lies within the image. As the ratio of height to
    width is uniform, most boxes are taller than wide.

    Args:
        probability: probability of a box.
        area: smallest and largest share of the image's area.
    """

    probability: float = 0.5
    area: tuple[float, float] = (0.02, 0.4)

    def __call__(self, size: tuple[int, int], gate: random.Random, shape: np.random.RandomState) -> Box:
        """Draw the box of an image.

        Args:
            size: height and width of the image.
            gate: source of whether there is a box.
            shape: source of area, ratio and place, in this order.
        """
        if gate.random() > self.probability:
            return NO_BOX
        height, width = size
        area, ratio = shape.uniform(*self.area) * height * width, 1.0
        for _ in range(TRIES):
            ratio = shape.uniform(*RATIO)
            w, h = int(math.sqrt(area / ratio)), int(math.sqrt(area * ratio))
            left, top = int(shape.randint(0, width)), int(shape.randint(0, height))
            if left + w <= width and top + h <= height:
                return top, left, h, w
        # A box that hardly fits, such as a large one in a narrow image: it is cut, then placed inside.
        h = min(max(int(math.sqrt(area * ratio)), math.ceil(area / width)), height)
        w = min(max(int(area / h), 1), width)
        return int(shape.randint(0, height - h + 1)), int(shape.randint(0, width - w + 1)), h, w
