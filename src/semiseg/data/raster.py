"""GeoTIFF through rasterio: windows of pictures and masks, their place on the ground, and results of the same place.

The only module that imports rasterio, and only where such a file is read or written.
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from semiseg.contracts.dataset import Array, Pixels
from semiseg.data.mask_pixels import Codes, Flags
from semiseg.data.picture_files import BadFileError
from semiseg.data.window import Window
from semiseg.errors import UserError
from semiseg.files import sync_directory, temporary

RASTER_SUFFIXES = (".tif", ".tiff")
BLOCK = 512
"""Side of the blocks of a written file in pixels."""

CACHE_MIB = 64
"""Memory for decoded blocks; by default GDAL takes a twentieth of the machine's."""

MOVED = 0.01
"""Pixels by which two grids may lie apart and still be one: coordinates are rounded in files."""


@dataclass(frozen=True)
class RasterGrid:
    """Size and place of a raster, and what its bands hold.

    Args:
        height: number of rows.
        width: number of columns.
        bands: number of bands.
        dtype: number type, as numpy names it.
        nodata: value of each band that means "no value here"; ``None`` where there is none.
        alpha: whether the last band says where the picture is.
        crs: coordinate system; ``None`` where the file has none.
        transform: affine map of pixels to coordinates; ``None`` where the file has none.
    """

    height: int
    width: int
    bands: int
    dtype: str
    nodata: tuple[float | None, ...]
    alpha: bool
    crs: Any
    transform: Any


def is_raster(path: Path) -> bool:
    """Whether a file has the extension of a TIFF."""
    return path.suffix.lower() in RASTER_SUFFIXES


def raster_grid(path: Path) -> RasterGrid:
    """Read the header of a TIFF.

    Raises:
        BadFileError: missing or unreadable.
        UserError: rasterio is not installed.
    """
    with _opened_raster(path) as source:
        return _grid(source)


def read_raster(path: Path, window: Window | None = None) -> tuple[Pixels, RasterGrid]:
    """Read a TIFF, or a window of it with only the blocks that it touches.

    Returns:
        Pixels ``(H, W, N)`` of all bands in the number type of the file, and its header.

    Raises:
        BadFileError: missing, unreadable, damaged, or with bands of several number types.
        UserError: rasterio is not installed.
    """
    with _opened_raster(path) as source:
        span = None if window is None else ((window.top, window.bottom), (window.left, window.right))
        pixels = source.read(window=span)
        return np.ascontiguousarray(np.moveaxis(pixels, 0, -1)), _grid(source)


def read_raster_mask(path: Path, window: Window | None = None) -> tuple[Codes, Flags]:
    """Read a mask of one band.

    Returns:
        Numbers ``(H, W)``, and where they are nodata, ``(H, W)`` bool.

    Raises:
        BadFileError: as ``read_raster``; several bands, no whole numbers, or negative ones.
    """
    pixels, grid = read_raster(path, window)
    if grid.bands != 1:
        raise BadFileError(path, f"mask of {grid.bands} bands; expected one band with the class as number")
    values = pixels[..., 0]
    if not np.issubdtype(values.dtype, np.integer):
        raise BadFileError(path, f"mask of {values.dtype}; expected whole numbers, best uint8")
    nodata = grid.nodata[0]
    void = np.zeros(values.shape, np.bool_) if nodata is None else values == nodata
    if values[~void].min(initial=0) < 0:
        raise BadFileError(
            path,
            f"mask value {values[~void].min()}; expected numbers from 0 on, and nodata where not labeled",
        )
    numbers = np.where(void, 0, values)
    codes: Codes = numbers.astype(np.uint8) if numbers.max(initial=0) < 256 else numbers.astype(np.int32)
    return codes, np.asarray(void, np.bool_)


