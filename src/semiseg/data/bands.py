"""Images of any channels and number types: reading, and a defined value where there is none."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semiseg.contracts.dataset import Bands, Pixels
from semiseg.data.picture_files import BadFileError
from semiseg.data.raster import is_raster, raster_grid, read_raster
from semiseg.data.resize import as_type
from semiseg.data.window import Window
from semiseg.errors import UserError

BAND_SUFFIXES = (".tif", ".tiff", ".png", ".npy")

LOOKED_AT = 256
"""Side of the windows that are looked at for whether a band is alpha."""

Valid = NDArray[np.bool_] | None
"""Where an image has a value in each of its channels, ``(H, W)``; ``None`` everywhere."""

NumberType = Literal["uint8", "uint16", "float32"]

CONVERTED: dict[NumberType, tuple[str, ...]] = {
    "uint8": ("uint8",),
    "uint16": ("uint8", "uint16"),
    "float32": ("uint8", "int8", "uint16", "int16", "float16", "float32", "float64", "int32", "uint32"),
}
"""Number types of files that images of a type are read from."""


class _Raw(NamedTuple):
    """What a file holds.

    Args:
        pixels: numbers ``(H, W, N)`` of all its channels.
        nodata: value of each channel that means "no value here".
        alpha: whether the last channel says where the picture is.
    """

    pixels: Pixels
    nodata: Sequence[float | None]
    alpha: bool


def read_bands(path: Path, bands: Bands, window: Window | None = None) -> tuple[Pixels, Valid]:
    """Read an image, or a window of it.

    Of a TIFF and of a .npy only the window is read. A file with one channel more, which is alpha, has values where
    alpha is not 0.

    Args:
        path: .tif through rasterio, .png of 8 or 16 bits, or .npy ``(H, W)`` or ``(H, W, C)``.
        bands: channels that it is to have.
        window: part of the image; ``None`` for all of it.

    Returns:
        Image ``(H, W, C)`` in the number type of ``bands``, filled with the mean where it has no value; where it has.

    Raises:
        BadFileError: missing, unreadable, or of other channels or another number type.
        UserError: rasterio is not installed.
    """
    raw = _read(path, window)
    pixels, nodata, alpha = _channels(path, raw, bands)
    if pixels.dtype.name not in CONVERTED[bands.dtype]:
        raise BadFileError(
            path, f"{_type_reason(pixels.dtype)}; expected {bands.dtype} (dataset.bands.dtype)"
        )
    return filled(pixels, bands, nodata, alpha)


def read_rgb(path: Path, window: Window) -> tuple[Pixels, Valid]:
    """Read a window of a TIFF as ``(H, W, 3) uint8`` RGB, and where it has a value.

    Alpha is dropped, as of other pictures, and gray is repeated; pixels are as in the file where they have no value.

    Raises:
        BadFileError: missing, unreadable, not 8 bits a channel, or of another number of bands.
        UserError: rasterio is not installed.
    """
    pixels, grid = read_raster(path, window)
    channels = grid.bands - grid.alpha
    if pixels.dtype != np.uint8 or channels not in (1, 3):
        raise BadFileError(
            path, f"{channels} channels of {pixels.dtype}; expected 8-bit RGB or gray, as this run learned"
        )
    colors = pixels[..., :channels]
    none = [
        colors[..., number] == value
        for number, value in enumerate(grid.nodata[:channels])
        if value is not None
    ]
    valid = pixels[..., -1] != 0 if grid.alpha else None
    if none:
        valid = ~np.any(none, axis=0) & (True if valid is None else valid)
    image = np.ascontiguousarray(np.broadcast_to(colors, (*colors.shape[:2], 3)))
    return image, None if valid is None or valid.all() else valid


def filled(
    pixels: Pixels, bands: Bands, nodata: Sequence[float | None] = (), inside: Valid = None
) -> tuple[Pixels, Valid]:
    """Convert pixels to the number type of an image and fill those without a value with the mean.

    Args:
        pixels: numbers ``(H, W, C)``.
        bands: channels.
        nodata: value of each channel that means "no value here", where ``bands.nodata`` is ``None``.
        inside: where the picture is, as alpha says; ``None`` everywhere.

    Returns:
        Image ``(H, W, C)``, and where each of its channels has a value.
    """
    lacking = _lacking(pixels, bands, nodata)
    if inside is not None:
        lacking = (~inside)[..., None] | (False if lacking is None else lacking)
    if lacking is None or not lacking.any():
        return pixels.astype(bands.dtype, copy=False), None
    with np.errstate(invalid="ignore"):  # NaN, which is filled
        image = pixels.astype(bands.dtype)
    np.copyto(image, np.array(band_fill(bands), bands.dtype), where=lacking)
    valid: NDArray[np.bool_] = np.logical_not(np.broadcast_to(lacking, pixels.shape).any(-1))
    return image, valid


def band_fill(bands: Bands) -> tuple[float, ...]:
    """Return the number of each channel where there is no value: the mean, in the number type of the images."""
    return tuple(float(value) for value in as_type(np.array(bands.mean, np.float32), np.dtype(bands.dtype)))


def band_size(path: Path) -> tuple[int, int]:
    """Height and width of an image in a file, from its header; raises ``BadFileError``."""
    if is_raster(path):
        grid = raster_grid(path)
        return grid.height, grid.width
    if path.suffix.lower() == ".npy":
        height, width = _mapped(path).shape[:2]
        return height, width
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception as error:  # a decoder may raise anything
        raise BadFileError(path, f"not an image that can be read ({error})") from error


def bands_of(path: Path) -> tuple[int, NumberType]:
    """Number of channels of a file, and the smallest number type that images of it can have.

    A last band that is alpha is left out. Programs write any fourth band of 8 bits as alpha; one that holds other
    numbers than 0 and the largest is a channel.
    """
    raw = _read(path, Window(0, 0, 1, 1))
    dtype = raw.pixels.dtype.name
    fitting = next((name for name in CONVERTED if dtype in CONVERTED[name]), None)
    if fitting is None:
        raise BadFileError(path, f"{dtype} pixels; expected uint8, uint16 or what float32 holds")
    return raw.pixels.shape[-1] - (raw.alpha and _is_alpha(path)), fitting


def _is_alpha(path: Path) -> bool:
    """Whether the last channel of a file says where the picture is, by its numbers in some windows."""
    height, width = band_size(path)
    some = [
        Window(top, left, top + LOOKED_AT, left + LOOKED_AT)
        for top in _spread_over(height)
        for left in _spread_over(width)
    ]
    return all(_holds_alpha(_read(path, window).pixels[..., -1]) for window in some)


def _holds_alpha(numbers: NDArray[Any]) -> bool:
    if not np.issubdtype(numbers.dtype, np.integer):
        return False
    return bool(np.isin(numbers, (0, np.iinfo(numbers.dtype).max)).all())


def _spread_over(length: int) -> list[int]:
    """Starts of up to five windows along an axis, the first at its beginning and the last at its end."""
    last = max(length - LOOKED_AT, 0)
    return sorted({last * place // 4 for place in range(5)})


def _lacking(pixels: Pixels, bands: Bands, nodata: Sequence[float | None]) -> NDArray[np.bool_] | None:
    """Where each channel has no value; ``None`` where that cannot be."""
    values: Sequence[float | None] = [bands.nodata] * bands.channels if bands.nodata is not None else nodata
    lacking = None
    if np.issubdtype(pixels.dtype, np.floating):
        lacking = ~np.isfinite(pixels)
    for channel, value in enumerate(values):
        if value is not None and np.isfinite(value):
            found = pixels[..., channel] == _as_number(value, pixels.dtype)
            lacking = np.zeros(pixels.shape, np.bool_) if lacking is None else lacking
            lacking[..., channel] |= found
    return lacking


def _as_number(value: float, dtype: np.dtype[Any]) -> Any:
    """A nodata value as the file's type rounds it; header fields hold doubles."""
    return dtype.type(value) if np.issubdtype(dtype, np.floating) else value


