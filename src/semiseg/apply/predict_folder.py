"""The folder that ``semiseg predict`` writes: pictures of predictions and a record of how they were made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semiseg.apply.raster_prediction import RasterFiles, predict_raster
from semiseg.data.raster import is_raster
from semiseg.errors import UserError
from semiseg.files import finite, read_json, remove_temporaries, write_json, writes
from semiseg.pictures import PHOTO_EFFORT, Bits, legend, save
from semiseg.splits.lists import shown

if TYPE_CHECKING:
    from semiseg.contracts.dataset import DatasetInfo
    from semiseg.runs.predictor import Prediction, Predictor

LABELS, OVERLAY, CONFIDENCE = "labels", "overlay", "confidence"
RECORD, LEGEND = "predict.json", "legend.png"
OTHER_FOLDER = "Correct that, or choose another folder by -o."


class Predictions:
    """A folder of predictions.

    Args:
        folder: path of the folder.
        opacity: share of the colors in the overlay; ``None`` writes no overlay.
        bits: number of bits of the confidence; ``None`` writes no confidence.
        geotiff: whether pictures in TIFF files are predicted in windows, into GeoTIFF files of the same place.
    """

    def __init__(self, folder: Path, opacity: float | None, bits: Bits | None, geotiff: bool = False) -> None:
        self.folder = folder
        self.rasters: frozenset[str] = frozenset()
        self._geotiff = geotiff
        self.failed: dict[str, str] = {}
        self._opacity, self._bits = opacity, bits
        self._images: dict[str, dict[str, Any]] = {}
        self._origin: dict[str, Any] = {}
        wanted = {LABELS: True, OVERLAY: opacity is not None, CONFIDENCE: bits is not None}
        self.kinds = [kind for kind, each in wanted.items() if each]

    def files(self, name: str) -> dict[str, Path]:
        """Files of a picture by kind; ``name`` is without extension."""
        suffix = ".tif" if name in self.rasters else ".png"
        return {
            kind: self.folder / kind / f"{name}{'.png' if kind == OVERLAY else suffix}" for kind in self.kinds
        }

    def open(
        self, found: Mapping[str, Path], origin: Mapping[str, Any], force: bool, skip_existing: bool
    ) -> dict[str, Path]:
        """Make the folder ready and return the pictures that are to be predicted.

        Args:
            found: all pictures by name.
            origin: origin of the pixels as plain values; predictions of different origins are never mixed.
            force: whether existing files are replaced.
            skip_existing: whether pictures whose files exist are left out.

        Raises:
            UserError: files would be replaced without ``force``, or would be mixed with others of other origin; a
                picture would be replaced by its own prediction; or the folder cannot be written.
        """
        if self._geotiff:
            self.rasters = frozenset(name for name, path in found.items() if is_raster(path))
        self._refuse_own(found)
        self._origin = finite(
            {
                **origin,
                "overlay": self._opacity,
                "confidence_of_white": None if self._bits is None else 2**self._bits - 1,
            }
        )
        waiting = dict(found)
        if skip_existing:
            recorded = self._recorded()
            waiting = {name: path for name, path in found.items() if not self._complete(name)}
            done = {name: {"file": str(path)} for name, path in found.items() if name not in waiting}
            self._images = done | recorded
        elif not force:
            self._refuse_existing(found)
        with writes(self.folder, OTHER_FOLDER):
            for kind in self.kinds:
                (self.folder / kind).mkdir(parents=True, exist_ok=True)
                remove_temporaries(self.folder / kind, recursive=True)
            self._write_record("running")
        return waiting

    def write(self, name: str, source: Path, prediction: Prediction, tiled: bool) -> None:
        """Write the files of one picture, each whole or not at all.

        Args:
            name: name of the picture, see ``files``.
            source: file of the picture, for the record.
            prediction: prediction that is written.
            tiled: whether the picture was cut into tiles, for the record.

        Raises:
            UserError: the disk refuses.
        """
        files = self.files(name)
        with writes(files[LABELS], "Correct that, then the same command with --skip-existing goes on."):
            for path in files.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            save(files[LABELS], prediction.indexed())
            if self._opacity is not None:
                save(files[OVERLAY], prediction.overlay(self._opacity), PHOTO_EFFORT)
            if self._bits is not None:
                save(files[CONFIDENCE], prediction.gray(self._bits))
        height, width = prediction.label.shape
        self._images[name] = {"file": str(source), "size": [width, height], "tiled": tiled}

    def write_raster(
        self, name: str, source: Path, predictor: Predictor, between: Callable[[], None]
    ) -> None:
        """Predict a GeoTIFF in windows and write the files of it; see ``predict_raster``.

        Args:
            name: name of the picture, see ``files``.
            source: file of the picture.
            predictor: network and tiles.
            between: function that is called before each tile and may raise to stop.

        Raises:
            UserError: the picture cannot be read, or the disk refuses.
        """
        files = self.files(name)
        for path in files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        written = RasterFiles(
            files[LABELS], files.get(CONFIDENCE), files.get(OVERLAY), self._bits or 8, self._opacity or 0.0
        )
        height, width = predict_raster(predictor, source, written, between)
        self._images[name] = {
            "file": str(source),
            "size": [width, height],
            "tiled": predictor.cuts(height, width),
        }

    def close(self, state: str, info: DatasetInfo) -> None:
        """Write the legend and the final record; ``state`` is "done" or "interrupted".

        Raises:
            UserError: the disk refuses.
        """
        with writes(
            self.folder / RECORD, "Correct that, then the same command with --skip-existing goes on."
        ):
            save(self.folder / LEGEND, legend(info))
            self._write_record(state)

    def _write_record(self, state: str) -> None:
        write_json(
            self.folder / RECORD,
            {
                "version": 1,
                "state": state,
                **self._origin,
                "images": dict(sorted(self._images.items())),
                "failed": self.failed,
            },
        )

    def _complete(self, name: str) -> bool:
        return all(path.exists() for path in self.files(name).values())

    def _refuse_existing(self, found: Mapping[str, Path]) -> None:
        places = [path for name in found for path in self.files(name).values()]
        there = [path for path in (self.folder / RECORD, self.folder / LEGEND, *places) if path.exists()]
        if there:
            names = shown([path.relative_to(self.folder).as_posix() for path in there], 5)
            raise UserError(
                f"{self.folder} holds predictions already: {names}.\nAdd --skip-existing to predict only what is "
                "missing, --force to replace them, or choose another folder by -o."
            )

    def _recorded(self) -> dict[str, dict[str, Any]]:
        """Pictures that the record of the folder lists.

        Raises:
            UserError: they are of other origin.
        """
        path = self.folder / RECORD
        if not path.exists():
            return {}
        try:
            record = read_json(path)
            images: dict[str, dict[str, Any]] = dict(record["images"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is no record of predictions any more ({error}). Replace all with --force, or choose another "
                "folder by -o."
            ) from error
        changed = [key for key, value in self._origin.items() if record.get(key) != value]
        if changed:
            raise UserError(
                f"--skip-existing: {self.folder} holds predictions that were made in another way (other "
                f"{', '.join(changed)}). Replace all with --force, or choose another folder by -o."
            )
        return images

    def _refuse_own(self, found: Mapping[str, Path]) -> None:
        """Refuse to write over a picture that is to be predicted, however it is reached."""
        pictures = {path.resolve() for path in found.values()}
        own = [path for name in found for path in self.files(name).values() if path.resolve() in pictures]
        if own:
            raise UserError(
                f"{shown(map(str, own), 3)}: would be replaced by its own prediction. Choose another "
                "folder by -o."
            )
