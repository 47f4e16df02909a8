"""Reading a run on disk: its config, its state, its result."""

from functools import cached_property
from pathlib import Path
from typing import Any

from semiseg.config.stored import completed, read_resolved, settings_that_matter
from semiseg.data import fingerprint
from semiseg.data.fingerprint import Fingerprint
from semiseg.errors import UserError, nearest
from semiseg.files import read_json
from semiseg.locks import LOCK, holder

DATA = "data.json"
"""The fingerprint of the data that a run began with."""

RESOLVED = "config.resolved.yaml"
"""The config of a run with all interpolations resolved."""


class StoredRun:
    """Directory of a run, begun or not; state and summary are read anew each time, since another process may write.

    Args:
        path: run directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def started(self) -> bool:
        """Whether the directory holds a run."""
        # The file that is written last: a directory without it was left by a kill at the start, and is begun again.
        return (self.path / "run.yaml").exists()

    @property
    def has_config(self) -> bool:
        """Whether the config is there."""
        return (self.path / RESOLVED).is_file()

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config as it was written; raises ``UserError`` where it cannot be read."""
        return read_resolved(self.path / RESOLVED)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Dotted keys and values of all settings that the result depends on, see ``settings_that_matter``.

        Settings that an earlier version did not know have their defaults, so that runs do not differ by them.
        """
        return settings_that_matter(completed(self.config))

    @property
    def status(self) -> dict[str, Any]:
        """The content of ``status.json``; empty before the run has begun."""
        status: dict[str, Any] = self._read("status.json", {})
        return status

    @property
    def state(self) -> str:
        """State in words, for messages."""
        return str(self.status.get("state", "not begun"))

    @property
    def summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, else ``None``."""
        # The state is written after the summary, so a summary alone may be that of a run killed in between.
        if self.status.get("state") != "done" or not (self.path / "summary.json").exists():
            return None
        summary: dict[str, Any] = read_json(self.path / "summary.json")
        return summary

    @property
    def plan(self) -> list[dict[str, Any]]:
        """Steps that were planned when the run began; empty where that is not known."""
        steps: list[dict[str, Any]] = self._read("plan.json", [])
        return steps

    @property
    def env(self) -> dict[str, Any]:
        """Versions, machine and state of the code when the run began; empty where that is not known."""
        env: dict[str, Any] = self._read("env.json", {})
        return env

    @cached_property
    def fingerprint(self) -> Fingerprint | None:
        """Fingerprint of the data that the run began with; ``None`` where an earlier version stored none."""
        return fingerprint.read(self._read(DATA, None))

    def worker(self) -> str | None:
        """Return the process that holds the lock, with machine and time; ``None`` where none holds it."""
        return holder(self.path / LOCK)

    def _read(self, name: str, otherwise: Any) -> Any:
        try:
            return read_json(self.path / name)
        except (OSError, ValueError):
            return otherwise


def find_run(key: str, value: str) -> StoredRun:
    """Find the directory of a run, finished or not.

    Args:
        key: key that the run was given with, such as ``method.baseline``.
        value: run directory.

    Raises:
        UserError: there is no run.
    """
    run = StoredRun(Path(value).expanduser())
    if not run.has_config:
        raise UserError(
            f"{key}={value}: no run is there ({RESOLVED} is missing). Give the directory that `semiseg train` "
            f"printed.{_hint(run.path)}"
        )
    return run


def network_file(place: str) -> Path:
    """Return the checkpoint of the network that a run reports; a file is returned as it is.

    Args:
        place: run directory, or path of a checkpoint.

    Raises:
        UserError: there is nothing, or the run has not finished.
    """
    path = Path(place).expanduser()
    if path.is_file():
        return path
    run = StoredRun(path)
    if (summary := run.summary) is not None:
        return path / str(summary["checkpoint"])
    if run.started:
        raise unfinished(run)
    raise UserError(f"{path} holds no run. Give a run directory, or one of the .pt files in its stages.")


def unfinished(run: StoredRun) -> UserError:
    """Return the error that a run has not finished."""
    return UserError(
        f"The run in {run.path} has not finished ({run.state}). Go on with it: semiseg train run_dir={run.path}"
    )


def _hint(path: Path) -> str:
    """Suggest the run in the same folder whose name is nearest to that of a missing one."""
    runs = [found.parent.name for found in path.parent.glob(f"*/{RESOLVED}")] if path.parent.is_dir() else []
    near = nearest(path.name, runs)
    return f" Did you mean {path.parent / near}?" if near else ""
