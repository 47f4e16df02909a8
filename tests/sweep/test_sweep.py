"""A sweep whose jobs fail and are killed, and that is killed itself, ends with the numbers of an undisturbed one."""

import os
import random
import signal
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest

from semiseg.cli import main
from sweeping import TINY, index, states, sweep

pytestmark = pytest.mark.slow

GRID = ("method=fragile", "split=1/8,1/4", "seed=0,1", "hydra.launcher.n_jobs=2", *TINY)


def results(sweep_dir: str) -> dict[str, tuple[float, str]]:
    """mIoU and digest of the network of each job."""
    jobs = index(sweep_dir)["jobs"]
    networks = {name: Path(sweep_dir, name, "checkpoints/best.pt") for name in jobs}
    return {
        name: (jobs[name]["metric"], sha256(network.read_bytes()).hexdigest())
        for name, network in networks.items()
    }


def kill_all(launcher: int) -> None:
    """Kill a launcher and its jobs as a power cut would."""
    os.kill(launcher, signal.SIGSTOP)
    jobs = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    for pid in (launcher, *map(int, jobs)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_disturbed_sweep_ends_with_the_same_numbers(workdir: Path) -> None:
    began = time.monotonic()
    code, screen = sweep("sweep_dir=straight", *GRID).finish()
    assert code == 0, screen
    took = time.monotonic() - began
    straight = results("straight")
    assert len(straight) == 4

    Path("fail").write_text("0 1/4")
    Path("kill").write_text("1 1/8")
    process = sweep("sweep_dir=disturbed", *GRID)
    moment = random.uniform(0, 0.8 * took)
    time.sleep(moment)
    if process.poll() is None:
        kill_all(process.pid or 0)
    process.finish()
    code, screen = sweep("sweep_dir=disturbed", *GRID).finish()
    assert code == 1, f"killed after {moment} s\n{screen}"
    assert sorted(states("disturbed")) == ["done"] * 2 + ["failed", "killed"]
    assert "ValueError: made to fail" in screen
    assert "ended by SIGKILL" in screen

    Path("fail").unlink()
    Path("kill").unlink()
    code, screen = sweep("sweep_dir=disturbed", *GRID).finish()
    assert code == 0, screen
    assert screen.count("started") == 2
    assert results("disturbed") == straight, f"killed after {moment} s"

    assert main(["report", "disturbed", "-o", "report"]) == 0
    assert {"report.html", "report.md", "results.csv"} <= {path.name for path in Path("report").iterdir()}
