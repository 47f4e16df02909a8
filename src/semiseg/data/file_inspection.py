"""Inspection of files: each by itself, and the masks beside each other and their images."""

import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from semiseg.contracts.dataset import SegDataset
from semiseg.data.exif_turns import frame_of
from semiseg.data.file_index import MAX_THREADS, SAMPLES, FileIndex
from semiseg.data.garbage import without_collection
from semiseg.data.index_file import Role
from semiseg.data.mask_comparison import compare_masks
from semiseg.data.mask_reader import OutsideClassesError
from semiseg.data.picture_facts import ImageFacts, MaskFacts, PictureFacts, image_facts, mask_facts
from semiseg.data.picture_files import BadFileError, exif_of
from semiseg.splits.lists import shown

SHOWN_VALUES = 10

logger = logging.getLogger(__name__)


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


@runtime_checkable
class Stored(Indexed, Protocol):
    """A dataset whose pixels were decoded before, as ``StoredDataset`` has them."""

    @property
    def source(self) -> FileBacked:
        """The dataset that reads the files."""
        ...

    def compare(self, tick: Callable[[], None]) -> None:
        """Decode the files again and give up what differs; ``tick`` is called before each and may raise."""
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


class FilesFound(NamedTuple):
    """Result of ``inspect_files``.

    Args:
        faults: files that cannot be used.
        notes: sentences about all files, and about what nobody can prove.
        images: facts about each image that could be read.
        masks: facts about each mask that could be read.
    """

    faults: tuple[FileFault, ...]
    notes: tuple[str, ...]
    images: Mapping[str, ImageFacts]
    masks: Mapping[str, MaskFacts]


class _Seen(NamedTuple):
    faults: list[FileFault]
    image: ImageFacts | None
    mask: MaskFacts | None


def inspect_files(
    dataset: FileBacked,
    images: Collection[str],
    masks: Collection[str],
    progress: Callable[[int, int], None],
    seed: int = 0,
) -> FilesFound:
    """Read images and masks in threads, since PIL decodes outside of Python's global lock, and compare the masks.

    Files that earlier calls have found sound, and that have not changed since, are not opened but for a sample, see
    ``FileIndex``. If the sample shows other contents than were found then, all are opened.

    Args:
        dataset: dataset that reads the files.
        images: ids whose images are read.
        masks: ids whose masks are read.
        progress: function that gets the numbers of ids done and of all.
        seed: seed of the sample.
    """
    images, masks = dict.fromkeys(images), dict.fromkeys(masks)
    pairs = {image_id: dataset.files(image_id) for image_id in (*images, *masks)}
    index = open_index(dataset, pairs, images, masks)
    seen = _recalled(pairs, images, masks, index)
    if wrong := outdated(dataset, seen, index, seed):
        logger.warning(
            "%s has other contents than an earlier start found, though its size and times are the same: all files "
            "of dataset %s are opened again.",
            *(wrong, dataset.info.name),
        )
        index.forget()
        seen = {}
        if isinstance(dataset, Stored):
            dataset.compare(lambda: progress(0, len(pairs)))
    pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1))
    try:
        new = [image_id for image_id in pairs if image_id not in seen]
        results = pool.map(lambda each: _inspect(dataset, each, each in images, each in masks, index), new)
        for done, (image_id, result) in enumerate(zip(new, results, strict=True), start=len(seen) + 1):
            seen[image_id] = result
            progress(done, len(pairs))
    finally:
        pool.shutdown(cancel_futures=True)
    return _found(dataset, pairs, {image_id: seen[image_id] for image_id in pairs}, index)


@without_collection()
def _found(
    dataset: FileBacked,
    pairs: Mapping[str, tuple[Path, Path | None]],
    seen: Mapping[str, _Seen],
    index: FileIndex,
) -> FilesFound:
    """Compare what was read of all files, keep it in the index, and gather faults and facts."""
    comparable = {
        image_id: each.mask for image_id, each in seen.items() if each.mask is not None and not each.faults
    }
    files = {
        image_id: (pairs[image_id][0], pairs[image_id][1] or pairs[image_id][0]) for image_id in comparable
    }
    counts = {image_id: mask.counts for image_id, mask in comparable.items()}
    compared = compare_masks(dataset, files, counts, index)
    index.save()
    for image_id, each in seen.items():
        turned = image_id in compared.against
        if reason := _size_mismatch(dataset, each, turned) or compared.faults.get(image_id):
            each.faults.append(FileFault(image_id, str(_both(dataset, image_id)[1]), reason))
    faults = tuple(fault for each in seen.values() for fault in each.faults)
    sound = [each.mask for each in seen.values() if each.mask is not None]
    return FilesFound(
        faults,
        (*_outside(faults, sound), *compared.notes),
        {image_id: each.image for image_id, each in seen.items() if each.image is not None},
        {image_id: each.mask for image_id, each in seen.items() if each.mask is not None},
    )


def facts_of(dataset: SegDataset, ids: Sequence[str]) -> dict[str, PictureFacts]:
    """Return the facts about images and their masks by id; files that cannot be read are left out."""
    if not isinstance(dataset, FileBacked):
        return {each: joined(facts_of_image(dataset, each), facts_of_mask(dataset, each)) for each in ids}
    found = inspect_files(dataset, ids, ids, lambda done, total: None)
    return {each: joined(image, found.masks.get(each)) for each, image in found.images.items()}


