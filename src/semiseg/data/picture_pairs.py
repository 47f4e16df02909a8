"""Pairs of pictures that are equal, or nearly equal: copies under other names, saved again, resized or brightened."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semiseg.data.picture_facts import SIDE, PictureFacts, looks

LARGEST_DISTANCE = 8
"""Largest number of the 63 bits in which the perceptual hashes of nearly equal pictures differ."""

SHARE_OF_USUAL = 0.02
"""Largest difference of nearly equal pictures, as a share of the usual difference between pictures of the data."""

SMALLEST_USUAL = 0.01
"""Smallest usual difference that is reckoned with, so that data of one picture alone has copies too."""

BANDS = LARGEST_DISTANCE + 1
BAND_BITS = 7
CANDIDATES = 32
BLOCK = 2**22
SAMPLED_PAIRS = 4000

Pairs = NDArray[np.int64]
"""Positions in two sequences, ``(N, 2)``."""


class PicturePair(NamedTuple):
    """Two images that show the same.

    Args:
        first: id of one image.
        second: id of the other.
        equal: whether all pixels are equal; else the pictures are nearly equal.
    """

    first: str
    second: str
    equal: bool


@dataclass(frozen=True)
class PictureGroup:
    """Pictures to compare with those of other groups, prepared once.

    Args:
        ids: ids of the pictures.
        digests: their digests; "" for a picture of one color, which equals no other.
        looks: hashes of those that show anything.
        shown: their positions.
        normal: their small gray pictures as rows of mean 0 and deviation 1.
    """

    ids: tuple[str, ...]
    digests: tuple[str, ...]
    looks: NDArray[np.uint64]
    shown: NDArray[np.int64]
    normal: NDArray[np.float32]


def picture_group(facts: Mapping[str, PictureFacts], ids: Sequence[str]) -> PictureGroup:
    """Prepare the pictures of some ids."""
    smalls = [facts[image_id].small for image_id in ids]
    values, shows = looks(smalls)
    digests = (facts[image_id].picture for image_id in ids)
    several = (small.count(small[:1]) < len(small) for small in smalls)
    shown = np.flatnonzero(shows)
    return PictureGroup(
        tuple(ids),
        tuple(digest if colors else "" for digest, colors in zip(digests, several, strict=True)),
        values[shows],
        shown,
        _normal([smalls[place] for place in shown]),
    )


def picture_pairs(
    facts: Mapping[str, PictureFacts], first: Sequence[str], second: Sequence[str]
) -> list[PicturePair]:
    """Return the pairs of images of two groups that show the same, see ``pairs_between``."""
    groups = picture_group(facts, first), picture_group(facts, second)
    return pairs_between(*groups, usual_difference([each.small for each in facts.values()]))


def pairs_between(first: PictureGroup, second: PictureGroup, usual: float) -> list[PicturePair]:
    """Return the pairs of images of two groups that show the same; an image makes no pair with itself.

    Pictures are equal where size, type and all pixels are. They are nearly equal where their perceptual hashes
    differ in at most 8 of 63 bits and their small gray pictures, brought to mean 0 and deviation 1, differ by at
    most 2 % of the usual difference between pictures of the data. Pictures of one color are no pairs.

    Args:
        first: one group.
        second: the other.
        usual: usual difference, see ``usual_difference``.

    Returns:
        Equal pairs, then nearly equal ones, each in the order of ``second``. An image that many others equal is in
        32 pairs; of those that look like an image, the 32 with the nearest hashes are compared.
    """
    same = list(_equal(first, second))
    known = {(pair.first, pair.second) for pair in same}
    pairs = (
        (first.ids[row], second.ids[column]) for row, column in near_pairs(first, second, usual).tolist()
    )
    return same + [PicturePair(*pair, False) for pair in pairs if pair[0] != pair[1] and pair not in known]


def _equal(first: PictureGroup, second: PictureGroup) -> Iterator[PicturePair]:
    places: dict[str, list[str]] = {}
    for image_id, digest in zip(first.ids, first.digests, strict=True):
        if digest:
            places.setdefault(digest, []).append(image_id)
    for image_id, digest in zip(second.ids, second.digests, strict=True):
        for other in places.get(digest, ())[:CANDIDATES]:
            if other != image_id:
                yield PicturePair(other, image_id, True)


def usual_difference(smalls: Sequence[bytes]) -> float:
    """Return the median difference between two different pictures of some, see ``near_pairs``; 1 for fewer than two."""
    distinct = list(dict.fromkeys(smalls))
    if len(distinct) < 2:
        return 1.0
    rng = np.random.default_rng(0)
    left = rng.integers(0, len(distinct), SAMPLED_PAIRS)
    right = (left + rng.integers(1, len(distinct), SAMPLED_PAIRS)) % len(distinct)
    pictures = [_normal([distinct[place] for place in places]) for places in (left, right)]
    # Pictures of one color have no deviation to bring to 1.
    several = np.all([each.any(1) for each in pictures], axis=0)
    return float(np.median(_differences(*pictures)[several])) if several.any() else 1.0


def near_pairs(first: PictureGroup, second: PictureGroup, usual: float) -> Pairs:
    """Return the positions of pictures that are nearly equal, ordered by the second.

    The difference of two is half the mean square of the difference of their small gray pictures, brought to mean 0
    and deviation 1: 0 for pictures that differ in brightness and contrast alone, 1 for unrelated ones. Hashes that
    differ in at most 8 bits are equal in one of 9 bands of 7 bits, so that only those are compared.

    Args:
        first: one group.
        second: the other.
        usual: usual difference between pictures of the data, see ``usual_difference``.
    """
    limit = SHARE_OF_USUAL * min(max(usual, SMALLEST_USUAL), 1.0)
    found: list[Pairs] = [np.empty((0, 2), np.int64)]
    for pairs in _candidates(first.looks, second.looks):
        near = _differences(first.normal[pairs[:, 0]], second.normal[pairs[:, 1]]) <= limit
        found.append(pairs[near])
    pairs = np.unique(np.concatenate(found), axis=0)
    pairs = np.stack([first.shown[pairs[:, 0]], second.shown[pairs[:, 1]]], 1)
    return pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]


def _candidates(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> Iterator[Pairs]:
    """Yield pairs whose hashes are near, band by band; a pair may come more than once."""
    for band in range(BANDS):
        shift = np.uint64(1 + band * BAND_BITS)
        keys = [((each >> shift) & np.uint64(2**BAND_BITS - 1)).astype(np.int64) for each in (first, second)]
        orders = [np.argsort(each, kind="stable") for each in keys]
        starts = [
            np.searchsorted(each[order], np.arange(2**BAND_BITS + 1))
            for each, order in zip(keys, orders, strict=True)
        ]
        for key in range(2**BAND_BITS):
            rows, columns = (
                order[start[key] : start[key + 1]] for order, start in zip(orders, starts, strict=True)
            )
            if len(rows) and len(columns):
                yield from _near(first, second, rows, columns)


def _near(
    first: NDArray[np.uint64], second: NDArray[np.uint64], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> Iterator[Pairs]:
    """Yield the pairs of some rows and columns whose hashes are near, for a column at most 32."""
    step = max(1, BLOCK // len(rows))
    for start in range(0, len(columns), step):
        part = columns[start : start + step]
        distances = np.bitwise_count(second[part, None] ^ first[None, rows])
        near = distances <= LARGEST_DISTANCE
        # As a rule there are few, which need not be ranked.
        if len(rows) > CANDIDATES and np.count_nonzero(near, axis=1).max() > CANDIDATES:
            nearest = np.argpartition(distances, CANDIDATES, axis=1)[:, :CANDIDATES]
            place, which = np.nonzero(np.take_along_axis(distances, nearest, 1) <= LARGEST_DISTANCE)
            which = nearest[place, which]
        else:
            place, which = np.nonzero(near)
        yield np.stack([rows[which], part[place]], 1)


def _normal(smalls: Sequence[bytes]) -> NDArray[np.float32]:
    """Small gray pictures as rows of mean 0 and deviation 1."""
    pictures = np.frombuffer(b"".join(smalls), np.uint8).reshape(-1, SIDE * SIDE).astype(np.float32)
    pictures -= pictures.mean(1, keepdims=True)
    return np.asarray(pictures / np.maximum(pictures.std(1, keepdims=True), 1e-6), np.float32)


def _differences(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.square(first - second).mean(1) / 2, np.float32)
