"""Labeled lists as long as the unlabeled one, whose entries meet the same unlabeled images in every epoch."""

import random
from collections.abc import Mapping, Sequence
from typing import Literal

from semiseg.contracts.feeding import Budget, View
from semiseg.data.collate import Item
from semiseg.data.epochs import Unlabeled
from semiseg.data.streams import Stream, Streams

ListRule = Literal["in_order", "shuffled_once", "sampled_once"]
"""Way to a labeled list of a given length, see ``lengthened``."""


def lengthened(ids: Sequence[str], count: int, rule: ListRule = "in_order", seed: int = 0) -> list[str]:
    """Return ``count`` entries of a list that is repeated as a whole.

    Args:
        ids: ids, at least one.
        count: length of the result.
        rule: "in_order" repeats and cuts (UniMatch, PrevMatch); "shuffled_once" shuffles the repeated list before it is
            cut (CorrMatch, seed 0); "sampled_once" draws from it without replacement (U2PL and AugSeg, seed 2).
        seed: seed of Python's generator for the two random rules.
    """
    repeated = list(ids) * -(-count // len(ids))
    if rule == "shuffled_once":
        # Published code of CorrMatch: dataset/semi.py.
        random.Random(seed).shuffle(repeated)
    elif rule == "sampled_once":
        # Published code of U2PL: u2pl/dataset/pascal_voc.py; of AugSeg: augseg/dataset.
        return random.Random(seed).sample(repeated, count)
    return repeated[:count]


def paired(
    labeled_ids: Sequence[str],
    labeled_view: View,
    unlabeled: Mapping[str, Unlabeled],
    *,
    batch_size: int,
    budget: Budget,
    rule: ListRule = "in_order",
    seed: int = 0,
    groups: int = 1,
) -> Streams:
    """Labeled and unlabeled images whose lists have one length and one order, as in the UniMatch family.

    Position i of the labeled list meets position i of the unlabeled list in every epoch; only which of them share a
    batch changes. A labeled list that is longer than the unlabeled one is cut.

    Args:
        labeled_ids: ids of the images with true labels, for the stream ``labeled``.
        labeled_view: view of the labeled images.
        unlabeled: unlabeled streams by name; the labeled one shares the order of the first.
        batch_size: number of images of a batch of each stream.
        budget: length of the fit.
        rule: rule of the labeled list, see ``lengthened``.
        seed: seed of that rule.
        groups: number of equal parts of a batch, for the length of an epoch: with n images it has
            ``ceil(n / groups) // (batch_size / groups)`` iterations, as on that many GPUs.
    """
    first = next(iter(unlabeled))
    count = len(unlabeled[first].ids)
    known = tuple(Item(each, "true", labeled_view) for each in lengthened(labeled_ids, count, rule, seed))
    streams = {"labeled": Stream(known, batch_size, order=first)}
    for name, (ids, view, order) in unlabeled.items():
        items = tuple(Item(each, None, view) for each in ids)
        streams[name] = Stream(items, batch_size, order=order)
    per_epoch = max(1, -(-count // groups) // max(1, batch_size // groups))
    return Streams(streams, budget.total(per_epoch), per_epoch)
