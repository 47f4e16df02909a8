"""Floating-point operations of the training in a plan."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from semiseg.cli import main
from semiseg.engine.plan_text import operations_text
from semiseg.engine.step_cost import CORRECTED

SMALL = (
    "debug=smoke",
    "dataset.size=48",
    "trainer.crop_size=32",
    "trainer.threads=1",
    "trainer.device=cpu",
    "trainer.batch_size=2",
    "trainer.unlabeled_batch_size=2",
    "trainer.iterations=2",
    "backbone.width=4",
)


def planned(run: Path, *words: str) -> dict[str, Any]:
    """Plan that a run has stored of its first step."""
    assert main(["train", f"run_dir={run}", *SMALL, *words]) == 0
    (first, *_) = json.loads((run / "plan.json").read_text())
    return dict(first)


def test_the_work_of_a_run_grows_with_its_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = {
        name: planned(tmp_path / name, *words)["operations"]
        for name, words in {
            "once": ("method=supervised",),
            "longer": ("method=supervised", "trainer.iterations=3"),
            "larger": ("method=supervised", "trainer.batch_size=4"),
            "both": ("method=cps",),
        }.items()
    }
    assert work["longer"] == work["once"] * 3 / 2
    # Only the gradient of the images is not computed: a backward pass is a little less than two forward ones.
    assert work["larger"] == pytest.approx(work["once"] * 2, rel=0.01)
    # Two networks, labeled and mixed images with gradient, and twice as many unlabeled ones without.
    assert work["both"] == pytest.approx(work["once"] * 2 * (2 + 2 / 3), rel=0.05)
    assert f"2 iterations of {operations_text(work['once'] / 2)}" in capsys.readouterr().out


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_groups_divide_the_work_of_a_convolution(kind: type[nn.Conv2d], groups: int) -> None:
    images = torch.zeros(2, 8, 9, 9, requires_grad=True)
    counter = FlopCounterMode(display=False, custom_mapping=CORRECTED)
    with counter:
        kind(8, 16, 3, padding=1, groups=groups)(images).sum().backward()
    # Forward, gradient of the images, gradient of the weight: 9x9 places, 3x3 taps.
    assert counter.get_total_flops() == 3 * 2 * 2 * 9 * 9 * 9 * 8 * 16 // groups


def test_steps_after_a_long_warm_up_are_counted(tmp_path: Path) -> None:
    words = ("method=fixmatch", "trainer.iterations=10")
    whole = planned(tmp_path / "whole", *words)["operations"]
    assert planned(tmp_path / "late", *words, "method.warmup=0.85")["operations"] >= 0.9 * whole


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 MFLOP"),
        (2.34e6, "2.34 MFLOP"),
        (16.6e9, "16.6 GFLOP"),
        (999.6e9, "1 TFLOP"),
        (4.2e18, "4.2e+03 PFLOP"),
    ],
)
def test_operations_are_shown_in_readable_units(count: float, words: str) -> None:
    assert operations_text(count) == words
