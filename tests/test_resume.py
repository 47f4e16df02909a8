"""A run that is killed at any moment and started again ends with the same weights as one that never was."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from processes import Command
from semiseg.cli import main
from semiseg.engine import loop
from semiseg.errors import Interrupted

pytestmark = pytest.mark.slow

TINY = (
    "dataset.train=24",
    "dataset.val=4",
    "dataset.test=0",
    "dataset.size=32",
    "split=1/4",
    "trainer.crop_size=32",
    "trainer.iterations=10",
    "trainer.batch_size=2",
    "trainer.unlabeled_batch_size=2",
    "trainer.checkpoint_every=2",
    "trainer.eval_every=5",
    "trainer.log_every=3",
    "trainer.threads=1",
    "tracker.mode=disabled",
    "seed=3",
)
SHORTER = {
    "dmtc": (
        "method.ratios=[0.5,1]",
        "method.contrast.phases=true",
        "method.contrast.num_queries=8",
        "method.contrast.num_negatives=8",
    ),
    "cac": (
        "method.iterations_per_epoch=3",
        "method.warmup_epochs=1",
        "method.positive_threshold=0.2",
        "method.selected=20",
        "method.replay=true",
    ),
    "cct": (
        *("model=pspnet_cct", "model.channels=16", "method.annealed=true", "method.pairwise_weight=0.1"),
        *("method.replay=true", "method.iterations_per_epoch=4"),
    ),
    "mean_teacher": ("method.ema_when=before_step", "method.threshold=0.2", "method.report=better"),
    "cutmix_seg": (
        *("method.threshold=0.2", "method.iterations_per_epoch=4", "method.rampup_epochs=2"),
        "method.logit_adjustment=1",
    ),
    "adv_semiseg": ("method.discriminator_channels=8", "method.threshold=0.5"),
    "s4gan": ("method.discriminator_channels=8", "method.threshold=0.5"),
    "dmt": (
        *("method.ratios=[0.5,1]", "method.difference=data", "method.phase_lr=0.02"),
        *("trainer.eval_early=true", "trainer.iterations=6"),
    ),
    "prevmatch": ("method.previous_when=every", "method.previous=1", "trainer.eval_every=3"),
    "unimatch_v2": (
        *("method.threshold_rule=class_balanced", "method.align=labeled", "method.gate_share=0.3"),
        *("method.partner=independent", "method.report=better"),
    ),
}
"""What makes the runs of a method short."""

Moment = Callable[[Path], bool]


def choice(method: str) -> tuple[str, ...]:
    """Overrides that choose a method."""
    return (f"method={method}", *SHORTER.get(method, ()))


def start(run: Path, *overrides: str) -> Command:
    return Command("train", f"run_dir={run}", *TINY, *overrides)


def finish(run: Path, *overrides: str) -> str:
    code, output = start(run, *overrides).finish()
    assert code == 0, output
    return output


def train(run: Path, *overrides: str) -> int:
    """Exit code of a run in this process."""
    return main(["train", f"run_dir={run}", *TINY, *overrides])


def stop_at(run: Path, moment: Moment, number: signal.Signals, *overrides: str) -> tuple[int, str]:
    """Start a run, send a signal once ``moment`` has come, and return exit code and output."""
    process = start(run, *overrides)
    deadline = time.monotonic() + 100
    while process.poll() is None and not moment(run):
        assert time.monotonic() < deadline, "the moment to stop never came"
        time.sleep(0.002)
    process.send(number)
    return process.finish(60)


def weights(run: Path) -> str:
    """Digest of all weights of the reported network."""
    state = torch.load(run / "checkpoints/best.pt", weights_only=True)["state_dict"]
    digest = sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().tobytes())
    return digest.hexdigest()


def records(run: Path) -> list[dict[str, object]]:
    """Logged records without what depends on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if not key.startswith("time/")}
        for line in lines
        if "summary" not in line
    ]


def in_step(step: str, files: int = 0) -> Moment:
    """The step has begun and its directory holds at least so many files."""

    def moment(run: Path) -> bool:
        found = list((run / "stages").glob(f"*-{step}"))
        return bool(found) and sum(path.is_file() for path in found[0].rglob("*")) >= files

    return moment


def saved_twice(step: str) -> Moment:
    """The second training state of a step has been written."""

    def moment(run: Path) -> bool:
        try:
            manifest = json.loads((run / "checkpoints/manifest.json").read_text())
        except (OSError, ValueError):
            return False
        return bool(manifest["step"] == step and (run / "checkpoints/last.prev.pt").exists())

    return moment


