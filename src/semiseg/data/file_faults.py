"""Open every file that a run will read, before it starts, and name all that are bad."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from semiseg.contracts.dataset import DatasetInfo, SegDataset, Split
from semiseg.data.file_inspection import (
    FileBacked,
    FileFault,
    facts_of_image,
    facts_of_mask,
    inspect_files,
    joined,
)
from semiseg.data.picture_facts import PictureFacts
from semiseg.errors import UserError
from semiseg.splits.lists import shown

logger = logging.getLogger(__name__)

SHOWN_FILES = 50
NO_OTHERS = "give other images and masks in their place: without them no run can start"


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
        lines, advice = _lines(faults[:SHOWN_FILES])
        if len(faults) > SHOWN_FILES:
            lines.append(f"  and {len(faults) - SHOWN_FILES} more")
        images = len({fault.id for fault in faults})
        head = f"bad files: {len(faults)}, of {images} images"
        super().__init__("\n".join([head, *lines, *advice, *notes, f"Repair them, or {otherwise}."]))
        self.faults = tuple(faults)
        self.notes = tuple(notes)


def _lines(faults: Sequence[FileFault]) -> tuple[list[str], list[str]]:
    """A line a fault; and what several reasons say after their first sentence, which is said once for all of them."""
    advice = Counter(fault.reason.partition(". ")[2] for fault in faults)
    shared = [text for text, count in advice.items() if text and count > 1]
    lines = [
        f"  {fault}"
        if (text := fault.reason.partition(". ")[2]) not in shared
        else f"  {fault}".removesuffix(f". {text}")
        for fault in faults
    ]
    return lines, shared


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


def check_files(
    dataset: SegDataset, split: Split, progress: Callable[[int, int], None] | None = None, *, seed: int = 0
) -> CheckReport:
    """Read all images of a split and the masks of its labeled, val and test ids; others' masks stay closed.

    Files that were found sound before and have not changed since are not opened again, see ``inspect_files``.

    A dataset that is not ``FileBacked`` draws its images; of it only labeled and validation images are looked
    at. Test images leave the split as ``measurable`` says.

    Args:
        dataset: source of the images; its ``skip_bad`` chooses between refusing bad files and leaving them out.
        split: the ids.
        progress: function that gets the numbers of images done and of all; ``None`` reports nothing.
        seed: seed of the sample of unchanged files that are opened all the same.

    Raises:
        BadFilesError: naming all bad files, unless ``skip_bad`` is set and labeled and validation images are left.
    """
    if not isinstance(dataset, FileBacked):
        drawn = dict.fromkeys((*split.labeled, *split.val))
        facts = {each: joined(facts_of_image(dataset, each), facts_of_mask(dataset, each)) for each in drawn}
        return _report(dataset.info, split, (), facts)
    split = measurable(dataset, split)
    masked = dict.fromkeys((*split.labeled, *split.val, *split.test))
    images = dict.fromkeys((*split.labeled, *split.unlabeled, *split.val, *split.test))
    found = inspect_files(dataset, images, masked, progress or (lambda done, total: None), seed)
    if found.faults and not dataset.skip_bad:
        raise BadFilesError(found.faults, notes=found.notes)
    bad = {fault.id for fault in found.faults}
    try:
        kept = without_images(split, bad)
    except UserError as error:
        raise BadFilesError(found.faults, NO_OTHERS, (*found.notes, f"{error}.")) from error
    for note in found.notes:
        logger.warning("%s", note)
    if bad:
        names = shown([fault.file for fault in found.faults])
        logger.warning("left out %d images with bad files: %s", len(bad), names)
    facts = {
        each: joined(image, found.masks.get(each)) for each, image in found.images.items() if each not in bad
    }
    return _report(dataset.info, kept, found.faults, facts)


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


def _report(
    info: DatasetInfo, split: Split, skipped: tuple[FileFault, ...], facts: Mapping[str, PictureFacts]
) -> CheckReport:
    counts = Counter(label for image_id in split.labeled for label in facts[image_id].counts or ())
    return CheckReport(split, skipped, tuple(counts[label] for label in range(info.num_classes)), facts)
