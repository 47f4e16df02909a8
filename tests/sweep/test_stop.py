"""A sweep that is stopped, or whose launcher dies, and what the same command does then."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from processes import Command
from sweeping import TINY, index, states, sweep

pytestmark = pytest.mark.slow

GRID = ("sweep_dir=sweep", "method=fragile", "seed=0,1", "split=1/4", *TINY)


@pytest.fixture(autouse=True)
def slow(workdir: Path) -> Path:
    """Runs wait in their sixth iteration for as long as this file is there."""
    path = Path("slow")
    path.write_text("all")
    return path


def until(moment: Callable[[], bool], process: Command) -> None:
    deadline = time.monotonic() + 100
    while not moment():
        assert time.monotonic() < deadline, "the moment never came"
        assert process.poll() is None, process.finish()
        time.sleep(0.01)


def at_work(seed: int) -> Path:
    """What a run leaves that has come to its sixth iteration."""
    return Path(f"slow-{seed} 1of4")


def test_an_interrupt_stops_after_the_step_and_the_same_command_goes_on(slow: Path) -> None:
    process = sweep(*GRID)
    until(at_work(0).exists, process)
    process.send(signal.SIGINT)
    until(lambda: "SIGINT received: finishing" in next(Path("sweep").glob("*.log")).read_text(), process)
    slow.unlink()
    code, screen = process.finish()
    assert code == 130
    assert "SIGINT received: 1 jobs finish their step and save" in screen
    assert states("sweep") == ["interrupted", "waiting"]
    code, screen = sweep(*GRID).finish()
    assert code == 0, screen
    assert "Going on with" in next(Path("sweep").glob("*-s0-*.log")).read_text()
    assert states("sweep") == ["done", "done"]
    assert len(index("sweep")["commands"]) == 1


def test_a_second_signal_ends_the_jobs_at_once() -> None:
    process = sweep(*GRID, "hydra.launcher.n_jobs=2")
    until(lambda: at_work(0).exists() and at_work(1).exists(), process)
    process.send(signal.SIGTERM)
    time.sleep(0.3)
    process.send(signal.SIGINT)
    code, screen = process.finish()
    assert code == 143
    assert "ending 2 jobs at once" in screen
    assert states("sweep") == ["killed", "killed"]


def test_jobs_outlive_their_launcher_and_are_waited_for(slow: Path) -> None:
    first = sweep(*GRID)
    until(at_work(0).exists, first)
    os.kill(first.pid or 0, signal.SIGKILL)
    first.finish()
    assert states("sweep") == ["running", "waiting"]
    process = sweep(*GRID)
    until(lambda: "which works on it already" in process.screen(), process)
    code, screen = sweep(*GRID).finish()
    assert code == 2
    assert "Another sweep works in sweep" in screen
    slow.unlink()
    code, screen = process.finish()
    assert code == 0, screen
    assert screen.count("started") == 1
    assert states("sweep") == ["done", "done"]
