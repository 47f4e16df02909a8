"""A method of one file outside of the package: its views and draws, and a run through the command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fixmatch_outside import FixMatch, FixMatchLearner, boxes, mixed

from semiseg.cli import main
from semiseg.contracts.training import Progress
from semiseg.data.augment import Augment, Photometric
from semiseg.data.geometry import RandomCrop
from semiseg.settings import TrainerSettings

A = pytest.importorskip("albumentations")
Make = Callable[..., Any]
SOURCE = Path(__file__).parent / "fixmatch_outside.py"
TINY = (
    "method=fixmatch",
    "dataset.train=16",
    "dataset.val=4",
    "dataset.test=0",
    "dataset.size=32",
    "split=1/4",
    "debug=smoke",
    "trainer.crop_size=48",
    "trainer.threads=1",
)


def test_views_are_composed_of_the_parts_of_the_augmentation(make_lab: Make) -> None:
    lab = make_lab(labeled=4, unlabeled=6)
    lab.augment = Augment(RandomCrop(16), Photometric([A.ColorJitter(p=1)]))
    lab.trainer = TrainerSettings(batch_size=2, unlabeled_batch_size=3)
    FixMatch(threshold=0.3).run(lab)
    batch = lab.streams["train"].batch(lab.dataset, 0, "train", 0)
    assert set(batch["labeled"]) == {"image", "label", "id"}
    other = batch["unlabeled"]
    assert set(other) == {"image", "strong_1", "valid", "id"}
    assert other["valid"].sum((1, 2)).tolist() == [10 * 14] * 3
    assert not torch.equal(other["strong_1"], other["image"])


def test_the_strong_term_is_a_mean_over_all_pixels_but_padding(make_model: Make, make_batch: Make) -> None:
    batch = make_batch("labeled", "unlabeled")
    other = batch["unlabeled"]
    other |= {"strong_1": 255 - other["image"], "valid": torch.rand(4, 16, 16) < 0.7}
    progress = Progress(0, 1, 0, 3)
    output = FixMatchLearner(make_model(0), 0.3)(batch, progress)
    inside = mixed(other["valid"], boxes(other["image"], progress))
    assert output.losses["strong"].count == inside.sum()
    assert 0 < output.scalars["unlabeled_used"] < 1
    other["strong_1"] = other["strong_1"].clone()
    other["strong_1"][~other["valid"][:, None].expand(-1, 3, -1, -1)] = 0
    changed = FixMatchLearner(make_model(0).eval(), 0.3).eval()(batch, progress).losses["strong"].sum
    other["strong_1"][~other["valid"][:, None].expand(-1, 3, -1, -1)] = 200
    assert changed == FixMatchLearner(make_model(0).eval(), 0.3).eval()(batch, progress).losses["strong"].sum


@pytest.mark.slow
def test_it_trains_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(SOURCE, tmp_path / "my_fixmatch.py")
    Path("method").mkdir()
    Path("method/fixmatch.yaml").write_text(
        "name: fixmatch\n_target_: my_fixmatch.FixMatch\nthreshold: 0.3\n"
    )
    for run in ("one", "two"):
        assert main(["train", f"run_dir={run}", *TINY]) == 0, capsys.readouterr().err
    assert json.loads(Path("one/summary.json").read_text())["method"] == "fixmatch"
    lines = [json.loads(line) for line in Path("one/metrics.jsonl").read_text().splitlines()]
    assert sum("train/loss_strong" in line for line in lines) == 4
    states = [torch.load(f"{run}/checkpoints/best.pt", weights_only=True) for run in ("one", "two")]
    assert all(
        torch.equal(value, states[1]["state_dict"][name]) for name, value in states[0]["state_dict"].items()
    )
