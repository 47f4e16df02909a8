"""Store of decoded pixels: files are decoded once, for all runs, and then read through memory maps."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from semiseg.contracts.dataset import Array, DatasetInfo, Part, SegDataset, Split
from semiseg.data.file_index import place_of
from semiseg.data.file_inspection import FileBacked, facts_of_image, facts_of_mask
from semiseg.data.mask_agreement import reader_of
from semiseg.data.picture_facts import ImageFacts, MaskFacts
from semiseg.data.picture_files import exif_of
from semiseg.data.store_files import (
    CHANNELS,
    Facts,
    Kind,
    PartReader,
    PixelEntry,
    Stamp,
    complete,
    locked,
    stamp,
    stored_facts,
)
from semiseg.data.store_fill import Wanted, differing, elsewhere, fill, stored_entries
from semiseg.errors import UserError


@runtime_checkable
class Storable(FileBacked, Protocol):
    """A dataset whose files may be stored decoded, such as ``FileDataset``."""

    cache: bool
    cache_dir: str | None

    def pixel_options(self) -> Mapping[str, Any]:
        """Settings that change the pixels of a given file, as plain values."""
        ...


class StoredDataset:
    """A dataset whose pixels come from a store, and from its files where the store does not hold them.

    Arrays are copies, equal to those from the files. In memory are only maps of the flat files, whose pages the
    system shares between processes and takes back when it needs room. Pickling passes their names on, not the maps.

    Args:
        dataset: dataset that reads the files.
        folder: folder of its store.
        entries: places of the pixels, by kind and id.
    """

    def __init__(
        self, dataset: FileBacked, folder: Path, entries: Mapping[Kind, Mapping[str, PixelEntry]]
    ) -> None:
        self.info: DatasetInfo = dataset.info
        self.skip_bad = dataset.skip_bad
        self.exif = exif_of(dataset)
        self.mask_reader = reader_of(dataset)
        self.folder = folder
        self._dataset = dataset
        self._entries = entries
        self._parts = PartReader(folder)

    def ids(self, part: Part) -> tuple[str, ...]:
        """Ids of one part."""
        return self._dataset.ids(part)

    def files(self, image_id: str) -> tuple[Path, Path | None]:
        """Image file and mask file of an id; ``None`` where no mask is expected."""
        return self._dataset.files(image_id)

    def image(self, image_id: str) -> Array:
        """Return the image, ``(H, W, 3) uint8`` RGB; raises what the dataset raises."""
        found = self._read("images", image_id)
        return self._dataset.image(image_id) if found is None else found

    def mask(self, image_id: str) -> Array | None:
        """Return the label map, ``(H, W) uint8`` with 255 ignored; ``None`` where the image has none."""
        found = self._read("masks", image_id)
        return self._dataset.mask(image_id) if found is None else found

    def image_facts(self, image_id: str) -> ImageFacts:
        """Facts about an image; no pixels of a stored one are read."""
        found = self._stored_facts("images", image_id)
        return found if isinstance(found, ImageFacts) else facts_of_image(self._dataset, image_id)

    def mask_facts(self, image_id: str) -> MaskFacts | None:
        """Facts about a mask; no pixels of a stored one are read. ``None`` where the image has none."""
        found = self._stored_facts("masks", image_id)
        return found if isinstance(found, MaskFacts) else facts_of_mask(self._dataset, image_id)

    @property
    def source(self) -> FileBacked:
        """The dataset that reads the files."""
        return self._dataset

    def compare(self, tick: Callable[[], None]) -> None:
        """Decode all stored files again; those that differ are forgotten, and read from their files from now on.

        Args:
            tick: function called before each file; it may raise.

        Raises:
            UserError: the store cannot be written.
        """
        stamps: Wanted = {
            kind: {image_id: key for image_id, key in found.items() if image_id in self._entries[kind]}
            for kind, found in _all_stamps(self._dataset, self._entries).items()
        }
        with writing(self.folder, tick):
            differing(self._dataset, self.folder, stamps, tick)
        self._entries = stored_entries(self.folder, stamps)

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels that come from the store."""
        return sum(
            entry.height * entry.width * CHANNELS[kind]
            for kind, entries in self._entries.items()
            for entry in entries.values()
        )

    def preload(self) -> bool:
        """Ask the system to read the flat files ahead, unless they are larger than half of the memory."""
        if self.nbytes > memory_bytes() // 2 or not hasattr(os, "posix_fadvise"):
            return False
        for name in {entry.part for entries in self._entries.values() for entry in entries.values()}:
            handle = os.open(self.folder / f"{name}.bin", os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_WILLNEED)
            os.close(handle)
        return True

    def _stored_facts(self, kind: Kind, image_id: str) -> Facts | None:
        entry = self._entries[kind].get(image_id)
        return None if entry is None else stored_facts(self._parts, kind, entry)

    def _read(self, kind: Kind, image_id: str) -> Array | None:
        entry = self._entries[kind].get(image_id)
        return None if entry is None else self._parts.read(kind, entry)


