"""Sweeps in the queue of a cluster, with submitit's stand-in that runs jobs on this machine."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from processes import Command
from semiseg.cli import main
from sweeping import TINY, index

QUEUE = ("hydra/launcher=submitit_slurm", "hydra.launcher.cluster=local", "hydra.launcher.gpus_per_node=null")


def jobs_at_work(folder: Path) -> Iterator[tuple[str, int]]:
    """Command line and parent of each training that was started in a folder."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            if (place / "cwd").readlink() == folder and words[1:4] == [b"-m", b"semiseg", b"train"]:
                status = (place / "stat").read_text().rpartition(")")[2].split()
                yield b" ".join(words).decode(), int(status[1])
        except OSError:  # it has ended
            continue


@pytest.mark.slow
def test_a_job_that_loses_its_machine_saves_and_comes_back(workdir: Path) -> None:
    pytest.importorskip("submitit")
    grid = ("method=fragile", "split=1/4", *TINY)
    Path("slow").write_text("0 1/4")
    Path("fail").write_text("1 1/4")
    launcher = Command("train", "-m", "sweep_dir=queued", "seed=0,1", *QUEUE, *grid)
    deadline = time.monotonic() + 100
    while not Path("slow-0 1of4").exists():
        assert launcher.poll() is None, launcher.finish()
        assert time.monotonic() < deadline, launcher.finish(0)
        time.sleep(0.02)
    (called,) = [parent for words, parent in jobs_at_work(workdir) if "seed=0" in words]
    # What a cluster sends before it takes the machine away; the job is in the middle of its sixth step.
    os.kill(called, signal.SIGUSR2)
    time.sleep(0.5)
    assert [parent for words, parent in jobs_at_work(workdir) if "seed=0" in words] == [called]
    Path("slow").unlink()
    code, screen = launcher.finish()
    assert code == 1, screen
    assert "ValueError: made to fail" in screen
    jobs = {name: job["state"] for name, job in index("queued")["jobs"].items()}
    assert sorted(jobs.values()) == ["done", "failed"]
    (name,) = [name for name, state in jobs.items() if state == "done"]
    log = Path("queued", f"{name}.log").read_text()
    assert log.count("--- ") == 2
    assert "SIGTERM received: finishing the step and saving" in log
    assert f"Going on with queued/{name}" in log

    assert main(["train", "run_dir=alone", "seed=0", *grid]) == 0
    network = "checkpoints/best.pt"
    assert Path("queued", name, network).read_bytes() == Path("alone", network).read_bytes()


def refused(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    """Start a sweep of one job that cannot be queued; return what is said."""
    words = ["train", "-m", "sweep_dir=refused", "method=supervised", "hydra/launcher=submitit_slurm"]
    assert main([*words, *overrides, *TINY]) == 2
    assert not list(Path("refused").glob("*/run.yaml"))
    return " ".join(capsys.readouterr().err.split())


def test_a_machine_without_the_queue_is_told_apart(
    workdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(workdir))
    assert 'Could not detect "srun"' in refused(capsys)
    assert "hydra.launcher.cluster=lsf: choose slurm or local" in refused(
        capsys, "hydra.launcher.cluster=lsf"
    )
    assert "hydra.launcher.partitoin" in refused(capsys, "hydra.launcher.partitoin=gpu")


def test_the_extra_is_named_where_it_is_missing(
    workdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert 'pip install "semiseg[slurm]"' in refused(capsys)
