"""A run's answers to bad luck: stops in odd places, full disks, changed data, directories that cannot be used."""

import fcntl
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from semiseg import app as training
from semiseg import assembly
from semiseg.cli import main
from semiseg.data.shapes import Shapes
from semiseg.engine import loop, plan
from semiseg.engine.plan_text import PlannedStep
from semiseg.errors import Interrupted
from semiseg.runs.directory import RunDir

TINY = (
    "trainer.iterations=4",
    "trainer.batch_size=2",
    "trainer.unlabeled_batch_size=2",
    "trainer.crop_size=32",
    "trainer.eval_every=2",
    "trainer.checkpoint_every=2",
    "trainer.log_every=1",
    "trainer.threads=1",
    "tracker.mode=disabled",
    "split=1/4",
)
SHAPES = ("dataset.train=16", "dataset.val=4", "dataset.test=2", "dataset.size=32")


def train(run: Path, *overrides: str, method: str = "supervised") -> int:
    return main(["train", f"run_dir={run}", f"method={method}", *TINY, *(overrides or SHAPES)])


def stop(*arguments: Any, **options: Any) -> None:
    raise Interrupted("SIGTERM", 143)


def after(function: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
    """Do something more at the end of a function."""

    def both(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        then()
        return result

    return both


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def content(run: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()
    }


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped in its first evaluation."""
    run = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "measure", stop)
        assert train(run) == 143
    return run


@pytest.mark.slow
def test_changed_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes, root, run = Shapes(train=8, val=2, test=0, size=40), tmp_path / "camvid", tmp_path / "run"

    def draw(part: str, image_id: str, name: str) -> None:
        mask = shapes.mask(image_id)
        assert mask is not None
        for folder, array in ((part, shapes.image(image_id)[..., ::-1]), (f"{part}annot", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / folder / f"{name}.png"), array)

    for part in ("train", "val"):
        for image_id in shapes.ids(part):
            draw(part, image_id, image_id)
    options = ("dataset=camvid", f"dataset.root={root}")
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "measure", stop)
        assert train(run, *options) == 143
    draw("train", "train-0000", "train-0000-more")
    capsys.readouterr()
    assert train(run, *options) == 2
    shown = capsys.readouterr().err
    assert "are others than those that it began with" in shown
    assert "train-0000-more" in shown


def test_a_directory_that_was_killed_in_its_beginning_can_be_used(tmp_path: Path) -> None:
    for name in (
        ".lock",
        "env.json",
        "plan.json",
        ".config.resolved.yaml.tmp-17",
        "run.log",
        "metrics.jsonl",
    ):
        (tmp_path / name).touch()
    assert train(tmp_path) == 0
    assert not list(tmp_path.rglob(".*.tmp-*"))


def test_a_plan_leaves_a_stopped_run_as_it_is(stopped: Path) -> None:
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"unfinished')
    before = content(stopped)
    assert main(["train", "--plan", f"run_dir={stopped}"]) == 0
    assert content(stopped) == before


@pytest.mark.slow
def test_a_plan_that_fails_begins_no_run_and_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def boom(*arguments: Any) -> None:
        raise KeyError("boom")

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(training, "make_plan", boom)
        assert train(run) == 1
    assert sorted(path.name for path in run.iterdir()) == [".lock", "run.log"]
    assert "Traceback" in (run / "run.log").read_text()
    assert "boom" in (run / "run.log").read_text()
    assert train(run) == 0


def test_the_plan_runs_in_the_precision_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = plan.forward_backward, []

    def spy(learner: Any, batch: Any, progress: Any, parts: int, autocast: Any) -> Any:
        with autocast():
            seen.append(torch.is_autocast_enabled("cpu"))
        return real(learner, batch, progress, parts, autocast)

    monkeypatch.setattr(plan, "forward_backward", spy)
    assert (
        main(["train", "--plan", f"run_dir={tmp_path / 'run'}", *TINY, *SHAPES, "trainer.precision=bf16"])
        == 0
    )
    assert seen
    assert all(seen)


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/semiseg/run"])
def test_a_place_that_cannot_be_a_directory_is_refused(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert train(tmp_path / place) == 2
    shown = capsys.readouterr().err
    assert "cannot be used" in shown
    assert "Traceback" not in shown


def test_nothing_is_written_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    assert train(tmp_path) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_system_without_locks_gives_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*arguments: Any) -> None:
        raise OSError(37, "No locks available")

    place = RunDir(tmp_path / "run")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with place.lock():
        (place.path / "file").touch()
    assert place.path.is_dir()


@pytest.mark.slow
def test_a_full_disk_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        assert train(run) == 1
    shown = capsys.readouterr().err
    assert "No space left" in shown
    assert "Make room" in shown
    assert "Traceback" not in shown
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    assert train(run) == 0


def test_a_signal_while_files_are_checked_stops_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = assembly.check_files
    monkeypatch.setattr(
        assembly, "check_files", lambda *given, **named: (terminate(), real(*given, **named))[1]
    )
    assert train(tmp_path / "run") == 143
    assert not (tmp_path / "run").exists()


def test_a_signal_in_the_plan_stops_after_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []
    monkeypatch.setattr(plan, "forward_backward", lambda *given: (timed.append(0), terminate())[1])
    # The second signal of one step would end the process.
    monkeypatch.setattr(plan, "TIMED_STEPS", 1)
    words = ["train", "--plan", f"run_dir={tmp_path / 'run'}", *TINY, *SHAPES, "method=stpp"]
    assert main(words) == 143
    assert len(timed) == 1


@pytest.mark.slow
def test_the_end_of_a_run_is_recorded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write_summary", after(RunDir.write_summary, stop))
        assert train(run) == 143
    # As if the kill had come between the end of the fit and the removal of its candidates.
    strays = [run / "stages/00-train/best-2.pt", run / "stages/00-train/.last.pt.tmp-17"]
    for stray in strays:
        stray.touch()
    assert train(run) == 0
    assert not any(stray.exists() for stray in strays)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum("summary" in line for line in lines) == 1
    assert sum("val/samples" in line for line in lines) == 1


def test_the_status_tells_how_far_the_saved_state_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []

    def spy(place: RunDir, state: str, **values: Any) -> None:
        seen.append((state, values["step"], values["iteration"]))

    monkeypatch.setattr(RunDir, "write_status", spy)
    assert train(tmp_path / "run") == 0
    assert seen == [
        ("running", None, 0),
        ("running", "train", 0),
        ("running", "train", 2),
        ("running", "train", 4),
        ("running", "report", 4),
        ("done", "report", 4),
    ]


def test_a_resumed_run_knows_the_number_of_its_steps(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert train(stopped) == 0
    shown = capsys.readouterr().out
    assert "[1/2] train" in shown
    assert "[2/2] report" in shown


@pytest.mark.slow
def test_the_plan_counts_all_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[PlannedStep] = []
    real = training.make_plan
    monkeypatch.setattr(training, "make_plan", lambda *given: made.extend(real(*given)) or made)
    assert train(tmp_path / "run", method="stpp") == 0
    seconds = {step.name: step.seconds for step in made}
    assert list(seconds)[1] == "rank"
    assert list(seconds)[-1] == "report"
    assert all(value > 0 for value in seconds.values())
    stages = sorted(path.name[3:] for path in (tmp_path / "run/stages").iterdir())
    assert stages == sorted(seconds)
