"""Scores of a network on each image, and pictures of the worst."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from semiseg.contracts.dataset import Array, DatasetInfo
from semiseg.contracts.tracking import Sample
from semiseg.files import write_csv
from semiseg.pictures import gray, legend, save
from semiseg.tasks.metrics import ConfusionMatrix
from semiseg.tasks.samples import colorize, side_by_side

WRONG = (213, 94, 0)


@dataclass(frozen=True)
class ImageScore:
    """Score of one predicted image.

    Args:
        id: id of the image.
        miou: mean IoU over the classes in truth or prediction, 0-1; NaN where no pixel counts.
        accuracy: share of the counted pixels that are predicted right.
        pixels: number of pixels that count.
        iou: IoU of each class; ``None`` for one in neither truth nor prediction.
    """

    id: str
    miou: float
    accuracy: float
    pixels: int
    iou: list[float | None]


class ImageScores:
    """Scores each image of an evaluation; an argument ``watch`` of ``evaluate``.

    Args:
        ids: ids of the images, in the order of the evaluation.
        info: the classes.
        done: function called after each image.
    """

    def __init__(self, ids: Sequence[str], info: DatasetInfo, done: Callable[[], None]) -> None:
        self._ids = iter(ids)
        self._info = info
        self._done = done
        self._scores: list[ImageScore] = []

    def __call__(self, labels: Tensor, truth: Tensor) -> None:
        """Score a batch of labels and truth, ``(N, H, W)`` each."""
        for own_labels, own_truth in zip(labels, truth, strict=True):
            matrix = ConfusionMatrix(
                self._info.num_classes, ignore_index=self._info.ignore_index, device=labels.device
            )
            matrix.update(own_labels, own_truth)
            found = matrix.compute()
            pixels = sum(map(sum, found.confusion))
            self._scores.append(ImageScore(next(self._ids), found.miou, found.accuracy, pixels, found.iou))
            self._done()

    def ranked(self) -> list[ImageScore]:
        """Return the scores, the worst mean IoU first and images without counted pixels last."""
        return sorted(self._scores, key=lambda each: (not each.pixels, each.miou if each.pixels else 0.0))


def write_scores(path: Path, ranked: Sequence[ImageScore], classes: Sequence[str]) -> None:
    """Write a CSV file with one image a row, in their order; shares are 0-1, empty where there is none."""
    rows = [["image", "miou", "accuracy", "pixels", *(f"iou {name}" for name in classes)]]
    for each in ranked:
        totals = [f"{each.miou:.6f}", f"{each.accuracy:.6f}"] if each.pixels else ["", ""]
        shares = ["" if share is None else f"{share:.6f}" for share in each.iou]
        rows.append([each.id, *totals, str(each.pixels), *shares])
    write_csv(path, rows)


def write_worst(
    folder: Path, samples: Sequence[Sample], scores: Sequence[ImageScore], info: DatasetInfo
) -> None:
    """Write a picture of each image, the worst first, and the legend; earlier pictures are removed.

    Args:
        folder: folder, which is made if needed.
        samples: images with their masks and predictions.
        scores: scores of the same images.
        info: names and colors of the classes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("[0-9][0-9][0-9]-*.png"):
        path.unlink()
    for number, (sample, score) in enumerate(zip(samples, scores, strict=True), start=1):
        name = "".join(sign if sign.isalnum() or sign in "_.-" else "_" for sign in sample.id)
        save(folder / f"{number:03d}-{name}.png", _picture(sample, score, info))
    save(folder / "legend.png", legend(info))


def _picture(sample: Sample, score: ImageScore, info: DatasetInfo) -> Image.Image:
    assert sample.truth is not None
    panels = [
        ("image", Image.fromarray(sample.image)),
        ("truth", Image.fromarray(colorize(sample.truth, info))),
        (f"prediction: mIoU {100 * score.miou:.1f} %", Image.fromarray(colorize(sample.prediction, info))),
        (f"wrong: {100 * (1 - score.accuracy):.1f} %", Image.fromarray(_wrong(sample, sample.truth, info))),
        ("confidence", gray(sample.confidence)),
    ]
    return side_by_side(panels)


def _wrong(sample: Sample, truth: Array, info: DatasetInfo) -> Array:
    """Paint the pixels that are predicted wrong over the pale gray image, ``(H, W, 3) uint8``."""
    counted = (truth < info.num_classes) & (truth != info.ignore_index)
    pale = 160 + sample.image.mean(2, keepdims=True) * (95 / 255)
    canvas = np.broadcast_to(pale, sample.image.shape).astype(np.uint8)
    canvas[counted & (sample.prediction != truth)] = WRONG
    return canvas
