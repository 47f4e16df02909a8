"""One ``semiseg train -m``: what Hydra's launchers are given as their task."""

import math
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from semiseg.config.compose import Request, settle_budget
from semiseg.config.layers import command_layer
from semiseg.config.overrides import parse
from semiseg.config.prepare import settle
from semiseg.errors import Interrupted, RunFailed, UserError
from semiseg.sweep.job import Job, job_of, own_overrides

Run = Callable[[DictConfig, list[str]], float]


class Campaign:
    """The jobs of one command.

    Launchers that train in a process of their own making call it with a config, as Hydra does with any task;
    ``SubprocessLauncher`` hands it all jobs at once.

    Args:
        request: the command.
        directory: folder of all jobs.
        load: gives the function that trains one run; called in the process that trains.
    """

    def __init__(self, request: Request, directory: Path, load: Callable[[], Run]) -> None:
        self.request = request
        self.directory = directory
        self.load = load
        self.codes: list[int] = []

    def job(self, cfg: DictConfig, overrides: Sequence[str]) -> Job:
        """Make the job of one combination.

        Args:
            cfg: what it composes to.
            overrides: as Hydra hands them to a launcher.
        """
        settle_budget(cfg, command_layer(parse(own_overrides(overrides))[0]))
        return job_of(self.request, cfg, overrides, self.directory)

    def __call__(self, cfg: DictConfig) -> float:
        """Train one run in this process; return its metric, NaN where it failed."""
        overrides = list(HydraConfig.get().overrides.task)
        job = self.job(cfg, overrides)
        cfg.run_dir = str(job.folder)
        try:
            return self.load()(settle(cfg), list(job.overrides))
        except Interrupted as error:
            print(f"semiseg: {error.reason}; stopped the sweep in {job.folder}", file=sys.stderr)
            raise SystemExit(error.exit_code) from error
        except (UserError, RunFailed) as error:
            print(f"semiseg: {error}", file=sys.stderr)
            self.codes.append(2 if isinstance(error, UserError) else 1)
        except Exception:  # one crash must not end the other runs
            traceback.print_exc()
            self.codes.append(1)
        return math.nan

    def run_apart(self, jobs: Sequence[Job], n_jobs: int) -> list[float]:
        """Train every job in a process of its own; return their metrics, NaN for what did not finish."""
        raise NotImplementedError
