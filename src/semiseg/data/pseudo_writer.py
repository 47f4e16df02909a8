"""Writing a store of pseudo-labels, image by image, resumable after a kill at any moment."""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from semiseg.data.dataset import IGNORE_INDEX, Array
from semiseg.data.pseudo import (
    CONFIDENCE,
    INDEX,
    LABELS,
    Confidence,
    PseudoLabels,
    index_text,
    sync_folder,
    write_atomically,
)
from semiseg.errors import UserError

JOURNAL = "journal.jsonl"


class PseudoWriter:
    """Append label maps to a store until it is sealed.

    The journal names the images whose pixels are safely on disk. A writer that opens an unfinished store cuts
    everything else away, so the caller skips ``done`` and writes the rest in the same order: the sealed files are
    then those of a run that was never stopped, byte for byte.

    Args:
        path: directory of the store; made if missing.
        meta: JSON values that say where the labels come from, such as a hash of what made them.
        with_confidence: whether every image comes with confidences.
        sync_every: images between two syncs to disk; at most as many are labeled again after a kill.

    Raises:
        UserError: the store was begun with another ``meta`` or ``with_confidence``.
    """

    def __init__(
        self,
        path: Path | str,
        meta: Mapping[str, Any] | None = None,
        *,
        with_confidence: bool = True,
        sync_every: int = 8,
    ) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._meta = dict(meta or {})
        self._names = {LABELS: 1, CONFIDENCE: 4} if with_confidence else {LABELS: 1}  # bytes a pixel
        self._sync_every = sync_every
        self._header = json.dumps(
            {"format": 1, "meta": self._meta, "files": list(self._names)}, sort_keys=True
        )
        self._records: list[dict[str, Any]] = []
        self._pending: list[dict[str, Any]] = []
        self._sealed = (self.path / INDEX).is_file()
        if self._sealed:
            self._done = dict.fromkeys(PseudoLabels(self.path).ids)
            return
        self._recover()
        self._done = dict.fromkeys(record["id"] for record in self._records)
        self._offset = sum(record["height"] * record["width"] for record in self._records)
        self._files = [(self.path / name).open("ab") for name in self._names]
        self._journal = (self.path / JOURNAL).open("ab")

    @property
    def done(self) -> tuple[str, ...]:
        """Ids that need not be written again."""
        return tuple(self._done)

    def write(self, image_id: str, label: Array, confidence: Confidence | None = None) -> None:
        """Append one image.

        Args:
            image_id: not in ``done``.
            label: ``(H, W) uint8``; 255 where there is no label.
            confidence: ``(H, W) float32``, exactly where the store has confidences.
        """
        if self._sealed:
            raise ValueError(f"{self.path} is complete")
        if image_id in self._done:
            raise ValueError(f"{image_id} is already in {self.path}")
        if label.dtype != np.uint8 or label.ndim != 2:
            raise ValueError(f"label is {label.dtype} of {label.ndim} dimensions; expected uint8 of 2")
        if (confidence is not None) != (CONFIDENCE in self._names):
            raise ValueError(
                "confidence is missing" if confidence is None else "this store has no confidence"
            )
        if confidence is not None and (confidence.shape != label.shape or confidence.dtype != np.float32):
            raise ValueError(
                f"confidence is {confidence.dtype} {confidence.shape}; expected float32 {label.shape}"
            )
        arrays = [np.ascontiguousarray(label)]
        if confidence is not None:
            arrays.append(np.ascontiguousarray(confidence, "<f4"))
        for file, array in zip(self._files, arrays, strict=True):
            file.write(array.data)
        self._pending.append(_record(image_id, self._offset, arrays))
        self._done[image_id] = None
        self._offset += label.size
        if len(self._pending) >= self._sync_every:
            self._sync()

    def seal(self) -> PseudoLabels:
        """Complete the store and return it; a store that is complete already is returned as it is."""
        if not self._sealed:
            self.close()
            index = {
                "format": 1,
                "deleted": False,
                "meta": self._meta,
                "statistics": _statistics(self._records),
                "images": [
                    [record["id"], record["offset"], record["height"], record["width"], *record["crc"]]
                    for record in self._records
                ],
            }
            write_atomically(self.path / INDEX, index_text(index))
            self._sealed = True
        (self.path / JOURNAL).unlink(missing_ok=True)
        return PseudoLabels(self.path)

    def close(self) -> None:
        """Bring everything that was written to disk; the store can be continued later."""
        if not self._sealed and not self._journal.closed:
            self._sync()
            for file in (*self._files, self._journal):
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sync(self) -> None:
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        self._journal.write("".join(json.dumps(record) + "\n" for record in self._pending).encode())
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self._records += self._pending
        self._pending = []

    def _recover(self) -> None:
        """Read the journal up to its last whole line and cut the files back to what it vouches for."""
        path = self.path / JOURNAL
        lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
        if lines and lines[0].decode() != self._header:
            raise UserError(
                f"{self.path} holds unfinished pseudo-labels of other origin: {lines[0].decode()}, "
                f"now {self._header}. Choose another run directory or delete the folder."
            )
        pixels = 0
        for line in lines[1:]:
            record = _parsed(line)
            end = pixels + (record["height"] * record["width"] if record else 0)
            if record is None or not self._holds(end):
                break
            self._records.append(record)
            pixels = end
        kept = [self._header.encode(), *lines[1 : 1 + len(self._records)]]
        write_atomically(path, "".join(line.decode() + "\n" for line in kept))
        for name, itemsize in self._names.items():
            with (self.path / name).open("ab") as file:
                file.truncate(pixels * itemsize)
        sync_folder(self.path)

    def _holds(self, pixels: int) -> bool:
        paths = ((self.path / name, size) for name, size in self._names.items())
        return all(path.is_file() and path.stat().st_size >= pixels * size for path, size in paths)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return record


def _record(image_id: str, offset: int, arrays: list[np.ndarray[Any, Any]]) -> dict[str, Any]:
    label, *confidence = arrays
    counts = np.bincount(label.ravel(), minlength=256)
    return {
        "id": image_id,
        "offset": offset,
        "height": label.shape[0],
        "width": label.shape[1],
        "crc": [zlib.crc32(label.data), zlib.crc32(confidence[0].data) if confidence else None],
        "classes": {str(value): int(counts[value]) for value in np.flatnonzero(counts)},
        "confidence": float(confidence[0].sum(dtype=np.float64)) if confidence else None,
    }


def _statistics(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Numbers of images and pixels, pixels of each label value, mean confidence over all pixels."""
    classes: dict[str, int] = {}
    for record in records:
        for value, count in record["classes"].items():
            classes[value] = classes.get(value, 0) + count
    pixels = sum(classes.values())
    sums = [record["confidence"] for record in records if record["confidence"] is not None]
    return {
        "images": len(records),
        "pixels": pixels,
        "labeled_pixels": pixels - classes.get(str(IGNORE_INDEX), 0),
        "classes": {value: classes[value] for value in sorted(classes, key=int)},
        "mean_confidence": sum(sums) / max(1, pixels) if sums else None,
    }
