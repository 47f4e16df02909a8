"""Targets and signatures: what may be named, and which values fit which annotation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from semiseg.config.targets import BadTarget, check_node, locate
from semiseg.data.cutout import Cutout
from semiseg.declare import described, fits


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (3, int),
        (3, float),
        (0.5, float),
        (True, bool),
        ("a", str),
        (None, int | None),
        ("ce", Literal["ce", "ohem"]),
        ([1, 2.5], Sequence[float]),
        ([], Sequence[float]),
        ([1, 2], tuple[int, ...]),
        ([1, 2], tuple[int, int]),
        ([[1, 2], [3]], Sequence[Sequence[int]]),
        ({"a": 1}, Mapping[str, int]),
        ({"_target_": "x.Y"}, Cutout | None),
        (object(), Any),
        ("path", Path),
    ],
)
def test_fits(value: Any, hint: Any) -> None:
    assert fits(value, hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (True, int),
        (0.5, int),
        ("3", int),
        (None, float),
        (1, bool),
        (1, str),
        ("mse", Literal["ce", "ohem"]),
        ([1, "a"], Sequence[float]),
        (3, Sequence[float]),
        ([1, 2, 3], tuple[int, int]),
        ([1], Mapping[str, int]),
        (3, Cutout | None),
        ({"_target_": "x.Y"}, int),
    ],
)
def test_does_not_fit(value: Any, hint: Any) -> None:
    assert not fits(value, hint)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int | None, "a whole number or null"),
        (Literal["ce", "ohem"], "one of: ce, ohem"),
        (Sequence[float], "a list [a number, ...]"),
        (list, "a node whose _target_ gives a list"),
        (Cutout, "a node whose _target_ gives a Cutout"),
    ],
)
def test_described(hint: Any, text: str) -> None:
    assert described(hint) == text


@pytest.mark.parametrize(
    "target",
    ["os.system", "subprocess.run", "builtins.eval", "semiseg", "semiseg.errors.Nothing", "", "numpy.load"],
)
def test_refused_targets(target: str) -> None:
    with pytest.raises(BadTarget):
        locate(target)


def test_own_module_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "nowhere"))
    Path("own_signature_module.py").write_text("class Thing:\n    def __init__(self, size: int): ...\n")
    Path("own_broken_module.py").write_text("import nothing_of_this_name\n")
    Path("random.py").write_text("")
    assert locate("own_signature_module.Thing").__name__ == "Thing"
    with pytest.raises(BadTarget, match="no module named nothing_of_this_name"):
        locate("own_broken_module.Thing")
    with pytest.raises(BadTarget, match="another module named random comes first"):
        locate("random.Random")
    faults = check_node([{"_target_": "own_signature_module.Thing", "siez": 3}], "method.things")
    assert [(fault.key, fault.near) for fault in faults] == [
        ("method.things[0].siez", "size"),
        ("method.things[0].size", None),
    ]


def test_partial_nodes_and_supplied_arguments_may_lack_some() -> None:
    sgd = {"_target_": "semiseg.engine.optim.SGD"}
    assert len(check_node(sgd, "optimizer")) == 1
    assert check_node({**sgd, "_partial_": True}, "optimizer") == []
    assert check_node(sgd, "optimizer", supplied=("lr",)) == []
