"""Prediction of a GeoTIFF in windows, written as GeoTIFF of the same place; no picture is ever whole in memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from semiseg.contracts.dataset import IGNORE_INDEX, Array, Confidence, DatasetInfo, Pixels
from semiseg.data.bands import Valid, filled, read_bands, read_rgb
from semiseg.data.raster import RasterWriter, raster_grid, read_raster_reduced
from semiseg.data.window import Window
from semiseg.pictures import PHOTO_EFFORT, Bits, overlaid, save

if TYPE_CHECKING:
    from semiseg.runs.predictor import Predictor

LONGEST = 2048
"""Largest height and width of an overlay, which is a picture to look at."""


def predict_raster(
    predictor: Predictor,
    path: Path,
    label: Path,
    confidence: Path | None,
    bits: Bits,
    between: Callable[[], None],
) -> tuple[int, int]:
    """Predict a GeoTIFF into files of the same place; each is whole or not there.

    Pixels where a band has no value are 255, which is nodata of the labels, and have confidence 0.

    Args:
        predictor: network and tiles.
        path: picture.
        label: file of the classes, uint8 with their colors.
        confidence: file of their probabilities, whose largest value means 1 and 0 is nodata; ``None`` writes none.
        bits: number of bits of the confidence.
        between: function that is called before each tile and may raise to stop.

    Returns:
        Height and width of the picture.

    Raises:
        UserError: the picture cannot be read, is of other channels, or the disk refuses.
    """
    grid, info = raster_grid(path), predictor.info
    source = _Source(path, info)
    largest, dtype = (255, "uint8") if bits == 8 else (65535, "uint16")
    with ExitStack() as files:
        # Entered first and so renamed last: a label that is there stands for a finished picture.
        colors = dict(enumerate(info.palette))
        labels = files.enter_context(RasterWriter(label, grid, "uint8", IGNORE_INDEX, colors))
        shares = files.enter_context(RasterWriter(confidence, grid, dtype, 0)) if confidence else None
        for rows, sure in predictor.rows(source.read, (grid.height, grid.width), between):
            source.clear_invalid(rows, sure)
            labels.write(rows)
            if shares is not None:
                shares.write(np.rint(sure.clip(0, 1) * largest).astype(dtype))
    return grid.height, grid.width


def raster_overlay(path: Path, label: Path, target: Path, info: DatasetInfo, opacity: float) -> None:
    """Write a PNG of a GeoTIFF below the colors of its classes, reduced to 2048 pixels at most."""
    pixels, classes = read_raster_reduced(path, LONGEST), read_raster_reduced(label, LONGEST)[..., 0]
    if info.bands is None:
        image = np.repeat(pixels[..., :1], 3, -1) if pixels.shape[-1] < 3 else pixels[..., :3]
    else:
        image, _ = filled(pixels[..., : info.bands.channels], info.bands)
    picture: Image.Image = overlaid(np.ascontiguousarray(image), classes, info, opacity)
    save(target, picture, PHOTO_EFFORT)


class _Source:
    """Windows of a picture, and where those of the current rows have no value."""

    def __init__(self, path: Path, info: DatasetInfo) -> None:
        self._path, self._bands = path, info.bands
        self._invalid: list[tuple[Window, Valid]] = []

    def read(self, window: Window) -> Pixels:
        if self._bands is None:
            pixels, valid = read_rgb(self._path, window)
        else:
            pixels, valid = read_bands(self._path, self._bands, window)
        if valid is not None:
            self._invalid.append((window, valid))
        return pixels

    def clear_invalid(self, label: Array, confidence: Confidence) -> None:
        """Void the pixels without a value in the rows that all windows since the last call begin in."""
        for window, valid in self._invalid:
            missing = ~valid[: len(label)]
            label[:, window.left : window.right][missing] = IGNORE_INDEX
            confidence[:, window.left : window.right][missing] = 0
        self._invalid.clear()
