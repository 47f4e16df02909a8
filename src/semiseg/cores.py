"""Cores of this machine, and how many of them load the batches of a run; nothing here imports torch."""

import logging
import os
import shutil
import sys
from pathlib import Path

log = logging.getLogger(__name__)

CORES_VARIABLE = "SEMISEG_CORES"
"""Environment variable with the cores that this process may use at most; a sweep sets it for jobs at the same time."""

MOST_WORKERS = 16
"""Loading processes at most. By arithmetic, the slowest views (CAC on Cityscapes) need 4 to 12 beside an H200."""

OTHER_CORES = 2
"""Cores that training and the thread that page-locks batches need beside the loading processes."""

SHARED_MEMORY = Path("/dev/shm")
LITTLE_SHARED_MEMORY = 2**30
"""Bytes of free shared memory, through which batches travel, below which loading processes may die of it."""

SHARED_MEMORY_OF_PROCESS = 2**28
"""Bytes of free shared memory for each loading process: it keeps two batches ready, about 100 MB in large recipes."""


def usable_cores() -> int:
    """Return the cores that this process may use."""
    # Not os.cpu_count(): a job of a cluster may use a few cores of its machine alone.
    cores = len(os.sched_getaffinity(0))
    given = os.environ.get(CORES_VARIABLE, "")
    return min(cores, int(given)) if given.isdigit() and int(given) > 0 else cores


def loading_processes(num_workers: int | None, on_cuda: bool, cores: int | None = None) -> int:
    """Return the number of processes that load the batches of a run.

    Args:
        num_workers: ``trainer.num_workers``; ``None`` takes none on the CPU, whose cores are better used by training;
            for a GPU the cores but two, 1 to 16, and none where they would have too little shared memory.
        on_cuda: whether the run trains on a GPU.
        cores: cores for the run; ``None`` takes those that this process may use.
    """
    if num_workers is not None:
        return num_workers
    if not on_cuda or little_shared_memory() is not None:
        return 0
    most = min(MOST_WORKERS, free_shared_memory() // SHARED_MEMORY_OF_PROCESS)
    return max(1, min(most, (cores or usable_cores()) - OTHER_CORES))


def free_shared_memory() -> int:
    """Return the free bytes of shared memory; very many where it is not a file system."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else sys.maxsize


def little_shared_memory() -> int | None:
    """Return the free bytes of shared memory where they are few, as in a container that was started without more."""
    free = free_shared_memory()
    return free if free < LITTLE_SHARED_MEMORY else None


def warn_of_little_shared_memory(num_workers: int | None, on_cuda: bool) -> None:
    """Say why a run on a GPU loads its batches in the main process, where it was not told to."""
    little = little_shared_memory()
    if num_workers is None and on_cuda and little is not None:
        log.warning(
            "Batches are loaded in the main process, and the GPU may wait for them: %s has only %d MiB free. Start the "
            "container with docker run --shm-size=8g, or give trainer.num_workers.",
            SHARED_MEMORY,
            little // 2**20,
        )
