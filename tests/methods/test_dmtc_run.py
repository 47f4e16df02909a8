"""DMTC through the command line: all stages, what is in the files, and answers to wrong settings."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from semiseg.cli import main

TINY = (
    "method=dmtc",
    "method.contrast.num_queries=8",
    "method.contrast.num_negatives=8",
    "method.contrast.channels=6",
    "method.ratios=[0.5]",
    "dataset.train=16",
    "dataset.val=4",
    "dataset.test=0",
    "dataset.size=32",
    "split=1/4",
    "trainer.iterations=3",
    "trainer.batch_size=2",
    "trainer.unlabeled_batch_size=2",
    "trainer.crop_size=32",
    "trainer.eval_every=3",
    "trainer.log_every=1",
    "trainer.threads=1",
    "trainer.select=last",
    "tracker.mode=disabled",
)
STEPS = ["baseline-a", "baseline-b", "label-1-by-b", "phase-1-a", "label-1-by-a", "phase-1-b", "report"]


def train(run: Path, *overrides: str) -> int:
    return main(["train", f"run_dir={run}", *TINY, *overrides])


def bundle(run: Path, step: str) -> dict[str, Any]:
    (path,) = (run / "stages").glob(f"*-{step}/last.pt")
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


def head(run: Path, step: str) -> dict[str, torch.Tensor]:
    state = bundle(run, step)["state_dict"]
    return {name: value for name, value in state.items() if name.startswith("heads.representation.")}


def stages_with_contrast(run: Path) -> set[str]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["stage"] for line in lines if "train/loss_contrast" in line}


@pytest.mark.slow
def test_the_head_travels_from_fit_to_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train(run) == 0, capsys.readouterr()
    assert sorted(path.name.split("-", 1)[1] for path in (run / "stages").iterdir()) == sorted(STEPS)
    assert stages_with_contrast(run) == {"baseline-a", "baseline-b"}
    for tag in "ab":
        before, after = head(run, f"baseline-{tag}"), head(run, f"phase-1-{tag}")
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        # A phase without contrast keeps the head's weights and updates its batch norm.
        assert changed == {name for name in before if "running" in name or "num_batches" in name}
    first, second = head(run, "baseline-a"), head(run, "baseline-b")
    assert not any(torch.equal(first[name], second[name]) for name in first if first[name].ndim == 4), (
        "both partners have one head"
    )
    (config,) = bundle(run, "phase-1-a")["heads"].values()
    assert config["out_channels"] == 6
    reported = torch.load(run / "checkpoints/best.pt", weights_only=True)
    assert reported["heads"].keys() == {"representation"}
    assert main(["eval", str(run)]) == 0


@pytest.mark.slow
def test_contrast_in_the_phases_trains_the_head_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    switches = ("method.contrast.baseline=false", "method.contrast.phases=true", "method.partners=1")
    assert train(run, *switches, "model=deeplabv2", "trainer.precision=bf16") == 0, capsys.readouterr()
    assert stages_with_contrast(run) == {"phase-1-a"}
    before, after = head(run, "baseline-a"), head(run, "phase-1-a")
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_the_plan_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--plan", f"run_dir={tmp_path / 'run'}", *TINY]) == 0
    printed = capsys.readouterr().out
    positions = [printed.index(step) for step in STEPS]
    assert positions == sorted(positions)
    assert not (tmp_path / "run" / "stages").exists()


@pytest.mark.parametrize(
    ("override", "answers"),
    [
        ("method.contrast.temperature=0", ["method.contrast.temperature", "above 0"]),
        ("method.contrast.phase_weight=0", ["method.contrast.phase_weight", "above 0"]),
        ("method.contrast.num_querys=3", ["num_querys", "num_queries"]),
        ("method.contrast.phases=0.1", ["method.contrast.phases", "true or false"]),
        ("method.contrast.num_queries=2.5", ["method.contrast.num_queries", "whole number"]),
    ],
)
def test_wrong_settings_are_named(
    override: str, answers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", override) == 2
    printed = "".join(capsys.readouterr())
    assert "Traceback" not in printed
    for answer in answers:
        assert answer in printed
    assert not (tmp_path / "run" / "stages").exists()
