"""CAC through the command line: warm-up and contrast, its files, its plan, and answers to wrong settings."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from semiseg.cli import main
from semiseg.models.bundle import from_bundle

TINY = (
    "method=cac",
    "method.iterations_per_epoch=2",
    "method.warmup_epochs=1",
    "method.positive_threshold=0.1",
    "dataset.train=16",
    "dataset.val=4",
    "dataset.test=0",
    "dataset.size=32",
    "split=1/4",
    "trainer.iterations=5",
    "trainer.batch_size=2",
    "trainer.unlabeled_batch_size=2",
    "trainer.crop_size=32",
    "trainer.eval_every=5",
    "trainer.log_every=1",
    "trainer.threads=1",
    "tracker.mode=disabled",
)


def train(run: Path, *overrides: str) -> int:
    return main(["train", f"run_dir={run}", *TINY, *overrides])


def logged(run: Path) -> list[dict[str, Any]]:
    """Lines of the training steps."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "train/loss" in line]


def test_a_run_warms_up_contrasts_and_keeps_its_projector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(run) == 0, capsys.readouterr()
    assert "1. train" in capsys.readouterr().out
    lines = logged(run)
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5]
    for line in lines:
        assert ("train/loss_contrast_1" in line) == (line["iteration"] > 2)
    assert [line["train/bank_fill"] for line in lines[2:]] == [0.5, 1, 1]
    for line in lines[2:]:
        assert line["train/anchors"] > 0
        assert 0 < line["train/unlabeled_used"] <= line["train/unlabeled_confident"] <= 1
        total = line["train/loss_supervised"] + 0.1 * (
            line["train/loss_contrast_1"] + line["train/loss_contrast_2"]
        )
        assert line["train/loss"] == pytest.approx(total, rel=1e-5)
    stored = torch.load(run / "checkpoints/best.pt", weights_only=True)
    model = from_bundle(stored)
    assert model.heads["projector"].config()["out_channels"] == 128
    state = torch.load(run / "checkpoints/last.pt", weights_only=True)["learner"]
    assert state["bank.features"].shape == (2 * 2 * 2 * 16, 128)
    assert int(state["bank.filled"]) == 128
    plan = json.loads((run / "plan.json").read_text())
    assert [step["name"] for step in plan] == ["train", "report"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("augment=cac", "method.labeled_augment=strong"),
        ("augment=cac_cityscapes", "augment.weak.resize.base=40"),
        ("augment=none", "trainer.crop_size=[16,24]"),
        ("trainer.precision=bf16", "method.loss=ohem"),
        ("method.groups=2", "method.normalizer=overlap", "method.bank_steps=0", "method.selected=7"),
        (
            "method.replay=true",
            "method.iterations_per_epoch=null",
            "trainer.iterations=null",
            "trainer.epochs=2",
        ),
        ("method.downsample=false", "model=deeplabv3plus_cps"),
    ],
)
def test_settings_that_work(
    overrides: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", *overrides) == 0, capsys.readouterr()
    assert any("train/loss_contrast_1" in line for line in logged(tmp_path / "run"))


@pytest.mark.slow
def test_pieces_of_an_accumulated_step_fill_the_bank_one_by_one(tmp_path: Path) -> None:
    """The bank holds as many steps, and its fill is the mean over the pieces of a step."""
    for parts in (1, 2):
        sizes = ("trainer.batch_size=4", "trainer.unlabeled_batch_size=4", f"trainer.accumulate={parts}")
        assert train(tmp_path / str(parts), *sizes) == 0
    fills = [[line.get("train/bank_fill") for line in logged(tmp_path / str(parts))][2:] for parts in (1, 2)]
    assert fills[0] == [0.5, 1, 1]
    assert fills[1] == [pytest.approx(0.375), pytest.approx(0.875), 1]


FAULTS = [
    (
        "method.normalizer=pixels",
        "method.normalizer=pixels (from command line) expected one of: anchors, overlap.",
    ),
    (
        "method.temperature=0",
        "method.temperature=0 (from command line) expected a number above 0.",
    ),
    ("method.groups=3", "method.groups=3 (from command line) cannot divide trainer.unlabeled_batch_size=2"),
    ("method.bank_step=3", "CAC takes no bank_step. Did you mean bank_steps?"),
    ("method.weight=-1", "method.weight=-1 (from command line) expected a number of at least 0."),
    ("unlabeled=rest split=full", "method=cac needs unlabeled images"),
    ("augment=cac trainer.crop_size=36", "is not a multiple of stride=8"),
]


@pytest.mark.parametrize(("overrides", "message"), FAULTS)
def test_wrong_settings_are_named_before_anything_is_read(
    overrides: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", *overrides.split()) == 2
    screen = capsys.readouterr().err
    assert "Traceback" not in screen
    assert message in re.sub(r"\s+", " ", screen)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "trainer.crop_size=36",
            "trainer.crop_size=36: cac compares cells of 8x8 pixels, which have to fill a crop; the nearest",
        ),
        ("method.selected=33", "method.selected=33: each batch of crops has 32 cells; give at most that"),
    ],
)
def test_crops_and_cells_that_do_not_fit_end_the_run_with_an_answer(
    override: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", override) == 2
    screen = capsys.readouterr().err
    assert "Traceback" not in screen
    assert message in re.sub(r"\s+", " ", screen)
