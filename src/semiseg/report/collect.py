"""Finding run directories and reading what they hold; nothing is computed, nothing is written."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from semiseg.errors import UserError
from semiseg.files import read_json
from semiseg.locks import holder
from semiseg.runs.read import LOCK, RESOLVED

MAX_DEPTH = 4
SWEEP_INDEX = "sweep.json"
DONE = "done"
KILLED = "killed"
UNREADABLE = "unreadable"
MISSING = "missing"
TABLES = ("iou", "iou_test", "split_counts", "split_sha256", "evaluator")
"""Parts of ``summary.json`` that have names in them."""


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
        """Read ``metrics.jsonl``: one dict a line, without lines that are damaged or being written."""
        try:
            lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        return [record for line in lines if isinstance(record := _parsed(line), dict)]

    def validation_sha256(self) -> str | None:
        """Hash of the ids of the validation images, which each step of the run has stored; None without one."""
        for file in sorted(self.path.glob("stages/*/step.json")):
            data = _read_optional(file, dict).get("data")
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
    status = _read_optional(path / "status.json", dict)
    state = str(status.get("state", "running"))
    if state == "running" and holder(path / LOCK) is None:
        state = KILLED
    config: dict[str, Any] = {}
    summary = None
    try:
        config = _read_config(path / RESOLVED)
        summary = _read_summary(path / "summary.json") if state == DONE else None
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        state, summary = UNREADABLE, None
        status = {**status, "error": " ".join(str(error).split())}
    overrides = tuple(map(str, _read_optional(path / "overrides.yaml", list)))
    resumed = tuple(_read_optional(file, dict) for file in sorted(path.glob("env-resumed-*.json")))
    env = _read_optional(path / "env.json", dict)
    name = str(config.get("name") or path.name)
    return RunRecord(path, name, state, config, summary, env, status, overrides, resumed)


def number(values: Mapping[str, Any], key: str) -> float | None:
    """A value that is a finite number; None for anything else."""
    value = values.get(key)
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if known else None


def _without_directory(folder: Path) -> Iterator[RunRecord]:
    """Jobs of a sweep that the index knows and that left no run directory."""
    jobs = _read_optional(folder / SWEEP_INDEX, dict).get("jobs")
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
    if not isinstance(plain, dict) or "method" not in plain:
        raise ValueError(f"{path.name} holds no config")
    return {str(key): value for key, value in plain.items()}


def _read_summary(path: Path) -> dict[str, Any]:
    summary = read_json(path)
    if not isinstance(summary, dict) or not all(isinstance(summary.get(key) or {}, dict) for key in TABLES):
        raise ValueError(f"{path.name} holds no summary")
    return summary


def _read_optional(path: Path, kind: type) -> Any:
    """Read a JSON file; an empty value of this kind where there is none, or it holds another kind."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return kind()
    return content if isinstance(content, kind) else kind()


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
