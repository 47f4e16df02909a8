"""Fingerprints of data: what counts as a change, and how it is named."""

from dataclasses import replace

import numpy as np
import pytest

from semiseg.contracts.dataset import Split
from semiseg.data.fingerprint import Fingerprint, differences, fingerprint, other_masks, read
from semiseg.data.picture_facts import PictureFacts, image_facts, mask_facts

SPLIT = Split(labeled=("a", "b", "c"), unlabeled=("d",), val=("e",), test=("f",))


def facts(seed: int, masked: bool = True) -> PictureFacts:
    generator = np.random.default_rng(seed)
    image = image_facts(generator.integers(0, 256, (4, 5, 3), np.uint8))
    mask = mask_facts(generator.integers(0, 3, (4, 5), np.uint8))
    return PictureFacts(*image, *((mask.digest, mask.counts) if masked else ()))


FACTS = {image_id: facts(seed, image_id != "d") for seed, image_id in enumerate("abcdef")}
BEFORE = fingerprint(SPLIT, FACTS)


def changed(**values: PictureFacts) -> Fingerprint:
    return fingerprint(SPLIT, {**FACTS, **values})


def test_the_same_data_do_not_differ() -> None:
    assert differences(BEFORE, fingerprint(SPLIT, FACTS)) == []
    turned = replace(SPLIT, labeled=("c", "b", "a"))
    assert fingerprint(turned, FACTS).sha256("labeled") == BEFORE.sha256("labeled")


def test_it_is_stored_and_read() -> None:
    assert read(BEFORE.as_dict()) == BEFORE
    assert BEFORE.as_dict()["sha256"]["val"] == BEFORE.sha256("val")
    for other in (None, [], {}, {"format": 99}):
        assert read(other) is None


CHANGES = {
    "new": (replace(SPLIT, labeled=("a", "b", "c", "x", "y")), FACTS, ["labeled: 2 new (x, y)"]),
    "missing": (replace(SPLIT, test=()), FACTS, ["test: 1 missing (f)"]),
    "moved": (
        replace(SPLIT, labeled=("a", "b"), val=("e", "c")),
        FACTS,
        ["labeled: 1 missing (c)", "val: 1 new (c)"],
    ),
    "mask": (SPLIT, FACTS | {"b": replace(FACTS["b"], mask="0" * 32)}, ["labeled: 1 with another mask (b)"]),
    "size": (SPLIT, FACTS | {"e": replace(FACTS["e"], size=(9, 9))}, ["val: 1 of another size (e)"]),
    "pixels": (
        SPLIT,
        FACTS | {"d": replace(FACTS["d"], picture="0" * 32)},
        ["unlabeled: 1 with other pixels (d)"],
    ),
    "all": (
        SPLIT,
        {each: replace(found, mask="1" * 32) for each, found in FACTS.items() if each in "abc"},
        ["labeled: 3 with another mask (a, b, c)"],
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_changes_are_named_with_the_first_ids(kind: str) -> None:
    split, now, expected = CHANGES[kind]
    assert differences(BEFORE, fingerprint(split, now)) == expected


def test_many_ids_are_counted() -> None:
    many = replace(SPLIT, unlabeled=tuple(f"u{number:02d}" for number in range(40)))
    found = differences(BEFORE, fingerprint(many, FACTS))
    assert any(each.startswith("unlabeled: 40 new (u00, u01") and "more" in each for each in found)


def test_digests_leave_out_what_decoders_round_otherwise() -> None:
    now = changed(a=replace(FACTS["a"], picture="0" * 32))
    assert now.sha256("labeled") == BEFORE.sha256("labeled")
    assert differences(replace(BEFORE, decoder="pillow 1"), now) == []
    assert changed(a=replace(FACTS["a"], mask="0" * 32)).sha256("labeled") != BEFORE.sha256("labeled")


def test_a_mask_that_one_run_alone_reads_is_no_difference() -> None:
    other = fingerprint(replace(SPLIT, labeled=("a",), unlabeled=("b", "c", "d")), FACTS)
    assert other_masks(BEFORE, other) == []
    assert other_masks(BEFORE, changed(c=replace(FACTS["c"], mask="0" * 32))) == ["c"]
