"""Open every file that a run will read, before it starts, and name all that are bad."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from semiseg.contracts.dataset import DatasetInfo, SegDataset, Split
from semiseg.data.image_files import BadFileError
from semiseg.data.picture_facts import (
    ImageFacts,
    MaskFacts,
    PictureFacts,
    image_facts,
    mask_facts,
)
from semiseg.errors import UserError
from semiseg.splits.lists import shown

logger = logging.getLogger(__name__)

SHOWN_FILES = 50
MAX_THREADS = 16


@runtime_checkable
class FileBacked(SegDataset, Protocol):
    """A dataset that reads files, which can be checked, as ``FileDataset`` does."""

    skip_bad: bool

    def files(self, image_id: str) -> tuple[Path, Path | None]:
        """Image file and mask file of an id; ``None`` where no mask is expected."""
        ...


@runtime_checkable
class Indexed(FileBacked, Protocol):
    """A dataset that knows facts about its images without reading them, as ``StoredDataset`` does."""

    def image_facts(self, image_id: str) -> ImageFacts:
        """Facts about an image; raises as ``image`` does."""
        ...

    def mask_facts(self, image_id: str) -> MaskFacts | None:
        """Facts about a mask; ``None`` where there is none; raises as ``mask`` does."""
        ...


@dataclass(frozen=True)
class FileFault:
    """A file that cannot be used.

    Args:
        id: id of the image that it belongs to.
        file: path of the file.
        reason: description of the fault and of what was expected.
    """

    id: str
    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file} (id {self.id}): {self.reason}"


class BadFilesError(UserError):
    """Files that have to be repaired or left out before a run can start.

    Args:
        faults: all faults; the message shows the first 50.
        otherwise: advice for going on without repairing them.
    """

    def __init__(
        self, faults: Sequence[FileFault], otherwise: str = "leave them out with dataset.skip_bad=true"
    ) -> None:
        lines = [f"  {fault}" for fault in faults[:SHOWN_FILES]]
        if len(faults) > SHOWN_FILES:
            lines.append(f"  and {len(faults) - SHOWN_FILES} more")
        images = len({fault.id for fault in faults})
        head = f"bad files: {len(faults)}, of {images} images"
        super().__init__("\n".join([head, *lines, f"Repair them, or {otherwise}."]))
        self.faults = tuple(faults)


@dataclass(frozen=True)
class CheckReport:
    """Result of ``check_files``.

    Args:
        split: the split to train with, without the images that were left out.
        skipped: the bad files because of which images were left out.
        labeled_images: number of labeled images that each class occurs in.
        facts: facts about the images of ``split`` and their masks, by id. Of a dataset that is not
            ``FileBacked`` only those of labeled and validation images.
    """

    split: Split
    skipped: tuple[FileFault, ...]
    labeled_images: tuple[int, ...]
    facts: Mapping[str, PictureFacts]


@dataclass(frozen=True)
class _Seen:
    faults: tuple[FileFault, ...]
    facts: PictureFacts | None


def check_files(
    dataset: SegDataset, split: Split, progress: Callable[[int, int], None] | None = None
) -> CheckReport:
    """Read all images of a split and the masks of its labeled, val and test ids; others' masks stay closed.

    A dataset that is not ``FileBacked`` draws its images; of it only labeled and validation images are looked
    at. Test images leave the split as ``measurable`` says.

    Args:
        dataset: source of the images; its ``skip_bad`` chooses between refusing bad files and leaving them out.
        split: the ids.
        progress: function that gets the numbers of images done and of all; ``None`` reports nothing.

    Raises:
        BadFilesError: naming all bad files, unless ``skip_bad`` is set.
        UserError: without the bad files nothing labeled or nothing to validate on is left.
    """
    if not isinstance(dataset, FileBacked):
        drawn = dict.fromkeys((*split.labeled, *split.val))
        return _report(dataset.info, split, (), {each: _facts(dataset, each) for each in drawn})
    split = measurable(dataset, split)
    masked = frozenset((*split.labeled, *split.val, *split.test))
    ids = list(dict.fromkeys((*split.labeled, *split.unlabeled, *split.val, *split.test)))
    seen = _inspect_all(dataset, ids, masked, progress or (lambda done, total: None))
    faults = tuple(fault for image_id in ids for fault in seen[image_id].faults)
    if faults and not dataset.skip_bad:
        raise BadFilesError(faults)
    bad = {fault.id for fault in faults}
    kept = without_images(split, bad)
    if faults:
        names = shown([fault.file for fault in faults])
        logger.warning("left out %d images with bad files: %s", len(bad), names)
    facts = {each: found.facts for each, found in seen.items() if each not in bad and found.facts}
    return _report(dataset.info, kept, faults, facts)


def measurable(dataset: SegDataset, split: Split) -> Split:
    """Return a split without the test images that are published without masks, as those of Cityscapes are."""
    if not isinstance(dataset, FileBacked):
        return split
    test = tuple(image_id for image_id in split.test if dataset.files(image_id)[1] is not None)
    return split if len(test) == len(split.test) else replace(split, test=test)


def for_split(info: DatasetInfo, report: CheckReport, split: Split) -> CheckReport:
    """Return a check with the same images in other parts."""
    return _report(info, split, report.skipped, report.facts)


def without_images(split: Split, ids: set[str]) -> Split:
    """Return a split without some ids.

    Raises:
        UserError: no labeled image or no validation image is left.
    """
    parts = {part: getattr(split, part) for part in ("labeled", "unlabeled", "val", "test")}
    left: dict[str, Any] = {
        part: tuple(each for each in before if each not in ids) for part, before in parts.items()
    }
    for part, kind in (("labeled", "labeled"), ("val", "validation")):
        before = parts[part]
        if before and not left[part]:
            raise UserError(
                f"all {len(before)} {kind} images of split {split.name} have bad files; none is left"
            )
    return replace(split, **left)


def _inspect_all(
    dataset: FileBacked, ids: list[str], masked: frozenset[str], progress: Callable[[int, int], None]
) -> dict[str, _Seen]:
    """Inspect in threads, since PIL decodes outside of Python's global lock."""
    seen: dict[str, _Seen] = {}
    pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1))
    try:
        results = pool.map(lambda image_id: _inspect(dataset, image_id, image_id in masked), ids)
        for done, (image_id, result) in enumerate(zip(ids, results, strict=True), start=1):
            seen[image_id] = result
            progress(done, len(ids))
    finally:
        pool.shutdown(cancel_futures=True)
    return seen


