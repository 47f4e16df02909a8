"""Measurement of a new dataset as a run reads it: sizes of images, pixels of classes, unusable files."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from semiseg.data.file_faults import check_files
from semiseg.data.folder import Folder
from semiseg.splits.split import make_split


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


def measure(dataset: Folder, progress: Callable[[int, int], None]) -> Measures:
    """Read all images, and the masks of all labeled ones, as a run does before it starts.

    Args:
        dataset: the new dataset.
        progress: function that gets the numbers of images done and of all.

    Raises:
        BadFilesError: unusable files, all of which it names, unless ``skip_bad`` is set.
        UserError: no usable labeled or validation image.
    """
    report = check_files(dataset, make_split(dataset, "full"), progress)
    split = report.split
    parts = {"train": split.labeled, "val": split.val, "test": split.test, "unlabeled": split.unlabeled}
    labels = [*range(dataset.info.num_classes), dataset.info.ignore_index]
    counts = {
        part: np.array(
            [[(report.facts[each].counts or {}).get(label, 0) for label in labels] for each in ids]
        )
        for part, ids in parts.items()
        if part != "unlabeled" and ids
    }
    sizes = (report.facts[image_id].size for ids in parts.values() for image_id in ids)
    return Measures(
        parts={part: len(ids) for part, ids in parts.items()},
        sizes=Counter((width, height) for height, width in sizes),
        pixels=sum(each.sum(0) for each in counts.values()).tolist(),
        images={part: (each > 0).sum(0).tolist() for part, each in counts.items()},
        skipped=len(report.skipped),
    )
