"""``hydra/launcher=submitit_slurm``: every job of a sweep waits in the queue of a cluster.

As in ``semiseg_launcher``, everything of semiseg comes with the task.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from hydra_plugins.semiseg_launcher import CampaignLauncher

if TYPE_CHECKING:
    from semiseg.sweep.job import Job


@dataclass
class SubmititLauncherConf:
    """Settings of ``hydra.launcher``; the cluster decides those that are null.

    Args:
        cluster: queue: "slurm", or "local" for all jobs at once on this machine, to try it out.
        folder: folder of submitit's scripts and logs, the same on the machines that run the jobs.
        timeout_min: time limit of a job in minutes; a job that reaches it saves and goes into the queue again.
        max_num_timeout: number of times that a job may do so.
        signal_delay_s: seconds before its end in which a job finishes its step and saves.
        cpus_per_task: number of cores of a job.
        gpus_per_node: number of GPUs of a job.
        mem_gb: memory of a job in GB.
        array_parallelism: number of jobs at a time.
        name: name of the jobs in the queue.
        partition, account, qos, constraint, exclude, comment: options of sbatch.
        setup: shell lines before each job, such as ``[module load python]``.
        additional_parameters: other options of sbatch, such as ``{mail-type: END}``.
    """

    _target_: str = "hydra_plugins.semiseg_submitit.SubmititLauncher"
    cluster: str = "slurm"
    folder: str = "${hydra.sweep.dir}/.submitit"
    timeout_min: int = 240
    max_num_timeout: int = 20
    signal_delay_s: int = 120
    cpus_per_task: int | None = 4
    gpus_per_node: int | None = 1
    mem_gb: float | None = None
    array_parallelism: int = 64
    name: str = "semiseg"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    comment: str | None = None
    setup: list[str] | None = None
    additional_parameters: dict[str, Any] = field(default_factory=dict)


def register() -> None:
    """Register the option after Hydra has imported its plugins, one of which may have an option of this name."""
    ConfigStore.instance().store(
        group="hydra/launcher", name="submitit_slurm", node=SubmititLauncherConf, provider="semiseg"
    )


class SubmititLauncher(CampaignLauncher):
    """Hands ``semiseg train`` of every job to a queue, and waits for all of them.

    Args:
        settings: settings of ``SubmititLauncherConf``.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in settings.items()
        }

    def metrics(self, jobs: "list[Job]") -> list[float]:
        """Queue all jobs and wait for them."""
        return self.campaign.run_queued(jobs, self.settings)
