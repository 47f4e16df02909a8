"""Made-up class names: where equal ones prove nothing."""

from pathlib import Path
from typing import Any

import pytest

from semiseg.data.class_identity import unproven

MADE_UP = ["class_0", "class_1", "class_2"]
ONE = {"name": "one", "root": "/data/one", "classes": MADE_UP, "values": None, "void": []}


def other(**changed: Any) -> dict[str, Any]:
    return {**ONE, **changed}


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "two"},
        {"root": "/data/two"},
        {"root": None},
        {"values": ["#000000", "#00ff00", "#ff0000"]},
        {"values": [0, 2, 1]},
        {"void": [7]},
        {"classes": [*MADE_UP, "class_3"]},
    ],
)
def test_made_up_names_of_another_dataset_prove_nothing(changed: dict[str, Any]) -> None:
    assert unproven(ONE, other(**changed), MADE_UP) == MADE_UP


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"root": "/data/../data/one"},
        {"val": 0.5},
        {"cache": False},
        {"values": []},
        {"palette": [[0, 0, 0]]},
    ],
)
def test_one_dataset_is_itself(changed: dict[str, Any]) -> None:
    assert unproven(ONE, other(**changed), MADE_UP) == []


def test_true_names_prove_what_they_say() -> None:
    assert unproven(ONE, other(name="two"), ["ground", "disk", "class"]) == []
    assert unproven(ONE, other(name="two"), ["ground", "class_1"]) == ["class_1"]


def test_a_link_leads_to_the_same_dataset(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert unproven(other(root=str(tmp_path / "data")), other(root=str(tmp_path / "link")), MADE_UP) == []
