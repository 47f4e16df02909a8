"""Networks that do not suit each other or the sizes of a run, refused before anything is trained."""

import re
import sys
from pathlib import Path

import pytest

from semiseg.cli import main

VIT = "backbone=timm backbone.name=vit_tiny_patch16_224 backbone.weights=none"
OWN = """
from torch import nn
from semiseg.models.segmodel import Backbone, InputConvention, Stage


class Cells(Backbone):
    size_multiple = 8
    convention = InputConvention()

    def __init__(self, channels: int = 4, name: str = "") -> None:
        super().__init__()
        self.stages = (Stage(channels, 8),)
        self.conv = nn.Conv2d(3, channels, 8, 8)

    def forward(self, x):
        return [self.conv(x)]


class Plain(nn.Module):
    channels = (4, 4, 4, 4)
    output_stride = 8

    def __init__(self) -> None:
        super().__init__()
"""


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cells", raising=False)
    Path("cells.py").write_text(OWN)
    Path("backbone").mkdir()
    Path("backbone/cells.yaml").write_text("name: cells\n_target_: cells.Cells\nchannels: 4\n")
    Path("backbone/plain.yaml").write_text("name: plain\n_target_: cells.Plain\n")
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], words: str) -> str:
    """What a refused command prints, its line breaks removed."""
    assert main(["train", *words.split()]) == 2
    screen = capsys.readouterr().err
    assert "Traceback" not in screen
    assert not Path("runs").exists()
    return re.sub(r"\s+", " ", screen)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "model=deeplabv3plus",
            "model=deeplabv3plus needs a map of stride 4, and those of the backbone have 8.",
        ),
        (
            "model=pspnet trainer.crop_size=100",
            "trainer.crop_size=100 (from command line) the backbone takes sides",
        ),
        ("model=pspnet trainer.crop_size=100", "are multiples of 8 pixels. Give 96 or 104."),
        ("model=pspnet trainer.crop_size=[96,100]", "trainer.crop_size=[96,100] (from command line)"),
        (
            "model=pspnet evaluator=slide evaluator.window=50",
            "evaluator.window=50 (from command line) the backbone takes sides that are multiples of 8 pixels.",
        ),
    ],
)
def test_a_backbone_of_patches(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in answer(capsys, f"backbone=cells {words}")


def test_what_is_no_backbone(capsys: pytest.CaptureFixture[str]) -> None:
    screen = answer(capsys, "backbone=plain")
    assert "backbone._target_=cells.Plain" in screen
    assert "expected a subclass of semiseg.models.segmodel.Backbone" in screen


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("model=deeplabv3plus_cps", "model=deeplabv3plus_cps needs a map of stride 4"),
        ("model=pspnet trainer.crop_size=100", "multiples of 16 pixels. Give 96 or 112."),
        ("model=pspnet backbone.output_stride=32", "Give backbone.output_stride=16"),
    ],
)
def test_a_transformer_of_timm(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    assert expected in answer(capsys, f"{VIT} {words}")


@pytest.mark.slow
def test_a_backbone_of_patches_is_trained_and_evaluated_at_any_size() -> None:
    words = (
        "backbone=cells model=pspnet model.channels=8 model.pool_channels=4 dataset.size=52 trainer.crop_size=48 "
        "trainer.iterations=4 trainer.batch_size=2 run_dir=run"
    )
    assert main(["train", *words.split()]) == 0
    assert Path("run/summary.json").is_file()
