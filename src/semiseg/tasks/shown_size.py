"""Sizes at which pictures are shown, bounded in both directions whatever the form of an image."""

from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Pixels = TypeVar("Pixels", bound=NDArray[Any])

PANEL_WIDTHS = (160, 640)
"""Width that small pictures are enlarged to, and that of large ones."""
TALLEST = 3000
"""Height of the tallest picture, so that one with title and legend stays below 4,000 pixels."""
THINNEST = 16
"""Least side of a picture: a strip of 4 x 6000 pixels would vanish at its own proportions."""
ENLARGED = 4
"""Factor by which a strip is enlarged across at most."""
SAMPLE_PIXELS = 4_000_000
"""Most pixels of an image that is kept for pictures."""


def panel_size(
    height: int, width: int, widths: tuple[int, int] = PANEL_WIDTHS, tallest: int = TALLEST
) -> tuple[int, int]:
    """Return height and width at which an image is shown.

    Small images are enlarged by a whole factor and large ones reduced, with their proportions, so that they are as wide
    as ``widths`` allows and no higher than ``tallest``. Only a narrow strip is drawn wider than it is.

    Args:
        height: height of the image.
        width: its width.
        widths: width up to which small images are enlarged, and largest width.
        tallest: largest height.
    """
    low, high = widths
    factor = 1.0
    if width < low:
        factor = max(min(-(-low // width), high // height), 1)
    factor = min(factor, high / width, tallest / height)
    return _at_least_thin(height, factor), _at_least_thin(width, factor)


def sample_size(height: int, width: int) -> tuple[int, int]:
    """Return height and width at which an image is kept for pictures; ordinary sizes stay as they are."""
    factor = (SAMPLE_PIXELS / (height * width)) ** 0.5
    if factor >= 1:
        return height, width
    # A side of one pixel cannot shrink, so that the other one has to.
    short = max(int(min(height, width) * factor), 1)
    long = min(int(max(height, width) * factor), SAMPLE_PIXELS // short)
    return (short, long) if height < width else (long, short)


def reduced(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Return the pixels nearest to the centers of those of another size, ``(H, W)`` or ``(H, W, C)``.

    Nearest, since a mixed label would be a class that is not there. The memory is that of the result.
    """
    if pixels.shape[:2] == size:
        return pixels
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, pixels.shape[:2], strict=True)
    )
    return cast(Pixels, pixels[rows[:, None], columns])


def _at_least_thin(side: int, factor: float) -> int:
    return max(round(side * factor), min(THINNEST, ENLARGED * side), 1)
