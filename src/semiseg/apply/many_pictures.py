"""Predictions of many pictures for ``predict`` and ``label``: their origin, and pictures that fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semiseg.data.bands import band_size
from semiseg.data.picture_files import BadFileError
from semiseg.errors import UserError
from semiseg.files import file_digest
from semiseg.runs.use import FinishedRun

if TYPE_CHECKING:
    from semiseg.apply.predict_folder import Predictions
    from semiseg.runs.predictor import Prediction, Predictor

SHOWN_FAILURES = 50


def origin(checkpoint: str, run: FinishedRun, predictor: Predictor) -> dict[str, Any]:
    """Return the origin of predictions, everything that they depend on, as plain values."""
    return {
        "run": str(run.path.resolve()),
        "checkpoint": checkpoint,
        "checkpoint_sha256": file_digest(run.checkpoint(checkpoint)),
        "classes": list(predictor.classes),
        "palette": [list(color) for color in predictor.palette],
        "evaluator": dataclasses.asdict(predictor.settings),
        "tiles": None if predictor.tiling is None else dataclasses.asdict(predictor.tiling),
        "half_size": predictor.half_size,
        "exif": predictor.exif,
        "precision": predictor.precision,
        "device": str(predictor.device),
    }


def predicted(
    predictor: Predictor, path: Path, between: Callable[[], None], failed: dict[str, str]
) -> Prediction | None:
    """Predict a picture, or note in ``failed`` why that fails; ``between`` as for ``Predictor.predict``."""
    import torch

    try:
        image = predictor.read(path)
    except BadFileError as error:
        failed[str(path)] = error.reason
        return None
    except Exception as error:  # a decoder may raise anything
        failed[str(path)] = f"cannot be decoded ({type(error).__name__}: {error})"
        return None
    try:
        return predictor.predict(image, between)
    except UserError as error:
        failed[str(path)] = " ".join(str(error).split())
    except (torch.OutOfMemoryError, MemoryError):
        failed[str(path)] = _too_large(*image.pixels.shape[:2])
    return None


def predict_raster_into(
    output: Predictions, predictor: Predictor, name: str, path: Path, between: Callable[[], None]
) -> None:
    """Predict a GeoTIFF into a folder of predictions, or note there why that fails; see ``write_raster``."""
    import torch

    try:
        output.write_raster(name, path, predictor, between)
    except BadFileError as error:
        output.failed[str(path)] = error.reason
    except (torch.OutOfMemoryError, MemoryError):
        output.failed[str(path)] = _too_large(*band_size(path))


def _too_large(height: int, width: int) -> str:
    return f"{width}x{height} pixels do not fit into memory; try --tile 1024, or a smaller one"


def failures(failed: Mapping[str, str], total: int, record: Path) -> str:
    """Message about the pictures that could not be predicted, and why; ``record`` lists all of them."""
    lines = [f"  {path}: {reason}" for path, reason in list(failed.items())[:SHOWN_FAILURES]]
    if len(failed) > SHOWN_FAILURES:
        lines.append(f"  and {len(failed) - SHOWN_FAILURES} more, in {record}")
    return "\n".join([f"{len(failed)} of {total} images could not be predicted:", *lines])
