"""``semiseg train WORDS --help``: keys with text, type, range, value and effect."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from semiseg.cli import main
from semiseg.declare import declared
from semiseg.settings import TrainerSettings


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], words: str) -> str:
    assert main(["train", *words.split(), "--help"]) == 0
    return capsys.readouterr().out


def test_keys_of_an_option_with_type_range_value_and_effect(capsys: pytest.CaptureFixture[str]) -> None:
    screen = shown(capsys, "optimizer=sgd")
    assert (
        "  optimizer.momentum=0.9\n      Momentum; 0.9 in all published methods.\n"
        "      A number of at least 0 and below 1; changes the training.\n"
    ) in screen
    assert "optimizer.lr=0.05" in screen  # of the backbone that is chosen
    assert "optimizer.name" not in screen


def test_several_options_and_the_values_that_they_have_together(capsys: pytest.CaptureFixture[str]) -> None:
    screen = shown(capsys, "backbone=resnet18 optimizer=sgd optimizer.decay=conv")
    assert screen.index("backbone.depth=18") < screen.index("optimizer.lr=0.01") < screen.index("decay=conv")


def test_nodes_in_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    screen = shown(capsys, "augment=standard")
    assert "\n  augment.weak._target_=semiseg.data.geometry.RandomCrop\n" in screen
    assert "\n  augment.weak.resize.low=0.5\n      Smallest factor.\n" in screen
    assert "\n  augment.strong.transforms\n" in screen


def test_keys_of_a_record(capsys: pytest.CaptureFixture[str]) -> None:
    screen = shown(capsys, "trainer")
    assert [f"trainer.{key}" for key in declared(TrainerSettings)] == re.findall(
        r"^  ([\w.]+)=", screen, re.M
    )
    assert "Optimizer steps of every fit" in screen


def test_options_of_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    screen = shown(capsys, "dataset")
    assert "dataset=shapes\n    Textured shapes of 6 classes" in screen
    assert "dataset.train" not in screen


def test_keys_of_no_group_and_single_keys(capsys: pytest.CaptureFixture[str]) -> None:
    screen = shown(capsys, "keys")
    assert "  split=1/32\n" in screen
    assert "  trainer" not in screen
    assert shown(capsys, "trainer.device").startswith("  trainer.device=auto\n")
    assert "A whole number of at least 0; changes the training." in shown(capsys, "seed")


def test_keys_are_never_wrapped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    screen = shown(capsys, "augment=cac")
    assert "\n  augment.pair.pair.resize.interpolation=pil_bicubic\n" in screen
    assert all(len(line) < 60 for line in screen.splitlines() if "augment." not in line)


def test_what_a_preset_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\n  trainer.batch_size=2\n" in shown(capsys, "debug=smoke")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("method=csp", "Did you mean cps?"),
        ("trainr", "there is no key trainr. Did you mean trainer?"),
        ("trainer.devise", "Did you mean trainer.device?"),
        ("method.wieght", "Did you mean method.weight?"),
    ],
)
def test_mistakes(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", words, "--help"]) == 2
    assert expected in capsys.readouterr().err


def test_keys_without_classes_need_no_torch() -> None:
    code = "from semiseg.cli import main; main(['train', 'keys', 'trainer', '-h']); import sys; sys.modules['torch']"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 1


def test_the_general_help_says_how_to_ask(capsys: pytest.CaptureFixture[str]) -> None:
    assert "semiseg train GROUP=OPTION --help" in shown(capsys, "")


def test_an_own_class_shows_what_it_needs(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workdir / "needy.py").write_text(
        "class Needy:\n    needs_unlabeled = False\n\n    def __init__(self, rate: float, extra: int = 3): ...\n"
    )
    (workdir / "method").mkdir()
    (workdir / "method" / "needy.yaml").write_text("name: needy\n_target_: needy.Needy\n")
    screen = shown(capsys, "method=needy")
    assert "  method.rate has to be given\n      A number; changes the training.\n" in screen
    assert "  method.extra=3\n" in screen
