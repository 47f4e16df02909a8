"""Pictures of all kinds for tests, written byte by byte where PIL does not write them."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LABELS = np.zeros((12, 16), np.uint8)
LABELS[2:6, 2:7] = 1
LABELS[6:, 10:] = 2
COLORS = [(0, 0, 0), (255, 0, 0), (0, 255, 0)]


def png(path: Path, bits: int, kind: int, rows: list[bytes], *chunks: tuple[bytes, bytes]) -> None:
    """Write a PNG of any depth (1 to 16) and color type; ``chunks`` stand before the pixels."""
    width = len(rows[0]) * 8 // (bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind])

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    parts = [
        (b"IHDR", head),
        *chunks,
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
        (b"IEND", b""),
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def deep_png(path: Path, channels: int) -> None:
    """Write a 16-bit PNG of 1 to 4 channels whose values use 12 bits."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    values = np.random.default_rng(0).integers(0, 4096, (12, 16, channels)).astype(">u2")
    png(path, 16, kind, [row.tobytes() for row in values])


def paletted(labels: np.ndarray, colors: list[tuple[int, int, int]]) -> Image.Image:
    picture = Image.fromarray(labels)
    picture.putpalette([value for color in colors for value in color])
    return picture


def colored(labels: np.ndarray = LABELS) -> np.ndarray:
    """RGB of the labels."""
    return np.array(COLORS, np.uint8)[labels]


def clear(labels: np.ndarray = LABELS, hidden: tuple[int, int, int] = (9, 9, 9)) -> np.ndarray:
    """RGBA in which label 0 is fully transparent over a hidden color."""
    rgb = colored(labels)
    rgb[labels == 0] = hidden
    return np.dstack([rgb, np.where(labels == 0, 0, 255).astype(np.uint8)])


def save(path: Path, picture: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return path


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
