"""What the masks of a folder hold: numbers or colors, and how often each."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from semiseg.data.check import BadFilesError, Fault
from semiseg.data.files import MASK_MODES, BadFileError, open_mask, read_mask
from semiseg.data.mask_colors import read_colors
from semiseg.data.mask_labels import Value, color_text
from semiseg.errors import UserError

MAX_THREADS = 16
MAX_COLORS = 255


@dataclass(frozen=True)
class Survey:
    """What all masks hold.

    Args:
        pixels: pixels of each number, or of each color as "#rrggbb".
        images: masks that hold it.
        masks: masks that were read.
        palette: color of each number, where the masks are palette PNGs.
        colored: whether colors count; numbers do otherwise.
    """

    pixels: Mapping[Value, int]
    images: Mapping[Value, int]
    masks: int
    palette: Mapping[int, str]
    colored: bool


@dataclass(frozen=True)
class _Mask:
    """Pixels of each value of one mask; ``palette`` has the colors of the numbers of a palette PNG."""

    pixels: Mapping[Value, int]
    palette: Mapping[int, str] | None = None


def survey(masks: Mapping[str, Path], tick: Callable[[], None], skip_bad: bool = False) -> Survey:
    """Read all masks and count what they hold.

    Palette PNGs count by their indices, unless one index has different colors in different masks.

    Args:
        masks: mask file of each id.
        tick: called after each.
        skip_bad: leave out masks that cannot be read.

    Raises:
        BadFilesError: naming the masks that cannot be read.
        UserError: there are too many colors for masks.
    """
    faults: list[Fault] = []
    found: list[_Mask] = []
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        for (image_id, path), result in zip(masks.items(), pool.map(_read, masks.values()), strict=True):
            tick()
            if isinstance(result, BadFileError):
                faults.append(Fault(image_id, str(path), result.reason))
            else:
                found.append(result)
    if faults and not (skip_bad and found):
        raise BadFilesError(faults)
    palette, agree = _palette(found)
    colored = not agree or any(isinstance(value, str) for mask in found for value in mask.pixels)
    counted = [_in_colors(mask) for mask in found] if colored else [mask.pixels for mask in found]
    pixels: Counter[Value] = Counter()
    for each in counted:
        pixels.update(each)
    if len(pixels) > MAX_COLORS:
        raise UserError(_too_many(pixels, masks.values()))
    images = Counter(value for each in counted for value in each)
    return Survey(dict(pixels), dict(images), len(found), {} if colored else palette, colored)


def _read(path: Path) -> _Mask | BadFileError:
    try:
        with open_mask(path) as image:
            mode, palette = image.mode, _index_colors(image)
        codes = read_mask(path) if mode in MASK_MODES else read_colors(path)
    except BadFileError as error:
        return error
    values, counts = np.unique(codes, return_counts=True)
    pairs = zip(values.tolist(), counts.tolist(), strict=True)
    if mode not in MASK_MODES:
        return _Mask({color_text(code): count for code, count in pairs})
    numbers = dict(pairs)
    return _Mask(numbers, {value: palette[value] for value in numbers} if palette else None)


def _index_colors(image: Image.Image) -> dict[int, str] | None:
    if image.mode != "P":
        return None
    shown = image.getpalette("RGB") or []
    shown += [0] * (768 - len(shown))
    return {
        index: color_text(int.from_bytes(bytes(shown[3 * index : 3 * index + 3]))) for index in range(256)
    }


def _palette(masks: Iterable[_Mask]) -> tuple[dict[int, str], bool]:
    """Colors of the numbers of all palette PNGs, and whether each number has one color everywhere."""
    colors: dict[int, set[str]] = {}
    for mask in masks:
        for value, color in (mask.palette or {}).items():
            colors.setdefault(value, set()).add(color)
    return {value: min(seen) for value, seen in colors.items()}, all(
        len(seen) == 1 for seen in colors.values()
    )


def _in_colors(mask: _Mask) -> Mapping[Value, int]:
    """Pixels by color as a viewer shows them."""
    pixels: Counter[Value] = Counter()
    for value, count in mask.pixels.items():
        if isinstance(value, int):
            color = mask.palette[value] if mask.palette else color_text(value * 0x010101)
            pixels[color] += count
        else:
            pixels[value] += count
    return pixels


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
