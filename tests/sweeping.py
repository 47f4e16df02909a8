"""Sweeps in a process of their own whose jobs find torch imported already, which is most of a tiny run's time.

Launcher and jobs are separate processes, as they are everywhere else: each can be killed, and takes signals.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn

from hydra.core.global_hydra import GlobalHydra

from processes import Command
from semiseg.sweep import process

TINY = (
    "dataset.train=16",
    "dataset.val=4",
    "dataset.test=0",
    "dataset.size=32",
    "trainer.crop_size=32",
    "trainer.iterations=8",
    "trainer.batch_size=2",
    "trainer.unlabeled_batch_size=2",
    "trainer.checkpoint_every=2",
    "trainer.eval_every=4",
    "trainer.log_every=4",
    "trainer.threads=1",
    "tracker.mode=disabled",
    "tracker.samples=1",
)


class Forked:
    """Stands in for ``subprocess.Popen``: the command line in a fork of this process, in a session of its own."""

    def __init__(
        self, words: Sequence[str], *, stdout: IO[bytes], env: Mapping[str, str], **others: Any
    ) -> None:
        assert words[:3] == [sys.executable, "-m", "semiseg"]
        assert others == {
            "stdin": subprocess.DEVNULL,
            "stderr": subprocess.STDOUT,
            "start_new_session": True,
        }
        self.returncode: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(list(words[3:]), stdout.fileno(), env)

    def poll(self) -> int | None:
        return self._waited(os.WNOHANG)

    def wait(self) -> int | None:
        return self._waited(0)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _waited(self, how: int) -> int | None:
        if self.returncode is None:
            with suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, how)
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def _become(words: list[str], output: int, variables: Mapping[str, str]) -> NoReturn:
    os.setsid()
    os.environ.clear()
    os.environ.update(variables)
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        os.dup2(output, number)
        stream.flush()
    for handle in Path("/proc/self/fd").iterdir():  # which a new program would not have
        if handle.is_symlink() and handle.readlink().name == ".lock":
            os.close(int(handle.name))
    GlobalHydra.instance().clear()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from semiseg.cli import main

    code = 1
    try:
        code = main(words)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def fork_jobs() -> None:
    """Let the launcher of this process fork its jobs."""
    others = {"DEVNULL": subprocess.DEVNULL, "STDOUT": subprocess.STDOUT}
    process.subprocess = SimpleNamespace(Popen=Forked, **others)  # type: ignore[assignment]


def sweep(*overrides: str) -> Command:
    """Start ``semiseg train -m``."""
    return Command("train", "-m", *overrides, prepare=fork_jobs)


def index(sweep_dir: str) -> dict[str, Any]:
    """The content of ``sweep.json``."""
    stored: dict[str, Any] = json.loads(Path(sweep_dir, "sweep.json").read_text())
    return stored


def states(sweep_dir: str) -> list[str]:
    """States of all jobs."""
    return [job["state"] for job in index(sweep_dir)["jobs"].values()]
