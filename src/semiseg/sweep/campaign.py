"""One command ``semiseg train -m``, as the task of Hydra's launchers."""

import math
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from semiseg.config.compose import Request, settle_given
from semiseg.config.literals import literal
from semiseg.config.overrides import parse
from semiseg.config.prepare import settle
from semiseg.errors import Interrupted, RunFailed, UserError
from semiseg.sweep.index import Index, look
from semiseg.sweep.job import Job, job_of, own_overrides
from semiseg.sweep.machine import cuda_devices, job_environment
from semiseg.sweep.scheduler import JobSchedule
from semiseg.sweep.screen import Screen

Run = Callable[[DictConfig, list[str]], float]


class Campaign:
    """The jobs of one command.

    ``SubprocessLauncher`` hands over all jobs at once; other launchers call this with the config of one job, in a
    process that they make, as Hydra does with any task.

    Args:
        request: the command.
        index: index of the sweep directory.
        jobs: jobs of the command that are known before; a sweeper may add more.
        load: function that returns the one that trains a run; called in the process that trains.
    """

    def __init__(self, request: Request, index: Index, jobs: Sequence[Job], load: Callable[[], Run]) -> None:
        self.request = request
        self.index = index
        self.load = load
        self.jobs = {job.folder.name: job for job in jobs}
        self.code = 0

    @property
    def directory(self) -> Path:
        """The sweep directory."""
        return self.index.directory

    def begin(self) -> None:
        """Note the command in the index."""
        typed = [text for text in self.request.overrides if not text.startswith("sweep_dir=")]
        self.index.begin(typed, list(self.jobs.values()))

    def end(self) -> int:
        """Show the table of all jobs; return the exit code of the command."""
        entries = []
        for job in self.jobs.values():
            entry = self.index.entry(job)
            look(job.folder, entry)
            if entry.state == "waiting" and not self.code:
                entry.state = "failed"  # before it had a run directory
            entries.append(entry)
        self.index.write()
        print(self.screen().table(), flush=True)
        unfinished = [entry.exit_code for entry in entries if entry.state != "done"]
        codes = [code if code and code > 0 else 1 for code in unfinished]
        return self.code or min(codes, default=0)

    def screen(self, n_jobs: int = 1) -> Screen:
        """Return the messages about this command's jobs."""
        return Screen(self.directory, self.index, list(self.jobs.values()), n_jobs)

    def jobs_of(
        self, job_overrides: Sequence[Sequence[str]], compose: Callable[[list[str]], DictConfig]
    ) -> list[Job]:
        """Make the jobs that Hydra hands to a launcher.

        Args:
            job_overrides: overrides of each job.
            compose: function that composes the config of a job that a sweeper has added.
        """
        known = {tuple(sorted(job.overrides)): job for job in self.jobs.values()}
        found = [known.get(tuple(sorted(own_overrides(each)))) for each in job_overrides]
        return [
            job or self.job(compose(list(each)), each) for job, each in zip(found, job_overrides, strict=True)
        ]

    def job(self, cfg: DictConfig, overrides: Sequence[str]) -> Job:
        """Make the job of one combination, and note it where it is new.

        Args:
            cfg: composed config of the job.
            overrides: overrides as Hydra hands them to a launcher.
        """
        settle_given(cfg, self.request, parse(own_overrides(overrides))[0])
        job = job_of(self.request, cfg, overrides, self.directory)
        return self.jobs.setdefault(job.folder.name, job)

    def __call__(self, cfg: DictConfig) -> float:
        """Train one run in this process; return its metric, NaN where it failed."""
        job = self.job(cfg, list(HydraConfig.get().overrides.task))
        cfg.run_dir = literal(str(job.folder))
        self.index.add(job)
        entry = self.index.entry(job)
        try:
            return self.load()(settle(cfg), list(job.overrides))
        except Interrupted as error:
            print(f"semiseg: {error.reason}; stopped the sweep in {job.folder}", file=sys.stderr)
            raise SystemExit(error.exit_code) from error
        except (UserError, RunFailed) as error:
            print(f"semiseg: {error}", file=sys.stderr)
            entry.exit_code = 2 if isinstance(error, UserError) else 1
        except Exception:  # one crash must not end the other runs
            traceback.print_exc()
            entry.exit_code = 1
        return math.nan

    def run_apart(self, jobs: Sequence[Job], n_jobs: int) -> list[float]:
        """Train every job in a process of its own; return their metrics, NaN where one did not finish.

        Raises:
            SystemExit: a signal stopped the sweep.
        """
        for job in jobs:
            self.index.add(job)
        variables = partial(job_environment, n_jobs=n_jobs, devices=cuda_devices())
        screen = self.screen(n_jobs)
        screen.begins()
        try:
            JobSchedule(self.index, n_jobs, variables, screen).run(jobs)
        except Interrupted as error:
            raise SystemExit(error.exit_code) from error
        return self._metrics(jobs)

    def run_queued(self, jobs: Sequence[Job], settings: Mapping[str, Any]) -> list[float]:
        """Train every job wherever the queue of a cluster puts it; return their metrics, NaN where one did not finish.

        Args:
            jobs: all jobs.
            settings: settings of ``semiseg.sweep.queue.Queue``.

        Raises:
            SystemExit: the queue cannot be used, or a signal ended the watching.
        """
        from semiseg.sweep.queue import Queue

        for job in jobs:
            self.index.add(job)
        screen = self.screen()
        try:
            queue = Queue(self.index, screen, settings)
            screen.begins()
            queue.run(jobs)
        except UserError as error:  # Hydra would show a traceback
            print(f"semiseg: {error}", file=sys.stderr)
            raise SystemExit(2) from error
        except KeyboardInterrupt as error:
            screen.leaves()
            raise SystemExit(130) from error
        return self._metrics(jobs)

    def _metrics(self, jobs: Sequence[Job]) -> list[float]:
        metrics = [self.index.entry(job).metric for job in jobs]
        return [math.nan if metric is None else metric for metric in metrics]
