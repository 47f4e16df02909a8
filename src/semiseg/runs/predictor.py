"""Applying a finished run to any picture from Python: ``semiseg.load(RUN).predict(image)``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from semiseg.config import build
from semiseg.contracts.dataset import IGNORE_INDEX, Array, DatasetInfo, Pixels
from semiseg.contracts.training import Network
from semiseg.data.bands import CONVERTED, Valid, filled, read_bands
from semiseg.data.picture_files import Exif, read_image, upright_rgb
from semiseg.data.window import Window
from semiseg.errors import UserError
from semiseg.models.bundle import bundled_bands
from semiseg.pictures import Bits, gray, indexed, overlaid
from semiseg.runs.use import REPORTED, FinishedRun, change, open_run
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.inference import predict, predict_with_confidence, to_batch
from semiseg.tasks.tiles import Tiling, predict_tiled, predicted_rows

Picture = Path | str | Image.Image | Pixels
"""Path of a file, picture of PIL, or array: ``(H, W, 3) uint8`` RGB, or ``(H, W, C)`` for bands."""


class OpenedPicture(NamedTuple):
    """A picture as a network takes it.

    Args:
        pixels: picture ``(H, W, C)``.
        valid: where it has a value in each channel; ``None`` everywhere.
    """

    pixels: Pixels
    valid: Valid = None


@dataclass(frozen=True)
class Prediction:
    """Classes that a network predicts for a picture.

    Args:
        image: picture as the network saw it, upright unless its run ignores EXIF, ``(H, W, 3) uint8`` RGB, or bands
            ``(H, W, C)``.
        label: class of every pixel, ``(H, W) uint8``; 255 where a band has no value.
        confidence: probability of that class, ``(H, W) float32``; 0 where a band has no value.
        info: names and colors of the classes.
    """

    image: Pixels
    label: Array
    confidence: NDArray[np.float32]
    info: DatasetInfo

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the position is the value in ``label``."""
        return self.info.classes

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """One RGB color (0-255) a class."""
        return self.info.palette

    def indexed(self) -> Image.Image:
        """The label as a palette picture; saved as PNG it reads back as the label."""
        return indexed(self.label, self.info)

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """The picture below the colors of its classes; ``opacity`` is the share of the colors, 0 to 1."""
        return overlaid(self.image, self.label, self.info, opacity)

    def gray(self, bits: Bits = 8) -> Image.Image:
        """Return the confidence as a gray picture of 8 or 16 bits, whose largest value means 1."""
        return gray(self.confidence, bits)


