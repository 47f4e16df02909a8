"""The files of a store of pseudo-labels: index, journal records, statistics."""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.errors import UserError
from semiseg.files import sync_directory, write_text

INDEX = "index.json"
JOURNAL = "journal.jsonl"
LABELS = "labels.bin"
CONFIDENCE = "confidence.bin"
PIXEL_BYTES = {LABELS: 1, CONFIDENCE: 4}


class LabelEntry(NamedTuple):
    """Place of one image in the files.

    Args:
        offset: place of its first pixel, in pixels from the start of either file.
        height: number of rows.
        width: number of columns.
        label_crc: CRC-32 of its bytes in the label file.
        confidence_crc: CRC-32 of its bytes in the confidence file; ``None`` where none is stored.
    """

    offset: int
    height: int
    width: int
    label_crc: int
    confidence_crc: int | None


def record_entry(record: Mapping[str, Any]) -> LabelEntry:
    """Return the place of the image of a journal's record."""
    return LabelEntry(record["offset"], record["height"], record["width"], *record["crc"])


def stored_pixels(directory: Path, name: str, image_id: str, entry: LabelEntry) -> Any:
    """Read an image of a file of pixels: uint8 labels, or float32 confidences.

    Raises:
        UserError: the file is missing or damaged.
    """
    # Opening the file for each read avoids a lock between threads, and handles that fork or pickle would share.
    dtype = np.dtype(np.uint8 if name == LABELS else "<f4")
    crc = entry.label_crc if name == LABELS else entry.confidence_crc
    pixels = entry.height * entry.width
    try:
        values = np.fromfile(directory / name, dtype, pixels, offset=entry.offset * dtype.itemsize)
    except FileNotFoundError:
        values = np.empty(0, dtype)
    if len(values) != pixels or zlib.crc32(values.data) != crc:
        raise UserError(
            f"{directory / name} is damaged at {image_id}. Delete the folder {directory} to label again."
        )
    return values.reshape(entry.height, entry.width)


def index_text(index: Mapping[str, Any]) -> str:
    """Return the index as JSON with one line an image."""
    head = json.dumps({key: value for key, value in index.items() if key != "images"}, sort_keys=True)
    lines = ",\n".join(json.dumps(image) for image in index["images"])
    return f'{head[:-1]}, "images": [\n{lines}\n]}}\n'


def file_size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def parsed_record(line: str) -> dict[str, Any] | None:
    """Read a line of the journal; return ``None`` where a kill or a crash has left only a part of it."""
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return record


def byte_sizes(record: Mapping[str, Any]) -> dict[str, int]:
    """Bytes that an image takes in each file."""
    pixels = record["height"] * record["width"]
    stored = {LABELS: True, CONFIDENCE: record["crc"][1] is not None}
    return {name: pixels * size * stored[name] for name, size in PIXEL_BYTES.items()}


def recovered(directory: Path, header: str) -> list[dict[str, Any]]:
    """Read the journal of a store up to its last whole line and cut the files back to the images in it.

    Args:
        directory: folder of the store; a journal is begun where it has none.
        header: first line of the journal.

    Raises:
        UserError: the journal has another header.
    """
    path = directory / JOURNAL
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.is_file() else []
    if lines and lines[0] != header:
        raise UserError(
            f"{directory} holds unfinished pseudo-labels of other origin: {lines[0]}, now {header}. "
            "Choose another run directory or delete the folder."
        )
    records: list[dict[str, Any]] = []
    sizes = dict.fromkeys(PIXEL_BYTES, 0)
    for record in map(parsed_record, lines[1:]):
        grown = {name: sizes[name] + size for name, size in byte_sizes(record).items()} if record else {}
        if record is None or any(grown[name] > file_size(directory / name) for name in grown):
            break
        records.append(record)
        sizes = grown
    write_text(path, "".join(line + "\n" for line in [header, *lines[1 : 1 + len(records)]]))
    for name, size in sizes.items():
        with (directory / name).open("ab") as file:
            file.truncate(size)
    sync_directory(directory)
    return records


def image_record(
    image_id: str, offset: int, arrays: Mapping[str, NDArray[Any]], confidence: NDArray[np.float32] | None
) -> dict[str, Any]:
    """Return the journal's record of one image: place, checksums, and its share of the statistics.

    Args:
        image_id: id of the image.
        offset: place of its first pixel in either file.
        arrays: stored arrays by file.
        confidence: confidence for the statistics, whether it is stored or not; ``None`` counts none.
    """
    label, stored = arrays[LABELS], arrays.get(CONFIDENCE)
    counts = np.bincount(label.ravel(), minlength=256)
    return {
        "id": image_id,
        "offset": offset,
        "height": label.shape[0],
        "width": label.shape[1],
        "crc": [zlib.crc32(label.data), None if stored is None else zlib.crc32(stored.data)],
        "classes": {str(value): int(counts[value]) for value in np.flatnonzero(counts)},
        "confidence": None if confidence is None else float(confidence.sum(dtype=np.float64)),
    }


def total_statistics(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
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
