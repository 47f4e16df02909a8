"""The share of the machine that each job of a sweep gets."""

import os
from collections.abc import Sequence

from semiseg.config.environment import free_threads
from semiseg.cores import CORES_VARIABLE, loading_processes, usable_cores
from semiseg.sweep.job import Job


def cuda_devices() -> list[str]:
    """Names of the GPUs for CUDA_VISIBLE_DEVICES; those that it names already, where it is set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def job_environment(job: Job, slot: int, n_jobs: int, devices: Sequence[str]) -> dict[str, str]:
    """Environment variables of a job: its part of the cores, and one GPU.

    A job alone on the machine gets as many threads as without a sweep. Several jobs together never get more than there
    are cores, unless ``trainer.threads`` says so.

    Args:
        job: the job.
        slot: number of its place among ``n_jobs``; the GPUs are dealt out to the places in turn.
        n_jobs: number of jobs at a time.
        devices: names of the GPUs; a job that names its device itself sees all of them.
    """
    variables = dict(os.environ)
    on_cuda = job.device.startswith("cuda") or (job.device == "auto" and bool(devices))
    threads = free_threads(job.num_workers, on_cuda)
    if n_jobs > 1:
        cores = max(1, usable_cores() // n_jobs)
        threads = min(threads, max(1, cores - loading_processes(job.num_workers, on_cuda, cores)))
        # The job decides on its loading processes itself.
        variables[CORES_VARIABLE] = str(cores)
    # Not as trainer.threads: a run that has begun keeps its number, even if the sweep is repeated with another.
    variables["OMP_NUM_THREADS"] = str(threads)
    if devices and job.device in ("auto", "cuda"):
        variables["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return variables
