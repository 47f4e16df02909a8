"""Pseudo-labels of one labeling step: flat files that are written once and survive a kill at any moment."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from semiseg.contracts.dataset import IGNORE_INDEX, Array, Confidence
from semiseg.data.pseudo_files import (
    CONFIDENCE,
    INDEX,
    JOURNAL,
    LABELS,
    PIXEL_BYTES,
    LabelEntry,
    image_record,
    index_text,
    record_entry,
    recovered,
    stored_pixels,
    total_statistics,
)
from semiseg.errors import UserError
from semiseg.files import write_text

SYNC_SECONDS = 3.0
"""Seconds of labeling that a kill may cost."""

COUNTING_THREADS = 8
"""Threads that read the labels of a store to count them; reading and comparing leave Python's lock."""


def above_thresholds(label: Array, confidence: Confidence, thresholds: Sequence[float]) -> Array:
    """Replace labels by 255 where the confidence is below the threshold of the label's class.

    Args:
        label: label map ``(H, W) uint8``; 255 stays.
        confidence: confidence ``(H, W) float32`` of each label.
        thresholds: threshold of each class, compared in float32; equality passes.
    """
    table = np.zeros(256, np.float32)
    table[: len(thresholds)] = thresholds
    below = (confidence < cv2.LUT(label, table)).view(np.uint8)
    return label | below * np.uint8(IGNORE_INDEX)  # 255: all bits


