"""Look of pictures and masks: numbers of colors, blocks of equal pixels, sizes; measured on a few files."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semiseg.splits.lists import spread

SAMPLES = 6
MOST_PIXELS = 1 << 26
"""Number of pixels above which a picture is not decoded to see how it looks."""

WINDOW = 512
COVERED = 0.95
MANY_COLORS = 256
MANY_VALUES = 32
DRAWN_COLORS = 32
DRAWN_BLOCKS = 0.8
THIN = 0.05
LONELY = 0.8

Codes = NDArray[np.int64]


class Likeness(IntEnum):
    """How much files look like masks of the images that they are paired with."""

    NONE = 0
    SOME = 1
    CLEAR = 2


@dataclass(frozen=True)
class FileLook:
    """Look of a picture.

    Args:
        size: width and height.
        colors: number of colors or values.
        main: number of the most frequent colors that cover 95% of the pixels.
        blocks: share of the pixels in blocks of 2x2 equal ones.
        thin: whether all colors but the most frequent one lie in lines of one pixel.
    """

    size: tuple[int, int]
    colors: int
    main: int
    blocks: float
    thin: bool

    @property
    def drawn(self) -> bool:
        """Whether it looks like a mask by itself: few colors in blocks."""
        return self.colors <= 2 or (self.colors <= DRAWN_COLORS and self.blocks >= DRAWN_BLOCKS)


@cache
def window_of(path: Path) -> Codes | None:
    """Numbers or colors in the middle of a picture; ``None`` for one that cannot be read or is very large."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            if image.width * image.height > MOST_PIXELS:
                return None
            left, top = max(image.width - WINDOW, 0) // 2, max(image.height - WINDOW, 0) // 2
            part = image.crop((left, top, min(left + WINDOW, image.width), min(top + WINDOW, image.height)))
            pixels = np.asarray(part)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return _codes(pixels)


def _codes(pixels: NDArray[np.generic]) -> Codes:
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32).view(np.int32).astype(np.int64)
    bits = 8 * pixels.dtype.itemsize
    codes = np.zeros(pixels.shape[:2], np.int64)
    for channel in np.atleast_3d(pixels).transpose(2, 0, 1):
        codes = (codes << bits) | channel.astype(np.int64)
    return codes


