"""The process that trains one job, seen from the launcher."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress

from semiseg.runs.read import StoredRun
from semiseg.sweep.job import Job

LAST_LINES = 20
LONGEST_LINE = 300
TAIL_BYTES = 20_000


class Child:
    """A process that the launcher started, in a session of its own, so that signals of the terminal do not reach it.

    Args:
        job: job that it trains.
        environment: its environment variables.
    """

    def __init__(self, job: Job, environment: Mapping[str, str]) -> None:
        self.job = job
        self.began = time.monotonic()
        with job.log.open("ab") as log:
            typed = shlex.join(["semiseg", *job.command()[3:]])
            log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {typed}\n".encode())
            log.flush()
            self._start = log.tell()
            self._process = subprocess.Popen(
                job.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )

    @property
    def seconds(self) -> float:
        """Time since its start."""
        return time.monotonic() - self.began

    def poll(self) -> int | None:
        """Exit code, negative for a signal; ``None`` while it runs."""
        return self._process.poll()

    def stop(self, number: int) -> None:
        """Send it a signal, but none to its loading workers, which it ends itself."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it and its loading workers at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self) -> None:
        """Wait for its end; safe in a signal handler that interrupts ``poll``, and leaves the exit code to that."""
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)

    def last_lines(self) -> list[str]:
        """Last lines that it has printed."""
        with self.job.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._start, size - TAIL_BYTES))
            text = log.read().decode("utf-8", errors="replace")
        lines = [line.rstrip()[:LONGEST_LINE] for line in text.splitlines()]
        return [line for line in lines if line][-LAST_LINES:]


class ExternalProcess:
    """A process in a job's run directory that another launcher started, such as one that was killed.

    Args:
        job: job that it trains.
        owner: description of the process.
    """

    def __init__(self, job: Job, owner: str) -> None:
        self.job = job
        self.owner = owner

    def working(self) -> bool:
        """Whether it still runs."""
        return StoredRun(self.job.folder).worker() is not None


def external_process(job: Job) -> ExternalProcess | None:
    """Return the process that works in a job's run directory already; ``None`` without one."""
    owner = StoredRun(job.folder).worker()
    return ExternalProcess(job, owner) if owner else None