def after_lines(count: int) -> Moment:
    """So many lines have been logged."""

    def moment(run: Path) -> bool:
        try:
            return (run / "metrics.jsonl").read_bytes().count(b"\n") >= count
        except OSError:
            return False

    return moment


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Uninterrupted runs by method, each made once."""
    made: dict[str, Path] = {}

    def run(method: str) -> Path:
        if method not in made:
            made[method] = tmp_path_factory.mktemp("straight") / method
            assert train(made[method], *choice(method)) == 0
        return made[method]

    return run


@pytest.mark.parametrize(
    ("method", "moments"),
    [
        ("cps", [after_lines(1), saved_twice("train"), after_lines(4)]),
        ("prevmatch", [saved_twice("train")]),
        ("unimatch_v2", [saved_twice("train")]),
        ("cutmix_seg", [after_lines(1), saved_twice("train")]),
        ("cct", [saved_twice("train")]),
        ("adv_semiseg", [saved_twice("train")]),
        ("s4gan", [saved_twice("train")]),
        (
            "stpp",
            [
                saved_twice("teacher"),
                in_step("label-reliable", files=3),
                in_step("student", files=2),
            ],
        ),
        (
            "dmt",
            [
                in_step("label-1-by-b", files=3),
                in_step("phase-1-b", files=1),
                saved_twice("phase-2-a"),
            ],
        ),
    ],
)
def test_killed_runs_end_with_the_same_weights(
    method: str, moments: list[Moment], straight: Callable[[str], Path], tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    killed = 0
    for moment in moments:
        code, output = stop_at(run, moment, signal.SIGKILL, *choice(method))
        assert code in (0, -signal.SIGKILL), output
        killed += code != 0
    assert killed >= min(2, len(moments) - 1)
    # The last leg loads its batches with worker processes.
    finish(run, *choice(method), "trainer.num_workers=2")
    assert weights(run) == weights(straight(method))
    assert records(run) == records(straight(method))
    assert not list(run.rglob("*.tmp-*"))


def slow_disk() -> None:
    """Let every sync of a file in another than the main thread take long: training overtakes the writing of a state."""
    sync = os.fsync

    def fsync(handle: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.4)
        sync(handle)

    os.fsync = fsync


def writing(completed: int) -> Moment:
    """A state is being written while the run has a whole one of at least so many steps."""

    def moment(run: Path) -> bool:
        try:
            status = json.loads((run / "status.json").read_text())
        except (OSError, ValueError):
            return False
        return status["iteration"] >= completed and any((run / "checkpoints").glob(".last.pt.tmp-*"))

    return moment


def test_runs_that_are_killed_while_a_state_is_written_end_with_the_same_weights(
    straight: Callable[[str], Path], tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    for moment in (writing(0), writing(2)):
        process = Command("train", f"run_dir={run}", *TINY, *choice("cps"), prepare=slow_disk)
        deadline = time.monotonic() + 100
        while not moment(run):
            assert process.poll() is None
            assert time.monotonic() < deadline, "no state was being written"
            time.sleep(0.002)
        process.send(signal.SIGKILL)
        code, output = process.finish(60)
        assert code == -signal.SIGKILL, output
        assert any((run / "checkpoints").glob(".last.pt.tmp-*"))
    finish(run, *choice("cps"))
    assert weights(run) == weights(straight("cps"))
    assert records(run) == records(straight("cps"))
    assert not list(run.rglob("*.tmp-*"))


@pytest.mark.parametrize(
    ("method", "evaluations"), [("cac", [1, 2]), ("mean_teacher", [1, 2]), ("dmtc", [2, 5])]
)
def test_runs_that_stop_while_they_evaluate_end_with_the_same_weights(
    method: str,
    evaluations: list[int],
    straight: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a killed run does, these lose the steps since the last saved state."""
    measure = loop.Trainer.measure
    for evaluation in evaluations:
        left = evaluation

        def stopped(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Interrupted("SIGTERM", 143)
            return measure(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(loop.Trainer, "measure", stopped)
            assert train(tmp_path / "run", *choice(method)) == 143
    assert train(tmp_path / "run", *choice(method)) == 0
    assert weights(tmp_path / "run") == weights(straight(method))
    assert records(tmp_path / "run") == records(straight(method))


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_finish_the_step_and_save(
    number: signal.Signals, expected: int, straight: Callable[[str], Path], tmp_path: Path
) -> None:
    run = tmp_path / "stopped"
    code, output = stop_at(run, after_lines(1), number, "method=cps", "trainer.checkpoint_every=1000")
    assert code == expected, output
    assert "semiseg train run_dir=" in output
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    # run_dir alone goes on with the stored config.
    code, output = Command("train", f"run_dir={run}").finish()
    assert code == 0, output
    assert weights(run) == weights(straight("cps"))


def test_time_limit_saves_and_exits_75(straight: Callable[[str], Path], tmp_path: Path) -> None:
    run = tmp_path / "limited"
    assert train(run, "method=cps", "trainer.max_time=0.0001") == 75
    assert train(run, "method=cps") == 0
    assert weights(run) == weights(straight("cps"))


def test_second_process_is_refused_and_names_the_first(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = start(run, "trainer.iterations=2000")
    while not (run / "status.json").exists():
        assert first.poll() is None
        time.sleep(0.01)
    code, output = start(run, "trainer.iterations=2000").finish(60)
    first.send(signal.SIGKILL)
    first.finish()
    assert code == 2, output
    assert f"process {first.pid}" in output
    assert "Traceback" not in output


def test_resuming_with_other_settings_names_the_keys(
    straight: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(straight("cps"), "optimizer.lr=0.5") == 2
    told = capsys.readouterr().err
    assert "optimizer.lr" in told
    assert "0.5" in told


def test_a_finished_run_is_not_trained_again(
    straight: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (straight("cps") / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert train(straight("cps"), "method=cps") == 0
    assert "mIoU" in capsys.readouterr().out
    assert (straight("cps") / "metrics.jsonl").read_bytes() == before


def test_run_yaml_runs_again_to_the_same_weights(straight: Callable[[str], Path], tmp_path: Path) -> None:
    again = tmp_path / "again"
    words = ("train", "--config-dir", str(straight("cps")), "--config-name", "run", f"run_dir={again}")
    assert main(list(words)) == 0
    assert weights(again) == weights(straight("cps"))