@cache
def size_of(path: Path) -> tuple[int, int] | None:
    """Width and height from a file's header."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


@cache
def look_at(path: Path) -> FileLook | None:
    """Measure the look of a picture; ``None`` for one that cannot be read or is very large."""
    codes, size = window_of(path), size_of(path)
    if codes is None or size is None or not codes.size:
        return None
    values, places, counts = _counted(codes)
    ordered = np.sort(counts)[::-1]
    main = int(np.searchsorted(np.cumsum(ordered), COVERED * codes.size)) + 1
    same = (places[1:, 1:] == places[:-1, :-1]) & (places[1:, 1:] == places[1:, :-1])
    same &= places[1:, 1:] == places[:-1, 1:]
    held = np.bincount(places[1:, 1:][same], minlength=len(values))
    rare = np.delete(np.arange(len(values)), counts.argmax())
    thin = bool(len(rare)) and bool((held[rare] < THIN * counts[rare]).all())
    return FileLook(size, len(values), main, float(same.mean()) if same.size else 1.0, thin)


def _counted(codes: Codes) -> tuple[Codes, NDArray[np.intp], NDArray[np.intp]]:
    """Values, the position among them of each pixel, and their numbers of pixels; sorting is left out for bytes."""
    if codes.max() < 256:
        counts = np.bincount(codes.ravel(), minlength=256)
        values = np.flatnonzero(counts)
        return values, (np.cumsum(counts > 0) - 1)[codes], counts[values]
    found, where, numbers = np.unique(codes, return_inverse=True, return_counts=True)
    return found, where.reshape(codes.shape), numbers


def sampled(pairs: Mapping[Path, Path], count: int = SAMPLES) -> list[tuple[Path, Path]]:
    """Some pairs at even distances."""
    images = sorted(pairs)
    chosen = spread([str(place) for place in range(len(images))], min(count, len(images)))
    return [(images[int(place)], pairs[images[int(place)]]) for place in chosen]


def likeness(pairs: Mapping[Path, Path]) -> Likeness:
    """How much files look like masks: of their images' size, of fewer colors than these, few, and in blocks."""
    seen = [(look_at(image), look_at(mask), size_of(image)) for image, mask in sampled(pairs)]
    known = [(image, mask, size) for image, mask, size in seen if mask is not None]
    if not known:
        return Likeness.SOME if not any(mask for _, mask, _ in seen) else Likeness.NONE
    levels = sorted(_likeness(image, mask, size) for image, mask, size in known)
    return levels[(len(levels) - 1) // 2]


def _likeness(image: FileLook | None, mask: FileLook, size: tuple[int, int] | None) -> Likeness:
    if size is not None and sorted(size) != sorted(mask.size):
        return Likeness.NONE
    if mask.colors > MANY_COLORS or (image is not None and mask.colors >= image.colors):
        return Likeness.NONE
    if mask.main > MANY_VALUES or mask.thin:
        return Likeness.SOME
    return Likeness.CLEAR


def colored(pairs: Mapping[Path, Path]) -> bool:
    """Whether most masks show colors instead of numbers."""
    shown = [has_colors(mask) for _, mask in sampled(pairs)]
    return 2 * sum(shown) > len(shown)


@cache
def has_colors(path: Path) -> bool:
    """Whether a picture shows colors by itself, without a palette."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            return image.mode not in ("1", "L", "P", "I", "I;16", "F")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def drawn_images(pairs: Mapping[Path, Path]) -> bool:
    """Whether the images of pairs look like masks themselves, and the masks no more than they do."""
    seen = [(look_at(image), look_at(mask)) for image, mask in sampled(pairs)]
    votes = [
        image.drawn or (mask is not None and image.colors <= mask.colors <= MANY_COLORS)
        for image, mask in seen
        if image is not None
    ]
    return bool(votes) and 2 * sum(votes) > len(votes)


def same_labels(first: Mapping[Path, Path], second: Mapping[Path, Path]) -> bool:
    """Whether masks of the same images say the same in other numbers or colors."""
    forward: dict[int, int] = {}
    backward: dict[int, int] = {}
    shared = _shared(first, second)
    for mask, other in shared:
        pairs = _value_pairs(mask, other)
        if pairs is None:
            return False
        for value, partner in pairs:
            if forward.setdefault(value, partner) != partner or backward.setdefault(partner, value) != value:
                return False
    return bool(shared)


def numbers_instances(first: Mapping[Path, Path], second: Mapping[Path, Path]) -> bool:
    """Whether the first masks number the objects whose classes the second masks show.

    In each image the first then part the areas of the second, and a number stands for other classes in other
    images, or for one object in one image only, or all numbers count from 1.
    """
    meanings: dict[int, set[int]] = {}
    holders: dict[int, int] = {}
    counted, highest = [], []
    shared = _shared(first, second)
    parted = False
    for mask, other in shared:
        pairs = _value_pairs(mask, other)
        values = {value for value, _ in pairs or ()}
        if pairs is None or len(pairs) > len(values) + 1:
            return False
        parted |= len(values) > len({partner for _, partner in pairs})
        for value, partner in pairs:
            meanings.setdefault(value, set()).add(partner)
        for value in values - {0}:
            holders[value] = holders.get(value, 0) + 1
        counted.append(values - {0} == set(range(1, len(values - {0}) + 1)))
        highest.append(len(values))
    if len(shared) < 2 or not holders or not (parted or len(holders) > len(_values(second))):
        return False
    ambiguous = sum(len(found) > 1 for found in meanings.values())
    lonely = sum(count == 1 for count in holders.values())
    return (
        2 * ambiguous >= len(meanings)
        or lonely > LONELY * len(holders)
        or (all(counted) and len(set(highest)) > 1)
    )


def _values(pairs: Mapping[Path, Path]) -> set[int]:
    windows = [window_of(mask) for _, mask in sampled(pairs)]
    return {int(value) for window in windows if window is not None for value in np.unique(window)}


def _shared(first: Mapping[Path, Path], second: Mapping[Path, Path]) -> list[tuple[Path, Path]]:
    """Some pairs of masks of the same images."""
    both = {image: mask for image, mask in first.items() if image in second}
    return [(mask, second[image]) for image, mask in sampled(both)]


def _value_pairs(first: Path, second: Path) -> set[tuple[int, int]] | None:
    """Pairs of values at the same pixels; ``None`` where masks cannot be read or differ in size."""
    one, other = window_of(first), window_of(second)
    if one is None or other is None or one.shape != other.shape:
        return None
    (values, places), (others, where) = (np.unique(each, return_inverse=True) for each in (one, other))
    joint = np.unique(places.reshape(-1).astype(np.int64) * len(others) + where.reshape(-1))
    return {(int(values[code // len(others)]), int(others[code % len(others)])) for code in joint}


def looks_drawn(files: Iterable[Path]) -> bool:
    """Whether most of some pictures look like masks."""
    looks = [look for path in files if (look := look_at(path)) is not None]
    return bool(looks) and 2 * sum(look.drawn for look in looks) > len(looks)


def some_of(files: Sequence[Path]) -> Sequence[Path]:
    """Some files at even distances."""
    return [
        files[int(place)] for place in spread([str(i) for i in range(len(files))], min(SAMPLES, len(files)))
    ]
