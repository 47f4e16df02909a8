"""The run directory: its files, its lock, and what a run was made with."""

import fcntl
import hashlib
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from semiseg.errors import UserError
from semiseg.files import read_json, write_json, write_text

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


class RunDir:
    """Files of one run.

    Args:
        path: the directory; made on ``open``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "run.yaml"
        self.journal = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self.samples = path / "samples"

    @property
    def started(self) -> bool:
        """Whether a run lives here."""
        return self.config.exists()

    def read_summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, else None."""
        if self.read_status().get("state") != "done" or not self.summary.exists():
            return None
        summary: dict[str, Any] = read_json(self.summary)
        return summary

    def read_status(self) -> dict[str, Any]:
        """The content of ``status.json``; empty before the run has begun."""
        try:
            status: dict[str, Any] = read_json(self.path / "status.json")
        except (OSError, ValueError):
            return {}
        return status

    def write_status(self, state: str, **values: Any) -> None:
        """Write ``status.json``: running, done, failed or interrupted, and where."""
        write_json(self.path / "status.json", {"state": state, "pid": os.getpid(), **values})

    def begin(self, run_yaml: str, resolved_yaml: str, overrides: list[str], env: Mapping[str, Any]) -> None:
        """Store what the run is made with; a resumed run keeps its config and adds its environment.

        Raises:
            UserError: the directory holds files of something else.
        """
        if self.started:
            write_json(self.path / f"env-resumed-{time.strftime('%Y%m%d-%H%M%S')}.json", env)
            return
        foreign = sorted(path.name for path in self.path.iterdir() if path.name != ".lock")
        if foreign:
            raise UserError(
                f"{self.path} is not empty and holds no run (found {', '.join(foreign[:5])}). "
                "Choose another run_dir; nothing has been written."
            )
        write_json(self.path / "env.json", env)
        write_text(self.path / "overrides.yaml", json.dumps(overrides, indent=2) + "\n")
        write_text(self.path / "config.resolved.yaml", resolved_yaml)
        write_text(self.config, run_yaml)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process out of the directory.

        Raises:
            UserError: another process works here; names it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                owner = file.read().strip() or "unknown process"
                raise UserError(
                    f"Another process works in {self.path}: {owner}. Wait for it, end it, or choose another run_dir."
                ) from None
            file.truncate(0)
            file.write(
                f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
            )
            file.flush()
            yield


def environment() -> dict[str, Any]:
    """Versions, machine and code state that a result depends on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    import torch

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": devices,
        "packages": versions,
        "git": git_state(Path(__file__).resolve().parent),
        "command": sys.argv,
    }


def git_state(folder: Path) -> dict[str, str] | None:
    """Commit and uncommitted changes of the checkout that the package runs from; None outside of one."""

    def git(*arguments: str) -> str:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
        return result.stdout.strip()

    try:
        tracked = git("ls-files", "--error-unmatch", "__init__.py")
        return (
            {"commit": git("rev-parse", "HEAD"), "diff": git("diff", "HEAD")[:MAX_DIFF]} if tracked else None
        )
    except (OSError, subprocess.SubprocessError):
        return None


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Hash plain settings, independent of the order of keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
