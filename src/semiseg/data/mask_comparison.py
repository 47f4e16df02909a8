"""MaskComparison of the masks of a split with each other and with their images, beyond what one file shows."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from semiseg.contracts.dataset import Array, SegDataset
from semiseg.data.exif_turns import find_turns
from semiseg.data.mask_agreement import disagreeing, reader_of, transparent_note
from semiseg.data.picture_files import exif_of
from semiseg.data.thin_lines import thin_lines
from semiseg.errors import UserError
from semiseg.splits.lists import spread

SAMPLES = 50
"""Number of masks in which thin lines are searched."""


class MaskComparison(NamedTuple):
    """Result of ``compare_masks``.

    Args:
        faults: reason for each id whose mask cannot be used beside the others.
        against: ids whose sizes show that their masks do not belong to the image as EXIF has it read.
        notes: sentences about what nobody can prove.
    """

    faults: Mapping[str, str]
    against: frozenset[str]
    notes: tuple[str, ...]


def compare_masks(
    dataset: SegDataset, files: Mapping[str, tuple[Path, Path]], counts: Mapping[str, Mapping[int, int]]
) -> MaskComparison:
    """Compare formats of masks, the orientations of images and masks, and search masks that were resized wrongly.

    Args:
        dataset: dataset that reads the files.
        files: image and mask of each id whose files can be read.
        counts: number of pixels of each label in these masks.
    """
    faults: dict[str, str] = {}
    notes: list[str | None] = []
    masks = {image_id: mask for image_id, (_, mask) in files.items()}
    if (reader := reader_of(dataset)) is not None:
        found = disagreeing(reader, masks, counts)
        faults |= found.faults
        notes += [found.cure, transparent_note(reader, masks)]
    against: frozenset[str] = frozenset()
    if dataset.info.label_of == "pixel":
        turns = find_turns(files, exif_of(dataset))
        faults = {**turns.faults, **faults}
        against = frozenset(turns.against)
        notes += [turns.note, thin_note(dataset, masks)]
    return MaskComparison(faults, against, tuple(note for note in notes if note))


def thin_note(dataset: SegDataset, masks: Mapping[str, Path]) -> str | None:
    """Warning about classes in thin lines between others; ``None`` without any. ``SAMPLES`` masks are looked at."""
    ids = spread(sorted(masks), min(SAMPLES, len(masks)))
    found = thin_lines(_label_maps(dataset, ids))
    if not found:
        return None
    names = ", ".join(dataset.info.classes[each.value] for each in found)
    most = max(found, key=lambda each: each.masks)
    return (
        f"{names}: seen as lines of one or two pixels between two other classes in {most.masks} of {len(ids)} masks, "
        f"for example {masks[most.example]}, as in masks that were resized with interpolation, which makes labels that "
        "nobody drew. Resize masks with nearest neighbor; where the class is such a line, all is well"
    )


def _label_maps(dataset: SegDataset, ids: Sequence[str]) -> Iterator[tuple[str, Array]]:
    for image_id in ids:
        try:
            mask = dataset.mask(image_id)
        except UserError:  # named by whoever reads all files
            continue
        if mask is not None:
            yield image_id, mask
