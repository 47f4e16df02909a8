"""Erase a random box with noise (ST++)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from semiseg.contracts.dataset import IGNORE_INDEX, Array, Pixels
from semiseg.declare import Ge, Gt, Le, Len, Lt, Mark, check_fields
from semiseg.errors import UserError

_MAX_TRIES = 10_000


@dataclass(frozen=True)
class Cutout:
    """Fill a random box with uniform noise and set its label to 255; the rule of ST++.

    Area, aspect ratio and corner are all drawn again until the box lies inside the image, so large boxes are
    rarer than ``area`` suggests: with the defaults 0.141 of the image on average, not 0.21.

    Args:
        p: probability of a box.
        area: bounds of the box's share of the image.
        ratio: bounds of height / width, drawn uniformly (not in the logarithm).
        noise: bounds of the noise (0-255), drawn for each pixel and channel and rounded down.

    Raises:
        UserError: a value out of range, or bounds out of order.
    """

    p: Annotated[float, Ge(0), Le(1)] = 0.5
    area: Annotated[Sequence[float], Len(2, 2), Ge(0), Le(1), Mark(expected="[low,high] from 0 to 1")] = (
        0.02,
        0.4,
    )
    ratio: Annotated[
        Sequence[float], Len(2, 2), Gt(0), Lt(np.inf), Mark(expected="[low,high], both above 0")
    ] = (0.3, 1 / 0.3)
    noise: Annotated[
        Sequence[float], Len(2, 2), Ge(0), Le(255), Mark(expected="[low,high] from 0 to 255")
    ] = (0, 255)

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("area", "ratio", "noise"):
            bounds = tuple(getattr(self, name))
            object.__setattr__(self, name, bounds)
            if bounds[0] > bounds[1]:
                raise UserError("expected [low,high] with low <= high.", key=name, value=list(bounds))

    def __call__(self, image: Pixels, label: Array | None, seed: int) -> tuple[Pixels, Array | None]:
        """Erase with probability ``p``; image ``(H, W, C)``, label ``(H, W) uint8`` or ``None``."""
        rng = np.random.RandomState(np.random.MT19937(seed))
        if rng.random_sample() >= self.p:
            return image, label
        return self.erase(image, label, rng)

    def erase(
        self, image: Pixels, label: Array | None, rng: np.random.RandomState
    ) -> tuple[Pixels, Array | None]:
        """Erase one box; the draws are the original's, in its order."""
        height, width = image.shape[:2]
        x, y, box_width, box_height = self.box(height, width, rng)
        image = image.copy()
        noise = rng.uniform(self.noise[0], self.noise[1], (box_height, box_width, image.shape[2]))
        image[y : y + box_height, x : x + box_width] = self.pixels(noise, image.dtype)
        if label is not None:
            label = label.copy()
            label[y : y + box_height, x : x + box_width] = IGNORE_INDEX
        return image, label

    def pixels(self, noise: NDArray[np.float64], dtype: Any) -> Pixels:
        """Return noise (0-255) as pixels of an image."""
        return noise.astype(dtype)

    def box(self, height: int, width: int, rng: np.random.RandomState) -> tuple[int, int, int, int]:
        """Draw a box (x, y, width, height) that lies inside an image of the given size, in pixels."""
        for _ in range(_MAX_TRIES):
            area = rng.uniform(self.area[0], self.area[1]) * height * width
            ratio = rng.uniform(self.ratio[0], self.ratio[1])
            box_width, box_height = int(np.sqrt(area / ratio)), int(np.sqrt(area * ratio))
            x, y = int(rng.randint(0, width)), int(rng.randint(0, height))
            if x + box_width <= width and y + box_height <= height:
                return x, y, box_width, box_height
        raise UserError(
            f"Cutout: no box with area={list(self.area)} and ratio={list(self.ratio)} fits into a "
            f"{height}x{width} image; lower area or bring ratio nearer to 1."
        )
