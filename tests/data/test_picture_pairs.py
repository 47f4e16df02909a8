"""Pictures that show the same are found among many, and pictures that merely resemble each other are not."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from semiseg.data.picture_facts import PictureFacts, image_facts, looks
from semiseg.data.picture_pairs import near_pairs, picture_group, picture_pairs
from semiseg.data.shapes import Shapes


def facts(pictures: dict[str, NDArray[Any]]) -> dict[str, PictureFacts]:
    return {name: PictureFacts(*image_facts(picture)) for name, picture in pictures.items()}


def pairs(pictures: dict[str, NDArray[Any]]) -> set[tuple[str, str]]:
    """Ids of all pairs, the smaller first."""
    names = list(pictures)
    found = picture_pairs(facts(pictures), names, names)
    return {(each.first, each.second) for each in found if each.first < each.second}


def saved_again(picture: NDArray[Any], seed: int = 0) -> NDArray[Any]:
    """A copy that differs as a JPEG does."""
    noise = np.random.default_rng(seed).normal(0, 3, picture.shape)
    return (picture * 1.03 + noise).clip(0, 255).astype(np.uint8)


def cells(number: int) -> NDArray[Any]:
    """Bright cells on a dark ground, as a microscope shows them."""
    rng = np.random.default_rng(number)
    picture = rng.normal(12, 3, (96, 96))
    y, x = np.mgrid[:96, :96]
    for _ in range(rng.integers(6, 14)):
        where = (x - rng.uniform(0, 96)) ** 2 + (y - rng.uniform(0, 96)) ** 2
        picture += rng.uniform(60, 160) * np.exp(-where / rng.uniform(10, 40))
    return np.repeat(picture.clip(0, 255)[..., None], 3, 2).astype(np.uint8)


def disk(number: int) -> NDArray[Any]:
    """A bright round field on black with fine lines, as of the back of an eye: all pictures are much alike."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:128, :128]
    field = (x - 64) ** 2 + (y - 64) ** 2 < 60**2
    picture = field * (140 - 0.4 * np.hypot(x - 64, y - 64)) + rng.normal(0, 2, (128, 128))
    for _ in range(8):
        angle, start = rng.uniform(0, np.pi), rng.uniform(30, 98, 2)
        line = np.abs((x - start[0]) * np.sin(angle) - (y - start[1]) * np.cos(angle)) < 2
        picture -= 50 * (line & field)
    return np.stack([picture * 1.4, picture * 0.8, picture * 0.4], 2).clip(0, 255).astype(np.uint8)


def belt(number: int) -> NDArray[Any]:
    """One object somewhere before a ground that is the same in all pictures, as under a fixed camera."""
    rng = np.random.default_rng(number)
    ground = np.random.default_rng(12345).integers(60, 180, (12, 12), np.uint8)
    picture = np.asarray(Image.fromarray(ground).resize((96, 96), Image.Resampling.BICUBIC)).astype(float)
    left, top = rng.integers(0, 72, 2)
    picture[top : top + 24, left : left + 24] = rng.uniform(180, 250)
    return np.repeat((picture + rng.normal(0, 2, picture.shape)).clip(0, 255)[..., None], 3, 2).astype(
        np.uint8
    )


def page(number: int) -> NDArray[Any]:
    """Lines of text on white paper."""
    rng = np.random.default_rng(number)
    picture = np.full((128, 96, 3), 245, np.uint8)
    for row in range(10, 118, 6):
        for column in range(8, int(rng.integers(50, 90))):
            if rng.random() < 0.6:
                picture[row : row + 3, column] = 30
    return picture


def drawn(number: int) -> NDArray[Any]:
    shapes = Shapes(train=number + 1, val=0, test=0, size=64)
    return shapes.image(f"train-{number:04d}")


KINDS = {"cells": cells, "disk": disk, "belt": belt, "page": page, "drawn": drawn}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_one_kind_are_no_pairs_but_their_copies_are(kind: str) -> None:
    pictures = {f"{number:02d}": KINDS[kind](number) for number in range(24)}
    assert pairs(pictures) == set()
    copied = pictures | {"07 (1)": pictures["07"].copy(), "11 saved": saved_again(pictures["11"])}
    assert pairs(copied) == {("07", "07 (1)"), ("11", "11 saved")}


BLANK = {
    "black": lambda rng: np.zeros((40, 40, 3), np.uint8),
    "white": lambda rng: np.full((40, 40, 3), 255, np.uint8),
    "faint noise": lambda rng: rng.integers(118, 122, (40, 40, 3), np.uint8),
    "faint slope": lambda rng: (np.indices((40, 40, 3))[1] // 10 + rng.integers(0, 2, (40, 40, 3))).astype(
        np.uint8
    ),
}


@pytest.mark.parametrize("kind", BLANK)
def test_pictures_that_show_nothing_are_no_pairs(kind: str) -> None:
    rng = np.random.default_rng(0)
    pictures = {str(number): BLANK[kind](rng) for number in range(6)}
    assert pairs(pictures | {"6": cells(0)}) == set()


def test_equal_pictures_are_pairs_even_where_the_hash_says_nothing() -> None:
    faint = np.full((40, 40, 3), 100, np.uint8)
    faint[10:20, 10:20] = 104
    assert pairs({"a": faint, "b": faint.copy(), "c": cells(1)}) == {("a", "b")}


def test_turned_and_mirrored_pictures_are_other_pictures() -> None:
    picture = cells(3)
    assert pairs({"a": picture, "b": picture[:, ::-1], "c": picture[::-1], "d": np.rot90(picture)}) == set()


def test_two_groups_are_compared_with_each_other_alone() -> None:
    pictures = {"a": cells(1), "b": cells(1), "c": cells(2), "d": cells(1)}
    found = picture_pairs(facts(pictures), ["a", "b", "c"], ["d"])
    assert [tuple(each) for each in found] == [("a", "d", True), ("b", "d", True)]


def test_no_pair_is_missed_by_comparing_bands_of_the_hashes_alone() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (400, 4, 4)).repeat(4, 1).repeat(4, 2)
    originals = (coarse + rng.integers(-9, 10, coarse.shape)).clip(0, 255)
    copies = [(each + rng.normal(0, 14, each.shape)).clip(0, 255) for each in originals]
    first, second = ([each.astype(np.uint8).tobytes() for each in group] for group in (originals, copies))
    (left, _), (right, _) = looks(first), looks(second)
    rows = [np.frombuffer(small, np.uint8).astype(float) for small in (*first, *second)]
    normal = np.stack([(row - row.mean()) / row.std() for row in rows])
    unlike = 1 - normal[:400] @ normal[400:].T / 256
    expected = np.argwhere((np.bitwise_count(left[:, None] ^ right[None]) <= 8) & (unlike <= 0.02))
    known = {
        str(place): PictureFacts((16, 16), str(place), small) for place, small in enumerate((*first, *second))
    }
    groups = [picture_group(known, [str(place) for place in range(*ends)]) for ends in ((0, 400), (400, 800))]
    found = near_pairs(*groups, 1.0)
    assert 100 < len(expected) < 400
    assert sorted(found.tolist()) == sorted(expected.tolist())
