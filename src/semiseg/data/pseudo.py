"""Pseudo-labels of one labeling step: flat files that are written once and survive a kill at any moment."""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semiseg.data.dataset import Array
from semiseg.errors import UserError

Confidence = NDArray[np.float32]

INDEX = "index.json"
LABELS = "labels.bin"
CONFIDENCE = "confidence.bin"


class Entry(NamedTuple):
    """Where one image lies.

    Args:
        offset: of its first pixel, in pixels from the start of either file.
        height: rows.
        width: columns.
        label_crc: CRC-32 of its bytes in the label file.
        confidence_crc: the same for confidence; None where none is stored.
    """

    offset: int
    height: int
    width: int
    label_crc: int
    confidence_crc: int | None


class PseudoLabels:
    """Read access to a store; nothing is opened before it is needed, so a handle is cheap to pickle.

    Args:
        path: directory of the store.
        ids: the images that the store holds or will hold, where they are known without it; None: see its index.
    """

    def __init__(self, path: Path | str, ids: Sequence[str] | None = None) -> None:
        self.path = Path(path)
        self._given_ids = None if ids is None else tuple(ids)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_given_ids": self._given_ids}

    @cached_property
    def _index(self) -> dict[str, Any]:
        try:
            index: dict[str, Any] = json.loads((self.path / INDEX).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"There are no complete pseudo-labels in {self.path}.") from None
        return index

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        return {image_id: Entry(*entry) for image_id, *entry in self._index["images"]}

    @property
    def exists(self) -> bool:
        """Whether the store is complete and its labels have not been deleted."""
        return (self.path / INDEX).is_file() and not self._index["deleted"]

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids in the order in which they were written."""
        return tuple(self._entries) if self._given_ids is None else self._given_ids

    @property
    def statistics(self) -> dict[str, Any]:
        """What ``PseudoWriter.seal`` counted; stays after ``delete``."""
        statistics: dict[str, Any] = self._index["statistics"]
        return statistics

    @property
    def meta(self) -> dict[str, Any]:
        """What the writer was told about the origin of the labels; stays after ``delete``."""
        meta: dict[str, Any] = self._index["meta"]
        return meta

    def label(self, image_id: str) -> Array:
        """Return the label map ``(H, W) uint8``.

        Raises:
            KeyError: the store does not hold the image.
            UserError: the labels were deleted or the file is damaged.
        """
        entry = self._entry(image_id)
        label: Array = self._read(LABELS, image_id, entry, np.dtype(np.uint8), entry.label_crc)
        return label

    def confidence(self, image_id: str) -> Confidence:
        """Return the confidence ``(H, W) float32``; raises as ``label`` does, and where none is stored."""
        entry = self._entry(image_id)
        if entry.confidence_crc is None:
            raise UserError(f"The pseudo-labels in {self.path} were stored without confidence.")
        values: Confidence = self._read(CONFIDENCE, image_id, entry, np.dtype("<f4"), entry.confidence_crc)
        return values

    def read(self, image_id: str) -> tuple[Array, Confidence]:
        """Return label ``(H, W) uint8`` and confidence ``(H, W) float32``."""
        return self.label(image_id), self.confidence(image_id)

    def delete(self) -> None:
        """Delete labels and confidences; ids, sizes, statistics and meta stay. May be repeated."""
        index = {**self._index, "deleted": True}
        write_atomically(self.path / INDEX, index_text(index))
        self.__dict__["_index"] = index
        for name in (LABELS, CONFIDENCE):
            (self.path / name).unlink(missing_ok=True)

    def _entry(self, image_id: str) -> Entry:
        if self._index["deleted"]:
            raise UserError(
                f"The pseudo-labels in {self.path} were deleted after use; a run with "
                "keep_pseudo_labels=true keeps them."
            )
        return self._entries[image_id]

    def _read(self, name: str, image_id: str, entry: Entry, dtype: np.dtype[Any], crc: int) -> Any:
        # A file opened for each read needs no lock between threads and no care across fork and pickle.
        pixels = entry.height * entry.width
        try:
            values = np.fromfile(self.path / name, dtype, pixels, offset=entry.offset * dtype.itemsize)
        except FileNotFoundError:
            values = np.empty(0, dtype)
        if len(values) != pixels or zlib.crc32(values.data) != crc:
            raise UserError(
                f"{self.path / name} is damaged at {image_id}. Delete the folder {self.path} to label again."
            )
        return values.reshape(entry.height, entry.width)


def index_text(index: Mapping[str, Any]) -> str:
    """JSON with one line an image."""
    head = json.dumps({key: value for key, value in index.items() if key != "images"}, sort_keys=True)
    lines = ",\n".join(json.dumps(image) for image in index["images"])
    return f'{head[:-1]}, "images": [\n{lines}\n]}}\n'


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by a temporary name, so that at any moment the old or the new one is there, whole."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renamed and new files in a folder last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
