"""Difference-maximized sampling: DMT's published samples, and the same shape for any other list."""

import hashlib
import math
import random

import pytest

from semiseg.errors import UserError
from semiseg.splits.dms import difference_maximized
from semiseg.splits.rules import every, shuffled

GOLDEN = {
    "1/106": [
        ("4a251f6de63026f1", "9fabc2178f665cff"),
        ("6ccba94c94cbc264", "7853af824880dec2"),
        ("b57ed34e6898f16c", "1086b4134a10ec67"),
    ],
    "1/50": [
        ("e0f32b8240fc6a27", "38fc746e1398b0b0"),
        ("4221e4fe32b8eaee", "be82021eae6fe810"),
        ("51ee0c8cf07a6bfd", "b847e39904549a6c"),
    ],
}


def sha16(ids):
    return hashlib.sha256(("\n".join(ids) + "\n").encode()).hexdigest()[:16]


@pytest.mark.golden("DMT splits")
@pytest.mark.parametrize("split", GOLDEN)
def test_published_samples_of_voc(voc, split):
    pool = voc.ids("train")
    for split_id, expected in enumerate(GOLDEN[split]):
        labeled, _ = shuffled(pool, split, split_id)
        for name in (split_id, str(split_id)):
            assert tuple(map(sha16, difference_maximized(pool, labeled, split, name))) == expected


@pytest.mark.parametrize(
    ("split", "side", "common"),
    [("1/8", 1057, 792), ("1/20", 424, 318), ("1/50", 168, 125), ("1/106", 80, 60)],
)
def test_published_sizes(voc, split, side, common):
    labeled, _ = shuffled(voc.ids("train"), split, 1)
    left, right = difference_maximized(voc.ids("train"), labeled, split, 1)
    assert (len(left), len(right), len({*left} & {*right})) == (side, side, common)
    assert {*left, *right} == set(labeled)


def test_a_published_list_is_known_by_its_old_name(voc):
    pool = voc.ids("train")
    labeled, _ = shuffled(pool, "1/105.82", 2)
    samples = difference_maximized(pool, labeled, "1/105.82", 2)
    assert samples == difference_maximized(pool, labeled, "1/106", 2)


@pytest.mark.parametrize("count", [2, 3, 5, 10, 37])
def test_other_lists_get_samples_of_the_same_shape(count):
    labeled = [f"i{index}" for index in range(count)]
    left, right = difference_maximized(labeled, labeled, "1/8", 0)
    private = math.ceil(0.2 * count)
    assert len(left) == len(right) == count - private
    assert len({*left} & {*right}) == max(count - 2 * private, 0)
    assert {*left, *right} == set(labeled)
    assert (left, right) == difference_maximized(labeled, labeled, "full", 0)


def test_a_list_of_another_family_does_not_get_the_published_samples():
    pool = [f"i{index}" for index in range(1000)]
    labeled, _ = every(pool, "1/8")
    left, right = difference_maximized(pool, labeled, "1/8", 0)
    order = list(labeled)
    random.Random(7777).shuffle(order)
    assert (*left, *right[-25:]) == tuple(order)


def test_the_chain_runs_on_over_lists_and_ids():
    """The samples of a list depend on all lists before it."""
    pool = [f"i{index}" for index in range(400)]
    generator = random.Random(7777)
    for split_id in range(3):
        for split in ("1/8", "1/20", "1/50", "1/106"):
            labeled, _ = shuffled(pool, split, split_id)
            order = list(labeled)
            generator.shuffle(order)
            left, right = difference_maximized(pool, labeled, split, split_id)
            assert left == tuple(order[: len(left)])
            assert right == tuple(order[-len(right) :])


def test_one_image_cannot_make_two_samples():
    with pytest.raises(UserError, match="need 2 labeled images or more; split=1/8 has 1"):
        difference_maximized(["a", "b"], ["a"], "1/8", 0)
