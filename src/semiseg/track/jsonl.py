"""The file metrics.jsonl: everything that a run reports, one JSON object per line."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semiseg.contracts.tracking import Sample
from semiseg.files import finite

log = logging.getLogger(__name__)


class JsonlTracker:
    """Appends a line per record with the keys ``iteration`` and ``stage``; each line is flushed.

    A line that a killed process left unfinished is dropped on opening. NaN and infinity become null.

    Args:
        path: path of the file, which is made where it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stage: str | None = None
        self._step = 0
        self._file = path.open("ab")
        self._cut_to_line(path.stat().st_size)

    def start_stage(self, name: str, index: int, total_iterations: int) -> None:
        """Name the stage of the following records."""
        self._stage = name

    def progress(self, completed: int) -> None:
        """Nothing to record."""

    def log(self, values: Mapping[str, float | None], step: int) -> None:
        """Append a line with the values as they are."""
        self._step = step
        self._append(values)

    def images(self, key: str, samples: Sequence[Sample], step: int) -> None:
        """Append a line with the ids of the images; the pictures lie in ``samples/``."""
        self._step = step
        self._append({key: [sample.id for sample in samples]})

    def summary(self, values: Mapping[str, Any]) -> None:
        """Append a line with all values below the key ``summary``."""
        self._append({"summary": values})

    def close(self, status: str) -> None:
        """Close the file."""
        self._file.close()

    def position(self) -> int:
        """Return the size of the file in bytes, with everything up to it on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def cut(self, position: int) -> None:
        """Drop everything after ``position``, which an earlier ``position()`` returned.

        A file that has become shorter (another file system, an edit) keeps its complete lines.
        """
        size = self.path.stat().st_size
        if size < position:
            log.warning(
                "%s has %d bytes and the checkpoint was made at %d: some lines are missing.",
                self.path,
                size,
                position,
            )
        self._cut_to_line(min(size, position))

    def _append(self, values: Mapping[str, Any]) -> None:
        record = {"iteration": self._step, "stage": self._stage, **values}
        self._file.write(json.dumps(finite(record), allow_nan=False).encode() + b"\n")
        self._file.flush()

    def _cut_to_line(self, end: int) -> None:
        """Truncate to ``end`` or, where that is inside a line, to the start of that line."""
        self._file.flush()
        block = 1 << 16
        with self.path.open("rb") as reader:
            while end > 0:
                start = max(end - block, 0)
                reader.seek(start)
                newline = reader.read(end - start).rfind(b"\n")
                if newline >= 0:
                    end = start + newline + 1
                    break
                end = start
        if end < self.path.stat().st_size:
            self._file.truncate(end)
        self._file.seek(end)