@dataclass(frozen=True)
class Predictor:
    """A network of a finished run, applied as the run evaluated it; see ``load``.

    Args:
        network: network in evaluation mode, on ``device``.
        info: names and colors of its classes.
        settings: settings by which it is applied to a picture.
        device: device of the computation.
        precision: ``trainer.precision`` of the run.
        tiling: way to cut large pictures into tiles; ``None`` cuts none.
        half_size: whether the network learned from pictures of half the height and width (``dataset.half_size``);
            pictures are then halved for it, and labels return to their size.
        exif: whether pictures are turned as their EXIF orientation says (``dataset.exif`` of the run).
    """

    network: Network
    info: DatasetInfo
    settings: EvaluatorSettings
    device: torch.device
    precision: str = "fp32"
    tiling: Tiling | None = Tiling()  # noqa: RUF009 - frozen
    half_size: bool = False
    exif: Exif = "apply"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the position is the value in a label map."""
        return self.info.classes

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """One RGB color (0-255) a class."""
        return self.info.palette

    def applied(
        self,
        *,
        mode: str | None = None,
        window: int | None = None,
        scales: Sequence[float] | None = None,
        flip: bool | None = None,
        tile: int | None = None,
        overlap: int | None = None,
    ) -> Predictor:
        """Return a predictor that applies the network in another way; ``None`` keeps a setting.

        Args:
            mode: "whole" for whole pictures, or "slide" for a sliding window.
            window: side of the window in pixels.
            scales: factors of the size whose probabilities are averaged.
            flip: whether the mirrored picture is predicted too and averaged.
            tile: side of tiles in pixels, for every picture that is higher or wider; 0 cuts none.
            overlap: pixels that neighboring tiles share at least; ``None`` takes an eighth of the tile.

        Raises:
            UserError: a value that cannot be, a window for whole pictures, an overlap without tiles, or tiles of
                pictures that are resized to one size.
        """
        settings = change(self.settings, mode, window, None if scales is None else list(scales), flip)
        if tile is None:
            if overlap is not None:
                raise UserError(f"an overlap of {overlap} pixels goes with the size of a tile; give both.")
            return dataclasses.replace(self, settings=settings)
        if tile and settings.resize_to is not None:
            size = "x".join(map(str, reversed(settings.resize_to)))
            raise UserError(
                f"tiles of {tile} pixels: this run resizes every picture to {size} pixels, whole."
            )
        tiling = Tiling(tile, tile // 8 if overlap is None else overlap, above=0) if tile else None
        return dataclasses.replace(self, settings=settings, tiling=tiling)

    def cuts(self, height: int, width: int) -> bool:
        """Whether a picture of this size is cut into tiles; never where every picture is resized to one size."""
        return (
            self.tiling is not None
            and self.settings.resize_to is None
            and self.tiling.cuts(*self._seen_size(height, width))
        )

    def read(self, image: Picture) -> OpenedPicture:
        """Open a picture as the network takes it; see ``predict`` for what it may be and what is refused."""
        bands = self.info.bands
        if bands is None:
            return OpenedPicture(_pixels(image, self.exif))
        if isinstance(image, Path | str):
            return OpenedPicture(*read_bands(Path(image), bands))
        array = np.asarray(image)
        array = array[..., None] if array.ndim == 2 else array
        fits = array.dtype.name in CONVERTED[bands.dtype]
        if not fits or array.ndim != 3 or array.shape[2] != bands.channels or not array.size:
            raise UserError(
                f"a picture of {array.dtype} {array.shape}; expected a path, or an array (H, W, {bands.channels}) "
                f"{bands.dtype}."
            )
        return OpenedPicture(*filled(array, bands))

    def predict(
        self, image: Picture | OpenedPicture, between: Callable[[], None] = lambda: None
    ) -> Prediction:
        """Predict the classes of a picture of any size, with the pixels that ``semiseg eval`` would count.

        Args:
            image: path of a file, picture of PIL, or array ``(H, W, 3) uint8`` RGB; the first two are turned upright
                by their EXIF data. Of a run on bands a path or an array ``(H, W, C)``. Or what ``read`` made of it.
            between: function that is called before each tile of a large picture and may raise to stop.

        Raises:
            UserError: the file cannot be read, the picture does not have 8 bits a channel, the array has another
                shape or type, or the settings do not fit the size.
        """
        pixels, valid = image if isinstance(image, OpenedPicture) else self.read(image)
        height, width = pixels.shape[:2]
        # Area, as ``dataset.half_size`` reduces pictures; labels by nearest, since a mean of classes is no class.
        seen = _resized(pixels, self._seen_size(height, width), cv2.INTER_AREA)
        label, confidence = self._labels(seen, self.cuts(height, width), between)
        label = _resized(label, (height, width), cv2.INTER_NEAREST)
        confidence = _resized(confidence, (height, width), cv2.INTER_NEAREST)
        if valid is not None:
            label, confidence = np.where(valid, label, IGNORE_INDEX), np.where(valid, confidence, 0)
        return Prediction(pixels, label, confidence, self.info)

    def rows(
        self, read: Callable[[Window], Pixels], size: tuple[int, int], between: Callable[[], None]
    ) -> Iterator[tuple[Array, NDArray[np.float32]]]:
        """Predict a picture that is read in windows, as tiles; see ``predicted_rows``.

        Args:
            read: function that returns a window of the picture, ``(h, w, C)``.
            size: height and width of the picture; one that ``cuts`` denies is read whole.
            between: function that is called before each tile and may raise to stop.

        Raises:
            UserError: of a run that resizes every picture to one size or halves it.
        """
        if self.settings.resize_to is not None or self.half_size:
            raise UserError(
                "this run resizes every picture, which cannot be done in windows; predict pictures without a place "
                "on the ground"
            )

        def maps(window: Window) -> torch.Tensor:
            between()
            return predict(
                self.network, to_batch([read(window)], self.device), self.settings, self.precision
            )[0]

        tiling = self.tiling if self.cuts(*size) else None
        return predicted_rows(maps, size, tiling or Tiling(max(8, *size), 0), self.device)

    def _seen_size(self, height: int, width: int) -> tuple[int, int]:
        return (max(height // 2, 1), max(width // 2, 1)) if self.half_size else (height, width)

    def _labels(
        self, image: Pixels, cut: bool, between: Callable[[], None]
    ) -> tuple[Array, NDArray[np.float32]]:
        if cut:
            assert self.tiling is not None
            return predict_tiled(
                self.network, image, self.settings, self.tiling, self.device, self.precision, between
            )
        batch = to_batch([image], self.device)
        label, confidence = predict_with_confidence(self.network, batch, self.settings, self.precision)
        return label[0].to(torch.uint8).cpu().numpy(), confidence[0].cpu().numpy()


def _resized(array: Any, size: tuple[int, int], interpolation: int) -> Any:
    if array.shape[:2] == size:
        return array
    return cv2.resize(array, (size[1], size[0]), interpolation=interpolation)


def load(run: Path | str, checkpoint: str = REPORTED, device: str = "auto") -> Predictor:
    """Open a finished run to predict pictures as it evaluated its own.

    Args:
        run: run directory.
        checkpoint: network: "reported" for the one whose numbers the run reported, "best" or "last" of the fit that
            it came from, or the path of a file.
        device: device: "auto" for a GPU where there is one, "cpu", "cuda" or "cuda:N".

    Raises:
        UserError: no finished run, no such checkpoint, or no such device.
    """
    opened = open_run(Path(run))
    return of_run(opened, checkpoint, build.device(device, "device"), opened.evaluator())


def of_run(run: FinishedRun, checkpoint: str, device: torch.device, settings: EvaluatorSettings) -> Predictor:
    """Return a predictor with a network of a run; raises ``UserError`` where there is no such checkpoint."""
    network, bundle = run.network(checkpoint, device)
    dataset = run.config["dataset"]
    colors = tuple((red, green, blue) for red, green, blue in bundle["palette"])
    return Predictor(
        network,
        DatasetInfo(dataset["name"], tuple(bundle["classes"]), colors, bands=bundled_bands(bundle)),
        settings,
        device,
        precision=run.config["trainer"]["precision"],
        half_size=bool(dataset.get("half_size", False)),
        exif=dataset.get("exif", "apply"),
    )


def _pixels(image: Picture, exif: Exif) -> Array:
    if isinstance(image, Path | str):
        return read_image(Path(image), exif)
    if isinstance(image, Image.Image):
        return upright_rgb(image, exif)
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or not image.size
    ):
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(
            f"a picture of {found}; expected a path, a PIL image, or an array (H, W, 3) uint8, RGB."
        )
    return image
