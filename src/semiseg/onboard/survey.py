"""Survey of the masks of a folder: their numbers or colors, and the pixels of each."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semiseg.data.file_faults import BadFilesError
from semiseg.data.file_inspection import FileFault
from semiseg.data.mask_labels import Value, color_text
from semiseg.data.mask_pixels import Codes, read_pixels
from semiseg.data.picture_files import BadFileError
from semiseg.errors import UserError

MAX_THREADS = 16
MAX_COLORS = 255
THIN = 0.05


@dataclass(frozen=True)
class Survey:
    """Numbers or colors in all masks.

    Args:
        pixels: number of pixels of each number, or of each color as "#rrggbb".
        masks: number of masks that were read.
        palette: color of each number, where the masks are palette PNGs.
        colored: whether colors count, and not numbers.
        thin: numbers or colors that occur only in lines of one pixel, as smoothed edges make them.
        faults: masks that cannot be read.
    """

    pixels: Mapping[Value, int]
    masks: int
    palette: Mapping[int, str]
    colored: bool
    thin: frozenset[Value]
    faults: tuple[FileFault, ...]


@dataclass(frozen=True)
class _Mask:
    """Values in one mask.

    Args:
        pixels: number of pixels of each value.
        blocks: number of blocks of 2x2 pixels of each value.
        palette: colors of the numbers of a palette PNG.
    """

    pixels: Mapping[int, int] | Mapping[str, int]
    blocks: Mapping[int, int] | Mapping[str, int]
    palette: Mapping[int, str] | None = None


def survey(masks: Mapping[str, Path], tick: Callable[[], None]) -> Survey:
    """Read all masks and count the pixels of their values.

    Palette PNGs count by their indices, unless one index has different colors in different masks.

    Args:
        masks: mask file of each id.
        tick: function called after each mask.

    Raises:
        BadFilesError: no mask can be read.
        UserError: there are too many colors for masks.
    """
    faults: list[FileFault] = []
    found: list[_Mask] = []
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        for (image_id, path), result in zip(masks.items(), pool.map(_read, masks.values()), strict=True):
            tick()
            if isinstance(result, BadFileError):
                faults.append(FileFault(image_id, str(path), result.reason))
            else:
                found.append(result)
    if not found:
        raise BadFilesError(faults)
    palette, agree = _palette(found)
    colored = not agree or any(isinstance(value, str) for mask in found for value in mask.pixels)
    if colored:
        found = [_in_colors(mask) for mask in found]
    pixels, blocks = Counter[Value](), Counter[Value]()
    for mask in found:
        pixels.update(mask.pixels)
        blocks.update(mask.blocks)
    if len(pixels) > MAX_COLORS:
        raise UserError(_too_many(pixels, masks.values()))
    thin = frozenset(value for value, count in pixels.items() if blocks[value] < THIN * count)
    return Survey(dict(pixels), len(found), {} if colored else palette, colored, thin, tuple(faults))


def _read(path: Path) -> _Mask | BadFileError:
    try:
        pixels = read_pixels(path)
    except BadFileError as error:
        return error
    codes = pixels.codes
    counts = _counted(codes), _counted(_blocks(codes))
    if pixels.format.kind == "color":
        colors, blocks = ({color_text(code): count for code, count in each.items()} for each in counts)
        return _Mask(colors, blocks)
    palette = pixels.format.colors
    return _Mask(*counts, {value: palette[value] for value in counts[0]} if palette else None)


def _counted(codes: Codes) -> dict[int, int]:
    """Count each value; a mask has far fewer runs of equal pixels than pixels."""
    flat = codes.ravel()
    starts = np.flatnonzero(np.append(flat.size > 0, flat[1:] != flat[:-1]))
    values, which = np.unique(flat[starts], return_inverse=True)
    counts = np.bincount(which, np.diff(np.append(starts, flat.size))).astype(int)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _blocks(codes: Codes) -> Codes:
    """Values of all blocks of 2x2 equal pixels."""
    rows = codes[1:] == codes[:-1]
    columns = codes[:, 1:] == codes[:, :-1]
    blocks: Codes = codes[1:, 1:][rows[:, 1:] & rows[:, :-1] & columns[1:]]
    return blocks


def _palette(masks: Iterable[_Mask]) -> tuple[dict[int, str], bool]:
    """Colors of the numbers of all palette PNGs, and whether each number has one color everywhere."""
    colors: dict[int, set[str]] = {}
    for mask in masks:
        for value, color in (mask.palette or {}).items():
            colors.setdefault(value, set()).add(color)
    return {value: min(seen) for value, seen in colors.items()}, all(
        len(seen) == 1 for seen in colors.values()
    )


def _in_colors(mask: _Mask) -> _Mask:
    """Return the counts by color as a viewer shows it."""

    def color(value: Value) -> str:
        if isinstance(value, str):
            return value
        return mask.palette[value] if mask.palette else color_text(value * 0x010101)

    pixels, blocks = Counter[str](), Counter[str]()
    for counts, colors in ((mask.pixels, pixels), (mask.blocks, blocks)):
        for value, count in counts.items():
            colors[color(value)] += count
    return _Mask(pixels, blocks)


def _too_many(pixels: Counter[Value], paths: Iterable[Path]) -> str:
    total = sum(pixels.values())
    frequent = [(value, count) for value, count in pixels.most_common(12) if count >= 0.002 * total]
    some = ", ".join(f"{value} ({count / total:.1%})" for value, count in frequent)
    first = next(iter(paths))
    return (
        f"the masks hold {len(pixels):,} colors, for example {first}; expected at most {MAX_COLORS}. "
        f"Most frequent: {some}. Smoothed edges make new colors: save the masks again without "
        "antialiasing and not by way of JPEG. If these are no masks, name the folders: --images DIR --masks DIR"
    )