def grids_differ(one: RasterGrid, other: RasterGrid) -> str | None:
    """Say how two rasters lie on other grids; ``None`` where they agree, or where one of them has no place."""
    if (one.height, one.width) != (other.height, other.width):
        return f"{one.width}x{one.height} and {other.width}x{other.height} pixels (width x height)"
    if one.crs and other.crs and one.crs != other.crs:
        return f"coordinate systems {one.crs.to_string()} and {other.crs.to_string()}"
    if one.transform is None or other.transform is None:
        return None
    corners = [(0, 0), (one.width, 0), (0, one.height), (one.width, one.height)]
    moved = [_mapped(~one.transform, *_mapped(other.transform, *corner)) for corner in corners]
    pairs = zip(moved, corners, strict=True)
    apart = max(max(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in pairs)
    if apart <= MOVED:
        return None
    return (
        f"corners up to {apart:,.2f} pixels apart (origins {_origin(one)} and {_origin(other)}, pixel sizes "
        f"{_pixel_size(one)} and {_pixel_size(other)})"
    )


class RasterWriter:
    """A GeoTIFF with the place of another one, written in rows from top to bottom; whole or not there at all.

    Args:
        path: file to write; its folder exists.
        like: raster whose size and place it gets.
        dtype: number type.
        nodata: value of pixels without a value; ``None`` declares none.
        colors: color of each number, for viewers; ``None`` for numbers that are no classes.

    Raises:
        UserError: of ``write``: the disk refuses.
    """

    def __init__(
        self,
        path: Path,
        like: RasterGrid,
        dtype: str,
        nodata: float | None = None,
        colors: Mapping[int, tuple[int, int, int]] | None = None,
    ) -> None:
        self._path, self._part, self._like = path, temporary(path), like
        self._waiting: list[Array] = []
        self._row = 0
        options = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
        with _quiet():
            self._file = _rasterio().open(
                self._part,
                "w",
                driver="GTiff",
                height=like.height,
                width=like.width,
                count=1,
                dtype=dtype,
                nodata=nodata,
                crs=like.crs,
                transform=like.transform,
                compress="deflate",
                BIGTIFF="IF_SAFER",
                **(options if min(like.height, like.width) >= BLOCK else {}),
            )
        if colors is not None:
            self._file.write_colormap(1, dict(colors))

    def __enter__(self) -> "RasterWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._refusals():
                if kind is None:
                    self._flush(everything=True)
                self._file.close()
                if kind is None:
                    with self._part.open("rb+") as file:
                        os.fsync(file.fileno())
                    self._part.replace(self._path)
                    sync_directory(self._path.parent)
        finally:
            self._part.unlink(missing_ok=True)

    def write(self, rows: Array) -> None:
        """Append rows ``(n, W)`` of the whole width."""
        self._waiting.append(rows)
        self._flush(everything=False)

    def _flush(self, everything: bool) -> None:
        """Write whole rows of blocks: a block that is written twice would stay in the file twice."""
        count = sum(len(rows) for rows in self._waiting)
        ready = count if everything else count - count % BLOCK
        if not ready:
            return
        rows = np.concatenate(self._waiting)
        self._waiting = [rows[ready:].copy()]
        span = ((self._row, self._row + ready), (0, self._like.width))
        with self._refusals():
            self._file.write(rows[:ready], 1, window=span)
        self._row += ready

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except (_rasterio().errors.RasterioError, OSError) as error:
            raise UserError(
                f"{self._path} cannot be written ({error}). Make room or choose another folder, then the same command "
                "with --skip-existing goes on."
            ) from error


def _rasterio() -> Any:
    # Read by GDAL when it needs its cache first; a value of the user stays.
    os.environ.setdefault("GDAL_CACHEMAX", str(CACHE_MIB))
    try:
        import rasterio
        import rasterio.errors
    except ImportError as error:
        raise UserError(
            'Reading a TIFF of bands and writing GeoTIFF needs the package rasterio: pip install "semiseg[geo]".'
        ) from error
    return rasterio


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the remark that a TIFF has no place on the ground, which many have not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _rasterio().errors.NotGeoreferencedWarning)
        yield


@contextmanager
def _opened_raster(path: Path) -> Iterator[Any]:
    library = _rasterio()
    if not path.is_file():
        raise BadFileError(path, "file missing")
    try:
        with _quiet(), library.open(path) as source:
            yield source
    except library.errors.RasterioError as error:
        cause = error.__cause__ or error
        raise BadFileError(
            path, f"cannot be decoded as TIFF ({cause}): damaged, cut off or not readable"
        ) from error


def _grid(source: Any) -> RasterGrid:
    alpha = source.colorinterp[-1].name == "alpha"
    if len(set(source.dtypes)) > 1:
        raise BadFileError(
            Path(source.name),
            f"bands of several number types ({', '.join(source.dtypes)}); expected one type",
        )
    placed = not source.transform.is_identity
    return RasterGrid(
        source.height,
        source.width,
        source.count,
        source.dtypes[0],
        tuple(source.nodatavals),
        alpha,
        source.crs,
        source.transform if placed else None,
    )


def _mapped(transform: Any, column: float, row: float) -> tuple[float, float]:
    """Apply an affine map, which versions of its library write with other operators."""
    return (
        transform.a * column + transform.b * row + transform.c,
        transform.d * column + transform.e * row + transform.f,
    )


def _origin(grid: RasterGrid) -> str:
    return f"{grid.transform.c:.2f} {grid.transform.f:.2f}"


def _pixel_size(grid: RasterGrid) -> str:
    return f"{grid.transform.a:g} {grid.transform.e:g}"