def _channels(path: Path, raw: _Raw, bands: Bands) -> tuple[Pixels, Sequence[float | None], Valid]:
    count = raw.pixels.shape[-1]
    if count == bands.channels:
        return raw.pixels, raw.nodata, None
    if raw.alpha and count == bands.channels + 1:
        return raw.pixels[..., :-1], raw.nodata[:-1], raw.pixels[..., -1] != 0
    hint = " and alpha" if raw.alpha else ""
    raise BadFileError(
        path,
        f"{count - raw.alpha} channels{hint}; expected {bands.channels} (dataset.bands.channels)",
    )


def _read(path: Path, window: Window | None) -> _Raw:
    if not path.is_file():
        raise BadFileError(path, "image missing")
    if is_raster(path):
        pixels, grid = read_raster(path, window)
        return _Raw(pixels, grid.nodata, grid.alpha and grid.bands > 1)
    rows, columns = (slice(None),) * 2
    if window is not None:
        rows, columns = slice(window.top, window.bottom), slice(window.left, window.right)
    if path.suffix.lower() == ".npy":
        return _Raw(np.array(_mapped(path)[rows, columns]), (), False)
    if path.suffix.lower() == ".png":
        pixels = _read_png(path)[rows, columns]
        return _Raw(pixels, (), pixels.shape[-1] == 4)
    raise BadFileError(path, f"images of bands are read from {', '.join(BAND_SUFFIXES)}; convert this file")


def _mapped(path: Path) -> Pixels:
    """Open an array without reading it; one of two axes gets a third."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadFileError(path, f"no array that numpy can read ({error})") from error
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3) or not array.size:
        shape = getattr(array, "shape", None)
        raise BadFileError(
            path, f"array of shape {shape}; expected (height, width) or (height, width, channels)"
        )
    if array.ndim == 3 and array.shape[0] < array.shape[2] // 8:
        raise BadFileError(
            path,
            f"array of shape {array.shape}, which looks like (channels, height, width); expected the channels last: "
            "save numpy.moveaxis(array, 0, -1)",
        )
    return array if array.ndim == 3 else array[..., None]


def _read_png(path: Path) -> Pixels:
    data = path.read_bytes()
    try:
        # The decoder below overlooks flipped bits that the checksums show.
        Image.open(BytesIO(data)).verify()
    except Exception as error:
        raise BadFileError(path, f"cannot be decoded ({error}): damaged, cut off or no PNG") from error
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise BadFileError(path, "cannot be decoded: damaged, cut off or no PNG")
    if pixels.ndim == 2:
        return pixels[..., None]
    return pixels[..., [2, 1, 0, 3][: pixels.shape[-1]]]


def _type_reason(dtype: np.dtype[Any]) -> str:
    return f"{dtype.itemsize * 8} bits a channel ({dtype.name})"


def require_tileable(path: Path) -> None:
    """Refuse a file whose windows cannot be read without the rest of it.

    Raises:
        UserError: a PNG.
    """
    if not is_raster(path) and path.suffix.lower() != ".npy":
        raise UserError(
            f"dataset.tiles cuts {path.name}, which has to be decoded whole for every tile; save it as a tiled GeoTIFF "
            "or as .npy, or leave dataset.tiles out"
        )
