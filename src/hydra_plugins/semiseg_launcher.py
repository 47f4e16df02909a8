"""``hydra/launcher=subprocess``: every job of a sweep is a process of its own.

Hydra takes launchers only from the namespace ``hydra_plugins`` and imports them with each of its commands, so they
import nothing of semiseg: what they need comes with the task.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from semiseg.sweep.campaign import Campaign
    from semiseg.sweep.job import Job


@dataclass
class SubprocessLauncherConf:
    """Settings of ``hydra.launcher``.

    Args:
        n_jobs: number of runs at a time.
    """

    _target_: str = "hydra_plugins.semiseg_launcher.SubprocessLauncher"
    n_jobs: int = 1


ConfigStore.instance().store(
    group="hydra/launcher", name="subprocess", node=SubprocessLauncherConf, provider="semiseg"
)


class CampaignLauncher(Launcher):
    """A launcher that hands the jobs of a sweep to their campaign."""

    @abstractmethod
    def metrics(self, jobs: "list[Job]") -> list[float]:
        """Run all jobs; return their metrics, NaN where one did not finish."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take context, task and config of the sweep from Hydra.

        Args:
            hydra_context: context that composes configs.
            task_function: ``semiseg.sweep.campaign.Campaign`` of the command.
            config: common config of all jobs.
        """
        self.context = hydra_context
        self.campaign = cast("Campaign", task_function)
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs; return their metrics, NaN where one did not finish."""
        setup_globals()
        compose = partial(self.context.config_loader.load_sweep_config, self.config)
        jobs = self.campaign.jobs_of(job_overrides, compose)
        return [_finished(metric) for metric in self.metrics(jobs)]


class SubprocessLauncher(CampaignLauncher):
    """Starts ``semiseg train`` for every job of a sweep; the crash of one never ends the others.

    Args:
        n_jobs: number of runs at a time.
    """

    def __init__(self, n_jobs: int) -> None:
        self.n_jobs = n_jobs

    def metrics(self, jobs: "list[Job]") -> list[float]:
        """Run all jobs on this machine."""
        return self.campaign.run_apart(jobs, self.n_jobs)


def _finished(metric: float) -> JobReturn:
    """Return the result of a job that has ended, for a sweeper."""
    result = JobReturn(status=JobStatus.COMPLETED)
    result.return_value = metric
    return result
