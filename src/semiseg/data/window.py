"""Windows of resized images without the rest of them: the same pixels, bit for bit, in a part of the time."""

from typing import NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semiseg.data.resize import (
    PIL_FILTERS,
    Interpolation,
    Pixel,
    is_rgb,
    nearest_sources,
    resized,
    with_channels,
)

_COEFFICIENTS = 2048
"""Steps in which OpenCV interpolates 8-bit images."""


class Window(NamedTuple):
    """A part of an image, in pixels.

    Args:
        top: first row.
        left: first column.
        bottom: row after the last one.
        right: column after the last one.
    """

    top: int
    left: int
    bottom: int
    right: int


def resized_window(
    image: NDArray[Pixel],
    size: tuple[int, int],
    interpolation: Interpolation,
    window: Window,
    mirror: bool = False,
) -> NDArray[Pixel]:
    """Return ``resized(image, size, interpolation)[top:bottom, left:right]``, computing little more than that.

    Equal bit for bit for 8-bit images; for others up to rounding, since OpenCV interpolates them in floats.

    Args:
        image: image ``(H, W, C)`` or map ``(H, W)``, as for ``resized``.
        size: (height, width) of the whole result.
        interpolation: rule of a library, see ``resized``.
        window: part of the whole result; rows and columns beyond the size are left out.
        mirror: whether the mirrored image is resized instead.
    """
    window = Window(*window[:2], min(window.bottom, size[0]), min(window.right, size[1]))
    if window.bottom <= window.top or window.right <= window.left:
        return image[:0, :0]
    if image.shape[:2] == size:
        return _cut(image, window, mirror)
    if image.ndim == 2:
        return _nearest(image, size, interpolation, window, mirror)
    if interpolation == "opencv":
        return _opencv(image, size, window, mirror)
    if interpolation in PIL_FILTERS and is_rgb(image) and _rows_first(image.shape[0], image.shape[1], size):
        return _pillow(image, size, interpolation, window, mirror)
    whole = resized(mirrored(image) if mirror else image, size, interpolation)
    return _cut(whole, window, False)


def mirrored(image: NDArray[Pixel]) -> NDArray[Pixel]:
    """Return an image with left and right exchanged."""
    if not image.size:  # that of a window beyond the image
        return image
    return with_channels(cv2.flip(np.ascontiguousarray(image), 1), image)


def _cut(image: NDArray[Pixel], window: Window, mirror: bool) -> NDArray[Pixel]:
    top, left, bottom, right = window
    if not mirror:
        return image[top:bottom, left:right]
    width = image.shape[1]
    return mirrored(image[top:bottom, width - right : width - left])


def _nearest(
    values: NDArray[Pixel], size: tuple[int, int], interpolation: Interpolation, window: Window, mirror: bool
) -> NDArray[Pixel]:
    rows = nearest_sources(values.shape[0], size[0], interpolation)[window.top : window.bottom]
    columns = nearest_sources(values.shape[1], size[1], interpolation)[window.left : window.right]
    if mirror:
        columns = values.shape[1] - 1 - columns
    first, last = int(columns.min()), int(columns.max())
    return values[:, first : last + 1].take(rows, axis=0).take(columns - first, axis=1)


class _Span(NamedTuple):
    """Source pixels to resize along one axis, their number afterwards, and the window among those."""

    source: slice
    new: int
    kept: slice


def _opencv(image: NDArray[Pixel], size: tuple[int, int], window: Window, mirror: bool) -> NDArray[Pixel]:
    rows = _opencv_span(image.shape[0], size[0], window.top, window.bottom)
    columns = _opencv_span(image.shape[1], size[1], window.left, window.right)
    part = _cut(
        image, Window(rows.source.start, columns.source.start, rows.source.stop, columns.source.stop), mirror
    )
    result = cv2.resize(part, (columns.new, rows.new), interpolation=cv2.INTER_LINEAR)
    return with_channels(result, image)[rows.kept, columns.kept]


def _opencv_span(length: int, new: int, start: int, stop: int) -> _Span:
    """Choose source pixels whose resizing has the scale and, in the window, the phase of the whole's.

    A whole number of source pixels falls on a whole number of new ones every ``step`` new pixels. With one such
    step around the window the borders of the part cannot be seen in it. OpenCV computes positions in float32; where
    that would round one of them in another way, the whole axis is taken.
    """
    whole = _Span(slice(0, length), new, slice(start, stop))
    common = int(np.gcd(length, new))
    step, sources = new // common, length // common
    first = max(0, (start // step - 1) * step)
    last = min(new, (-(-stop // step) + 1) * step)
    if last - first == new:
        return whole
    offset = first // step * sources
    part = slice(offset, offset + (last - first) // step * sources)
    kept = slice(start - first, stop - first)
    expected = _opencv_positions(length, new)[:, start:stop]
    found = _opencv_positions(part.stop - part.start, last - first)[:, kept]
    found[0] += offset
    return _Span(part, last - first, kept) if np.array_equal(expected, found) else whole


def _opencv_positions(length: int, new: int) -> NDArray[np.int64]:
    """Source pixel of each new one, and the share of the next one, as OpenCV computes them for 8-bit images."""
    scale = 1.0 / (new / length)
    positions = ((np.arange(new) + 0.5) * scale - 0.5).astype(np.float32)
    sources = np.floor(positions)
    shares = positions - sources
    outside = (sources < 0) | (sources >= length - 1)
    shares[outside] = 0
    sources = np.clip(sources, 0, length - 1)
    return np.stack([sources.astype(np.int64), np.rint(shares * _COEFFICIENTS).astype(np.int64)])


def _rows_first(height: int, width: int, size: tuple[int, int]) -> bool:
    """Whether Pillow resizes along the rows first; version 13 does not where columns shrink by much more."""
    return size[0] >= height or height - size[0] <= 2 * (width - size[1])


def _pillow(
    image: NDArray[Pixel], size: tuple[int, int], interpolation: Interpolation, window: Window, mirror: bool
) -> NDArray[Pixel]:
    """Leave rows out of the first half that the window does not need, and columns out of the second.

    Pillow resizes along the rows first and then along the columns, with 8-bit pixels in between.
    """
    kernel, (height, width) = PIL_FILTERS[interpolation], image.shape[:2]
    scale = height / size[0]
    reach = 2 * max(scale, 1.0) + 2
    top = max(0, int((window.top + 0.5) * scale - reach))
    bottom = min(height, int((window.bottom + 0.5) * scale + reach) + 1)
    part = Image.fromarray(_cut(image, Window(top, 0, bottom, width), mirror))
    part = part.resize((size[1], bottom - top), kernel).crop((window.left, 0, window.right, bottom - top))
    if (top, bottom) != (0, height):
        canvas = Image.new(part.mode, (part.width, height))
        canvas.paste(part, (0, top))
        part = canvas
    part = part.resize((part.width, size[0]), kernel).crop((0, window.top, part.width, window.bottom))
    return cast(NDArray[Pixel], np.array(part))
