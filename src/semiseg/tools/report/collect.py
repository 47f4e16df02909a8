"""Finding run directories and reading what they hold; nothing is computed, nothing is written."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from semiseg.config.rundir import LOCK, RunDir
from semiseg.errors import UserError
from semiseg.files import read_json
from semiseg.locks import holder

MAX_DEPTH = 4
SWEEP_INDEX = "sweep.json"
DONE = "done"
KILLED = "killed"
UNREADABLE = "unreadable"
MISSING = "missing"


@dataclass(frozen=True)
class RunRecord:
    """What a run directory says of itself.

    Args:
        path: the run directory.
        name: name of the run; of the folder where the run has none.
        state: "done", "failed", "interrupted", "running", "killed" (no process holds its lock), "unreadable", or
            what the index of a sweep says of a job without a run directory: "waiting", "failed", or "missing"
            where it was done.
        config: content of ``config.resolved.yaml``; empty where there is none.
        summary: content of ``summary.json``; None unless the state is "done".
        env: content of ``env.json``.
        status: content of ``status.json``; its ``error`` says what went wrong.
        overrides: what was typed.
        resumed: contents of ``env-resumed-*.json``, oldest first.
    """

    path: Path
    name: str
    state: str
    config: dict[str, Any]
    summary: dict[str, Any] | None
    env: dict[str, Any]
    status: dict[str, Any]
    overrides: tuple[str, ...] = ()
    resumed: tuple[dict[str, Any], ...] = ()

    def metrics(self) -> list[dict[str, Any]]:
        """Read ``metrics.jsonl``: one dict a line, without a last line that is being written."""
        try:
            lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        return [record for line in lines if isinstance(record := _parsed(line), dict)]

    def validation_sha256(self) -> str | None:
        """Hash of the ids of the validation images, which each step of the run has stored; None without one."""
        for file in sorted(self.path.glob("stages/*/step.json")):
            data = _read_optional(file).get("data")
            if isinstance(data, dict) and data.get("val"):
                return str(data["val"])
        return None


def collect(paths: Sequence[Path]) -> list[RunRecord]:
    """Read all runs in what is given.

    Args:
        paths: run directories, sweeps, or folders of them, which are searched four levels deep; hidden
            folders are left out.

    Returns:
        One record for each run directory, and for each job of a sweep that has none yet; ordered by path.

    Raises:
        UserError: a path is no folder, or no run is found.
    """
    found: dict[Path, RunRecord] = {}
    for path in paths:
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise UserError(f"{path} {what}. Give run directories, sweeps, or folders that hold them.")
        for record in _below(path, MAX_DEPTH):
            found.setdefault(record.path.resolve(), record)
    if not found:
        raise UserError(
            f"No run in {', '.join(map(str, paths))}: no folder there, {MAX_DEPTH} levels deep, holds a run.yaml. "
            "Give the directories that `semiseg train` printed, or its sweep_dir."
        )
    return sorted(found.values(), key=lambda record: str(record.path))


def _below(folder: Path, depth: int) -> Iterator[RunRecord]:
    if (folder / "run.yaml").is_file():
        yield read_run(folder)
        return
    if depth:
        try:
            inside = sorted(path for path in folder.iterdir() if path.is_dir())
        except OSError:
            inside = []
        for path in inside:
            if not path.name.startswith("."):
                yield from _below(path, depth - 1)
    yield from _without_directory(folder)


def read_run(path: Path) -> RunRecord:
    """Read one run directory, whatever state it is in."""
    place = RunDir(path)
    status = place.read_status()
    state = str(status.get("state", "running"))
    if state == "running" and holder(path / LOCK) is None:
        state = KILLED
    config: dict[str, Any] = {}
    overrides: tuple[str, ...] = ()
    summary = None
    try:
        config = _read_config(path / "config.resolved.yaml")
        summary = place.read_summary()
        overrides = tuple(map(str, read_json(path / "overrides.yaml")))
        if state == DONE and summary is None:
            raise ValueError("there is no summary.json")
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        state, summary = UNREADABLE, None
        status = {**status, "error": " ".join(str(error).split())}
    resumed = tuple(_read_optional(file) for file in sorted(path.glob("env-resumed-*.json")))
    env = _read_optional(path / "env.json")
    name = str(config.get("name") or path.name)
    return RunRecord(path, name, state, config, summary, env, status, overrides, resumed)


def _without_directory(folder: Path) -> Iterator[RunRecord]:
    """Jobs of a sweep that the index knows and that left no run directory."""
    jobs = _read_optional(folder / SWEEP_INDEX).get("jobs")
    for name, job in jobs.items() if isinstance(jobs, dict) else ():
        path = folder / str(name)
        if isinstance(job, dict) and not (path / "run.yaml").is_file():
            log = job.get("log") or []
            status = {"state": job.get("state"), "error": str(log[-1]) if log else None}
            overrides = tuple(map(str, job.get("overrides") or ()))
            state = MISSING if job.get("state") == DONE else str(job.get("state"))
            yield RunRecord(path, path.name, state, {}, None, {}, status, overrides)


def _read_config(path: Path) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    if not isinstance(plain, dict):
        raise ValueError(f"{path.name} holds no config")
    return {str(key): value for key, value in plain.items()}


def _read_optional(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
