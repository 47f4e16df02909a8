"""Difference-maximized sampling: two overlapping samples of the labeled images (DMT)."""

import math
import random
from collections.abc import Sequence
from itertools import product

from semiseg.errors import UserError
from semiseg.splits.rules import SHUFFLE_SEED, shuffled

COMMON = 0.6
"""Share of the labeled images that are in both samples."""

CHAIN = ("1/8", "1/20", "1/50", "1/106")
CHAIN_IDS = (0, 1, 2)
SMALLEST_POOL = 106
"""Number of training images below which a list of the chain would be empty."""

Samples = tuple[tuple[str, ...], tuple[str, ...]]


def difference_maximized(
    train_ids: Sequence[str], labeled: Sequence[str], split: str, split_id: int | str
) -> Samples:
    """Draw two samples of n labeled images that share about 60 % of them, ``n - ceil(0.2 n)`` images each.

    The list is shuffled; the left sample is all but its last ``ceil(0.2 n)`` ids, the right one all but its
    first. Two networks that start from the same weights are trained on one each, so that they differ.

    The labeled lists of the family "shuffled" (1/8, 1/20, 1/50 and 1/106, ids 0 to 2) get DMT's published
    samples: one generator seeded with 7777 shuffles these twelve lists one after the other, ids outermost.
    Any other list is shuffled by a generator of its own with that seed.

    Args:
        train_ids: all training ids, in the order of the dataset.
        labeled: the labeled ids, in the order of their list.
        split: share of labels as configured, for example "1/106".
        split_id: number of the draw.

    Returns:
        The left and the right sample, each in shuffled order.

    Raises:
        UserError: fewer than two labeled images.
    """
    if len(labeled) < 2:
        raise UserError(
            f"two different samples need 2 labeled images or more; split={split} has {len(labeled)}"
        )
    order = _shuffled_labels(train_ids, labeled, (split.replace("105.82", "106"), str(split_id)))
    private = math.ceil((1 - COMMON) / 2 * len(order))
    return tuple(order[: len(order) - private]), tuple(order[private:])


def _shuffled_labels(train_ids: Sequence[str], labeled: Sequence[str], key: tuple[str, str]) -> list[str]:
    """Shuffle the labeled list of a split and split_id: by the generator of the chain, or by one of its own."""
    generator = random.Random(SHUFFLE_SEED)
    for number, name in product(CHAIN_IDS, CHAIN) if len(train_ids) >= SMALLEST_POOL else ():
        order = list(shuffled(train_ids, name, number)[0])
        # Lists of other families have the same names.
        found = (name, str(number)) == key and order == list(labeled)
        generator.shuffle(order)
        if found:
            return order
    order = list(labeled)
    random.Random(SHUFFLE_SEED).shuffle(order)
    return order
