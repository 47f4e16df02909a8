"""Threads and environment variables of a run, which libraries read when they are imported."""

import os

from omegaconf import DictConfig, OmegaConf

from semiseg.config.stored import STORED, stored_run
from semiseg.cores import loading_processes, usable_cores

GIVEN_THREADS = os.environ.get("OMP_NUM_THREADS", "")
"""The user's value; read before ``set_environment`` writes its own."""


def free_threads(num_workers: int | None, on_cuda: bool) -> int:
    """Return the threads for the main process: OMP_NUM_THREADS where it is set, else the cores less the workers."""
    if GIVEN_THREADS.isdigit() and int(GIVEN_THREADS) > 0:
        return int(GIVEN_THREADS)
    return max(1, usable_cores() - loading_processes(num_workers, on_cuda))


def set_environment(cfg: DictConfig | None) -> None:
    """Set the environment variables that libraries read when torch is imported; call it before.

    Args:
        cfg: config without faults; ``None`` does nothing.
    """
    if cfg is None:
        return
    threads = _threads(cfg)
    # Threads that sleep at once wake up too late (twice the time of a small network's step), threads that spin
    # for long starve every other process; a short spin does neither.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)


def _threads(cfg: DictConfig) -> int:
    """Return the threads that ``settle`` will fill in; more where it is torch that finds a GPU."""
    run = stored_run(cfg.run_dir)
    stored = OmegaConf.select(OmegaConf.load(run / f"{STORED}.yaml"), "trainer.threads") if run else None
    trainer = cfg.trainer
    return int(
        trainer.threads or stored or free_threads(trainer.num_workers, trainer.device.startswith("cuda"))
    )
