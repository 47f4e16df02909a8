"""Open every file that a run will read, before it starts, and name all that are bad."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from semiseg.contracts.dataset import DatasetInfo, SegDataset, Split
from semiseg.data.mask_comparison import MaskComparison, compare_masks
from semiseg.data.mask_reader import OutsideClassesError
from semiseg.data.picture_facts import (
    ImageFacts,
    MaskFacts,
    PictureFacts,
    image_facts,
    mask_facts,
)
from semiseg.data.picture_files import BadFileError, Exif, exif_of
from semiseg.errors import UserError
from semiseg.splits.lists import shown

logger = logging.getLogger(__name__)

SHOWN_FILES = 50
SHOWN_VALUES = 10
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
        outside: number of pixels of each value of a mask that is no class.
        pixels: number of all pixels of such a mask.
    """

    id: str
    file: str
    reason: str
    outside: Mapping[str, int] = field(default_factory=dict, compare=False)
    pixels: int = 0

    def __str__(self) -> str:
        return f"{self.file} (id {self.id}): {self.reason}"


class BadFilesError(UserError):
    """Files that have to be repaired or left out before a run can start.

    Args:
        faults: all faults; the message shows the first 50.
        otherwise: advice for going on without repairing them.
        notes: sentences about all of them.
    """

    def __init__(
        self,
        faults: Sequence[FileFault],
        otherwise: str = "leave them out with dataset.skip_bad=true",
        notes: Sequence[str] = (),
    ) -> None:
        lines = [f"  {fault}" for fault in faults[:SHOWN_FILES]]
        if len(faults) > SHOWN_FILES:
            lines.append(f"  and {len(faults) - SHOWN_FILES} more")
        images = len({fault.id for fault in faults})
        head = f"bad files: {len(faults)}, of {images} images"
        super().__init__("\n".join([head, *lines, *notes, f"Repair them, or {otherwise}."]))
        self.faults = tuple(faults)
        self.notes = tuple(notes)


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
    mask_size: tuple[int, int] | None = None


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
    compared = _compare(dataset, seen)
    faults = tuple(fault for image_id in ids for fault in _faults_of(dataset, image_id, seen, compared))
    if faults and not dataset.skip_bad:
        raise BadFilesError(faults, notes=(*_outside(faults, seen), *compared.notes))
    bad = {fault.id for fault in faults}
    kept = without_images(split, bad)
    for note in compared.notes:
        logger.warning("%s", note)
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


def facts_of(dataset: SegDataset, ids: Sequence[str]) -> dict[str, PictureFacts]:
    """Return the facts about images and their masks by id; files that cannot be read are left out."""
    if not isinstance(dataset, FileBacked):
        return {image_id: _facts(dataset, image_id) for image_id in ids}
    seen = _inspect_all(dataset, list(ids), frozenset(ids), lambda done, total: None)
    return {image_id: each.facts for image_id, each in seen.items() if each.facts is not None}


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
    facts = None if image is None else _joined(image, mask)
    return _Seen(tuple(faults), facts, None if mask is None else mask.size)


def _compare(dataset: FileBacked, seen: Mapping[str, _Seen]) -> MaskComparison:
    """Compare the masks that can be read with each other and with their images."""
    files, counts = {}, {}
    for image_id, each in seen.items():
        image, mask = dataset.files(image_id)
        if not each.faults and each.facts and each.facts.counts is not None and mask is not None:
            files[image_id] = image, mask
            counts[image_id] = each.facts.counts
    return compare_masks(dataset, files, counts)


def _faults_of(
    dataset: FileBacked, image_id: str, seen: Mapping[str, _Seen], compared: MaskComparison
) -> Iterator[FileFault]:
    """Faults of the files of one image: of each by itself, then of sizes, then beside others."""
    each = seen[image_id]
    yield from each.faults
    mask_file = str(dataset.files(image_id)[1])
    if each.facts and each.mask_size and dataset.info.label_size(*each.facts.size) != each.mask_size:
        turned = image_id in compared.against
        yield FileFault(
            image_id, mask_file, _size_mismatch(each.facts.size, each.mask_size, turned, exif_of(dataset))
        )
    elif image_id in compared.faults:
        yield FileFault(image_id, mask_file, compared.faults[image_id])


def _outside(faults: Sequence[FileFault], seen: Mapping[str, _Seen]) -> list[str]:
    """Sentence about the values that are no class, with their shares of all pixels of all masks."""
    outside: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for fault in faults:
        outside.update(fault.outside)
        files.update(dict.fromkeys(fault.outside, 1))
    if not outside:
        return []
    sizes = [each.mask_size for each in seen.values() if each.mask_size]
    total = sum(height * width for height, width in sizes) + sum(fault.pixels for fault in faults)
    some = [
        f"{value} ({count / total:.2%} of the pixels of all masks, in {files[value]} masks)"
        for value, count in outside.most_common(SHOWN_VALUES)
    ]
    return [
        f"Values that stand in masks and in no class: {shown(some, SHOWN_VALUES)}. Name them in dataset.values, or in "
        'dataset.void where they mean "not labeled".'
    ]


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
    if isinstance(error, OutsideClassesError):
        return FileFault(image_id, str(error.file), error.reason, error.pixels, error.size)
    if isinstance(error, BadFileError):
        return FileFault(image_id, str(error.file), error.reason)
    return FileFault(image_id, str(file), f"{type(error).__name__}: {error}")


def _size_mismatch(image: tuple[int, int], mask: tuple[int, int], turned: bool, exif: Exif) -> str:
    text = f"mask is {mask[1]}x{mask[0]}, its image {image[1]}x{image[0]} (width x height)"
    if turned and exif == "apply":
        text += (
            "; the rotation in the image's EXIF data is applied, and the mask was drawn on the stored pixels: "
            "dataset.exif=ignore leaves EXIF alone for all images (`semiseg init --exif ignore`)"
        )
    elif turned:
        text += "; EXIF data is ignored (dataset.exif=ignore), and the mask was drawn on the upright image"
    return text


def _report(
    info: DatasetInfo, split: Split, skipped: tuple[FileFault, ...], facts: Mapping[str, PictureFacts]
) -> CheckReport:
    counts = Counter(label for image_id in split.labeled for label in facts[image_id].counts or ())
    return CheckReport(split, skipped, tuple(counts[label] for label in range(info.num_classes)), facts)
