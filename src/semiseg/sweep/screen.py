"""Messages of a sweep to the user: a line for each start and end, a table at the end."""

import signal
from collections.abc import Sequence
from pathlib import Path

from semiseg.output import duration
from semiseg.sweep.index import Index, JobEntry, primary_of
from semiseg.sweep.job import Job

SHOWN_LINES = 8
BAD = ("failed", "killed")


class Screen:
    """Prints the progress of a sweep.

    Args:
        directory: the sweep directory.
        index: states of all jobs.
        jobs: jobs of this command, in its order.
        n_jobs: number of jobs at a time.
    """

    def __init__(self, directory: Path, index: Index, jobs: Sequence[Job], n_jobs: int = 1) -> None:
        self.directory = directory
        self.index = index
        self.jobs = list(jobs)
        self.n_jobs = n_jobs

    def begins(self) -> None:
        """Print the numbers of jobs that are done and left."""
        done = len(self._with("done"))
        left = len(self.jobs) - done
        together = f", {self.n_jobs} at a time" if self.n_jobs > 1 else ""
        _print(f"Sweep {self.directory}: {len(self.jobs)} jobs, {done} done, {left} to run{together}")

    def starts(self, job: Job) -> None:
        """Print that a job has been started, or goes on."""
        self._line("started", job)

    def waits(self, job: Job, owner: str) -> None:
        """Print that another process trains a job already."""
        self._line("waiting", job, f"for {owner}, which works on it already")

    def queued(self, job: Job, number: str, new: bool) -> None:
        """Print that a job waits in the queue of a cluster, or already did."""
        self._line("queued" if new else "in queue", job, f"as {number}")

    def leaves(self) -> None:
        """Print that queued jobs stay when their launcher ends."""
        _print(
            "Stopped watching. The jobs stay in the queue: the same command watches them again, scancel ends them."
        )

    def ends(self, job: Job, entry: JobEntry) -> None:
        """Print the state of a job that has ended, and how long the rest will take."""
        scored = entry.state == "done" and entry.metric is not None
        facts = [f"{primary_of(job.folder).name} {entry.metric:.4f}"] if scored else []
        facts += [duration(entry.seconds), self._rest()]
        if entry.state in BAD:
            facts.append(f"see {job.log}")
        self._line(entry.state, job, "  ".join(facts))

    def stops(self, number: int, children: int, last: bool) -> None:
        """Print that a signal was received, and its effect."""
        name = signal.Signals(number).name
        if last:
            _print(f"{name} received again: ending {children} jobs at once")
        else:
            _print(
                f"{name} received: {children} jobs finish their step and save; once more ends them at once"
            )

    def table(self) -> str:
        """Table of the jobs with state, score in percent, time and folder, and the last lines of failed ones."""
        done = [job for job in self.jobs if self.index.entry(job).state == "done"]
        names = dict.fromkeys(primary_of(job.folder).name for job in done or self.jobs[:1])
        head = f"{'/'.join(names)} %"
        width = max(len(head), 6) + 1
        rows = [f"{'state':<12}{head:>{width}}{'time':>10}  job"]
        for job in self.jobs:
            entry = self.index.entry(job)
            metric = "-" if entry.metric is None else f"{100 * entry.metric:.2f}"
            seconds = duration(entry.seconds) if entry.seconds else "-"
            rows.append(f"{entry.state:<12}{metric:>{width}}{seconds:>10}  {job.folder.name}")
            if entry.state in BAD:
                rows += [f"    {_reason(entry)}: {job.log}"] if entry.log else []
                rows += [f"    | {line}" for line in entry.log[-SHOWN_LINES:]]
        states = dict.fromkeys(self.index.entry(job).state for job in self.jobs)
        counts = ", ".join(f"{len(self._with(state))} {state}" for state in states)
        rows.append(f"Sweep {self.directory}: {counts}")
        if "done" not in states or len(states) > 1:
            rows.append(f"The same command with sweep_dir={self.directory} goes on with what is not done.")
        return "\n".join(rows)

    def _with(self, state: str) -> list[JobEntry]:
        entries = [self.index.entry(job) for job in self.jobs]
        return [entry for entry in entries if entry.state == state]

    def _rest(self) -> str:
        left = len(self._with("waiting")) + len(self._with("running"))
        if not left:
            return "the last one"
        times = [entry.seconds for entry in self._with("done") if entry.seconds]
        about = f", about {duration(sum(times) / len(times) * left / self.n_jobs)}" if times else ""
        return f"{left} left{about}"

    def _line(self, what: str, job: Job, more: str = "") -> None:
        number = self.jobs.index(job) + 1
        width = len(str(len(self.jobs)))
        _print(f"[{number:>{width}}/{len(self.jobs)}] {what:<11} {job.folder.name}  {more}".rstrip())


def _reason(entry: JobEntry) -> str:
    if entry.exit_code is not None and entry.exit_code < 0:
        return f"ended by {signal.Signals(-entry.exit_code).name}"
    return f"exit code {entry.exit_code}"


def _print(text: str) -> None:
    print(text, flush=True)