def stored(
    dataset: SegDataset, split: Split, tick: Callable[[], None] = lambda: None, *, filled: bool = True
) -> SegDataset:
    """Return a dataset with its pixels read from its store, which is filled with what a split needs.

    Stored files whose size, time of change and time of status are still the same are not opened; where only the
    status has changed, as with permissions, their pixels are compared. Bad files are left to
    ``check_files``, which reads them again.

    Args:
        dataset: dataset, which is returned as it is unless it is ``Storable`` and its ``cache`` is set.
        split: images that are needed, and masks.
        tick: function called before each file and while another process fills the store. It may raise; files
            decoded before are kept.
        filled: whether the store is filled first; False takes what it holds.

    Raises:
        UserError: the store cannot be written, or its disk has not enough room.
    """
    if not isinstance(dataset, Storable) or not dataset.cache:
        return dataset
    folder, wanted = store_folder(dataset), wanted_files(dataset, split)
    entries = stored_entries(folder, wanted)
    if filled and not _whole(entries, wanted):
        with writing(folder, tick):
            fill(dataset, folder, wanted, tick)
            complete(folder, tick)
        entries = stored_entries(folder, wanted)
    found = StoredDataset(dataset, folder, entries)
    found.preload()
    return found


def _whole(entries: Mapping[Kind, Mapping[str, PixelEntry]], wanted: Wanted) -> bool:
    """Whether a store holds all wanted files, and facts about each."""
    return all(
        len(entries[kind]) == len(stamps) and all(entry.facts for entry in entries[kind].values())
        for kind, stamps in wanted.items()
    )


@contextmanager
def writing(folder: Path, tick: Callable[[], None]) -> Iterator[None]:
    """Make a store's folder and keep other processes from writing into it.

    Raises:
        UserError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, tick):
            yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"decoded images cannot be stored in {folder}: {reason}. {elsewhere()}") from error


def store_folder(dataset: Storable) -> Path:
    """Folder of a dataset's store: equal for the same files and the same settings that change pixels."""
    return place_of(dataset, "decoded")


def wanted_files(dataset: FileBacked, split: Split) -> Wanted:
    """Existing files of a split: all images, and the masks of labeled, validation and test images."""
    masked = dict.fromkeys((*split.labeled, *split.val, *split.test))
    images = {image_id: dataset.files(image_id)[0] for image_id in (*masked, *split.unlabeled)}
    masks = {image_id: dataset.files(image_id)[1] for image_id in masked}
    return {"images": _stamps(images), "masks": _stamps(masks)}


def _all_stamps(dataset: FileBacked, entries: Mapping[Kind, Mapping[str, PixelEntry]]) -> Wanted:
    """Stamps of the files whose pixels are stored."""
    images = {image_id: dataset.files(image_id)[0] for image_id in entries["images"]}
    masks = {image_id: dataset.files(image_id)[1] for image_id in entries["masks"]}
    return {"images": _stamps(images), "masks": _stamps(masks)}


def _stamps(paths: Mapping[str, Path | None]) -> dict[str, Stamp]:
    """Stamps by real folder and name, so a file is the same through any link to its folder."""
    folders: dict[str, str] = {}
    stamps = {}
    for image_id, path in paths.items():
        if path is not None:
            folder, _, name = str(path).rpartition(os.sep)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder or os.curdir)
            if (found := stamp(f"{folders[folder]}/{name}")) is not None:
                stamps[image_id] = found
    return stamps


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or the limit of its container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no container, or no limit
            continue
    return total
