"""Measurement of a new dataset as a run reads it: sizes of images, pixels of classes, unusable files."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semiseg.contracts.dataset import Array, Part
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


class _Counting:
    """A dataset that counts the pixels and sizes that another one reads."""

    def __init__(self, dataset: Folder) -> None:
        self.info = dataset.info
        self.skip_bad = dataset.skip_bad
        self._dataset = dataset
        self.sizes: dict[str, tuple[int, int]] = {}
        self.counts: dict[str, np.ndarray] = {}

    def ids(self, part: Part) -> tuple[str, ...]:
        return self._dataset.ids(part)

    def files(self, image_id: str) -> tuple[Path, Path | None]:
        return self._dataset.files(image_id)

    def image(self, image_id: str) -> Array:
        image = self._dataset.image(image_id)
        self.sizes[image_id] = (image.shape[1], image.shape[0])
        return image

    def mask(self, image_id: str) -> Array | None:
        mask = self._dataset.mask(image_id)
        if mask is not None:
            self.counts[image_id] = np.bincount(mask.ravel(), minlength=256)
        return mask


def measure(dataset: Folder, progress: Callable[[int, int], None]) -> Measures:
    """Read all images, and the masks of all labeled ones, as a run does before it starts.

    Args:
        dataset: the new dataset.
        progress: function that gets the numbers of images done and of all.

    Raises:
        BadFilesError: unusable files, all of which it names, unless ``skip_bad`` is set.
        UserError: no usable labeled or validation image.
    """
    counting = _Counting(dataset)
    report = check_files(counting, make_split(counting, "full"), progress)
    split = report.split
    parts = {"train": split.labeled, "val": split.val, "test": split.test, "unlabeled": split.unlabeled}
    labels = [*range(dataset.info.num_classes), dataset.info.ignore_index]
    counts = {
        part: np.stack([counting.counts[image_id][labels] for image_id in ids])
        for part, ids in parts.items()
        if part != "unlabeled" and ids
    }
    return Measures(
        parts={part: len(ids) for part, ids in parts.items()},
        sizes=Counter(counting.sizes[image_id] for ids in parts.values() for image_id in ids),
        pixels=sum(each.sum(0) for each in counts.values()).tolist(),
        images={part: (each > 0).sum(0).tolist() for part, each in counts.items()},
        skipped=len(report.skipped),
    )
