"""Locks that keep two processes out of one folder; they end with the process that holds them."""

import fcntl
import logging
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

log = logging.getLogger(__name__)


def claim(file: TextIO) -> str | None:
    """Lock a file until it is closed, and write into it who holds it.

    A file system without locks gives a warning.

    Args:
        file: open for reading and appending.

    Returns:
        ``None``, or who else holds it: process, machine and time.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file.read().strip() or "unknown process"
    except OSError as error:
        log.warning(
            "%s cannot be locked (%s): see to it that no other process works there.",
            Path(file.name).parent,
            error.strerror,
        )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    file.flush()
    return None


def holder(path: Path) -> str | None:
    """Say who holds the lock of a file, without taking it; ``None`` for nobody."""
    with suppress(OSError), path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "unknown process"
    return None