def _inspect(dataset: FileBacked, image_id: str, with_mask: bool) -> _Seen:
    image_file, mask_file = dataset.files(image_id)
    faults: list[FileFault] = []
    image, mask = None, None
    try:
        image = facts_of_image(dataset, image_id)
    except Exception as error:
        faults.append(_fault(image_id, image_file, error))
    if with_mask:
        try:
            mask = facts_of_mask(dataset, image_id)
            if mask is None:
                faults.append(FileFault(image_id, str(mask_file or image_file), "mask missing"))
        except Exception as error:
            faults.append(_fault(image_id, mask_file or image_file, error))
    if image is not None and mask is not None and dataset.info.label_size(*image.size) != mask.size:
        faults.append(FileFault(image_id, str(mask_file), _size_mismatch(image.size, mask.size)))
    return _Seen(tuple(faults), None if image is None else _joined(image, mask))


def _facts(dataset: SegDataset, image_id: str) -> PictureFacts:
    return _joined(facts_of_image(dataset, image_id), facts_of_mask(dataset, image_id))


def _joined(image: ImageFacts, mask: MaskFacts | None) -> PictureFacts:
    drawn = (None, None) if mask is None else (mask.digest, mask.counts)
    return PictureFacts(image.size, image.digest, image.small, *drawn)


def facts_of_image(dataset: SegDataset, image_id: str) -> ImageFacts:
    """Facts about an image, which is read from its file unless the dataset is ``Indexed``."""
    if isinstance(dataset, Indexed):
        return dataset.image_facts(image_id)
    return image_facts(dataset.image(image_id))


def facts_of_mask(dataset: SegDataset, image_id: str) -> MaskFacts | None:
    """Facts about a mask, which is read from its file unless the dataset is ``Indexed``."""
    if isinstance(dataset, Indexed):
        return dataset.mask_facts(image_id)
    mask = dataset.mask(image_id)
    return None if mask is None else mask_facts(mask)


def _fault(image_id: str, file: Path, error: Exception) -> FileFault:
    if isinstance(error, BadFileError):
        return FileFault(image_id, str(error.file), error.reason)
    return FileFault(image_id, str(file), f"{type(error).__name__}: {error}")


def _size_mismatch(image: tuple[int, int], mask: tuple[int, int]) -> str:
    text = f"mask is {mask[1]}x{mask[0]}, its image {image[1]}x{image[0]} (width x height)"
    if image == mask[::-1]:
        text += "; a rotation in the image's EXIF data is applied, so the mask has to be drawn on the upright image"
    return text


def _report(
    info: DatasetInfo, split: Split, skipped: tuple[FileFault, ...], facts: Mapping[str, PictureFacts]
) -> CheckReport:
    counts = Counter(label for image_id in split.labeled for label in facts[image_id].counts or ())
    return CheckReport(split, skipped, tuple(counts[label] for label in range(info.num_classes)), facts)
