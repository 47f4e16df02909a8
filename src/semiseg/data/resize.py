"""Resize and pad images and the maps that belong to them, by the rule of the library that a paper used."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semiseg.declare import Ge, Le

Interpolation = Literal["opencv", "torch", "pil_bilinear", "pil_bicubic"]
NearestRule = Literal["opencv", "torch", "pillow"]
"""Library whose arithmetic says which pixel of a map is nearest."""
Level = Annotated[int, Ge(0), Le(255)]
Color = tuple[Level, Level, Level]
Pixel = TypeVar("Pixel", np.uint8, np.uint16, np.float32)

MEAN_COLOR: Color = (124, 116, 104)
"""ImageNet's mean color, rounded; it is (almost) zero once a network has normalized it."""

OF_LIBRARY: dict[NearestRule, Interpolation] = {
    "opencv": "opencv",
    "torch": "torch",
    "pillow": "pil_bilinear",
}
"""Interpolation of each library, of which a map takes the nearest pixel."""

PIL_FILTERS = {"pil_bilinear": Image.Resampling.BILINEAR, "pil_bicubic": Image.Resampling.BICUBIC}


def resized(image: NDArray[Pixel], size: tuple[int, int], interpolation: Interpolation) -> NDArray[Pixel]:
    """Resize an image ``(H, W, C)`` or a map ``(H, W)`` to ``size = (height, width)``.

    Images are interpolated as named. ``opencv`` is plain bilinear without antialiasing, in steps of 1/2048 on
    8-bit images; ``torch`` is the same in float (``interpolate(align_corners=False)``, as DMT has it) and 8-bit
    results are rounded; the two of Pillow antialias when they shrink. Maps, such as labels and confidences,
    take the nearest pixel by the rule of the same library.

    Args:
        image: image or map, uint8, uint16 or float32.
        size: height and width of the result, 1 pixel or more.
        interpolation: rule of a library.
    """
    height, width = size
    if image.ndim == 2:
        return _nearest(image, size, interpolation)
    if interpolation == "opencv":
        return with_channels(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), image)
    if interpolation == "torch":
        exact = cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        return with_channels(
            cv2.convertScaleAbs(exact) if image.dtype == np.uint8 else as_type(exact, image.dtype), image
        )
    if is_rgb(image):
        return np.asarray(Image.fromarray(image).resize((width, height), PIL_FILTERS[interpolation]))
    return _each_channel(image, size, interpolation)


def is_rgb(image: NDArray[Any]) -> bool:
    """Whether an image is 8-bit RGB, which Pillow takes whole."""
    return image.dtype == np.uint8 and image.shape[2:] == (3,)


def with_channels(result: Any, image: NDArray[Pixel]) -> NDArray[Pixel]:
    """Return what OpenCV made of an image with the axis of a single channel, which it leaves out."""
    found: NDArray[Pixel] = result if result.ndim == image.ndim else result[..., None]
    return found


def as_type(values: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Return numbers as another type; for whole numbers rounded, and cut off at the ends of their range."""
    if not np.issubdtype(dtype, np.integer):
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    whole: NDArray[Any] = np.rint(values).clip(limits.min, limits.max).astype(dtype)
    return whole


def _each_channel(
    image: NDArray[Pixel], size: tuple[int, int], interpolation: Interpolation
) -> NDArray[Pixel]:
    """Resize with Pillow, which has no pictures of many channels or 16 bits, channel by channel in float32."""
    new = size[1], size[0]
    planes = [
        np.asarray(Image.fromarray(plane.astype(np.float32)).resize(new, PIL_FILTERS[interpolation]))
        for plane in np.moveaxis(image, -1, 0)
    ]
    return as_type(np.stack(planes, axis=-1), image.dtype)


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
    image: NDArray[Pixel], size: tuple[int, int], top: int, left: int, fill: float | Sequence[float]
) -> NDArray[Pixel]:
    """Place ``image`` at ``(top, left)`` of a canvas of ``size = (height, width)`` filled with ``fill``."""
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    if not image.size or not (image.ndim == 2 or is_rgb(image)):  # OpenCV pads with up to four numbers
        canvas = np.full((*size, *image.shape[2:]), fill, image.dtype)
        canvas[top : top + height, left : left + width] = image
        return canvas
    sides = top, size[0] - height - top, left, size[1] - width - left
    return cv2.copyMakeBorder(image, *sides, cv2.BORDER_CONSTANT, value=fill)  # type: ignore[return-value]
