"""The share of the machine that each job of a sweep gets."""

import os
from collections.abc import Sequence

from semiseg.config.prepare import free_threads
from semiseg.sweep.job import Job


def cuda_devices() -> list[str]:
    """Names of the GPUs for CUDA_VISIBLE_DEVICES; those that it names already, where it is set."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name.strip() for name in told.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def environment(job: Job, slot: int, n_jobs: int, devices: Sequence[str]) -> dict[str, str]:
    """Environment variables of a job: its part of the cores, and one GPU.

    A job that has the machine for itself gets as many threads as without a sweep; several together never more than
    there are cores, unless ``trainer.threads`` says so.

    Args:
        job: the job.
        slot: which of the ``n_jobs`` places it takes; the GPUs are dealt out to the places in turn.
        n_jobs: jobs at a time.
        devices: GPUs; a job that names its device itself sees all of them.
    """
    variables = dict(os.environ)
    threads = free_threads(job.num_workers)
    if n_jobs > 1:
        threads = min(threads, max(1, len(os.sched_getaffinity(0)) // n_jobs - job.num_workers))
    # Not as trainer.threads: a run that has begun keeps its number, whatever the sweep is repeated with.
    variables["OMP_NUM_THREADS"] = str(threads)
    if devices and job.device in ("auto", "cuda"):
        variables["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return variables
