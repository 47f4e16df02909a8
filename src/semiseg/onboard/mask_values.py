"""Values in one mask, with what tells regions from edges: counts of pixels, of specks and of thin lines."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semiseg.data.mask_format import MaskFormat, MaskKind
from semiseg.data.mask_pixels import read_pixels
from semiseg.data.rims import Rims, rims

CLEAR = -1
"""Code of fully transparent pixels."""

MOST_VALUES = 1024
"""Values of a mask that are kept, the most frequent ones; pictures have more."""

Counts = Mapping[int, int]


@dataclass(frozen=True)
class MaskValues:
    """Values in one mask as numbers or packed colors, ``CLEAR`` for fully transparent pixels.

    Args:
        id: id of the image.
        path: file of the mask.
        format: format of the file, with the colors of the whole palette; grey where all channels are equal.
        stored: kind of the file itself.
        pixels: number of pixels of each value.
        specks: number of pixels of each value that lie in no block of 2x2 equal pixels.
        rims: thin lines between two other values; empty where there are more values than masks have.
        size: number of all pixels.
    """

    id: str
    path: Path
    format: MaskFormat
    stored: MaskKind
    pixels: Counts
    specks: Counts
    rims: Rims
    size: int


def read_values(image_id: str, path: Path) -> MaskValues:
    """Read a mask and count its values.

    Raises:
        BadFileError: it cannot be read as a mask.
    """
    found = read_pixels(path)
    stored = found.format.kind
    if found.format.kind == "color" and found.equal_channels():
        found = found.gray()
    codes = found.codes
    if found.transparent is not None:
        codes = np.where(found.transparent, CLEAR, codes.astype(np.int32))
    pixels = _counted(codes)
    kept = dict(sorted(pixels.items(), key=lambda pair: -pair[1])[:MOST_VALUES])
    colors = found.format.kind == "color"
    lines = rims(codes, colors) if len(pixels) <= MOST_VALUES else Rims({}, {}, {}, {})
    return MaskValues(
        id=image_id,
        path=path,
        format=found.format,
        stored=stored,
        pixels=kept,
        specks=_counted(codes[_specks(codes)]),
        rims=lines,
        size=codes.size,
    )


def _counted(codes: NDArray[np.generic]) -> dict[int, int]:
    """Count each value; a mask has far fewer runs of equal pixels than pixels."""
    flat = codes.ravel()
    starts = np.flatnonzero(np.append(flat.size > 0, flat[1:] != flat[:-1]))
    values, which = np.unique(flat[starts], return_inverse=True)
    counts = np.bincount(which, np.diff(np.append(starts, flat.size)), len(values)).astype(int)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _specks(codes: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Pixels that lie in no block of 2x2 equal pixels."""
    rows = codes[1:] == codes[:-1]
    columns = codes[:, 1:] == codes[:, :-1]
    blocks = rows[:, 1:] & rows[:, :-1] & columns[1:]
    alone = np.ones(codes.shape, dtype=bool)
    for down in (slice(None, -1), slice(1, None)):
        for right in (slice(None, -1), slice(1, None)):
            alone[down, right] &= ~blocks
    return alone
