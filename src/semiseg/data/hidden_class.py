"""Masks in which 255, or what is transparent, is likely a class, although it is read as "not labeled"."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple, Protocol, TypeGuard, runtime_checkable

from semiseg.contracts.dataset import DatasetInfo, SegDataset, Split
from semiseg.data.mask_agreement import reader_of
from semiseg.data.mask_pixels import read_pixels
from semiseg.data.picture_facts import PictureFacts

CHANCE = 0.01
"""Largest chance by which, among three classes or more, no mask of the last one would hold 255."""

RARE, MORE = 0.001, 10
"""Share of the labeled pixels below which a class is rare, and how many pixels of 255 for each of it are too many."""


@runtime_checkable
class OpenValues(SegDataset, Protocol):
    """A dataset of files whose settings may leave open what 255 means."""

    def files(self, image_id: str) -> tuple[Path, Path | None]:
        """Image file and mask file of an id; ``None`` where no mask is expected."""
        ...

    def values_setting(self, changed: Mapping[int, str]) -> str | None:
        """The setting that gives some classes other values; ``None`` where the settings say what 255 means.

        Args:
            changed: text of the value of a class, by its position.
        """
        ...


class _Masks(NamedTuple):
    """Masks by what they hold.

    Args:
        pixels: number of pixels of each label in all masks that were read.
        read: number of these masks.
        last: ids of those with the last class.
        void: ids of those with 255 beside other labels.
    """

    pixels: Mapping[int, int]
    read: int
    last: Sequence[str]
    void: Sequence[str]


def setting_for_255(dataset: SegDataset) -> str | None:
    """Return the setting that reads 255 as the last class; ``None`` where the settings say what 255 means."""
    changed = {dataset.info.num_classes - 1: "255"}
    return dataset.values_setting(changed) if isinstance(dataset, OpenValues) else None


def hidden_class(dataset: SegDataset, split: Split, facts: Mapping[str, PictureFacts]) -> str | None:
    """Return why 255 or what is transparent is likely a class, and the settings that say what it is.

    It is ``None`` where nothing shows it. Nothing is looked for where the settings give values, values that mean "not
    labeled", or a format of the masks.

    Args:
        dataset: dataset of the split.
        split: the split.
        facts: facts about its images and masks.
    """
    if not _says_nothing(dataset):
        return None
    masks = _masks(dataset.info, split, facts)
    return _two_ways(dataset, masks) or _rare(dataset, masks) or _missing(dataset, split, masks)


def transparent_class(dataset: SegDataset, split: Split, facts: Mapping[str, PictureFacts]) -> str | None:
    """Return why what is transparent is likely a class; see ``hidden_class``."""
    if not _says_nothing(dataset):
        return None
    masks = _masks(dataset.info, split, facts)
    if not masks.void or not _transparent(dataset, masks.void[0]):
        return None
    return _missing(dataset, split, masks)


def _says_nothing(dataset: SegDataset) -> TypeGuard[OpenValues]:
    """Whether no setting says what 255 means; bands are 255 too where a channel has no value."""
    reader = reader_of(dataset)
    if not isinstance(dataset, OpenValues) or reader is None or reader.format is not None:
        return False
    return dataset.values_setting({}) is not None and dataset.info.bands is None


def _masks(info: DatasetInfo, split: Split, facts: Mapping[str, PictureFacts]) -> _Masks:
    ids = [each for each in (*split.labeled, *split.val, *split.test) if each in facts]
    counts = {each: own for each in ids if (own := facts[each].counts)}
    pixels: Counter[int] = Counter()
    for own in counts.values():
        pixels.update(own)
    return _Masks(
        dict(pixels),
        len(counts),
        [each for each, own in counts.items() if info.num_classes - 1 in own],
        [each for each, own in counts.items() if info.ignore_index in own and len(own) > 1],
    )


def _two_ways(dataset: OpenValues, masks: _Masks) -> str | None:
    """Reason where some masks hold the last class, others 255, and none both."""
    last = dataset.info.num_classes - 1
    if not masks.last or not masks.void or not set(masks.last).isdisjoint(masks.void):
        return None
    chance = prod(1 - len(masks.last) / (masks.read - number) for number in range(len(masks.void)))
    if (last > 1 and chance > CHANCE) or _transparent(dataset, masks.void[0]):
        return None
    name = dataset.info.classes[last]
    return (
        f"masks seem to be written in two ways: {last} ({name}) and no 255 in {len(masks.last):,} of them, for "
        f"example that of {masks.last[0]}; 255 and no {last} in {len(masks.void):,}, for example that of "
        f"{masks.void[0]}. If 255 means {name} as {last} does, add "
        f'{dataset.values_setting({last: f"[{last},255]"})}; if it means "not labeled", add dataset.void=[255]'
    )


def _rare(dataset: OpenValues, masks: _Masks) -> str | None:
    """Reason where the second of two classes is in a few pixels, and most masks hold more of 255."""
    info, pixels = dataset.info, masks.pixels
    last, void = pixels.get(1, 0), pixels.get(info.ignore_index, 0)
    labeled = sum(pixels.values()) - void
    if info.num_classes != 2 or not last or last >= RARE * labeled or void < MORE * last:
        return None
    if 2 * len(masks.void) <= masks.read or _transparent(dataset, masks.void[0]):
        return None
    name = info.classes[1]
    return (
        f"{name} has {last:,} pixels in all masks ({last / labeled:.3%} of those that are labeled), while 255 "
        f'("not labeled") has {void:,}, in {len(masks.void):,} of {masks.read:,} masks. If 255 means {name} in your '
        f'masks, add {setting_for_255(dataset)}, and masks with 1 are named; if it means "not labeled", add '
        "dataset.void=[255]"
    )


def _missing(dataset: OpenValues, split: Split, masks: _Masks) -> str | None:
    """Reason where one class alone is in no mask at all, and 255 or what is transparent may be it."""
    info = dataset.info
    missing = [label for label in range(info.num_classes) if not masks.pixels.get(label)]
    unread = any(dataset.files(each)[1] is not None for each in split.never_labeled)
    if len(missing) != 1 or not masks.void or unread:
        return None
    transparent = _transparent(dataset, masks.void[0])
    if not transparent and missing != [info.num_classes - 1]:
        return None
    name, found = info.classes[missing[0]], "transparent" if transparent else "255"
    seen = "are fully transparent pixels" if transparent else "is 255"
    return (
        f'no mask shows {name}, while there {seen} ("not labeled") in {len(masks.void):,} of {masks.read:,} masks, '
        f"for example that of {masks.void[0]}. If {'what is transparent' if transparent else '255'} means {name}, add "
        f'{dataset.values_setting({missing[0]: found})}; if it means "not labeled", add dataset.void=[{found}]'
    )


def _transparent(dataset: OpenValues, image_id: str) -> bool:
    """Whether a mask has fully transparent pixels, which are read as 255."""
    file = dataset.files(image_id)[1]
    return file is not None and read_pixels(file).transparent is not None
