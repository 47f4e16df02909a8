"""Fingerprints of data: what counts as a change, and how it is named."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from semiseg.contracts.dataset import Split
from semiseg.data.file_faults import check_files
from semiseg.data.fingerprint import Fingerprint, differences, fingerprint, other_masks, read
from semiseg.data.folder import Folder
from semiseg.data.picture_facts import PictureFacts, image_facts, mask_facts
from semiseg.splits.split import make_split

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


def draw(root: Path) -> None:
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"images/p{number}.png")
        Image.fromarray(mask_of(number)).save(root / f"masks/p{number}.png")
    Image.new("RGB", (8, 6), "blue").save(root / "images/x.png")
    (root / "val.txt").write_text("p3\n")


def mask_of(number: int) -> NDArray[np.uint8]:
    mask = np.zeros((6, 8), np.uint8)
    mask[:, number:] = 1
    return mask


def of_folder(root: Path) -> Fingerprint:
    dataset = Folder(str(root), classes=["a", "b"], cache=False)
    report = check_files(dataset, make_split(dataset, "full"))
    return fingerprint(report.split, report.facts)


def as_palettes(root: Path) -> None:
    for number in range(4):
        picture = Image.fromarray(mask_of(number)).convert("P")
        picture.putpalette([9, 9, 9, 200, 0, 0])
        picture.save(root / f"masks/p{number}.png")


def as_jpeg(root: Path) -> None:
    Image.open(root / "images/p2.png").save(root / "images/p2.jpg")
    (root / "images/p2.png").unlink()


FILES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "nothing": (lambda root: None, []),
    "time alone": (lambda root: os.utime(root / "masks/p1.png", ns=(1, 1)), []),
    "saved again": (
        lambda root: Image.fromarray(mask_of(1)).save(root / "masks/p1.png", compress_level=0),
        [],
    ),
    "masks as palettes": (as_palettes, []),
    "mask painted": (
        lambda root: Image.fromarray(1 - mask_of(1)).save(root / "masks/p1.png"),
        ["labeled: 1 with another mask (p1)"],
    ),
    "mask of validation": (
        lambda root: Image.fromarray(mask_of(0)).save(root / "masks/p3.png"),
        ["val: 1 with another mask (p3)"],
    ),
    "image as JPEG": (
        lambda root: (
            Image.open(root / "images/p2.png").save(root / "images/p2.jpg"),
            (root / "images/p2.png").unlink(),
        ),
        ["labeled: 1 with other pixels (p2)"],
    ),
    "image without mask": (
        lambda root: Image.new("RGB", (8, 6), "red").save(root / "images/x.png"),
        ["unlabeled: 1 with other pixels (x)"],
    ),
    "removed": (lambda root: (root / "images/x.png").unlink(), ["unlabeled: 1 missing (x)"]),
    "renamed": (
        lambda root: (root / "images/x.png").rename(root / "images/y.png"),
        ["unlabeled: 1 new (y)", "unlabeled: 1 missing (x)"],
    ),
    "labeled now": (
        lambda root: Image.fromarray(mask_of(2)).save(root / "masks/x.png"),
        ["labeled: 1 new (x)", "unlabeled: 1 missing (x)"],
    ),
    "other list": (
        lambda root: (root / "val.txt").write_text("p2\n"),
        ["labeled: 1 new (p3)", "labeled: 1 missing (p2)", "val: 1 new (p2)", "val: 1 missing (p3)"],
    ),
    "size": (
        lambda root: [
            Image.fromarray(np.zeros((4, 4, *rest), np.uint8)).save(root / f"{kind}/p3.png")
            for kind, rest in (("images", (3,)), ("masks", ()))
        ],
        ["val: 1 of another size (p3)"],
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_happens_to_files(tmp_path: Path, kind: str) -> None:
    draw(tmp_path)
    before = of_folder(tmp_path)
    change, expected = FILES[kind]
    change(tmp_path)
    assert differences(before, of_folder(tmp_path)) == expected