class PseudoLabels:
    """Read access to a store; no file is opened before it is needed, so this is cheap to pickle.

    Args:
        path: directory of the store.
        ids: ids of the images that the store holds or will hold; ``None`` takes those of its index.
        thresholds: threshold of each class; where the stored confidence is below it, the label is read as 255.
            ``None`` reads labels as they are stored.
    """

    def __init__(
        self,
        path: Path | str,
        ids: Sequence[str] | None = None,
        thresholds: Sequence[float] | None = None,
    ) -> None:
        self.path = Path(path)
        self.thresholds = None if thresholds is None else tuple(thresholds)
        self._given_ids = None if ids is None else tuple(ids)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "thresholds": self.thresholds, "_given_ids": self._given_ids}

    @cached_property
    def _index(self) -> dict[str, Any]:
        try:
            index: dict[str, Any] = json.loads((self.path / INDEX).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"There are no complete pseudo-labels in {self.path}.") from None
        return index

    @cached_property
    def entries(self) -> dict[str, LabelEntry]:
        """Places of the images in the files, by id."""
        return {image_id: LabelEntry(*entry) for image_id, *entry in self._index["images"]}

    @property
    def exists(self) -> bool:
        """Whether the store is complete and its labels have not been deleted."""
        return (self.path / INDEX).is_file() and not self._index["deleted"]

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids in the order of the index."""
        return tuple(self.entries) if self._given_ids is None else self._given_ids

    @property
    def statistics(self) -> dict[str, Any]:
        """Counts of ``PseudoWriter.seal``; they stay after ``delete``."""
        statistics: dict[str, Any] = self._index["statistics"]
        return statistics

    @property
    def meta(self) -> dict[str, Any]:
        """Origin of the labels, as given to the writer; it stays after ``delete``."""
        meta: dict[str, Any] = self._index["meta"]
        return meta

    def label(self, image_id: str) -> Array:
        """Return the label map ``(H, W) uint8``.

        Raises:
            KeyError: the store does not hold the image.
            UserError: the labels were deleted or the file is damaged, or there are thresholds and no confidence.
        """
        return self._stored_label(image_id) if self.thresholds is None else self.read(image_id)[0]

    def _stored_label(self, image_id: str) -> Array:
        entry = self._entry(image_id)
        label: Array = stored_pixels(self.path, LABELS, image_id, entry)
        return label

    def confidence(self, image_id: str) -> Confidence | None:
        """Return the confidence ``(H, W) float32``, ``None`` where none is stored; raises as ``label`` does."""
        entry = self._entry(image_id)
        if entry.confidence_crc is None:
            return None
        values: Confidence = stored_pixels(self.path, CONFIDENCE, image_id, entry)
        return values

    def read(self, image_id: str) -> tuple[Array, Confidence | None]:
        """Return label and confidence of an image; raises as ``label`` does."""
        label, confidence = self._stored_label(image_id), self.confidence(image_id)
        if self.thresholds is None:
            return label, confidence
        if confidence is None:
            raise UserError(
                f"The pseudo-labels in {self.path} have no confidence to compare with thresholds."
            )
        return above_thresholds(label, confidence, self.thresholds), confidence

    def count(self) -> list[int]:
        """Count the pixels of each label 0-255 as they are read; with thresholds this reads every image."""
        if self.thresholds is None:
            classes = self.statistics["classes"]
            return [classes.get(str(value), 0) for value in range(256)]
        counts = np.zeros(256, np.int64)
        with ThreadPoolExecutor(min(COUNTING_THREADS, os.cpu_count() or 1)) as pool:
            for count in pool.map(self._count_of, self.ids):
                counts += count
        return [int(count) for count in counts]

    def _count_of(self, image_id: str) -> NDArray[np.int64]:
        return np.bincount(self.label(image_id).ravel(), minlength=256)

    def delete(self) -> None:
        """Delete labels and confidences; ids, sizes, statistics and meta stay. May be repeated."""
        index = {**self._index, "deleted": True}
        write_text(self.path / INDEX, index_text(index))
        self.__dict__["_index"] = index
        for name in (LABELS, CONFIDENCE):
            (self.path / name).unlink(missing_ok=True)

    def _entry(self, image_id: str) -> LabelEntry:
        if self._index["deleted"]:
            raise UserError(
                f"The pseudo-labels in {self.path} were deleted after use; a run with "
                "keep_pseudo_labels=true keeps them."
            )
        return self.entries[image_id]


class PseudoWriter:
    """Append label maps to a store until it is sealed.

    The journal names the images whose pixels are safely on disk. A writer that opens an unfinished store cuts
    everything else away. The caller then skips ``done`` and writes the rest in the same order, so the sealed files
    equal those of a run that was never stopped, byte for byte.

    Args:
        path: directory of the store; made if missing.
        meta: JSON values that describe the origin of the labels, such as a hash of the network; ``None`` for none.
        keep_confidence: whether the confidence of every pixel is stored; False only counts it in the statistics.
        sync_every: number of images between two syncs to disk; at most as many are labeled again after a kill. ``None``
            syncs where ``SYNC_SECONDS`` have passed.

    Raises:
        UserError: the store was begun with another ``meta``.
    """

    def __init__(
        self,
        path: Path | str,
        meta: Mapping[str, Any] | None = None,
        *,
        keep_confidence: bool = True,
        sync_every: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._header = {"format": 1, "meta": dict(meta or {})}
        self._keep_confidence = keep_confidence
        self._sync_every = sync_every
        self._synced = time.monotonic()
        self._pending: list[dict[str, Any]] = []
        self._sealed = (self.path / INDEX).is_file()
        if self._sealed:
            self._left = PseudoLabels(self.path).entries
            self._done = dict.fromkeys(self._left)
            return
        self._records = recovered(self.path, json.dumps(self._header, sort_keys=True))
        self._left = {record["id"]: record_entry(record) for record in self._records}
        self._done = dict.fromkeys(record["id"] for record in self._records)
        self._offset = sum(record["height"] * record["width"] for record in self._records)
        self._files = {name: (self.path / name).open("ab") for name in PIXEL_BYTES}
        self._journal = (self.path / JOURNAL).open("ab")

    @property
    def done(self) -> tuple[str, ...]:
        """Ids of the images that are written already."""
        return tuple(self._done)

    def write(self, image_id: str, label: Array, confidence: Confidence | None = None) -> None:
        """Append one image.

        Args:
            image_id: id of the image, not in ``done``.
            label: label map ``(H, W) uint8``; 255 where there is no label.
            confidence: confidence ``(H, W) float32``, for all images of a store; ``None`` for all of them.
        """
        if self._sealed:
            raise ValueError(f"{self.path} is complete")
        if image_id in self._done:
            raise ValueError(f"{image_id} is already in {self.path}")
        if label.dtype != np.uint8 or label.ndim != 2:
            raise ValueError(f"label is {label.dtype} of {label.ndim} dimensions; expected uint8 of 2")
        if confidence is not None and (confidence.shape != label.shape or confidence.dtype != np.float32):
            raise ValueError(
                f"confidence is {confidence.dtype} {confidence.shape}; expected float32 {label.shape}"
            )
        before = (self._records or self._pending)[:1]
        if before and (before[0]["confidence"] is None) != (confidence is None):
            raise ValueError(f"{self.path} takes confidences for all images or for none")
        arrays = {LABELS: np.ascontiguousarray(label)}
        if confidence is not None and self._keep_confidence:
            arrays[CONFIDENCE] = np.ascontiguousarray(confidence, "<f4")
        for name, array in arrays.items():
            self._files[name].write(array.data)
        self._pending.append(image_record(image_id, self._offset, arrays, confidence))
        self._done[image_id] = None
        self._offset += label.size
        if self._due():
            self._sync()

    def _due(self) -> bool:
        if self._sync_every is not None:
            return len(self._pending) >= self._sync_every
        return time.monotonic() - self._synced >= SYNC_SECONDS

    def written(self) -> Iterator[tuple[Array, Confidence]]:
        """Read label and confidence of the images that an earlier writer has left here, in their order.

        Raises:
            UserError: a file is damaged, or holds no confidence.
        """
        for image_id, entry in self._left.items():
            label = stored_pixels(self.path, LABELS, image_id, entry)
            yield label, stored_pixels(self.path, CONFIDENCE, image_id, entry)

    def seal(self, order: Sequence[str] | None = None) -> PseudoLabels:
        """Complete the store and return it; a store that is complete already is returned as it is.

        Args:
            order: all ids, in the order that the store has from now on; ``None`` takes the order of writing.
        """
        if not self._sealed:
            self.close()
            records = self._records
            if order is not None:
                by_id = {record["id"]: record for record in records}
                records = [by_id[image_id] for image_id in order]
            images = [[record["id"], *record_entry(record)] for record in records]
            statistics = total_statistics(records)
            index = {**self._header, "deleted": False, "statistics": statistics, "images": images}
            write_text(self.path / INDEX, index_text(index))
            self._sealed = True
        (self.path / JOURNAL).unlink(missing_ok=True)
        return PseudoLabels(self.path)

    def close(self) -> None:
        """Write and sync everything that is pending; the store can be continued later."""
        if not self._sealed and not self._journal.closed:
            self._sync()
            for file in (*self._files.values(), self._journal):
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sync(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self._journal.write("".join(json.dumps(record) + "\n" for record in self._pending).encode())
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self._records += self._pending
        self._pending = []
        self._synced = time.monotonic()
