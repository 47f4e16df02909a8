"""Outlines as pixels, and pixels as outlines.

A pixel at column i and row j covers the square from (i, j) to (i + 1, j + 1); it belongs to an outline that its center
lies in, and of several rings that overlap the even-odd rule decides. No pixel is in two shapes that only share a side.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.bool_]
"""Pixels of a picture, ``(H, W) bool``."""
Ring = NDArray[np.float64]
"""Corners of a closed line, ``(N, 2) float64``, x and y in pixels."""

SHRINK = 4
"""An outline runs a quarter of a pixel inside of the outermost pixels' outer sides."""


def filled(rings: Iterable[Ring], size: tuple[int, int]) -> Bits:
    """Return the pixels whose centers lie in an odd number of rings.

    Args:
        rings: closed lines; parts outside of the picture are cut off.
        size: height and width of the picture.
    """
    height, width = size
    toggles = np.zeros((height, width + 1), np.int32)
    for ring in rings:
        rows, columns = _crossings(ring, height)
        np.add.at(toggles, (rows, np.clip(np.ceil(columns - 0.5), 0, width).astype(np.intp)), 1)
    inside: Bits = (np.cumsum(toggles[:, :width], axis=1) & 1).astype(bool)
    return inside


def _crossings(ring: Ring, height: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Rows whose middle line a ring crosses, and the x of each crossing."""
    x0, y0 = ring.T
    x1, y1 = np.roll(ring, -1, axis=0).T
    # Half-open, so that a corner on a middle line counts for one of its two sides.
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.intp)
    last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.intp)
    counts = last - first
    side = np.repeat(np.arange(len(ring)), counts)
    rows = first[side] + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    share = (rows + 0.5 - y0[side]) / (y1 - y0)[side]
    return rows, x0[side] + share * (x1 - x0)[side]


def ellipse(center: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0) -> Ring:
    """Return an ellipse as a ring whose sides are at most half a pixel long, clockwise from its axis x."""
    steps = max(16, int(4 * np.pi * max(radii)))
    angles = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    return turned(
        np.stack([center[0] + radii[0] * np.cos(angles), center[1] + radii[1] * np.sin(angles)], 1),
        center,
        degrees,
    )


def rectangle(left: float, top: float, right: float, bottom: float) -> Ring:
    """Return a rectangle as a ring."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def turned(ring: Ring, center: tuple[float, float], degrees: float) -> Ring:
    """Return a ring turned clockwise about a point."""
    if not degrees:
        return ring
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    result: Ring = (ring - center) @ np.array([[cosine, sine], [-sine, cosine]]) + center
    return result


def outer_rings(bits: Bits, tolerance: float) -> list[Ring]:
    """Return the outer outline of each part of connected pixels, its holes filled.

    ``filled`` gives the same pixels for a tolerance of 0; for others the pixels that differ lie at the rim.

    Args:
        bits: pixels ``(H, W) bool``; pixels that touch at a corner are connected.
        tolerance: largest distance in pixels between an outline and the simplified one.
    """
    # In a picture of twice the size, whose outlines run through the centers of its pixels, even a single pixel has
    # an area, and programs that fill to either side of a line still give the same pixels.
    twice = np.repeat(np.repeat(bits.astype(np.uint8), 2, 0), 2, 1)
    found, _ = cv2.findContours(twice, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [_simplified(ring, tolerance) for ring in found]


def _simplified(contour: NDArray[Any], tolerance: float) -> Ring:
    simple = cv2.approxPolyDP(contour, 2 * tolerance, True) if tolerance else contour
    kept = simple if len(simple) > 2 and cv2.contourArea(simple) else contour
    return (kept.reshape(-1, 2).astype(np.float64) * 2 + 1) / SHRINK


def ring_of(points: Sequence[Sequence[float]]) -> Ring:
    """Return points as a ring.

    Raises:
        ValueError: fewer than three points, or what is no number.
    """
    ring = np.asarray(points, np.float64)
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3:
        raise ValueError(f"{len(ring)} points; expected at least three of x and y")
    if not np.isfinite(ring).all():
        raise ValueError("a point that is no number")
    return ring
