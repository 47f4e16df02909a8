"""Names that differ in case or in their Unicode form only."""

import unicodedata

import pytest

from semiseg.errors import UserError
from semiseg.name_keys import NameIndex, pair_names

KAEFER = "K\u00e4fer"
DECOMPOSED = unicodedata.normalize("NFD", KAEFER)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a", "a"),
        ("A", "a"),
        ("B", "B"),
        ("b", "b"),
        (KAEFER, DECOMPOSED),
        (KAEFER.upper(), DECOMPOSED),
        ("STRASSE", "stra\u00dfe"),
        ("nothing", None),
    ],
)
def test_the_best_match_wins(name: str, found: str | None) -> None:
    assert NameIndex(["a", "B", "b", DECOMPOSED, "stra\u00dfe"]).find(name) == found


def test_two_equal_matches_are_refused() -> None:
    with pytest.raises(UserError, match="Ab may mean AB or ab: they differ in case alone"):
        NameIndex(["AB", "ab"]).find("Ab")


def test_pairs_are_one_to_one() -> None:
    known = {name: name for name in ("A", "B", "b", DECOMPOSED)} | {"c.jpg": "c"}
    assert pair_names(["a", "B", KAEFER, "C.jpg", "z"], known, "mask", "image") == {
        "a": "A",
        "B": "B",
        KAEFER: DECOMPOSED,
        "C.jpg": "c",
    }
    with pytest.raises(UserError, match="the masks x1 and X1 both belong to the image x1"):
        pair_names(["x1", "X1"], {"x1": "x1"}, "mask", "image")
    with pytest.raises(UserError, match="the mask Ab may belong to the images AB and ab"):
        pair_names(["Ab"], {"AB": "AB", "ab": "ab"}, "mask", "image")
