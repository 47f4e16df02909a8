"""Measurement of a new dataset from the check of its files: sizes of images, pixels of classes, unusable files."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from semiseg.contracts.dataset import DatasetInfo
from semiseg.data.file_faults import CheckReport


@dataclass(frozen=True)
class Measures:
    """Counts of a dataset.

    Args:
        parts: number of usable images of each part.
        sizes: number of images by width and height.
        pixels: number of pixels of each class in all masks, of 255 at the end.
        images: number of masks that hold each class, by part; of 255 at the end.
        skipped: number of files that were left out.
    """

    parts: dict[str, int]
    sizes: Counter[tuple[int, int]]
    pixels: list[int]
    images: dict[str, list[int]]
    skipped: int


def measure(info: DatasetInfo, report: CheckReport) -> Measures:
    """Count sizes and pixels of checked images, all labeled ones of which are in the split."""
    split, facts = report.split, report.facts
    parts = {"train": split.labeled, "val": split.val, "test": split.test, "unlabeled": split.unlabeled}
    labels = [*range(info.num_classes), info.ignore_index]
    counts = {
        part: np.array([[(facts[each].counts or {}).get(label, 0) for label in labels] for each in ids])
        for part, ids in parts.items()
        if part != "unlabeled" and ids
    }
    sizes = (facts[image_id].size for ids in parts.values() for image_id in ids)
    return Measures(
        parts={part: len(ids) for part, ids in parts.items()},
        sizes=Counter((width, height) for height, width in sizes),
        pixels=sum(each.sum(0) for each in counts.values()).tolist(),
        images={part: (each > 0).sum(0).tolist() for part, each in counts.items()},
        skipped=len(report.skipped),
    )
