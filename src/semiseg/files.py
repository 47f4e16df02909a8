"""Small files that survive a kill at any moment: written under a temporary name, synced, then renamed."""

import csv
import hashlib
import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from semiseg.errors import UserError

PROBE_BYTES = 1 << 16
"""Room that the disk has to have before a command starts to read; a config or a list is smaller."""


def temporary(path: Path) -> Path:
    """Name of the file that becomes ``path`` once it is complete."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def final_name(name: str) -> str:
    """Name that a file named by ``temporary`` in any process was to get; other names stay."""
    found = re.fullmatch(r"\.(.+)\.tmp-\d+", name)
    return found[1] if found else name


def remove_temporaries(directory: Path, recursive: bool = False) -> None:
    """Remove files that killed processes left unfinished; no process may be writing there."""
    for path in directory.rglob(".*.tmp-*") if recursive else directory.glob(".*.tmp-*"):
        path.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Make new and renamed files of a directory last through a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that becomes ``path`` at the end of the block; an error leaves the previous one.

    At any moment the old or the new file is there, whole.
    """
    part = temporary(path)
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextmanager
def writes(target: str | Path, otherwise: str) -> Iterator[None]:
    """Say in one sentence that files cannot be written, why, and how to go on.

    Args:
        target: what the block writes, for the message.
        otherwise: advice, a sentence or two.

    Raises:
        UserError: the block raised an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{target} cannot be written ({_reason(target, error)}). {otherwise}") from error


def _reason(target: str | Path, error: OSError) -> str:
    """Reason for a refusal of the disk; a file where a folder is needed is named."""
    path = Path(error.filename or target)
    if isinstance(error, FileExistsError | NotADirectoryError):
        blocking = next((each for each in (path, *path.parents) if each.is_file()), None)
        if blocking is not None:
            return "it is a file" if str(blocking) == str(target) else f"{blocking} is a file"
    return error.strerror or str(error)


class _RoomFoundError(Exception):
    """Ends the trial of ``require_writable`` before its file gets its name."""


def require_writable(path: Path, otherwise: str) -> None:
    """Try to write a file, so that a long command does not find at its end that it cannot; nothing is left.

    Args:
        path: file to be written; the folder that it lies in is tried, or the first above that exists.
        otherwise: see ``writes``.

    Raises:
        UserError: the folder cannot be made or written, or its disk is full.
    """
    folder = next(each for each in path.absolute().parents if each.exists())
    with writes(path, otherwise), suppress(_RoomFoundError), replacing(folder / path.name) as file:
        file.write(bytes(PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())
        raise _RoomFoundError


def write_text(path: Path, text: str) -> None:
    """Replace a text file, with the promises of ``replacing``."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Replace a CSV file, with the promises of ``replacing``."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def copy(source: Path, target: Path) -> None:
    """Replace ``target`` by a copy of ``source``, with the promises of ``replacing``."""
    with source.open("rb") as reader, replacing(target) as writer:
        shutil.copyfileobj(reader, writer)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file, with the promises of ``replacing``; NaN and infinity become null."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON cannot hold, by ``None`` at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
