"""Locks that keep two processes out of one folder; they end with the process that holds them."""

import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from semiseg.errors import UserError

LOCK = ".lock"
"""Name of the file by which a directory is locked."""

log = logging.getLogger(__name__)


def claim(file: TextIO) -> str | None:
    """Lock a file until it is closed, and write its holder into it.

    A file system without locks gives a warning.

    Args:
        file: file that is open for reading and appending.

    Returns:
        ``None``, or its other holder: process, machine and time.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file.read().strip() or "unknown process"
    except OSError as error:
        log.warning(
            "%s cannot be locked (%s): make sure that no other process uses it.",
            Path(file.name).parent,
            error.strerror,
        )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    file.flush()
    return None


@contextmanager
def exclusive(directory: Path, key: str, kind: str) -> Iterator[None]:
    """Make a directory and keep every other process out; remove it again if it stays empty.

    Args:
        directory: the directory.
        key: config key that chooses it, for messages.
        kind: kind of its user, for messages.

    Raises:
        UserError: it cannot be made or written, or another process works in it, which is named.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise unusable(directory, key, error) from error
    with file:
        if owner := claim(file):
            raise UserError(
                f"Another {kind} works in {directory}: {owner}. Wait for it, end it, or choose another {key}."
            )
        try:
            yield
        finally:
            with suppress(OSError):
                if [path.name for path in directory.iterdir()] == [LOCK]:
                    (directory / LOCK).unlink()
                    directory.rmdir()


def unusable(directory: Path, key: str, error: OSError) -> UserError:
    """Return the error for a directory that cannot be made, read or written."""
    reason = "it is a file" if directory.is_file() else error.strerror
    return UserError(
        f"{key}={directory} cannot be used: {reason}. Choose a directory that can be made and written."
    )


def holder(path: Path) -> str | None:
    """Return the holder of the lock of a file without taking it; ``None`` where it is free."""
    with suppress(OSError), path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "unknown process"
    return None
