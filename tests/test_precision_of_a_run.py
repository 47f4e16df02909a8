"""Runs in double and in half precision: what they store, and that they go on and can be used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import semiseg
from semiseg.cli import main
from semiseg.engine.loop import Trainer
from semiseg.errors import Interrupted

TINY = (
    *(
        "dataset.train=16",
        "dataset.val=4",
        "dataset.test=0",
        "dataset.size=32",
        "dataset.clutter=0",
        "split=1/4",
    ),
    *("backbone=tiny", "backbone.width=4", "model.channels=8", "model.low_channels=4"),
    *("trainer.channels_last=false", "trainer.iterations=4", "trainer.batch_size=4", "trainer.crop_size=32"),
    *("trainer.unlabeled_batch_size=2", "trainer.eval_every=2", "trainer.checkpoint_every=1"),
    *("trainer.log_every=1", "trainer.threads=1", "tracker.mode=disabled"),
)

pytestmark = pytest.mark.slow


def train(run: Path, *overrides: str) -> int:
    return main(["train", f"run_dir={run}", *TINY, *overrides])


def stored(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def stop_once(monkeypatch: pytest.MonkeyPatch, run: Path, *overrides: str) -> None:
    def stopped(*arguments: Any, **options: Any) -> None:
        raise Interrupted("SIGTERM", 143)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "measure", stopped)
        assert train(run, *overrides) == 143


def test_a_run_in_double_precision_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Two fits, with stored networks and labels between them.
    run = tmp_path / "run"
    assert train(run, "method=stpp", "method.name=st", "trainer.precision=fp64") == 0
    state = stored(run / "checkpoints/best.pt")
    assert {each.dtype for each in state.values() if each.is_floating_point()} == {torch.float64}
    predictor = semiseg.load(run)
    assert predictor.network.get_buffer("mean").dtype == torch.float64
    image = np.random.default_rng(0).integers(0, 256, (40, 36, 3), np.uint8)
    found = predictor.predict(image)
    assert found.confidence.dtype == np.float32
    score = json.loads((run / "summary.json").read_text())["miou"]
    assert main(["eval", str(run), "--part", "val"]) == 0
    assert f"{100 * score:.2f}" in capsys.readouterr().out
    assert main(["export", str(run), "--format", "torch", "--out", str(tmp_path / "network.pt2")]) == 0
    assert "The run computed in fp64" in capsys.readouterr().out


def test_a_network_in_double_precision_begins_one_in_single(tmp_path: Path) -> None:
    assert train(tmp_path / "first", "method=supervised", "trainer.precision=fp64") == 0
    start = tmp_path / "first/checkpoints/best.pt"
    assert train(tmp_path / "second", "method=supervised", f"init_from={start}") == 0
    state = stored(tmp_path / "second/checkpoints/best.pt")
    assert torch.float64 not in {each.dtype for each in state.values()}


@pytest.mark.parametrize("precision", ["fp16", "fp64"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    overrides = ("method=supervised", f"trainer.precision={precision}", "trainer.accumulate=2")
    assert train(tmp_path / "whole", *overrides) == 0
    stop_once(monkeypatch, tmp_path / "run", *overrides)
    saved = torch.load(tmp_path / "run/checkpoints/last.pt", weights_only=True)
    assert ("scaler" in saved) == (precision == "fp16")
    assert train(tmp_path / "run", *overrides) == 0
    first, second = (stored(tmp_path / name / "checkpoints/best.pt") for name in ("whole", "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)
