"""One run of a sweep: its directory and its command."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from semiseg.config.compose import Request, run_name
from semiseg.config.literals import literal, quoted

PLACES = ("run_dir", "sweep_dir")


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Args:
        folder: its run directory.
        overrides: overrides that make its config, without the directories of run and sweep.
        primary: options that choose another primary config; empty for semiseg's own.
        num_workers: number of processes that load its data; ``None`` lets its device decide.
        device: ``trainer.device`` of its config.
    """

    folder: Path
    overrides: tuple[str, ...]
    primary: tuple[str, ...] = ()
    num_workers: int | None = None
    device: str = "auto"

    @property
    def log(self) -> Path:
        """File next to the run directory that holds the output of its processes."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def command(self) -> list[str]:
        """Command line that trains it, or goes on with it."""
        place = f"run_dir={quoted(literal(str(self.folder)))}"
        return [sys.executable, "-m", "semiseg", "train", *self.primary, *self.overrides, place]


def job_of(request: Request, cfg: DictConfig, overrides: Sequence[str], sweep_dir: Path) -> Job:
    """Make the job of one combination of a sweep.

    Args:
        request: the command that the sweep belongs to.
        cfg: the config that the combination composes to.
        overrides: the combination, as Hydra hands it to a launcher.
        sweep_dir: folder of all jobs.
    """
    primary = ("--config-dir", str(request.primary_dir), "--config-name", request.config_name)
    return Job(
        folder=sweep_dir / job_name(cfg, overrides),
        overrides=tuple(own_overrides(overrides)),
        primary=primary if request.config_dir else (),
        num_workers=cfg.trainer.num_workers,
        device=str(cfg.trainer.device),
    )


def own_overrides(overrides: Sequence[str]) -> list[str]:
    """Overrides of a job without directories and without Hydra's ``+`` and ``++``, as its run takes them."""
    bare = [text.lstrip("+") for text in overrides]
    return [text for text in bare if text.partition("=")[0] not in PLACES]


def job_name(cfg: DictConfig, overrides: Sequence[str]) -> str:
    """Directory of a run in a sweep: its name and a hash of its sorted overrides."""
    digest = hashlib.sha256("\n".join(sorted(own_overrides(overrides))).encode()).hexdigest()[:8]
    return f"{run_name(cfg)}-{digest}"
