"""Scores of a network on each image, and pictures of the worst."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from semiseg.contracts.dataset import Array, DatasetInfo
from semiseg.contracts.score_names import MetricName
from semiseg.contracts.tracking import Sample
from semiseg.files import write_csv
from semiseg.pictures import gray, legend, save
from semiseg.settings import EvaluatorSettings, OptionalMetric
from semiseg.tasks.evaluate import Measurement
from semiseg.tasks.samples import colorize, side_by_side

WRONG = (213, 94, 0)
PER_IMAGE = "skip"
"""Rule for absent classes of one image: a class in neither its mask nor its prediction is left out."""


@dataclass(frozen=True)
class ImageScore:
    """Scores of one predicted image.

    Args:
        id: id of the image.
        score: score that networks are selected by, over the classes in truth or prediction; NaN without any.
        totals: scores of all classes together by key, NaN where nothing was counted.
        iou: IoU of each class; ``None`` for one in neither truth nor prediction.
        true_pixels: pixels of each true class.
        predicted_pixels: pixels of each predicted class, among those that have a true class.
    """

    id: str
    score: float
    totals: Mapping[str, float]
    iou: list[float | None]
    true_pixels: list[int]
    predicted_pixels: list[int]

    @property
    def pixels(self) -> int:
        """Number of pixels that count."""
        return sum(self.true_pixels)


class ImageScores:
    """Scores each image of an evaluation; an argument ``watch`` of ``evaluate``.

    Args:
        ids: ids of the images, in the order in which equal scores are listed.
        info: classes of the dataset.
        settings: settings that choose the score.
        done: function called after each image.
    """

    def __init__(
        self, ids: Sequence[str], info: DatasetInfo, settings: EvaluatorSettings, done: Callable[[], None]
    ) -> None:
        self._ids = ids
        self._info = info
        # An image is ranked by its labels, and has too few pixels for a calibration.
        kept: list[OptionalMetric] = [metric for metric in settings.metrics if metric != "calibration"]
        self._settings = replace(settings, metrics=kept, decimals=None)
        self._done = done
        self._scores: dict[str, ImageScore] = {}

    def __call__(self, ids: Sequence[str], labels: Tensor, truth: Tensor) -> None:
        """Score images by their ids, labels and truth, ``(N, H, W)`` each."""
        for image_id, own_labels, own_truth in zip(ids, labels[:, None], truth[:, None], strict=True):
            measurement = Measurement(self._info, self._settings, labels.device, PER_IMAGE)
            measurement.update(own_labels, own_truth)
            found = measurement.compute()
            predicted = [sum(column) for column in zip(*found.confusion, strict=True)]
            self._scores[image_id] = ImageScore(
                image_id, found.primary, found.totals, found.iou, found.true_pixels, predicted
            )
            self._done()

    def ranked(self) -> list[ImageScore]:
        """Return the scores, the worst first and images without a score last."""
        scores = [self._scores[image_id] for image_id in self._ids]
        return sorted(scores, key=lambda each: (math.isnan(each.score), each.score))


def write_scores(
    path: Path, ranked: Sequence[ImageScore], primary: MetricName, classes: Sequence[str]
) -> None:
    """Write a CSV file with one image a row, in their order; shares are 0-1, empty where there is none.

    Args:
        path: file to write.
        ranked: scores of the images.
        primary: name of the score that they are ranked by, which has the first column.
        classes: names of the classes.
    """
    totals = list(dict.fromkeys([primary.key, "miou", "accuracy"]))
    columns = [f"{kind} {name}" for kind in ("iou", "true", "predicted") for name in classes]
    rows: list[list[str]] = [["image", *totals, "pixels", *columns]]
    for each in ranked:
        values = [_share(each.totals[key]) for key in totals]
        counts = map(str, (*each.true_pixels, *each.predicted_pixels))
        rows.append([each.id, *values, str(each.pixels), *map(_share, each.iou), *counts])
    write_csv(path, rows)


def write_worst(
    folder: Path,
    samples: Sequence[Sample],
    scores: Sequence[ImageScore],
    primary: MetricName,
    info: DatasetInfo,
) -> None:
    """Write a picture of each image, the worst first, and the legend; earlier pictures are removed.

    Args:
        folder: folder, which is made if needed.
        samples: images with their masks and predictions.
        scores: scores of the same images.
        primary: name of the score that they are ranked by.
        info: names and colors of the classes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("[0-9][0-9][0-9]-*.png"):
        path.unlink()
    for number, (sample, score) in enumerate(zip(samples, scores, strict=True), start=1):
        name = "".join(sign if sign.isalnum() or sign in "_.-" else "_" for sign in sample.id)
        save(folder / f"{number:03d}-{name}.png", _picture(sample, score, primary, info))
    save(folder / "legend.png", legend(info))


def _picture(sample: Sample, score: ImageScore, primary: MetricName, info: DatasetInfo) -> Image.Image:
    assert sample.truth is not None
    wrong = 100 * (1 - score.totals["accuracy"])
    return side_by_side(
        [
            ("image", Image.fromarray(sample.image)),
            ("truth", Image.fromarray(colorize(sample.truth, info))),
            (f"{primary.name} {100 * score.score:.1f} %", Image.fromarray(colorize(sample.prediction, info))),
            (f"wrong: {wrong:.1f} %", Image.fromarray(_wrong(sample, sample.truth, info))),
            ("confidence", gray(sample.confidence)),
        ]
    )


def _wrong(sample: Sample, truth: Array, info: DatasetInfo) -> Array:
    """Paint the pixels that are predicted wrong over the pale gray image, ``(H, W, 3) uint8``."""
    counted = (truth < info.num_classes) & (truth != info.ignore_index)
    pale = 160 + sample.image.mean(2, keepdims=True) * (95 / 255)
    canvas = np.broadcast_to(pale, sample.image.shape).astype(np.uint8)
    canvas[counted & (sample.prediction != truth)] = WRONG
    return canvas


def _share(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6f}"
