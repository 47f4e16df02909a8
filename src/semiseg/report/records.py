"""Finding and reading run directories; no average is computed, nothing is written."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from semiseg.config.stored import completed, read_resolved
from semiseg.contracts.score_names import ScoreNames
from semiseg.data.fingerprint import Fingerprint
from semiseg.errors import UserError
from semiseg.files import read_json
from semiseg.locks import LOCK, holder
from semiseg.report.scores import tables_of
from semiseg.runs.read import RESOLVED, StoredRun

MAX_DEPTH = 4
SWEEP_INDEX = "sweep.json"
DONE = "done"
KILLED = "killed"
UNREADABLE = "unreadable"
MISSING = "missing"
TABLES = ("split_counts", "split_sha256", "evaluator", "trust")
"""Parts of ``summary.json`` that are nested, apart from the scores by class."""

COVERAGE = ("train/unlabeled_used", "train/pseudo_used")
STORED, ACCURACY, MEMORY = "pseudo/coverage", "pseudo/accuracy", "time/memory_gib"


@dataclass(frozen=True)
class RunRecord:
    """Content of a run directory.

    Args:
        path: Run directory.
        name: Name of the run, or of its folder where the run has none.
        state: State: "done", "failed", "interrupted", "running", "killed" (no process holds its lock), "unreadable"; of
            a job in the index of a sweep that has no run directory: "waiting", "failed", or "missing" where it was
            done.
        config: Content of ``config.resolved.yaml``; empty where there is none.
        summary: Content of ``summary.json``; ``None`` unless the state is "done".
        env: Content of ``env.json``.
        status: Content of ``status.json``, with the ``error`` that ended the run.
        overrides: Overrides as they were typed.
        resumed: Contents of ``env-resumed-*.json``, oldest first.
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
        """Read ``metrics.jsonl``: one dict for each line, without lines that are damaged or being written."""
        try:
            lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        return [record for line in lines if isinstance(record := _parsed(line), dict)]

    def validation_sha256(self) -> str | None:
        """Return the hash of the ids of the validation images, which steps of the run store; ``None`` without one."""
        for file in sorted(self.path.glob("stages/*/step.json")):
            data = read_optional(file, dict).get("data")
            if isinstance(data, dict) and data.get("val"):
                return str(data["val"])
        return None

    @cached_property
    def fingerprint(self) -> Fingerprint | None:
        """Fingerprint of its data; ``None`` where an earlier version stored none."""
        return StoredRun(self.path).fingerprint

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The config with the defaults of settings that its version of semiseg did not write; imports its classes."""
        return completed(self.config)

    @property
    def results(self) -> dict[str, Any]:
        """Content of ``summary.json``; empty unless the run is done."""
        return self.summary or {}

    @property
    def trust(self) -> dict[str, Any]:
        """What the check before training found to limit the meaning of the result; empty for earlier versions."""
        found = self.results.get("trust")
        return found if isinstance(found, dict) else {}

    @property
    def seed(self) -> Any:
        """Seed of the run; "?" where the run left no config."""
        return self.config.get("seed", "?")

    @property
    def split_hash(self) -> tuple[str, str]:
        """Hashes of the labeled and of the unlabeled images."""
        hashes = self.results.get("split_sha256") or {}
        return str(hashes.get("labeled")), str(hashes.get("unlabeled"))

    @property
    def code(self) -> str:
        """Version, commit and a hash of uncommitted changes, of each process where other code resumed the run."""
        return ", then ".join(dict.fromkeys(map(_code, (self.env, *self.resumed))))

    def option(self, group: str) -> Any:
        """Name of the option that a config group has."""
        node = self.config.get(group)
        return node.get("name") if isinstance(node, dict) else None

    @property
    def names(self) -> ScoreNames:
        """Names of its scores."""
        return ScoreNames.of(self.results)

    def value(self, metric: str) -> float | None:
        """Return a score or cost such as "miou" or "iou/road"; ``None`` where the run has none."""
        group, slash, name = metric.partition("/")
        return number(self.results.get(group) or {}, name) if slash else number(self.results, metric)


@dataclass(frozen=True)
class Curve:
    """One quantity of one run over its iterations.

    Args:
        stages: Name of the recipe's step of each point.
        iterations: Number of optimizer steps in the whole run so far.
        values: Values as logged.
        joined: Whether a line joins the points of one stage.
    """

    stages: tuple[str, ...] = ()
    iterations: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    joined: bool = True

    def __bool__(self) -> bool:
        return bool(self.values)


@dataclass(frozen=True)
class RunCurves:
    """Curves of a run; those that it did not log are empty.

    Args:
        score: Primary score on the validation images, at each evaluation.
        coverage: Share of pixels of unlabeled images that are learned from: of stored pseudo-labels where the
            method stores them, else as logged in training.
        accuracy: Share of correct pixels: among those that stored pseudo-labels cover, else among all pixels that
            the network predicts in unlabeled images. Empty for methods that learn from no unlabeled image, or
            without masks to compare with.
    """

    score: Curve
    coverage: Curve
    accuracy: Curve


def collect(paths: Sequence[Path]) -> list[RunRecord]:
    """Read all runs in some folders.

    Args:
        paths: Run directories, sweeps, or folders of them, which are searched four levels deep; hidden
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
        # By the resolved path: two of the given folders may hold the same run.
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
    """Read one run directory in any state."""
    status = read_optional(path / "status.json", dict)
    state = str(status.get("state", "running"))
    # A killed process cannot write its end, but the system has released its lock.
    if state == "running" and holder(path / LOCK) is None:
        state = KILLED
    config: dict[str, Any] = {}
    summary = None
    try:
        config = _read_config(path / RESOLVED)
        summary = _read_summary(path / "summary.json") if state == DONE else None
    except (OSError, ValueError, UserError) as error:
        state, summary = UNREADABLE, None
        status = {**status, "error": " ".join(str(error).split())}
    overrides = tuple(map(str, read_optional(path / "overrides.yaml", list)))
    resumed = tuple(read_optional(file, dict) for file in sorted(path.glob("env-resumed-*.json")))
    env = read_optional(path / "env.json", dict)
    name = str(config.get("name") or path.name)
    return RunRecord(path, name, state, config, summary, env, status, overrides, resumed)