def open_index(
    dataset: FileBacked,
    pairs: Mapping[str, tuple[Path, Path | None]],
    images: Collection[str],
    masks: Collection[str],
) -> FileIndex:
    """Open the index of the files of some images and masks."""
    files: dict[Role, list[Path]] = {
        "images": [pairs[each][0] for each in images],
        "masks": [mask for each in masks if (mask := pairs[each][1]) is not None],
    }
    return FileIndex.of(dataset.source if isinstance(dataset, Stored) else dataset, files)


@without_collection()
def _recalled(
    pairs: Mapping[str, tuple[Path, Path | None]],
    images: Collection[str],
    masks: Collection[str],
    index: FileIndex,
) -> dict[str, _Seen]:
    """What the index knows of images and masks, without those of which something has to be read."""
    found: dict[str, _Seen] = {}
    for image_id, (image_file, mask_file) in pairs.items():
        image = index.known("images", image_file, "pixels") if image_id in images else None
        mask = None
        if image_id in masks:
            mask = None if mask_file is None else index.known("masks", mask_file, "pixels")
            if mask is None:
                continue
        if image is not None or image_id not in images:
            found[image_id] = _Seen([], image, mask)
    return found


def outdated(dataset: FileBacked, seen: Mapping[str, _Seen], index: FileIndex, seed: int) -> Path | None:
    """Read a sample of the files that an index knows; return one that is not as it says, if there is any."""
    source = dataset.source if isinstance(dataset, Stored) else dataset
    exif = exif_of(source)
    for image_id in random.Random(seed).sample(list(seen), min(SAMPLES, len(seen))):
        each = seen[image_id]
        image, mask = source.files(image_id)
        try:
            if each.image is not None:
                found = facts_of_image(source, image_id)
                if not index.confirms("images", image, found, frame_of(image, exif)):
                    return image
            if each.mask is not None and mask is not None:
                drawn = facts_of_mask(source, image_id)
                if not index.confirms("masks", mask, drawn, frame_of(mask, exif)):
                    return mask
        except Exception:  # a file that was sound before cannot be read
            return image
    return None


def _inspect(
    dataset: FileBacked, image_id: str, with_image: bool, with_mask: bool, index: FileIndex
) -> _Seen:
    image_file, mask_file = dataset.files(image_id)
    faults: list[FileFault] = []
    image, mask = None, None
    if with_image:
        try:
            image = index.recall("images", image_file, "pixels", lambda: facts_of_image(dataset, image_id))
        except Exception as error:
            faults.append(_fault(image_id, image_file, error))
    if with_mask:
        try:
            mask = index.recall(
                "masks", mask_file or image_file, "pixels", lambda: facts_of_mask(dataset, image_id)
            )
            if mask is None:
                faults.append(FileFault(image_id, str(mask_file or image_file), "mask missing"))
        except Exception as error:
            faults.append(_fault(image_id, mask_file or image_file, error))
    return _Seen(faults, image, mask)


def _both(dataset: FileBacked, image_id: str) -> tuple[Path, Path]:
    image, mask = dataset.files(image_id)
    return image, mask or image


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


def joined(image: ImageFacts, mask: MaskFacts | None) -> PictureFacts:
    """Facts about an image and its mask together."""
    drawn = (None, None) if mask is None else (mask.digest, mask.counts)
    return PictureFacts(image.size, image.digest, image.small, *drawn)


def _fault(image_id: str, file: Path, error: Exception) -> FileFault:
    if isinstance(error, OutsideClassesError):
        return FileFault(image_id, str(error.file), error.reason, error.pixels, error.size)
    if isinstance(error, BadFileError):
        return FileFault(image_id, str(error.file), error.reason)
    return FileFault(image_id, str(file), f"{type(error).__name__}: {error}")


def _size_mismatch(dataset: FileBacked, seen: _Seen, turned: bool) -> str | None:
    if seen.image is None or seen.mask is None:
        return None
    image, mask = seen.image.size, seen.mask.size
    if dataset.info.label_size(*image) == mask:
        return None
    text = f"mask is {mask[1]}x{mask[0]}, its image {image[1]}x{image[0]} (width x height)"
    if turned and exif_of(dataset) == "apply":
        text += (
            "; the rotation in the image's EXIF data is applied, and the mask was drawn on the stored pixels. "
            "dataset.exif=ignore reads all images in the other way (`semiseg init --exif ignore`)"
        )
    elif turned:
        text += "; EXIF data is ignored (dataset.exif=ignore), and the mask was drawn on the upright image"
    return text


def _outside(faults: Sequence[FileFault], sound: Sequence[MaskFacts]) -> list[str]:
    """Sentence about the values that are no class, with their shares of all pixels of all masks."""
    outside: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for fault in faults:
        outside.update(fault.outside)
        files.update(dict.fromkeys(fault.outside, 1))
    if not outside:
        return []
    total = sum(sum(mask.counts.values()) for mask in sound) + sum(fault.pixels for fault in faults)
    some = [
        f"{value} ({count / total:.2%} of the pixels of all masks, in {files[value]} masks)"
        for value, count in outside.most_common(SHOWN_VALUES)
    ]
    return [
        f"Values that stand in masks and in no class: {shown(some, SHOWN_VALUES)}. Name them in dataset.values, or in "
        'dataset.void where they mean "not labeled".'
    ]
