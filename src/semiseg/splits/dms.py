"""Difference-maximized sampling: two overlapping samples of the labeled images (DMT)."""

import math
import random
from collections.abc import Sequence
from itertools import product

from semiseg.errors import UserError
from semiseg.splits.rules import SHUFFLE_SEED, shuffled

COMMON = 0.6
"""Share of the labeled images that is in both samples."""

CHAIN = ("1/8", "1/20", "1/50", "1/106")
CHAIN_IDS = (0, 1, 2)
SMALLEST_POOL = 106
"""Fewer training images leave a list of the chain empty."""

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
        split: the share of labels as configured, for example "1/106".
        split_id: which partition of the family.

    Returns:
        The left and the right sample, each in shuffled order.

    Raises:
        UserError: fewer than two labeled images.
    """
    if len(labeled) < 2:
        raise UserError(
            f"two different samples need 2 labeled images or more; split={split} has {len(labeled)}"
        )
    name = split.replace("105.82", "106")
    if name in CHAIN and str(split_id) in map(str, CHAIN_IDS) and len(train_ids) >= SMALLEST_POOL:
        listed, order = _in_chain(train_ids, name, int(split_id))
        # Lists of other families have the same names.
        if listed == tuple(labeled):
            return _two(order)
    order = list(labeled)
    random.Random(SHUFFLE_SEED).shuffle(order)
    return _two(order)


def _in_chain(train_ids: Sequence[str], split: str, split_id: int) -> tuple[tuple[str, ...], list[str]]:
    """Return the list that the family "shuffled" has for a split, and its order after DMT's shuffles."""
    generator = random.Random(SHUFFLE_SEED)
    for number, name in product(CHAIN_IDS, CHAIN):
        listed, _ = shuffled(train_ids, name, number)
        order = list(listed)
        generator.shuffle(order)
        if (name, number) == (split, split_id):
            break
    return listed, order


def _two(order: Sequence[str]) -> Samples:
    private = math.ceil((1 - COMMON) / 2 * len(order))
    return tuple(order[: len(order) - private]), tuple(order[private:])
