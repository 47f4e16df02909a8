"""Prediction of a GeoTIFF in windows, written as GeoTIFF of the same place; no picture is ever whole in memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semiseg.contracts.dataset import IGNORE_INDEX, Array, Confidence, DatasetInfo, Pixels
from semiseg.data.bands import Valid, read_bands, read_rgb
from semiseg.data.raster import RasterWriter, raster_grid
from semiseg.data.window import Window
from semiseg.pictures import PHOTO_EFFORT, Bits, overlaid, save

if TYPE_CHECKING:
    from semiseg.runs.predictor import Predictor

LONGEST = 2048
"""Largest height and width of an overlay, which is a picture to look at."""


def predict_raster(
    predictor: Predictor,
    path: Path,
    files: RasterFiles,
    between: Callable[[], None],
) -> tuple[int, int]:
    """Predict a GeoTIFF into files of the same place; each is whole or not there.

    Pixels where a band has no value are 255, which is nodata of the labels, and have confidence 0.

    Args:
        predictor: network and tiles.
        path: picture.
        files: files to write.
        between: function that is called before each tile and may raise to stop.

    Returns:
        Height and width of the picture.

    Raises:
        UserError: the picture cannot be read, is of other channels, or the disk refuses.
    """
    grid, info = raster_grid(path), predictor.info
    source = _Source(path, info, _Preview(grid.height, grid.width))
    largest, dtype = (255, "uint8") if files.bits == 8 else (65535, "uint16")
    row = 0
    with ExitStack() as opened:
        # Entered first and so renamed last: a label that is there stands for a finished picture.
        colors = dict(enumerate(info.palette))
        labels = opened.enter_context(RasterWriter(files.label, grid, "uint8", IGNORE_INDEX, colors))
        shares = (
            opened.enter_context(RasterWriter(files.confidence, grid, dtype, 0)) if files.confidence else None
        )
        for rows, sure in predictor.rows(source.read, (grid.height, grid.width), between):
            source.clear_invalid(rows, sure)
            source.preview.add_label(row, rows)
            row += len(rows)
            labels.write(rows)
            if shares is not None:
                # In place: a row of tiles of a wide picture has many megabytes.
                np.multiply(sure.clip(0, 1, out=sure), largest, out=sure)
                shares.write(np.rint(sure, out=sure).astype(dtype))
        if files.overlay is not None:
            shown = overlaid(source.preview.image, source.preview.label, info, files.opacity)
            save(files.overlay, shown, PHOTO_EFFORT)
    return grid.height, grid.width


@dataclass(frozen=True)
class RasterFiles:
    """Files that are written of a GeoTIFF.

    Args:
        label: file of the classes, uint8 with their colors.
        confidence: file of their probabilities, whose largest value means 1 and 0 is nodata; ``None`` writes none.
        overlay: PNG of the picture below the colors of its classes, of 2048 pixels at most; ``None`` writes none.
        bits: number of bits of the confidence.
        opacity: share of the colors in the overlay.
    """

    label: Path
    confidence: Path | None = None
    overlay: Path | None = None
    bits: Bits = 8
    opacity: float = 0.5


class _Preview:
    """Every n-th pixel of a picture and of its label, collected while it is read and predicted.

    Args:
        height: height of the picture.
        width: width of the picture.
    """

    def __init__(self, height: int, width: int) -> None:
        self._step = -(-max(height, width) // LONGEST)
        self._size = -(-height // self._step), -(-width // self._step)
        self.image: Pixels = np.zeros((*self._size, 1), np.uint8)
        self.label: Array = np.zeros(self._size, np.uint8)

    def add_image(self, window: Window, pixels: Pixels) -> None:
        if self.image.shape[2:] != pixels.shape[2:]:
            self.image = np.zeros((*self._size, pixels.shape[2]), pixels.dtype)
        down, right = -window.top % self._step, -window.left % self._step
        some = pixels[down :: self._step, right :: self._step]
        top, left = -(-window.top // self._step), -(-window.left // self._step)
        self.image[top : top + some.shape[0], left : left + some.shape[1]] = some

    def add_label(self, row: int, rows: Array) -> None:
        some = rows[-row % self._step :: self._step, :: self._step]
        top = -(-row // self._step)
        self.label[top : top + len(some)] = some


class _Source:
    """Windows of a picture, and where those of the current rows have no value."""

    def __init__(self, path: Path, info: DatasetInfo, preview: _Preview) -> None:
        self.preview = preview
        self._path, self._bands = path, info.bands
        self._invalid: list[tuple[Window, Valid]] = []

    def read(self, window: Window) -> Pixels:
        if self._bands is None:
            pixels, valid = read_rgb(self._path, window)
        else:
            pixels, valid = read_bands(self._path, self._bands, window)
        if valid is not None:
            self._invalid.append((window, valid))
        self.preview.add_image(window, pixels)
        return pixels

    def clear_invalid(self, label: Array, confidence: Confidence) -> None:
        """Void the pixels without a value in the rows that all windows since the last call begin in."""
        for window, valid in self._invalid:
            assert valid is not None
            missing = ~valid[: len(label)]
            label[:, window.left : window.right][missing] = IGNORE_INDEX
            confidence[:, window.left : window.right][missing] = 0
        self._invalid.clear()
