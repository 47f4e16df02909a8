"""Comparison of the formats of all masks of a split, where no format of the dataset was written down."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.data.file_index import NOTHING_KNOWN, Fact, FileIndex, each_read
from semiseg.data.mask_format import CURE, WHITE, MaskFormat, agree, read_format
from semiseg.data.mask_labels import TRANSPARENT
from semiseg.data.mask_pixels import MaskPixels, read_pixels
from semiseg.data.mask_reader import MaskReader
from semiseg.data.picture_files import BadFileError
from semiseg.splits.lists import spread

SAMPLES = 20
"""Number of masks with an alpha channel that are searched for transparent pixels."""

Found = TypeVar("Found")


class DifferingMasks(NamedTuple):
    """Masks that differ from the others.

    Args:
        faults: reason for each id.
        cure: advice for all of them; empty without any.
    """

    faults: Mapping[str, str]
    cure: str


def disagreeing(
    reader: MaskReader,
    masks: Mapping[str, Path],
    counts: Mapping[str, Mapping[int, int]],
    index: FileIndex = NOTHING_KNOWN,
) -> DifferingMasks:
    """Find the masks that are read by numbers and differ from the others in a way that changes what numbers mean.

    Headers are read; masks are decoded only where palettes differ, to see whether the indices occur in question.

    Args:
        reader: reader of the masks. One with a format compares each file by itself, and one by colors reads what a
            viewer shows, so nothing is compared then.
        masks: mask file of each id; those that cannot be read are left out.
        counts: number of pixels of each label in these masks.
        index: headers and indices that are known already.
    """
    if reader.by_color or reader.format is not None:
        return DifferingMasks({}, "")
    by_id = _formats(masks, index)
    white = reader.white or _white(by_id, counts)
    formats = {
        masks[image_id]: replace(each, white=white) if each.bits == 1 else each
        for image_id, each in by_id.items()
    }
    if not formats:
        return DifferingMasks({}, "")
    common, faults = agree(formats)
    palettes = {image_id: masks[image_id] for image_id, each in by_id.items() if each.kind == "palette"}
    if faults and palettes:
        used = each_read(
            lambda path: _attempt(index, path, "indices", _indices),
            palettes,
            lambda path: index.known("masks", path, "indices"),
        )
        restricted = {masks[i]: formats[masks[i]].with_indices(set(each)) for i, each in used.items()}
        common, faults = agree(formats | restricted)
    found = {image_id: faults[path] for image_id, path in masks.items() if path in faults}
    undecided = any(each.bits == 1 and each.white is None for each in formats.values())
    tied = 2 * len(found) >= len(by_id)
    return DifferingMasks(found, _cure(reader, common, undecided, tied) if found else "")


def _cure(reader: MaskReader, common: MaskFormat, undecided: bool, tied: bool) -> str:
    """Advice: settings that read palettes by their colors, where most masks have one; or what decides white.

    Args:
        reader: reader of the masks.
        common: format that most masks share.
        undecided: whether white of one bit may mean 1 or 255.
        tied: whether as many masks differ as agree, so that none has the usual colors.
    """
    colors: dict[int, list[str]] = {}
    for index, color in common.colors.items():
        colors.setdefault(reader.numbers.get(index, IGNORE_INDEX), []).append(f'"{color}"')
    void = colors.pop(IGNORE_INDEX, [])
    if tied or common.kind != "palette" or colors.keys() != set(reader.numbers.values()):
        white = " White of one bit means 255 where 255 is a class: dataset.values=[0,255]."
        return f"{CURE}.{white if undecided else ''}"
    values = [each[0] if len(each) == 1 else f"[{','.join(each)}]" for _, each in sorted(colors.items())]
    classes = [
        f"{reader.classes[label]} {' or '.join(each).replace(chr(34), '')}"
        for label, each in sorted(colors.items())
    ]
    return (
        f"{CURE}. By the colors of most of them ({', '.join(classes)}): 'dataset.values=[{','.join(values)}]'"
        + (f" 'dataset.void=[{','.join(void)}]'" if void else "")
    )


def transparent_note(
    reader: MaskReader, masks: Mapping[str, Path], index: FileIndex = NOTHING_KNOWN
) -> str | None:
    """Warning about fully transparent pixels that no setting names; ``None`` where there are none.

    Masks with an alpha channel are searched until one has such pixels, ``SAMPLES`` at most.
    """
    if reader.names_transparent or reader.format is not None:
        return None
    alpha = sorted(image_id for image_id, each in _formats(masks, index).items() if each.alpha)
    for image_id in spread(alpha, min(SAMPLES, len(alpha))):
        pixels = _pixels(masks[image_id])
        if pixels is not None and pixels.transparent is not None:
            return (
                f"fully transparent pixels of masks count as not labeled ({pixels.transparent.mean():.2%} of "
                f'{masks[image_id]}); where they are a class, write "{TRANSPARENT}" into dataset.values, else into '
                "dataset.void"
            )
    return None


def _white(formats: Mapping[str, MaskFormat], counts: Mapping[str, Mapping[int, int]]) -> int | None:
    """Number that white of one bit means: 1 unless other masks hold 255, beside which it may mean either."""
    deeper = [image_id for image_id, each in formats.items() if each.kind != "palette" and each.bits > 1]
    return None if any(counts.get(image_id, {}).get(WHITE) for image_id in deeper) else 1


def _indices(path: Path) -> frozenset[int]:
    return frozenset(np.unique(read_pixels(path).codes).tolist())


def _formats(masks: Mapping[str, Path], index: FileIndex) -> dict[str, MaskFormat]:
    """Format of each mask that can be read."""
    return each_read(
        lambda path: _attempt(index, path, "format", read_format),
        masks,
        lambda path: index.known("masks", path, "format"),
    )


def _attempt(index: FileIndex, path: Path, fact: Fact, read: Callable[[Path], Found]) -> Found | None:
    try:
        return index.recall("masks", path, fact, lambda: read(path))
    except BadFileError:
        return None


def _pixels(path: Path) -> MaskPixels | None:
    try:
        return read_pixels(path)
    except BadFileError:
        return None


def reader_of(dataset: Any) -> MaskReader | None:
    """Reader of a dataset's masks; ``None`` for one that has none."""
    reader = getattr(dataset, "mask_reader", None)
    return reader if isinstance(reader, MaskReader) else None
