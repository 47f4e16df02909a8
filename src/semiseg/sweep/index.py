"""``sweep.json``: every job of a sweep directory with its state."""

import logging
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from semiseg.contracts.score_names import MEAN_IOU, TOTALS, MetricName, ScoreNames
from semiseg.errors import UserError
from semiseg.files import read_json, write_json
from semiseg.locks import exclusive
from semiseg.runs.read import StoredRun
from semiseg.sweep.job import Job, own_overrides

VERSION = 1
NAME = "sweep.json"
STOPPED = frozenset({75, 130, 143, -signal.SIGINT, -signal.SIGTERM})
"""Exit codes of a run that was asked to stop: after its checkpoint, or at once in its first seconds."""
JOB_FOLDER = re.compile(r".+-[0-9a-f]{8}")

log = logging.getLogger(__name__)


@dataclass
class JobEntry:
    """State of a job.

    Args:
        overrides: overrides that make its config.
        state: state, one of "waiting", "running", "done", "failed", "killed" or "interrupted".
        metric: primary score of the reported network; ``None`` before the end, or without validation images.
        seconds: time of its processes, over all attempts.
        exit_code: exit code of its last process, negative for a signal; ``None`` while it runs or where it is unknown.
        log: last lines that its last process printed.
    """

    overrides: list[str]
    state: str = "waiting"
    metric: float | None = None
    seconds: float = 0.0
    exit_code: int | None = None
    log: list[str] = field(default_factory=list)


class Index:
    """The jobs of a sweep directory, those of earlier commands included; each change is written at once.

    Args:
        directory: the sweep directory, whose lock is held.

    Raises:
        UserError: its ``sweep.json`` is of a later version.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / NAME
        stored = _read(self.path)
        known = {each.name for each in fields(JobEntry)}
        self.commands: list[list[str]] = stored.get("commands", [])
        self.jobs = {
            name: JobEntry(**{key: value for key, value in values.items() if key in known})
            for name, values in stored.get("jobs", {}).items()
        }
        for folder in sorted(directory.iterdir()):
            if (
                folder.name not in self.jobs
                and JOB_FOLDER.fullmatch(folder.name)
                and StoredRun(folder).started
            ):
                self.jobs[folder.name] = JobEntry(_typed(folder))
        for name, entry in self.jobs.items():
            look(directory / name, entry)

    def begin(self, command: Sequence[str], jobs: Sequence[Job]) -> None:
        """Note a command and its jobs.

        Args:
            command: its overrides as typed, without the sweep directory.
            jobs: its jobs.
        """
        if list(command) not in self.commands:
            self.commands.append(list(command))
        for job in jobs:
            self.add(job)
        self.write()

    def add(self, job: Job) -> None:
        """Note a job that may be new; one that has to run is waiting."""
        entry = self.jobs.setdefault(job.folder.name, JobEntry(list(job.overrides)))
        look(job.folder, entry)
        if entry.state != "done":
            entry.state = "waiting"

    def entry(self, job: Job) -> JobEntry:
        """State of a job."""
        return self.jobs[job.folder.name]

    def end(self, job: Job, code: int | None, log: list[str]) -> JobEntry:
        """Note the end of a job's process.

        Args:
            job: the job.
            code: exit code, negative for a signal; ``None`` where it is unknown.
            log: last lines that it printed.
        """
        entry = self.entry(job)
        entry.exit_code, entry.log = code, log
        entry.state = "interrupted" if code in STOPPED else "killed" if code is None or code < 0 else "failed"
        if code == 0:
            look(job.folder, entry)
        self.write()
        return entry

    def write(self) -> None:
        """Replace ``sweep.json``."""
        jobs = {name: asdict(entry) for name, entry in self.jobs.items()}
        write_json(self.path, {"version": VERSION, "commands": self.commands, "jobs": jobs})


def look(folder: Path, entry: JobEntry) -> None:
    """Update an entry from the run directory, which knows best."""
    place = StoredRun(folder)
    if summary := place.summary:
        entry.state, entry.metric = "done", ScoreNames.of(summary).value(summary)
        entry.seconds = entry.seconds or float(summary.get("wall_s") or 0)
        return
    state = place.status.get("state", "waiting")
    if state in ("failed", "interrupted"):
        entry.state = state
    elif entry.state == "done":  # its results were removed
        entry.state, entry.metric = "waiting", None
    elif "running" in (state, entry.state):
        entry.state = "running" if place.worker() else "killed"


def primary_of(folder: Path) -> MetricName:
    """Name of the primary score of a run; before its end the one of segmentation that its config chooses."""
    place = StoredRun(folder)
    if (summary := place.summary) is None and place.has_config:
        evaluator = place.config.get("evaluator") or {}
        return TOTALS.get(str(evaluator.get("primary")), (MEAN_IOU.primary,))[0]
    return ScoreNames.of(summary or {}).primary


@contextmanager
def locked_sweep(directory: Path) -> Iterator[None]:
    """Make a sweep directory and keep other sweeps out of it; remove it again if it stays empty.

    Raises:
        UserError: it cannot be made or written, is a run directory, or another sweep works in it.
    """
    if StoredRun(directory).started:
        raise UserError(
            f"sweep_dir={directory} is the directory of a single run. Choose another one for the sweep, or go on "
            f"with the run: semiseg train run_dir={directory}"
        )
    with exclusive(directory, "sweep_dir", "sweep"):
        yield


def _read(path: Path) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read (%s); it is made anew from the run directories.", path, error)
        return {}
    if stored.get("version") != VERSION:
        raise UserError(
            f"{path} is of version {stored.get('version')}, and this semiseg writes version {VERSION}. "
            "Choose another sweep_dir, or use the semiseg that wrote it."
        )
    return stored


def _typed(folder: Path) -> list[str]:
    """The overrides that a run was started with."""
    try:
        return own_overrides(read_json(folder / "overrides.yaml"))
    except (OSError, ValueError):
        return []
