"""DMT through the command line: all stages, its files, its plan, its ablations, and answers to wrong settings."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from semiseg.cli import main

TINY = (
    "method=dmt",
    "method.ratios=[0.5,1]",
    "dataset.train=16",
    "dataset.val=4",
    "dataset.test=2",
    "dataset.size=32",
    "split=1/4",
    "trainer.iterations=4",
    "trainer.batch_size=2",
    "trainer.unlabeled_batch_size=3",
    "trainer.crop_size=32",
    "trainer.eval_every=2",
    "trainer.log_every=1",
    "trainer.threads=1",
    "tracker.mode=disabled",
)
STEPS = [
    *("baseline-a", "baseline-b", "label-1-by-b", "phase-1-a", "label-1-by-a", "phase-1-b"),
    *("label-2-by-b", "phase-2-a", "label-2-by-a", "phase-2-b", "report"),
]


def train(run: Path, *overrides: str) -> int:
    return main(["train", f"run_dir={run}", *TINY, *overrides])


def steps(run: Path) -> list[str]:
    return [path.name.split("-", 1)[1] for path in sorted((run / "stages").iterdir())]


def stored(run: Path, step: str) -> dict[str, Any]:
    (path,) = run.glob(f"stages/*-{step}/step.json")
    found: dict[str, Any] = json.loads(path.read_text())["result"]
    return found


def journal(run: Path, stage: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line.get("stage") == stage]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dmt") / "run"
    assert train(path, "method.phase_lr=0.003", "schedule.power=0", "method.phase_eval_every=3") == 0
    return path


@pytest.mark.slow
def test_all_stages_run_and_the_better_partner_is_reported(run: Path) -> None:
    assert steps(run) == STEPS
    fits = json.loads((run / "summary.json").read_text())["fits"]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["miou"] == max(fits["phase-2-a"]["miou_best"], fits["phase-2-b"]["miou_best"])
    assert summary["iterations"] == 6 * 4
    assert set(summary["pseudo_labels"]) == {step for step in STEPS if step.startswith("label")}
    reported = torch.load(run / "checkpoints/best.pt", weights_only=True)
    assert reported["step"] in ("phase-2-a", "phase-2-b")


@pytest.mark.slow
def test_labels_are_gone_and_their_facts_stay(run: Path) -> None:
    assert not list(run.rglob("*.bin"))
    first, second = stored(run, "label-1-by-b"), stored(run, "label-2-by-b")
    assert len(first["thresholds"]) == len(second["thresholds"]) == 7
    assert 0.4 < first["quality"]["pseudo/coverage"] < 0.75
    assert 0.9 < second["quality"]["pseudo/coverage"] <= 1
    assert first["quality"]["pseudo/miou"] is not None
    (index,) = run.glob("stages/*-label-1-by-b/labels/index.json")
    assert json.loads(index.read_text())["statistics"]["images"] == 12


@pytest.mark.slow
def test_steps_log_what_the_partners_disagree_about(run: Path) -> None:
    lines = [line for line in journal(run, "phase-1-a") if "train/loss_mutual" in line]
    assert len(lines) == 4
    for line in lines:
        assert 0 <= line["train/disagreement"] <= 1
        assert 0 <= line["train/disagreement_won"] <= 1
        assert 0 <= line["train/weight"] <= 1
        assert 0 < line["train/pseudo_used"] < 1
        assert line["lr/head"] == pytest.approx(0.003)
    rates = {line["lr/head"] for line in journal(run, "baseline-b") if "lr/head" in line}
    assert rates == {0.05}
    evaluated = [line["iteration"] for line in journal(run, "phase-2-b") if "val/miou" in line]
    assert [iteration - 20 for iteration in evaluated] == [3, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("method.partners=1", "method.gamma_agree=0", "method.gamma_disagree=0"), 1),
        (("method.partners=1",), 1),
        (("method.difference=data", "method.variant=naive"), 2),
        (("method.difference=data", "method.variant=flip"), 2),
        (("method.partners=1", "method.variant=online", "method.threshold=0.2"), 0),
    ],
    ids=["cbst", "dst", "naive", "flip", "online"],
)
def test_ablations_run(overrides: tuple[str, ...], expected: int, tmp_path: Path) -> None:
    more = ("method.ratios=[1]", "trainer.iterations=2", "augment=dmt", "trainer.select=last", *overrides)
    assert train(tmp_path, *more) == 0
    baselines = ["baseline-a", "baseline-b"] if expected == 2 else ["baseline-a"]
    phases = {
        0: ["online"],
        1: ["label-1-by-a", "phase-1-a"],
        2: ["label-1-by-b", "phase-1-a", "label-1-by-a", "phase-1-b"],
    }
    assert steps(tmp_path) == [*baselines, *phases[expected], "report"]
    assert (tmp_path / "summary.json").is_file()


@pytest.mark.slow
def test_the_plan_knows_the_size_of_the_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("dataset.train=520", "dataset.size=64", "split=1/65")
    for keep in ("false", "true"):
        overrides = [*TINY, *sizes, f"keep_pseudo_labels={keep}"]
        assert main(["train", "--plan", f"run_dir={tmp_path / 'run'}", *overrides]) == 0
    shown = capsys.readouterr().out
    assert all(f". {step}" in shown for step in STEPS)
    # 512 images of 64x64 pixels, 5 bytes each.
    assert shown.count("label 512 images in 10 MiB") == 8
    freed, kept = (int(line.split("up to ")[1].split()[0]) for line in shown.splitlines() if "up to" in line)
    assert kept - freed == 30
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("method.gamma_agree=-1", "expected a number of at least 0."),
        ("method.ratios=[0.5,2]", "above 0 and at most 1"),
        ("method.variant=sort", "expected one of: dmt, flip, naive, online"),
        ("method.variant=online", "method.partners=1"),
        ("method.phase_epoch=3", "Did you mean phase_epochs"),
        ("split=full", "method=dmt needs unlabeled images"),
        ("split=full unlabeled=all", "unlabeled and not labeled"),
        ("trainer.accumulate=3", "trainer.batch_size is 2"),
        ("method.partners=1 method.report=b", "needs method.partners=2"),
    ],
)
def test_wrong_settings_are_named(
    override: str, answer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", *override.split()) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert answer in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "run").exists()


def test_epochs_of_some_fits_need_epochs_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [each for each in TINY if not each.startswith("trainer.iterations")]
    assert main(["train", f"run_dir={tmp_path / 'run'}", *given, "method.baseline_epochs=3"]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "method.baseline_epochs=3" in shown
    assert "needs trainer.epochs too" in shown
    plan = ["trainer.epochs=2", "method.baseline_epochs=3", "method.ratios=[1]"]
    assert main(["train", "--plan", f"run_dir={tmp_path / 'run'}", *given, *plan]) == 0
    shown = capsys.readouterr().out
    # 4 labeled images in batches of 5, 12 others in batches of 3.
    assert "3 iterations" in next(line for line in shown.splitlines() if "baseline-a" in line)
    assert "8 iterations" in next(line for line in shown.splitlines() if "phase-1-b" in line)


@pytest.mark.slow
def test_short_batches_can_be_accumulated(tmp_path: Path) -> None:
    sizes = ("trainer.batch_size=2", "trainer.unlabeled_batch_size=4", "trainer.iterations=null")
    lengths = ("trainer.epochs=1", "trainer.accumulate=2", "dataset.train=19", "method.ratios=[1]")
    assert train(tmp_path, *sizes, *lengths) == 0
    assert steps(tmp_path)[-1] == "report"
