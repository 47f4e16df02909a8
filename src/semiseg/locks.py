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


def holder(path: Path) -> str | None:
    """Return the holder of the lock of a file without taking it; ``None`` where it is free."""
    with suppress(OSError), path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "unknown process"
    return None
