"""Comparison of the masks of a split with each other and with their images, beyond what one file shows."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from semiseg.contracts.dataset import Array, SegDataset
from semiseg.data.exif_turns import find_turns
from semiseg.data.file_index import NOTHING_KNOWN, FileIndex
from semiseg.data.mask_agreement import disagreeing, reader_of, transparent_note
from semiseg.data.picture_files import exif_of
from semiseg.data.raster import is_raster
from semiseg.data.rims import interpolated, rims
from semiseg.errors import UserError
from semiseg.splits.lists import spread

SAMPLES = 30
"""Number of masks in which thin lines are searched."""

SHOWN_LINES = 5


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
    dataset: SegDataset,
    files: Mapping[str, tuple[Path, Path]],
    counts: Mapping[str, Mapping[int, int]],
    index: FileIndex = NOTHING_KNOWN,
) -> MaskComparison:
    """Compare formats of masks, the orientations of images and masks, and search masks that were resized wrongly.

    Args:
        dataset: dataset that reads the files.
        files: image and mask of each id whose files can be read.
        counts: number of pixels of each label in these masks.
        index: facts about the files that are known already.
    """
    faults: dict[str, str] = {}
    notes: list[str | None] = []
    if dataset.info.bands is not None:
        # GeoTIFF has numbers alone, and no orientation: its grid is compared when it is read.
        files = {image_id: pair for image_id, pair in files.items() if not is_raster(pair[1])}
    masks = {image_id: mask for image_id, (_, mask) in files.items()}
    if (reader := reader_of(dataset)) is not None:
        found = disagreeing(reader, masks, counts, index)
        faults |= found.faults
        notes += [found.cure, transparent_note(reader, masks, index)]
    against: frozenset[str] = frozenset()
    if dataset.info.label_of == "pixel" and dataset.info.bands is None:
        turns = find_turns(files, exif_of(dataset), index)
        faults = {**turns.faults, **faults}
        against = frozenset(turns.against)
        notes += [turns.note, *thin_notes(dataset, masks)]
    return MaskComparison(faults, against, tuple(note for note in notes if note))


def thin_notes(dataset: SegDataset, masks: Mapping[str, Path]) -> list[str]:
    """Warnings about classes in thin lines between two others; ``SAMPLES`` masks are looked at."""
    ids = spread(sorted(masks), min(SAMPLES, len(masks)))
    found = interpolated({image_id: rims(mask) for image_id, mask in _label_maps(dataset, ids)})
    classes = dataset.info.classes
    shown = [each.words(classes, masks[each.example]) for each in found if each.high < len(classes)]
    return shown[:SHOWN_LINES]


def _label_maps(dataset: SegDataset, ids: Sequence[str]) -> Iterator[tuple[str, Array]]:
    for image_id in ids:
        try:
            mask = dataset.mask(image_id)
        except UserError:  # named by whoever reads all files
            continue
        if mask is not None:
            yield image_id, mask
