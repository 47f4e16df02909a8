"""Masks as the lengths of runs of equal pixels: those of COCO and of CVAT."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semiseg.labels.outlines import Bits


def run_lengths(bits: Bits) -> list[int]:
    """Return the lengths of runs of a flat mask ``(N,) bool``, first of those that are not set, maybe 0."""
    if not bits.size:
        return [0]
    starts = np.flatnonzero(np.concatenate([[bits[0]], bits[1:] != bits[:-1]]))
    return [int(length) for length in np.diff(np.concatenate([[0], starts, [bits.size]]))]


def from_runs(counts: Sequence[int], pixels: int) -> Bits:
    """Return the flat mask of lengths of runs.

    Raises:
        ValueError: they are no lengths, or do not add up to the number of pixels.
    """
    lengths = np.asarray(counts)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 0).any():
        raise ValueError("a mask whose runs are no whole numbers")
    if lengths.sum() != pixels:
        raise ValueError(f"runs of {lengths.sum()} pixels in all; the mask has {pixels}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def coco_runs(bits: Bits) -> dict[str, Any]:
    """Return a mask ``(H, W) bool`` as COCO writes it uncompressed: column by column."""
    return {"size": list(bits.shape), "counts": run_lengths(bits.ravel(order="F"))}


def from_coco_runs(segmentation: Mapping[str, Any]) -> Bits:
    """Return the mask ``(H, W) bool`` of COCO's runs, compressed or not.

    The decoder of pycocotools is not used since it gives whatever stands in memory where a text is cut off.

    Raises:
        ValueError: the runs do not fit the size.
    """
    height, width = (int(length) for length in segmentation["size"])
    counts = segmentation["counts"]
    runs = counts if isinstance(counts, list) else _uncompressed(counts)
    return from_runs(runs, height * width).reshape(width, height).T


def _uncompressed(text: str) -> list[int]:
    """Return the runs of a compressed mask: digits of 5 bits from character 48 on, the lowest first.

    Bit 6 says that another digit follows, bit 5 of the last is the sign; from the fourth run on each is the
    difference to the one before the previous.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64:
            raise ValueError("a compressed mask with characters that no mask has")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("a compressed mask that is cut off")
    return runs
