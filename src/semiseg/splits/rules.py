"""Rules that divide any list of ids into labeled and unlabeled ones."""

import math
import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from semiseg.errors import UserError
from semiseg.splits.lists import spread

Share = Fraction | int | Literal["full"]
Divided = tuple[tuple[str, ...], tuple[str, ...]]
"""Labeled ids and the others."""

ANY_DATASET = ("every", "shuffled")
"""Rules for any dataset; as families they take any split."""

ORDERS = ("python_shuffle", "numpy_permutation")
"""Rules that take the first ids of the sorted list in another order, see ``first_of_order``."""

RULES = (*ANY_DATASET, "sbd", *ORDERS)
"""Rules that make partitions from the dataset's own ids, so that no lists have to be imported."""

SHUFFLE_SEED = 7777
NUMPY_SEEDS = (12345, 23456, 34567, 45678, 56789)
"""Seeds of CutMix-Seg's partitions of Cityscapes, by split_id."""

PUBLISHED_RATIOS = {Fraction(106): Fraction("105.82"), Fraction(30): Fraction("29.75")}


def parse_split(text: str) -> Share:
    """Read ``split``: a fraction such as "1/8" or "1/105.82", a number of images such as "732", or "full".

    Raises:
        UserError: anything else.
    """
    expected = 'expected a fraction such as 1/8, a number of images such as 732, or "full"'
    if text.strip() == "full":
        return "full"
    top, slash, bottom = text.strip().partition("/")
    try:
        value = Fraction(top) / Fraction(bottom) if slash else Fraction(top)
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(expected, key="split", value=text) from error
    if slash and 0 < value <= 1:
        return value
    if not slash and top.isdigit() and value > 0:
        return int(value)
    if not slash and 0 < value < 1:
        expected += f"; the nearest fraction is 1/{round(1 / value)}"
    raise UserError(expected, key="split", value=text)


def every(pool: Sequence[str], split: str) -> Divided:
    """Take every r-th id of a list, from the first on, for "1/r": ``ceil(N / r)`` of N ids; the rule of CPS.

    Other fractions f take ``floor(N * f)`` and a number takes that many, at even distances: positions
    ``floor(i * N / count)``. Both results keep the order of the list.

    Raises:
        UserError: no such split, none or more than all.
    """
    share = parse_split(split)
    if isinstance(share, Fraction) and share.numerator == 1:
        labeled = tuple(pool[:: share.denominator])
    else:
        labeled = spread(pool, _count(share, len(pool), split))
    return labeled, without(pool, labeled)


def shuffled(pool: Sequence[str], split: str, split_id: int) -> Divided:
    """Take the first ids of a shuffled list; the rule of DMT.

    One generator seeded with 7777 shuffles the list in place ``split_id + 1`` times. "1/r" takes
    ``floor(N / r)``, one more where that is 1 modulo 8 (a last batch of one image has no batch statistics), so
    smaller sets lie in larger ones; 1/106 and 1/30 mean the ratios 105.82 and 29.75, as published. A number
    takes exactly that many.

    Raises:
        UserError: no such split, none or more than all.
    """
    order = list(pool)
    generator = random.Random(SHUFFLE_SEED)
    for _ in range(split_id + 1):
        generator.shuffle(order)
    share = parse_split(split)
    if isinstance(share, Fraction):
        share = 1 / PUBLISHED_RATIOS.get(1 / share, 1 / share)
    count = _count(share, len(pool), split)
    if isinstance(share, Fraction) and count % 8 == 1:
        count = min(count + 1, len(pool))
    return tuple(order[:count]), tuple(order[count:])


def first_of_order(pool: Sequence[str], rule: str, split_id: int, count: int) -> Divided:
    """Take the first ``count`` ids of the sorted list in another order; the others are unlabeled, in that order.

    "python_shuffle" is Python's shuffle seeded with 0, as UniMatch V2 divides ADE20K; "numpy_permutation" is
    ``RandomState(seed).permutation`` with one of ``NUMPY_SEEDS``, as CutMix-Seg divides Cityscapes.

    Raises:
        UserError: more images than there are.
    """
    order = sorted(pool)
    if rule == "python_shuffle":
        random.Random(0).shuffle(order)
    else:
        # The names of the rules need no numpy.
        from numpy.random import RandomState

        order = [order[index] for index in RandomState(NUMPY_SEEDS[split_id]).permutation(len(order))]
    count = _count(count, len(order), str(count))
    return tuple(order[:count]), tuple(order[count:])


def without(pool: Sequence[str], taken: Sequence[str]) -> tuple[str, ...]:
    """Ids of a list that are not taken, in its order."""
    chosen = frozenset(taken)
    return tuple(image_id for image_id in pool if image_id not in chosen)


def _count(share: Share, total: int, split: str) -> int:
    """Number of labeled images of ``total``."""
    if share == "full":
        return total
    count = math.floor(total * share) if isinstance(share, Fraction) else share
    if count > total:
        expected = f"there are only {total} training images; the largest split is full"
        raise UserError(expected, key="split", value=split)
    if count == 0:
        expected = f"less than one of {total} training images; the smallest split is 1/{total}"
        raise UserError(expected, key="split", value=split)
    return count
