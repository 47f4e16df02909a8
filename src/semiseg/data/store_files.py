"""The files of a store of decoded images: flat files of pixels, their indexes, and the lock."""

import json
import logging
import os
import sys
import time
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, NamedTuple

import cv2
import numpy as np
import PIL

from semiseg.contracts.dataset import Array
from semiseg.data.picture_facts import ImageFacts, MaskFacts, image_facts, mask_facts
from semiseg.files import remove_temporaries, sync_directory, temporary, write_text
from semiseg.locks import LOCK, claim

FORMAT = 1
DECODER = f"pillow {PIL.__version__}, opencv {cv2.__version__}, reading 2"
"""Decoders of the pixels, and how semiseg reads them; what others have decoded is decoded anew.

They may round differently, and "reading 2" refuses files that were read wrongly before, such as images of 16 bits.
"""

Kind = Literal["images", "masks"]
Facts = ImageFacts | MaskFacts
CHANNELS: dict[Kind, int] = {"images": 3, "masks": 1}
PART_BYTES = 2**30
CACHE_VARIABLE = "SEMISEG_CACHE"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stamp:
    """Facts by which a changed file is recognized.

    Args:
        file: absolute path.
        size: number of bytes.
        mtime_ns: time of the last change in nanoseconds, which an archive may have set.
        ctime_ns: time of the last change of the file's status, which nothing can set. Equal stamps may differ in it,
            since it also changes with a name or with permissions.
    """

    file: str
    size: int
    mtime_ns: int
    ctime_ns: int = field(default=0, compare=False)


class PixelEntry(NamedTuple):
    """Place of the pixels of a file.

    Args:
        part: name of the flat file.
        offset: place of the first byte.
        height: number of rows.
        width: number of columns.
        facts: facts about the pixels; ``None`` in a store of an earlier version, until it is completed.
        status: earliest and latest status time of the file with which these are its pixels.
    """

    part: str
    offset: int
    height: int
    width: int
    facts: Facts | None = None
    status: tuple[int, int] = (0, 0)

    def is_of(self, key: Stamp) -> bool:
        """Whether the status of the file tells that it has not been replaced."""
        return self.status[0] <= key.ctime_ns <= self.status[1]


StoreIndex = dict[Stamp, PixelEntry]


def cache_folder(given: str | None) -> Path:
    """Return the folder of everything that can be made again: as given, else SEMISEG_CACHE, else the platform's."""
    if given or (given := os.environ.get(CACHE_VARIABLE)):
        return Path(given).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "semiseg"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semiseg"


