"""Survey of images of bands: their channels and number type, mean and deviation, and masks in GeoTIFF."""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semiseg.contracts.dataset import IGNORE_INDEX, Bands, Pixels
from semiseg.data.bands import NumberType, Valid, bands_of
from semiseg.data.mask_format import MaskFormat
from semiseg.data.picture_files import BadFileError
from semiseg.data.raster import is_raster, raster_grid, read_raster_mask
from semiseg.data.rims import Rims
from semiseg.data.window import Window
from semiseg.errors import UserError
from semiseg.onboard.mask_values import MaskValues, read_values
from semiseg.splits.lists import shown

ROWS = 1024
"""Rows of a mask in GeoTIFF that are counted at once."""


def unmeasured_bands(images: Mapping[str, Path], nodata: float | None) -> Bands:
    """Return the channels and number type of all images, with mean 0 and deviation 1 until these are measured.

    Args:
        images: image file of each id.
        nodata: value that means "no value here"; ``None`` takes that of each file.

    Raises:
        BadFileError: no image can be read.
        UserError: images of different numbers of channels, or of different number types.
    """
    counts: dict[int, list[Path]] = defaultdict(list)
    types: dict[NumberType, list[Path]] = defaultdict(list)
    fault: BadFileError | None = None
    for path in images.values():
        try:
            channels, dtype = bands_of(path)
        except BadFileError as error:  # the check of all files names it
            fault = error
            continue
        counts[channels].append(path)
        types[dtype].append(path)
    if not counts and fault is not None:
        raise fault
    faults = []
    if len(counts) > 1:
        faults.append(f"numbers of channels: {_examples(counts)}. Expected one number")
    if len(types) > 1:
        faults.append(
            f"number types: {_examples(types)}. Expected one type, since equal numbers of two types mean different "
            "brightness"
        )
    if faults:
        raise UserError(
            f"images have different {'; and different '.join(faults)}; put the others elsewhere, or choose the folder "
            "by --images DIR"
        )
    channels, dtype = next(iter(counts)), next(iter(types))
    return Bands(channels, dtype, [0.0] * channels, [1.0] * channels, nodata)


def _examples(groups: Mapping[Any, Sequence[Path]]) -> str:
    """Groups of files with their size and an example."""
    return shown(
        f"{len(paths)} of {kind} (such as {paths[0].name})" for kind, paths in sorted(groups.items())
    )


class _Moments(NamedTuple):
    """Number of the pixels of an image, and the mean of each channel and the sum of squares around it."""

    number: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]


class BandStatistics:
    """Mean and deviation of each channel, in one pass over images that are never in memory together.

    Exact up to the rounding of float64: moments of each image around its own mean are joined by the rule of Chan, Golub
    and LeVeque (1979).
    """

    def __init__(self) -> None:
        self._found: dict[str, _Moments] = {}
        self._lock = threading.Lock()

    def add(self, image_id: str, image: Pixels, valid: Valid) -> None:
        """Take the pixels of an image that have a value in each channel; threads may call this."""
        pixels = image.reshape(-1, image.shape[-1]) if valid is None else image[valid]
        values = pixels.astype(np.float64)
        if not len(values):
            return
        mean = values.mean(0)
        moments = _Moments(len(values), mean, ((values - mean) ** 2).sum(0))
        with self._lock:
            self._found[image_id] = moments

    def measured(self, bands: Bands, ids: Iterable[str]) -> tuple[Bands, list[str]]:
        """Return bands with the mean and deviation over some images, and notes.

        Numbers have nine digits. A channel that is the same everywhere gets the deviation 1.

        Raises:
            UserError: none of the images has a pixel with values.
        """
        joined: _Moments | None = None
        for image_id in sorted(set(ids) & self._found.keys()):
            joined = self._found[image_id] if joined is None else _joined(joined, self._found[image_id])
        if joined is None:
            raise UserError(
                "no pixel of the training images has a value in each band: all are nodata or no numbers. Give the "
                "value that really means nodata by --nodata VALUE"
            )
        deviation = np.sqrt(joined.squares / joined.number)
        constant = [str(place + 1) for place in np.flatnonzero(deviation == 0)]
        notes = [f"band {', '.join(constant)} has one value everywhere"] if constant else []
        std = np.where(deviation > 0, deviation, 1.0)
        return (
            Bands(
                bands.channels, bands.dtype, _digits(joined.mean), _digits(std), bands.nodata, bands.display
            ),
            notes,
        )


def band_line(bands: Bands) -> str:
    """Line of the report about the channels."""
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (bands.mean, bands.std))
    return f"bands    {bands.channels} of {bands.dtype}: mean {mean}; deviation {std}"


def band_mask_values(image_id: str, path: Path) -> MaskValues:
    """Count the values of a mask; of a GeoTIFF in rows, with nodata as 255, and without looking at lines and specks.

    Raises:
        BadFileError: it cannot be read as a mask.
    """
    if not is_raster(path) or raster_grid(path).bands != 1:
        return read_values(image_id, path)
    grid = raster_grid(path)
    counts: Counter[int] = Counter()
    for top in range(0, grid.height, ROWS):
        numbers, void = read_raster_mask(path, Window(top, 0, min(top + ROWS, grid.height), grid.width))
        values, pixels = np.unique(np.where(void, IGNORE_INDEX, numbers), return_counts=True)
        counts.update(dict(zip(values.tolist(), pixels.tolist(), strict=True)))
    size = grid.height * grid.width
    return MaskValues(
        image_id, path, MaskFormat("gray"), "gray", dict(counts), {}, Rims({}, {}, {}, {}), size
    )


def _joined(one: _Moments, other: _Moments) -> _Moments:
    count = one.number + other.number
    apart = other.mean - one.mean
    mean = one.mean + apart * (other.number / count)
    squares = one.squares + other.squares + apart**2 * (one.number * other.number / count)
    return _Moments(count, mean, squares)


def _digits(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.9g}") for value in values]
