"""Thin lines of one value between two others, as interpolation and smoothing make them at the borders of regions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LONGEST = 4
"""Pixels across a line."""

OFTEN = 0.3
"""Share of the borders between two values at which a third stands between them."""

FEWEST = 3
"""Masks in which that is seen."""

FEWEST_SHARE = 0.25
"""Share of all masks in which that is seen, at least."""

MOST = 0.8
"""Share of the masks in which the two values meet that show it; real thin objects stand between them in fewer."""

HALF = 31
"""Bits of the higher value in a pair."""

Codes = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int32]
Border = tuple[int, int]
Line = tuple[int, int, int]


@dataclass(frozen=True)
class Rims:
    """Borders and thin lines of one mask; values are numbers or packed colors.

    Args:
        pixels: number of pixels of each value that lie in thin lines between a lower and a higher value.
        lines: number of crossings of a thin line, by lower value, value of the line, higher value.
        borders: number of places where two values touch, the lower one first.
        spots: column and row of one crossing of each line.
    """

    pixels: Mapping[int, int]
    lines: Mapping[Line, int]
    borders: Mapping[Border, int]
    spots: Mapping[Line, tuple[int, int]]


@dataclass(frozen=True)
class Interpolated:
    """A value that stands as thin lines between two others in many masks.

    Args:
        value: the value.
        low, high: values on both sides.
        masks: number of masks in which it does.
        of: number of masks in which the two others meet, directly or over the line.
        share: share of their borders at which it stands between them.
        example: id of one mask.
        spot: column and row there.
    """

    value: int
    low: int
    high: int
    masks: int
    of: int
    share: float
    example: str
    spot: tuple[int, int]

    def words(self, names: Sequence[str], file: Path) -> str:
        """Describe it with the names of the values and the file of the example."""
        low, middle, high = (names[each] for each in (self.low, self.value, self.high))
        column, row = self.spot
        return (
            f"{middle} stands in thin lines between {low} and {high} in {self.masks} of {self.of} masks, at "
            f"{self.share:.0%} of their borders, for example in {file} at column {column}, row {row}, as in masks that "
            "were resized with interpolation, which makes labels that nobody drew. Resize masks to the nearest pixel; "
            "where the class is such a line, all is well"
        )


def rims(codes: Codes, colors: bool = False) -> Rims:
    """Find the borders of a mask and the thin lines that lie between two other values.

    Args:
        codes: numbers, or packed colors, ``(H, W)``.
        colors: whether the codes are colors; a color lies between two others if each of its channels does.
    """
    flat = np.zeros(codes.shape, dtype=bool)
    lines, borders = Counter[Line](), Counter[Border]()
    spots: dict[Line, tuple[int, int]] = {}
    for turned in (False, True):
        view: Codes = codes.T.copy() if turned else codes
        found, flags = _along_rows(view, colors)
        lines.update(found.lines)
        borders.update(found.borders)
        for line, (x, y) in found.spots.items():
            spots.setdefault(line, (y, x) if turned else (x, y))
        flat |= flags.T if turned else flags
    values, counts = np.unique(codes[flat], return_counts=True)
    return Rims(dict(zip(values.tolist(), counts.tolist(), strict=True)), lines, borders, spots)


def _along_rows(codes: Codes, colors: bool) -> tuple[Rims, NDArray[np.bool_]]:
    """Borders and lines that are crossed along rows, and the pixels of the lines."""
    height, width = codes.shape
    flat = codes.ravel()
    new = np.ones(flat.size, dtype=bool)
    new[1:] = flat[1:] != flat[:-1]
    new[::width] = True
    starts = np.flatnonzero(new)
    lengths = np.diff(np.append(starts, flat.size))
    values, rows = flat[starts].astype(np.int64), starts // width
    touching = rows[1:] == rows[:-1]
    sides = _packed(values[:-1][touching], values[1:][touching])
    inside = touching[1:] & touching[:-1] & (lengths[1:-1] <= LONGEST)
    inside &= _between(values[:-2], values[1:-1], values[2:], colors)
    places = np.flatnonzero(inside) + 1
    ends = np.sort(np.stack([values[places - 1], values[places + 1]], axis=1), axis=1)
    crossed = np.stack([ends[:, 0], values[places], ends[:, 1]], axis=1)
    lines, first, counts = np.unique(crossed, axis=0, return_index=True, return_counts=True)
    keys: list[Line] = [(low, value, high) for low, value, high in lines.tolist()]
    at = starts[places[first]]
    spots = zip((at % width).tolist(), (at // width).tolist(), strict=True)
    thin = np.zeros(starts.size, dtype=bool)
    thin[places] = True
    pairs, touched = np.unique(sides, return_counts=True)
    borders = {
        (pair >> HALF, pair & (1 << HALF) - 1): count
        for pair, count in zip(pairs.tolist(), touched.tolist(), strict=True)
    }
    found = Rims(
        {}, dict(zip(keys, counts.tolist(), strict=True)), borders, dict(zip(keys, spots, strict=True))
    )
    return found, np.repeat(thin, lengths).reshape(height, width)


def _packed(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs of values as one number each, the lower value in its upper half: far faster to count than rows."""
    packed: NDArray[np.int64] = np.minimum(first, second) << HALF | np.maximum(first, second)
    return packed


def _between(
    before: NDArray[np.int64], value: NDArray[np.int64], after: NDArray[np.int64], colors: bool
) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (before != after) & (value != before) & (value != after)
    for shift in (16, 8, 0) if colors else (None,):
        left, middle, right = (
            each if shift is None else each >> shift & 0xFF for each in (before, value, after)
        )
        found &= (np.minimum(left, right) <= middle) & (middle <= np.maximum(left, right))
    return found


def interpolated(masks: Mapping[str, Rims]) -> list[Interpolated]:
    """Return the values that stand as thin lines between two others in many masks, the most frequent first.

    Args:
        masks: borders of each mask by id.
    """
    lines, touching = Counter[Line](), Counter[Border]()
    for found in masks.values():
        lines.update(found.lines)
        touching.update(found.borders)
    listed = []
    for line, count in lines.most_common():
        low, value, high = line
        share = count / (count + touching[low, high])
        seen = [image_id for image_id, found in masks.items() if line in found.lines]
        if share < OFTEN or len(seen) < max(FEWEST, FEWEST_SHARE * len(masks)):
            continue
        meeting = sum(line in found.lines or (low, high) in found.borders for found in masks.values())
        if len(seen) >= MOST * meeting:
            example = max(seen, key=lambda image_id: masks[image_id].lines[line])
            spot = masks[example].spots[line]
            listed.append(Interpolated(value, low, high, len(seen), meeting, share, example, spot))
    return listed
