"""The directory of a run that is being trained: its files, its lock, and the record of its environment."""

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from semiseg.data.fingerprint import Fingerprint, differences
from semiseg.errors import UserError
from semiseg.files import final_name, remove_temporaries, write_json, write_text
from semiseg.locks import LOCK, exclusive, unusable
from semiseg.runs.read import DATA, RESOLVED, StoredRun

PACKAGES = (
    "semiseg",
    "torch",
    "torchvision",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "albumentations",
    "pillow",
    "hydra-core",
    "omegaconf",
    "timm",
    "wandb",
)
MAX_DIFF = 200_000
STORES = ("checkpoints", "stages", "samples")
FIRST_FILES = frozenset(
    {
        LOCK,
        "run.log",
        "metrics.jsonl",
        "env.json",
        "plan.json",
        DATA,
        "overrides.yaml",
        RESOLVED,
        "run.yaml",
    }
)
"""Files that a run may have left that was killed before its config was stored."""


class RunDir(StoredRun):
    """Files of a run that is being trained.

    Args:
        path: run directory; ``lock`` makes it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.journal = path / "metrics.jsonl"
        self.log = path / "run.log"

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``; it is read only after the state is "done"."""
        write_json(self.path / "summary.json", summary)

    def write_status(self, state: str, **values: Any) -> None:
        """Write ``status.json``: running, done, failed or interrupted, with step and iteration."""
        write_json(self.path / "status.json", {"state": state, "pid": os.getpid(), **values})

    def begin(
        self,
        run_yaml: str,
        resolved_yaml: str,
        overrides: list[str],
        env: Mapping[str, Any],
        plan: Sequence[Mapping[str, Any]],
        data: Fingerprint,
    ) -> None:
        """Store config, plan, data and environment of the run; a resumed one keeps them and adds its environment.

        A kill leaves a directory that can be begun again: ``run.yaml``, by which a run is known, comes last.
        """
        remove_temporaries(self.path)
        for part in STORES:
            remove_temporaries(self.path / part, recursive=True)
        if self.started:
            write_json(self.path / f"env-resumed-{time.strftime('%Y%m%d-%H%M%S')}.json", env)
            return
        self.log.touch()
        write_json(self.path / "env.json", env)
        write_json(self.path / "plan.json", list(plan))
        write_text(self.path / DATA, json.dumps(data.as_dict()) + "\n")
        write_text(self.path / "overrides.yaml", json.dumps(overrides, indent=2) + "\n")
        write_text(self.path / RESOLVED, resolved_yaml)
        write_text(self.path / "run.yaml", run_yaml)

    def require_same_data(self, now: Fingerprint) -> None:
        """Refuse to go on with other data than the run began with; a run without a fingerprint takes any.

        Raises:
            UserError: it names the first ids that differ.
        """
        before = self.fingerprint if self.started else None
        if before is not None and (found := differences(before, now)):
            listed = "\n  ".join(found)
            raise UserError(
                f"The data of {self.path} are others than those that it began with:\n  {listed}\n"
                "Put files and lists back as they were, or train on these in a new run_dir: "
                f"semiseg train --config-dir {self.path} --config-name run run_dir=NEW"
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Make the directory and keep every other process out; remove it again if it stays empty.

        Raises:
            UserError: it cannot be made or written, holds other files, or another process uses it, which is named.
        """
        try:
            self._refuse_other_files()
        except OSError as error:
            raise unusable(self.path, "run_dir", error) from error
        with exclusive(self.path, "run_dir", "process"):
            yield

    def _refuse_other_files(self) -> None:
        if self.started or not self.path.is_dir():
            return
        foreign = sorted(
            path.name for path in self.path.iterdir() if final_name(path.name) not in FIRST_FILES
        )
        if foreign:
            raise UserError(
                f"{self.path} is not empty and holds no run (found {', '.join(foreign[:5])}). "
                "Choose another run_dir; nothing has been written."
            )


def environment() -> dict[str, Any]:
    """Return the versions, machine and state of the code that a result depends on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    import torch  # not at the top: commands that read runs alone start quickly

    from semiseg.models.precision import numerics

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": devices,
        "numerics": numerics(),
        "packages": versions,
        "git": git_state(Path(__file__).resolve().parent),
        "command": sys.argv,
        "directory": str(Path.cwd()),
    }


def git_state(folder: Path) -> dict[str, str] | None:
    """Return commit and uncommitted changes of the checkout that the package runs from; ``None`` outside of one."""

    def git(*arguments: str) -> str:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
        return result.stdout.strip()

    try:
        # An installed package may lie inside of a user's own repository, whose commit says nothing about it.
        tracked = git("ls-files", "--error-unmatch", "__init__.py")
        return (
            {"commit": git("rev-parse", "HEAD"), "diff": git("diff", "HEAD")[:MAX_DIFF]} if tracked else None
        )
    except (OSError, subprocess.SubprocessError):
        return None


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Return a hash of plain settings that does not depend on the order of keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