def stamp(file: str) -> Stamp | None:
    """Stamp of a file by its absolute path; ``None`` where there is none."""
    try:
        status = os.stat(file)  # noqa: PTH116 - a path object each takes longer than the call
    except OSError:
        return None
    return Stamp(file, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def read_index(folder: Path, kind: Kind) -> StoreIndex:
    """Read the entries of a kind; parts that are cut off, or that another decoder made, are left out."""
    index: StoreIndex = {}
    for path in sorted(folder.glob(f"{kind}-*.json")):
        index |= _read_part(path)
    return index


def _read_part(path: Path) -> StoreIndex:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sound = path.with_suffix(".bin").stat().st_size == content["bytes"]
        written = path.stat().st_mtime_ns
    except (OSError, ValueError, KeyError):
        return {}
    if not sound or (content["format"], content["decoder"]) != (FORMAT, DECODER):
        return {}
    # A store of an earlier version has no facts.
    facts = content.get("facts") or [None] * len(content["files"])
    # Nor does it say when the status of a file changed last; that was before the index was written.
    status = content.get("status") or [(0, written)] * len(content["files"])
    return {
        Stamp(file, size, mtime): PixelEntry(
            path.stem, offset, height, width, _facts((height, width), row), tuple(times)
        )
        for (file, size, mtime, offset, height, width, _), row, times in zip(
            content["files"], facts, status, strict=True
        )
    }


def _facts(size: tuple[int, int], row: list[Any] | None) -> Facts | None:
    """Read the facts of an index: a digest, then a small picture as text, or pairs of label and count."""
    if row is None:
        return None
    digest, rest = row
    if isinstance(rest, str):
        return ImageFacts(size, digest, b64decode(rest))
    return MaskFacts(size, digest, dict(rest))


def _facts_row(facts: Facts | None) -> list[Any] | None:
    if facts is None:
        return None
    if isinstance(facts, ImageFacts):
        return [facts.digest, b64encode(facts.small).decode()]
    return [facts.digest, list(facts.counts.items())]


def forget(folder: Path, stamps: set[Stamp]) -> None:
    """Remove files from the indexes, so that they are decoded anew; the caller holds the lock."""
    for path in folder.glob("*-*.json"):
        index = _read_part(path)
        if stamps & index.keys():
            left = {key: entry for key, entry in index.items() if key not in stamps}
            _write_index(path, left, path.with_suffix(".bin").stat().st_size)


def confirm(folder: Path, stamps: Collection[Stamp]) -> None:
    """Note the status of files whose pixels were found equal to the stored ones; the caller holds the lock."""
    now = {key: (key.ctime_ns, key.ctime_ns) for key in stamps}
    for path in folder.glob("*-*.json"):
        index = _read_part(path)
        if now.keys() & index.keys():
            noted = {key: entry._replace(status=now.get(key, entry.status)) for key, entry in index.items()}
            _write_index(path, noted, path.with_suffix(".bin").stat().st_size)


def complete(folder: Path, tick: Callable[[], None]) -> None:
    """Add the facts that a store of an earlier version lacks, from its pixels; the caller holds the lock.

    Args:
        folder: folder of the store.
        tick: function called before each file. It may raise; parts completed before are kept.
    """
    for path in sorted(folder.glob("*-*.json")):
        index = _read_part(path)
        if not any(entry.facts is None for entry in index.values()):
            continue
        kind: Kind = "images" if path.name.startswith("images-") else "masks"
        parts, whole = PartReader(folder), {}
        for key, entry in index.items():
            tick()
            whole[key] = entry._replace(facts=stored_facts(parts, kind, entry))
        _write_index(path, whole, path.with_suffix(".bin").stat().st_size)


def stored_facts(parts: "PartReader", kind: Kind, entry: PixelEntry) -> Facts | None:
    """Facts about stored pixels, computed where the index has none; ``None`` where the part has been removed."""
    if entry.facts is not None:
        return entry.facts
    array = parts.read(kind, entry)
    return None if array is None else pixel_facts(kind, array)


def pixel_facts(kind: Kind, array: Array) -> Facts:
    """Facts about a decoded image or label map."""
    return image_facts(array) if kind == "images" else mask_facts(array)


def remove_outdated(folder: Path) -> None:
    """Remove temporary files and parts whose files have all changed; the caller holds the lock."""
    remove_temporaries(folder)
    for path in folder.glob("*-*.bin"):
        listing = path.with_suffix(".json")
        if not any(stamp(key.file) == key for key in _read_part(listing)):
            listing.unlink(missing_ok=True)
            path.unlink()


def _write_index(path: Path, index: StoreIndex, size: int) -> None:
    head = {"format": FORMAT, "decoder": DECODER, "bytes": size}
    rows = []
    for key, entry in index.items():
        # The last column is for earlier versions, which share the store: they read the labels of a mask there.
        labels = list(entry.facts.counts) if isinstance(entry.facts, MaskFacts) else []
        place = entry.offset, entry.height, entry.width
        rows.append([key.file, key.size, key.mtime_ns, *place, labels])
    files = ",\n".join(map(json.dumps, rows))
    facts = ",\n".join(json.dumps(_facts_row(entry.facts)) for entry in index.values())
    status = json.dumps([entry.status for entry in index.values()])
    lists = f'"files": [\n{files}\n], "facts": [\n{facts}\n], "status": {status}'
    write_text(path, f"{json.dumps(head)[:-1]}, {lists}}}\n")


class PartWriter:
    """Append arrays to flat files of limited size; each is complete, synced and indexed, or not there.

    Args:
        folder: folder of the store; the caller holds its lock.
        kind: kind of the arrays.
        limit: number of bytes after which the next part begins; a kill loses the unfinished part.
    """

    def __init__(self, folder: Path, kind: Kind, limit: int = PART_BYTES) -> None:
        self._folder, self._kind, self._limit = folder, kind, limit
        self._file: BinaryIO | None = None
        self._path = Path()
        self._index: StoreIndex = {}
        self._size = 0

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or not issubclass(kind, OSError):
            self.seal()
        elif self._file is not None:
            with suppress(OSError):  # closing writes the rest, which a full disk refuses again
                self._file.close()
            temporary(self._path).unlink(missing_ok=True)

    def add(self, key: Stamp, array: Array, facts: Facts) -> None:
        """Append one array, ``(H, W, 3)`` or ``(H, W) uint8``, with the facts about it."""
        if self._file is not None and self._size + array.nbytes > self._limit:
            self.seal()
        if self._file is None:
            self._path = self._folder / f"{self._kind}-{uuid.uuid4().hex[:12]}.bin"
            self._file = temporary(self._path).open("wb")
            self._index, self._size = {}, 0
        self._file.write(np.ascontiguousarray(array).data)
        times = key.ctime_ns, key.ctime_ns
        self._index[key] = PixelEntry(
            self._path.stem, self._size, array.shape[0], array.shape[1], facts, times
        )
        self._size += array.nbytes

    def seal(self) -> None:
        """Finish the open part: its pixels are on the disk before its index names them."""
        if self._file is None:
            return
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        self._file = None
        temporary(self._path).replace(self._path)
        sync_directory(self._folder)
        _write_index(self._path.with_suffix(".json"), self._index, self._size)


class PartReader:
    """Read arrays out of flat files through memory maps, which every process opens for itself.

    Args:
        folder: folder of the store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._maps: dict[str, Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_maps": {}}

    def read(self, kind: Kind, entry: PixelEntry) -> Array | None:
        """Return a copy of an array; ``None`` where its part has been removed."""
        if entry.part not in self._maps:
            try:
                self._maps[entry.part] = np.memmap(self.folder / f"{entry.part}.bin", np.uint8, "r")
            except OSError:
                return None
        shape = (entry.height, entry.width, *([3] if kind == "images" else []))
        end = entry.offset + entry.height * entry.width * CHANNELS[kind]
        return np.array(self._maps[entry.part][entry.offset : end], subok=False).reshape(shape)


@contextmanager
def locked(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Keep other processes from writing into a store; the lock of a killed process is free.

    Args:
        folder: folder of the store.
        waiting: function called every fifth of a second while another process holds the lock; it may raise.
    """
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        announced = False
        while owner := claim(file):
            if not announced:
                logger.info("Waiting for %s, which fills %s.", owner, folder)
            announced = True
            waiting()
            time.sleep(0.2)
        yield