def number(values: Mapping[str, Any], key: str) -> float | None:
    """Return a value that is a finite number; ``None`` for anything else."""
    value = values.get(key)
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if known else None


def read_optional(path: Path, kind: type) -> Any:
    """Read a JSON file; return an empty value of this kind where it is missing or of another kind."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return kind()
    return content if isinstance(content, kind) else kind()


def curves(run: RunRecord) -> RunCurves:
    """Read the curves of a run from ``metrics.jsonl``."""
    records = run.metrics()
    score = _curve(records, f"val/{run.names.primary.key}")
    stored = [record for record in records if number(record, STORED) is not None]
    # Not joined by lines: stored labels are measured once for each labeling, with nothing in between.
    if stored:
        return RunCurves(score, *(_curve(stored, key, joined=False) for key in (STORED, ACCURACY)))
    coverage = next(filter(None, (_curve(records, key) for key in COVERAGE)), Curve())
    return RunCurves(score, coverage, _curve(records, ACCURACY) if coverage else Curve())


def mean_curve(parts: Sequence[Curve]) -> Curve:
    """Average curves point by point; points that some of them lack are left out."""
    tables = [
        dict(zip(zip(part.stages, part.iterations, strict=True), part.values, strict=True)) for part in parts
    ]
    shared = [point for point in next(iter(tables), {}) if all(point in table for table in tables)]
    if not shared:
        return Curve(joined=not parts or parts[0].joined)
    means = tuple(sum(table[point] for table in tables) / len(tables) for point in shared)
    stages, iterations = zip(*shared, strict=True)
    return Curve(stages, iterations, means, parts[0].joined)


def logged(run: RunRecord) -> dict[str, float]:
    """Return the last "pseudo/..." values and the peak "memory_gib" of ``metrics.jsonl``, as far as it has them."""
    drawn = curves(run)
    found = {
        name: curve.values[-1]
        for name, curve in ((STORED, drawn.coverage), (ACCURACY, drawn.accuracy))
        if curve
    }
    peaks = [peak for line in run.metrics() if (peak := number(line, MEMORY))]
    return found | ({"memory_gib": max(peaks)} if peaks else {})


def _curve(records: Sequence[Mapping[str, Any]], key: str, joined: bool = True) -> Curve:
    points = [
        (str(record.get("stage")), int(number(record, "iteration") or 0), value)
        for record in records
        if (value := number(record, key)) is not None
    ]
    stages, iterations, values = zip(*points, strict=True) if points else ((), (), ())
    return Curve(stages, iterations, values, joined)


def _without_directory(folder: Path) -> Iterator[RunRecord]:
    """Yield jobs in the index of a sweep that left no run directory."""
    jobs = read_optional(folder / SWEEP_INDEX, dict).get("jobs")
    for name, job in jobs.items() if isinstance(jobs, dict) else ():
        path = folder / str(name)
        if isinstance(job, dict) and not (path / "run.yaml").is_file():
            log = job.get("log") or []
            status = {"state": job.get("state"), "error": str(log[-1]) if log else None}
            overrides = tuple(map(str, job.get("overrides") or ()))
            state = MISSING if job.get("state") == DONE else str(job.get("state"))
            yield RunRecord(path, path.name, state, {}, None, {}, status, overrides)


def _read_config(path: Path) -> dict[str, Any]:
    config = read_resolved(path)
    if "method" not in config:
        raise ValueError(f"{path.name} holds no config")
    return config


def _read_summary(path: Path) -> dict[str, Any]:
    summary = read_json(path)
    try:
        tables = (*tables_of(ScoreNames.of(summary)), *TABLES)
        readable = all(isinstance(summary.get(key) or {}, dict) for key in tables)
    except (AttributeError, KeyError, TypeError):
        readable = False
    if not readable:
        raise ValueError(f"{path.name} holds no summary")
    return dict(summary)


def _code(env: Mapping[str, Any]) -> str:
    version = str((env.get("packages") or {}).get("semiseg", "unknown"))
    git = env.get("git")
    if not git:
        return version
    diff = str(git.get("diff") or "")
    changes = f"+{sha256(diff.encode()).hexdigest()[:6]}" if diff else ""
    return f"{version} {str(git.get('commit'))[:8]}{changes}"


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
