"""Classes that occur as thin lines between two others, as masks show that were resized with interpolation."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semiseg.contracts.dataset import IGNORE_INDEX

WIDTH = 2
"""Width in pixels up to which a line is thin: interpolation by a factor of up to four makes lines of two."""

FEWEST_PIXELS = 8
SHARE = 0.3
"""Share of the borders between two classes that lead over a third one, from which on it looks interpolated."""

FEWEST_MASKS = 3


@dataclass(frozen=True)
class ThinLines:
    """A class in thin lines between two others.

    Args:
        value: number of the class.
        masks: number of masks that show it so.
        example: name of the mask that shows the most.
    """

    value: int
    masks: int
    example: str


def thin_lines(masks: Iterable[tuple[str, NDArray[np.integer]]]) -> list[ThinLines]:
    """Find numbers that are seen in at least half of the masks, and three, as ``thin_values`` says.

    Args:
        masks: names and numbers of masks, ``(H, W)``.

    Returns:
        One entry for each number found, rising.
    """
    shown: dict[int, dict[str, int]] = {}
    count = 0
    for name, mask in masks:
        count += 1
        for value, pixels in thin_values(mask).items():
            shown.setdefault(value, {})[name] = pixels
    enough = max(FEWEST_MASKS, count / 2)
    return [
        ThinLines(value, len(seen), max(seen, key=lambda name: seen[name]))
        for value, seen in sorted(shown.items())
        if len(seen) >= enough
    ]


def thin_values(mask: NDArray[np.integer]) -> dict[int, int]:
    """Return the numbers that look interpolated in a mask, and how many borders lead over each.

    Interpolation between the numbers a and b makes numbers between them at the border. So rows and columns are
    searched for one or two pixels of a number with a smaller one on the one side and a larger one on the other. Such
    a number looks interpolated where at least SHARE of the borders between these two lead over it. 255 means "not
    labeled" and does not count.
    """
    over: Counter[tuple[int, ...]] = Counter()
    direct: Counter[tuple[int, ...]] = Counter()
    for lines in (mask, mask.T):
        _count_borders(np.ascontiguousarray(lines), over, direct)
    pixels: Counter[int] = Counter()
    borders: Counter[int] = Counter()
    for (low, value, high), count in over.items():
        pixels[value] += count
        borders[value] += count + direct[low, high]
    return {
        value: count
        for value, count in pixels.items()
        if count >= FEWEST_PIXELS and count >= SHARE * borders[value]
    }


def _count_borders(
    lines: NDArray[np.integer], over: Counter[tuple[int, ...]], direct: Counter[tuple[int, ...]]
) -> None:
    """Count the borders in rows, directly and over a thin third number, by their numbers in rising order."""
    width = lines.shape[1]
    flat = lines.ravel()
    begins = np.ones(flat.size, dtype=np.bool_)
    begins[1:] = flat[1:] != flat[:-1]
    begins[::width] = True
    starts = np.flatnonzero(begins)
    values = flat[starts].astype(np.int64)
    lengths = np.diff(np.append(starts, flat.size))
    joined = starts[1:] % width != 0  # whether a run and the next one lie in the same row
    counted = values != IGNORE_INDEX
    pairs = joined & counted[1:] & counted[:-1]
    _add(direct, [np.minimum(values[1:], values[:-1])[pairs], np.maximum(values[1:], values[:-1])[pairs]])
    if len(values) < 3:
        return
    before, value, after = values[:-2], values[1:-1], values[2:]
    low, high = np.minimum(before, after), np.maximum(before, after)
    thin = pairs[1:] & pairs[:-1] & (lengths[1:-1] <= WIDTH) & (low < value) & (value < high)
    _add(over, [low[thin], value[thin], high[thin]])


def _add(counter: Counter[tuple[int, ...]], columns: list[NDArray[np.int64]]) -> None:
    """Count the rows of some columns of numbers of 16 bits."""
    packed = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        packed = packed << 16 | column
    codes, counts = np.unique(packed, return_counts=True)
    shifts = [16 * place for place in reversed(range(len(columns)))]
    for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
        counter[tuple(code >> shift & 0xFFFF for shift in shifts)] += count
