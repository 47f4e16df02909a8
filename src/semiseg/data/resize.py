"""Resize and pad images and the maps that belong to them, by the rule of the library that a paper used."""

from typing import Annotated, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semiseg.declare import Ge, Le

Interpolation = Literal["opencv", "torch", "pil_bilinear", "pil_bicubic"]
Level = Annotated[int, Ge(0), Le(255)]
Color = tuple[Level, Level, Level]
Pixel = TypeVar("Pixel", np.uint8, np.float32)

MEAN_COLOR: Color = (124, 116, 104)
"""ImageNet's mean color, rounded; it is (almost) zero once a network has normalized it."""

PIL_FILTERS = {"pil_bilinear": Image.Resampling.BILINEAR, "pil_bicubic": Image.Resampling.BICUBIC}


def resized(image: NDArray[Pixel], size: tuple[int, int], interpolation: Interpolation) -> NDArray[Pixel]:
    """Resize an image ``(H, W, 3)`` or a map ``(H, W)`` to ``size = (height, width)``.

    Images are interpolated as named. ``opencv`` is plain bilinear without antialiasing, in steps of 1/2048 on
    8-bit images; ``torch`` is the same in float (``interpolate(align_corners=False)``, as DMT has it) and 8-bit
    results are rounded; the two of Pillow antialias when they shrink. Maps, such as labels and confidences,
    take the nearest pixel by the rule of the same library.

    Args:
        image: image or map, uint8; float32 too, except for images with ``pil_*``.
        size: height and width of the result, 1 pixel or more.
        interpolation: rule of a library.
    """
    height, width = size
    if image.ndim == 2:
        return _nearest(image, size, interpolation)
    if interpolation == "opencv":
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]
    if interpolation == "torch":
        exact = cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        return cv2.convertScaleAbs(exact) if image.dtype == np.uint8 else exact  # type: ignore[return-value]
    return np.asarray(Image.fromarray(image).resize((width, height), PIL_FILTERS[interpolation]))


def _nearest(values: NDArray[Pixel], size: tuple[int, int], interpolation: Interpolation) -> NDArray[Pixel]:
    height, width = size
    if interpolation == "opencv":
        return cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST)  # type: ignore[return-value]
    rows = nearest_sources(values.shape[0], height, interpolation)
    return values[rows].take(nearest_sources(values.shape[1], width, interpolation), axis=1)


def nearest_sources(length: int, new: int, interpolation: Interpolation) -> NDArray[np.int64]:
    """Return the source pixel of every new pixel along an axis, by the arithmetic of the library."""
    if interpolation == "opencv":
        positions = np.arange(new) * (1.0 / (new / length))
    elif interpolation == "torch":
        positions = np.arange(new, dtype=np.float32) * (np.float32(length) / np.float32(new))
    else:  # Pillow adds up the step, half of one first
        step = length / new
        positions = np.cumsum(np.concatenate([[0.5 * step], np.full(new - 1, step)]))
    return np.minimum(positions.astype(np.int64), length - 1)


def padded(
    image: NDArray[Pixel], size: tuple[int, int], top: int, left: int, fill: float | Color
) -> NDArray[Pixel]:
    """Place ``image`` at ``(top, left)`` of a canvas of ``size = (height, width)`` filled with ``fill``."""
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    if not image.size:
        return np.full((*size, *image.shape[2:]), fill, image.dtype)
    sides = top, size[0] - height - top, left, size[1] - width - left
    return cv2.copyMakeBorder(image, *sides, cv2.BORDER_CONSTANT, value=fill)  # type: ignore[return-value]
