"""The file of an index of checked files: columns of numbers in one archive, whole or absent."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semiseg.data.garbage import without_collection
from semiseg.data.mask_format import MaskFormat
from semiseg.data.picture_facts import SIDE, ImageFacts, MaskFacts
from semiseg.data.store_files import DECODER
from semiseg.files import replacing

FORMAT = 1
Role = Literal["images", "masks"]
ROLES: tuple[Role, ...] = ("images", "masks")
Columns = dict[str, NDArray[Any]]


FileStamp = tuple[int, int, int]
"""Facts by which a changed file is recognized: bytes, time of change, time of the status, in nanoseconds."""


class PictureFrame(NamedTuple):
    """Height and width of a picture as it is read, and its orientation by EXIF."""

    size: tuple[int, int]
    orientation: int


@dataclass(slots=True)
class Known:
    """What is known of a file with a certain stamp; ``None`` where it has not been asked for.

    Args:
        stamp: stamp of the file when it was read.
        pixels: facts about its pixels.
        frame: size and orientation by its header.
        format: format of a mask.
        indices: indices that occur in a palette mask.
    """

    stamp: FileStamp
    pixels: ImageFacts | MaskFacts | None = None
    frame: PictureFrame | None = None
    format: MaskFormat | None = None
    indices: frozenset[int] | None = None


Entries = dict[Role, dict[str, Known]]
"""What is known of each file, by its role and absolute path."""


@without_collection()
def read_entries(path: Path) -> Entries:
    """Read an index; a missing, damaged or outdated one is empty."""
    try:
        with np.load(path, allow_pickle=False) as file:
            head = json.loads(bytes(file["head"]))
            if (head["format"], head["decoder"]) != (FORMAT, DECODER):
                return {role: {} for role in ROLES}
            formats = [_format(values) for values in head["formats"]]
            return {
                role: _entries(
                    {key.removeprefix(role): file[key] for key in file.files if key.startswith(role)}, formats
                )
                for role in ROLES
            }
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile):
        return {role: {} for role in ROLES}


def write_entries(path: Path, entries: Entries) -> None:
    """Replace an index; raises ``OSError`` where that cannot be done, and leaves the previous one."""
    places: dict[str, int] = {}
    columns: Columns = {}
    for role in ROLES:
        columns |= {f"{role}{key}": column for key, column in _columns(entries[role], places).items()}
    head = {"format": FORMAT, "decoder": DECODER, "formats": [json.loads(text) for text in places]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, head=_bytes(json.dumps(head).encode()), **columns)


def _columns(entries: Mapping[str, Known], places: dict[str, int]) -> Columns:
    """Write the entries of a role as columns; ``places`` collects their formats."""
    known, count = list(entries.values()), len(entries)
    pixels = [each.pixels for each in known]
    masks = [each.counts if isinstance(each, MaskFacts) else {} for each in pixels]
    indices = np.zeros((count, 256), np.bool_)
    for row, each in enumerate(known):
        indices[row, list(each.indices or ())] = True
    return {
        "names": _bytes("\0".join(entries).encode("utf-8", "surrogateescape")),
        "stamps": np.array([each.stamp for each in known], np.int64).reshape(count, 3),
        "kinds": np.array([_kind(each) for each in pixels], np.uint8),
        "sizes": np.array([each.size if each else (0, 0) for each in pixels], np.int64).reshape(count, 2),
        "digests": _bytes(bytes.fromhex("".join(each.digest if each else "0" * 32 for each in pixels))),
        "smalls": _bytes(b"".join(each.small for each in pixels if isinstance(each, ImageFacts))),
        "lengths": np.array([len(each) for each in masks], np.int64),
        "labels": np.array([label for each in masks for label in each], np.uint8),
        "counts": np.array([number for each in masks for number in each.values()], np.int64),
        "frames": np.array([_frame_row(each.frame) for each in known], np.int64).reshape(count, 3),
        "formats": np.array([_place(each.format, places) for each in known], np.int64),
        "indexed": np.array([each.indices is not None for each in known], np.bool_),
        "indices": np.packbits(indices, axis=1) if count else np.zeros((0, 32), np.uint8),
    }


def _entries(columns: Columns, formats: list[MaskFormat]) -> dict[str, Known]:
    """Read what ``_columns`` has written."""
    text = bytes(columns["names"]).decode("utf-8", "surrogateescape")
    names = text.split("\0") if text else []
    pixels = _pixels(columns)
    stamps = zip(*columns["stamps"].T.tolist(), strict=True)
    drawn = list(zip(*columns["frames"].T.tolist(), strict=True))
    # Few of them differ.
    made = {row: PictureFrame((row[0], row[1]), row[2]) if row[2] else None for row in set(drawn)}
    frames = (made[row] for row in drawn)
    kinds = (formats[place] if place >= 0 else None for place in columns["formats"].tolist())
    indices = (
        frozenset(np.flatnonzero(np.unpackbits(columns["indices"][row])).tolist()) if known else None
        for row, known in enumerate(columns["indexed"].tolist())
    )
    rows = zip(stamps, pixels, frames, kinds, indices, strict=True)
    return {name: Known(*row) for name, row in zip(names, rows, strict=True)}


def _pixels(columns: Columns) -> list[ImageFacts | MaskFacts | None]:
    digests, smalls = bytes(columns["digests"]).hex(), bytes(columns["smalls"])
    labels, counts = columns["labels"].tolist(), columns["counts"].tolist()
    found: list[ImageFacts | MaskFacts | None] = []
    small = start = 0
    sizes = zip(*columns["sizes"].T.tolist(), strict=True)
    rows = zip(
        columns["kinds"].tolist(), sizes, columns["lengths"].tolist(), range(0, len(digests), 32), strict=True
    )
    for kind, size, length, place in rows:
        digest = digests[place : place + 32]
        if kind == 1:
            found.append(ImageFacts(size, digest, smalls[small : small + SIDE**2]))
            small += SIDE**2
        elif kind == 2:
            stop = start + length
            drawn = dict(zip(labels[start:stop], counts[start:stop], strict=True))
            found.append(MaskFacts(size, digest, drawn))
            start = stop
        else:
            found.append(None)
    return found


def _kind(pixels: ImageFacts | MaskFacts | None) -> int:
    return 0 if pixels is None else 1 if isinstance(pixels, ImageFacts) else 2


def _frame_row(frame: PictureFrame | None) -> tuple[int, int, int]:
    """Height, width, orientation, which is 0 where nothing is known."""
    return (0, 0, 0) if frame is None else (*frame.size, frame.orientation)


def _place(given: MaskFormat | None, places: dict[str, int]) -> int:
    """Number of a format among those that occur; -1 where it is not known."""
    if given is None:
        return -1
    values = {each.name: getattr(given, each.name) for each in fields(given)}
    values["colors"] = sorted(given.colors.items())
    return places.setdefault(json.dumps(values), len(places))


def _format(values: dict[str, Any]) -> MaskFormat:
    return MaskFormat(**values | {"colors": dict(values["colors"])})


def _bytes(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)
