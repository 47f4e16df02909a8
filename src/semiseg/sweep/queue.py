"""Jobs of a sweep in the queue of a cluster, by submitit (extra ``slurm``)."""

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semiseg.config.environment import GIVEN_THREADS
from semiseg.errors import UserError
from semiseg.files import read_json, write_json
from semiseg.sweep.index import Index
from semiseg.sweep.job import Job
from semiseg.sweep.process import Child
from semiseg.sweep.screen import Screen

if TYPE_CHECKING:
    from submitit import AutoExecutor
    from submitit import Job as Ticket
    from submitit.helpers import DelayedSubmission

WAIT = 1.0
TAKEN_AWAY = 120.0
"""Seconds after an external stop within which the queue takes the machine away and runs the job again by itself."""
SIGNALED = frozenset({130, 143, -signal.SIGINT, -signal.SIGTERM})
ALIVE = frozenset({"PENDING", "RUNNING", "REQUEUED", "COMPLETING", "CONFIGURING", "SUSPENDED"})
OF_ANY_QUEUE = ("timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb", "name")
"""Parameters that submitit takes for every queue; the others are Slurm's."""
TICKETS = "jobs.json"


class QueuedRun:
    """One job, as submitit pickles it and calls it on the machine that the queue gives it.

    Args:
        job: job to run; its paths are valid on that machine too.
        threads: OMP_NUM_THREADS as the user set it; with "" the run takes the cores that it gets.
    """

    def __init__(self, job: Job, threads: str = GIVEN_THREADS) -> None:
        self.job = job
        self.threads = threads
        self._child: Child | None = None

    def __call__(self) -> tuple[int, list[str]]:
        """Train in a process of its own; return its exit code and its last lines."""
        from submitit import JobEnvironment

        with _out_of_reach(getattr(signal, f"SIG{JobEnvironment.USR_SIG}")):
            self._child = Child(self.job, self._environment())
        while (code := self._child.poll()) is None:
            time.sleep(WAIT / 4)
        if code in SIGNALED:
            time.sleep(TAKEN_AWAY)
        return code, self._child.last_lines()

    def checkpoint(self) -> "DelayedSubmission":
        """Let the run finish its step and save; return the task that the queue calls next.

        submitit calls this from its signal handler, in the middle of ``__call__``.
        """
        from submitit.helpers import DelayedSubmission

        if self._child is not None:
            self._child.stop(signal.SIGTERM)
            self._child.wait()
        return DelayedSubmission(QueuedRun(self.job, self.threads))

    def _environment(self) -> dict[str, str]:
        """Variables of this machine, without the thread counts of the one that the sweep was started on."""
        own = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        variables = {key: value for key, value in os.environ.items() if key not in own}
        return variables | {"OMP_NUM_THREADS": self.threads} if self.threads else variables


class Queue:
    """The queue of a cluster, and the jobs of a sweep in it.

    Args:
        index: index of all jobs.
        screen: messages to the user.
        settings: settings of ``hydra_plugins.semiseg_submitit.SubmititLauncherConf``.

    Raises:
        UserError: submitit is not installed, there is no such queue, or it has no such settings.
    """

    def __init__(self, index: Index, screen: Screen, settings: Mapping[str, Any]) -> None:
        self.index = index
        self.screen = screen
        self.folder = Path(settings["folder"]).resolve()
        self.cluster = str(settings["cluster"])
        self.executor = _executor(self.folder, settings)

    def run(self, jobs: Sequence[Job]) -> None:
        """Queue what is not done and is not in the queue already, and wait for all of it."""
        waiting = {job.folder.name: job for job in jobs if self.index.entry(job).state != "done"}
        tickets = self._known(waiting)
        queued = self._submitted([job for name, job in waiting.items() if name not in tickets])
        tickets |= queued
        write_json(self.folder / TICKETS, {name: ticket.job_id for name, ticket in tickets.items()})
        for name, ticket in tickets.items():
            self.screen.queued(waiting[name], str(ticket.job_id), new=name in queued)
        try:
            self._watch(waiting, tickets)
        except KeyboardInterrupt:
            for name in tickets:
                self.index.jobs[name].state = "waiting"
            raise

    def _submitted(self, jobs: Sequence[Job]) -> "dict[str, Ticket[Any]]":
        if not jobs:
            return {}
        with self.executor.batch():
            return {job.folder.name: self.executor.submit(QueuedRun(job)) for job in jobs}

    def _watch(self, jobs: Mapping[str, Job], tickets: "dict[str, Ticket[Any]]") -> None:
        """Note what becomes of the jobs, and take the tickets of those that have ended away."""
        while tickets:
            for name in [name for name, ticket in tickets.items() if ticket.done()]:
                self._ended(jobs[name], tickets.pop(name))
            for name, ticket in tickets.items():
                self._at_work(jobs[name], ticket)
            time.sleep(WAIT)

    def _known(self, jobs: Mapping[str, Job]) -> "dict[str, Ticket[Any]]":
        """Jobs that an earlier command has queued and that are still there."""
        import submitit

        kinds = {"slurm": submitit.SlurmJob, "local": submitit.LocalJob}
        try:
            stored = read_json(self.folder / TICKETS)
        except (OSError, ValueError):
            return {}
        found = {
            name: kinds[self.cluster](self.folder, job_id) for name, job_id in stored.items() if name in jobs
        }
        return {name: ticket for name, ticket in found.items() if _state(ticket) in ALIVE}

    def _at_work(self, job: Job, ticket: "Ticket[Any]") -> None:
        """Note that a job has left the queue for a machine, or has come back."""
        entry = self.index.entry(job)
        state = "running" if _state(ticket) == "RUNNING" else "waiting"
        if state != entry.state:
            entry.state, entry.exit_code, entry.log = state, None, []
            self.index.write()

    def _ended(self, job: Job, ticket: "Ticket[Any]") -> None:
        try:
            code, log = ticket.result()
        except Exception as error:  # submitit raises what it finds in its files, of any type
            code, log = None, str(error).splitlines()[-10:]
        self.screen.ends(job, self.index.end(job, code, log))


@contextmanager
def _out_of_reach(number: int) -> Iterator[None]:
    """Keep a signal from processes that are started here: a cluster sends it to all that belong to a job."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def _state(ticket: "Ticket[Any]") -> str:
    """First word of a state such as "CANCELLED by 1000"."""
    return str(ticket.state).partition(" ")[0].upper()


def _executor(folder: Path, settings: Mapping[str, Any]) -> "AutoExecutor":
    try:
        import submitit
    except ImportError as error:
        raise UserError(
            'hydra/launcher=submitit_slurm needs the package submitit: pip install "semiseg[slurm]".'
        ) from error
    cluster = settings["cluster"]
    if cluster not in ("slurm", "local"):
        raise UserError("choose slurm or local.", key="hydra.launcher.cluster", value=cluster)
    given = {key: value for key, value in settings.items() if value not in (None, {}, [])}
    for key in ("cluster", "folder", "max_num_timeout"):
        given.pop(key, None)
    try:
        executor = submitit.AutoExecutor(
            folder, cluster=cluster, slurm_max_num_timeout=settings["max_num_timeout"]
        )
        executor.update_parameters(
            **{key if key in OF_ANY_QUEUE else f"slurm_{key}": value for key, value in given.items()}
        )
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise UserError(f"hydra/launcher=submitit_slurm: {error}") from error
    return executor
