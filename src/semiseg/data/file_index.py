"""Index of the files of a dataset: what earlier starts found in them, so that a start opens only what has changed."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args, runtime_checkable

from semiseg.contracts.dataset import DatasetInfo, Part
from semiseg.data.garbage import without_collection
from semiseg.data.index_file import ROLES, Entries, Known, PictureFrame, Role, read_entries, write_entries
from semiseg.data.store_files import cache_folder

SAMPLES = 16
"""Number of images that each start opens again with their masks, to see that the index is right about them."""

CHECKED = "checked"
"""Folder of the indexes in the cache."""

MAX_THREADS = 16
Fact = Literal["pixels", "frame", "format", "indices"]
Found = TypeVar("Found")
Key = TypeVar("Key")

logger = logging.getLogger(__name__)


@runtime_checkable
class Identified(Protocol):
    """A dataset whose settings say which pixels it makes of a file, as ``FileDataset`` does."""

    info: DatasetInfo
    cache_dir: str | None

    def ids(self, part: Part) -> tuple[str, ...]:
        """Ids of one part."""
        ...

    def files(self, image_id: str) -> tuple[Path, Path | None]:
        """Image file and mask file of an id."""
        ...

    def pixel_options(self) -> Mapping[str, Any]:
        """Settings that change the pixels of a given file, as plain values."""
        ...


def place_of(dataset: Identified, kind: str) -> Path:
    """Place in the cache of what is kept about a dataset: equal for the same files and settings that change pixels."""
    names = (
        str(path)
        for part in get_args(Part)
        for image_id in dataset.ids(part)
        for path in dataset.files(image_id)
        if path is not None
    )
    folders = {name.rpartition(os.sep)[0] for name in names}
    key = {
        "class": f"{type(dataset).__module__}.{type(dataset).__qualname__}",
        "root": os.path.commonpath([Path(folder).resolve() for folder in folders]),
        "options": dict(dataset.pixel_options()),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    name = "".join(letter if letter.isalnum() else "_" for letter in dataset.info.name)
    return cache_folder(dataset.cache_dir) / kind / f"{name}-{digest}"


class FileIndex:
    """Facts about files by their path, size and times, kept between starts.

    Args:
        path: file of the index; ``None`` keeps nothing.
        files: files that are asked about, by role.
    """

    @without_collection()
    def __init__(self, path: Path | None, files: Mapping[Role, Iterable[Path]]) -> None:
        self._path = path
        self._folders: dict[str, str] = {}
        self._known: Entries = {role: {} for role in ROLES}
        self._others: Entries = {role: {} for role in ROLES} if path is None else read_entries(path)
        self._changed = False
        if path is not None:
            for role in ROLES:
                self._match(role, files.get(role, ()))

    @classmethod
    def of(cls, dataset: object, files: Mapping[Role, Iterable[Path]]) -> "FileIndex":
        """Open the index of a dataset; one that keeps nothing where its settings do not identify its pixels.

        Neither do those of images with bands, whose label maps depend on the image too.
        """
        if not isinstance(dataset, Identified) or dataset.info.bands is not None:
            return cls(None, files)
        return cls(place_of(dataset, CHECKED).with_suffix(".npz"), files)

    def _match(self, role: Role, files: Iterable[Path]) -> None:
        """Take over what is known of files that have not changed; of the others nothing is known yet."""
        before, known = self._others[role], self._known[role]
        for path in files:
            name = str(path)
            entry = before.pop(self._absolute(name), None)
            try:
                status = os.stat(name)  # noqa: PTH116 - a path object each takes longer than the call
            except OSError:
                continue
            now = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            known[name] = entry if entry is not None and entry.stamp == now else Known(now)

    def _absolute(self, name: str) -> str:
        """Path of a file by the real name of its folder, so that it is the same through any link."""
        folder, _, last = name.rpartition(os.sep)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder or (os.curdir if last == name else os.sep))
        return f"{self._folders[folder]}{os.sep}{last}"

    def known(self, role: Role, path: Path, fact: Fact) -> Any:
        """Return a fact about a file that does not have to be read for it; ``None`` without any."""
        entry = self._known[role].get(str(path))
        return None if entry is None else getattr(entry, fact)

    def recall(self, role: Role, path: Path, fact: Fact, read: Callable[[], Found]) -> Found:
        """Return a fact about a file, which is read where the index lacks it; raises what reading raises."""
        entry = self._known[role].get(str(path))
        if entry is not None and (known := getattr(entry, fact)) is not None:
            return known  # type: ignore[no-any-return]
        found = read()
        if entry is not None and found is not None:
            setattr(entry, fact, found)
            self._changed = True
        return found

    def confirms(self, role: Role, path: Path, pixels: Any, frame: PictureFrame) -> bool:
        """Whether a file that was read again is as the index says."""
        entry = self._known[role][str(path)]
        return entry.pixels == pixels and entry.frame in (None, frame)

    def forget(self) -> None:
        """Forget all facts, since one was wrong: every file is opened again."""
        for entries in self._known.values():
            for file, entry in entries.items():
                entries[file] = Known(entry.stamp)
        self._others = {role: {} for role in ROLES}
        self._changed = True

    def save(self) -> None:
        """Write the index if anything is new; a cache that cannot be written only costs time."""
        if self._path is None or not self._changed:
            return
        entries: Entries = {
            role: self._others[role]
            | {
                self._absolute(file): each
                for file, each in self._known[role].items()
                if each != Known(each.stamp)
            }
            for role in ROLES
        }
        try:
            write_entries(self._path, entries)
        except OSError as error:
            logger.info(
                "What was found in the files cannot be kept in %s (%s): the next start opens them again.",
                *(self._path, error.strerror or error),
            )
        self._changed = False


NOTHING_KNOWN = FileIndex(None, {})
"""An index without any file."""


@without_collection()
def each_read(
    read: Callable[[Key], Found | None], files: Mapping[str, Key], known: Callable[[Key], Found | None]
) -> dict[str, Found]:
    """Return what is known of each file by its id, else what reading it gives, in threads; ``None`` is left out."""
    found = {image_id: known(key) for image_id, key in files.items()}
    if new := [image_id for image_id, each in found.items() if each is None]:
        with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
            found |= zip(new, pool.map(lambda image_id: read(files[image_id]), new), strict=True)
    return {image_id: each for image_id, each in found.items() if each is not None}
