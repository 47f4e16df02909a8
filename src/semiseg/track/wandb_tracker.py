"""Tracker of Weights & Biases whose failures never reach the run."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from semiseg.config.stored import Config
from semiseg.contracts.dataset import DatasetInfo, Split
from semiseg.contracts.score_names import ScoreNames
from semiseg.contracts.tracking import Sample
from semiseg.track.wandb_run import error_line, identity, start, stored_id

log = logging.getLogger(__name__)

IGNORED = "ignored"


class WandbTracker:
    """Sends records to wandb from a thread of its own.

    Every call returns at once: records wait in a bounded queue and are dropped and counted when it is full.
    wandb is imported and started in the thread too. The first failure becomes one warning, the later ones a
    count at the end. Without an account or a server "online" falls back to "offline", whose files
    ``wandb sync`` sends later. Where nothing works, metrics.jsonl still has all numbers.

    Args:
        run_dir: the run directory; it gets ``wandb_id``, by which a resumed run goes on as the same wandb run,
            and the folder ``wandb/``.
        mode: mode of wandb, "online" or "offline".
        info: names of the classes, for the masks.
        names: names of the scores.
        project: name of the wandb project.
        entity: user or team; ``None`` takes the account's default.
        group, name, tags, config: values of ``semiseg.track.wandb_run.Identity``.
        init_timeout: number of seconds that wandb may take to start.
        close_timeout: number of seconds that ``close`` may take.
        queue_size: number of records that may wait.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        mode: str,
        info: DatasetInfo,
        names: ScoreNames,
        project: str = "semiseg",
        entity: str | None = None,
        group: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
        init_timeout: float = 60.0,
        close_timeout: float = 30.0,
        queue_size: int = 1000,
    ) -> None:
        self._info = info
        self._names = names
        self._mode = mode
        self._init_timeout = init_timeout
        self._close_timeout = close_timeout
        self._arguments = {
            "project": project,
            "entity": entity,
            "group": group,
            "name": name,
            "job_type": "train",
            "tags": list(tags),
            "config": dict(config or {}),
            "dir": str(run_dir),
        }
        self._run_dir = run_dir
        self._stage = ""
        self._jobs: queue.Queue[Callable[[Any, Any], None]] = queue.Queue(queue_size)
        self._lock = threading.Lock()
        self._failures = 0
        self._dropped = 0
        self._exit_code = 0
        self._dead = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def start_stage(self, name: str, index: int, total_iterations: int) -> None:
        """Name the stage of the following records."""
        self._stage = name

    def progress(self, completed: int) -> None:
        """Nothing to record."""

    def log(self, values: Mapping[str, float | None], step: int) -> None:
        """Queue the values with ``iteration`` and ``stage``."""
        record = {"iteration": step, "stage": self._stage}
        record |= {key: value for key, value in values.items() if value is not None}
        self._put(lambda wandb, run: run.log(record))

    def images(self, key: str, samples: Sequence[Sample], step: int) -> None:
        """Queue the images with truth and prediction as overlays under the names of the classes."""
        kept, record = list(samples), {"iteration": step, "stage": self._stage}
        labels = dict(enumerate(self._info.classes)) | {self._info.ignore_index: IGNORED}

        def send(wandb: Any, run: Any) -> None:
            run.log(record | {key: [_overlay(wandb, sample, labels) for sample in kept]})

        self._put(send)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Queue the results: all values, those that runs are compared by under fixed keys, those of classes as a table.

        The scores are also logged as one point over the labeled share, since wandb draws lines of logged values only.
        """
        kept = dict(values) | _compared(values, self._names)
        tables = [each for each in self._names.of_each_class if isinstance(kept.get(each.key), Mapping)]

        def send(wandb: Any, run: Any) -> None:
            run.summary.update(kept)
            if kept.get("split_fraction") is not None:
                point = {
                    key: kept[name]
                    for key, name in _outcomes(self._names).items()
                    if kept.get(name) is not None
                }
                run.log({"split_fraction": kept["split_fraction"], **point})
            if tables:
                classes = kept[tables[0].key]
                rows = [[name, *(kept[each.key].get(name) for each in tables)] for name in classes]
                columns = ["class", *(each.name for each in tables)]
                run.log({"per_class": wandb.Table(columns=columns, data=rows)})

        self._put(send)

    def close(self, status: str) -> None:
        """Let the thread finish what is queued, for at most ``close_timeout`` seconds."""
        self._exit_code = 0 if status == "done" else 1
        self._closing.set()
        self._thread.join(self._close_timeout)
        if self._thread.is_alive():
            self._dead.set()
            self._fail(f"it did not finish within {self._close_timeout:g} s")
        lost = self._failures - 1
        if lost > 0 or self._dropped:
            log.warning("wandb: %d more failures, %d records dropped.", max(lost, 0), self._dropped)

    def _put(self, job: Callable[[Any, Any], None]) -> None:
        if self._dead.is_set():
            return
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self._dropped += 1

    def _fail(self, reason: object) -> None:
        with self._lock:
            self._failures += 1
            first = self._failures == 1
        if first:
            log.warning("wandb: %s. The run goes on; metrics.jsonl has all numbers.", reason)

    def _work(self) -> None:
        """Start wandb and send what is queued until ``close``; runs in the thread."""
        try:
            arguments = self._arguments | {"id": stored_id(self._run_dir)}
            wandb, run = start(self._mode, arguments, self._fail, self._init_timeout, self._close_timeout)
            _define(run, self._names)

        except Exception as error:  # wandb may raise anything, and the run does not depend on it
            self._dead.set()
            self._fail(f"could not start ({error_line(error)})")
            return
        while not self._dead.is_set():
            try:
                job = self._jobs.get(timeout=0.1)
            except queue.Empty:
                if self._closing.is_set():
                    break
                continue
            try:
                job(wandb, run)
            except Exception as error:  # as above
                self._fail(error_line(error))
        try:
            run.finish(exit_code=self._exit_code)
        except Exception as error:  # as above
            self._fail(error_line(error))


def wandb_tracker(
    config: Config, split: Split, info: DatasetInfo, names: ScoreNames, run_dir: Path
) -> WandbTracker:
    """Start the tracker of a run.

    Args:
        config: the checked config of the run.
        split: its images.
        info: its classes.
        names: names of its scores.
        run_dir: its directory, which may hold ``env.json``.
    """
    known, tracker = identity(config, split, run_dir), config["tracker"]
    return WandbTracker(
        run_dir,
        mode=tracker["mode"],
        info=info,
        names=names,
        project=tracker["project"],
        entity=tracker["entity"],
        **vars(known),
    )


def _outcomes(names: ScoreNames) -> dict[str, str]:
    """Scores that wandb draws over ``split_fraction``, and their keys in ``summary.json``."""
    keys = (names.primary.key, names.primary.test, *(each.key for each in names.secondary))
    return {f"result/{key}": key for key in keys}


def _define(run: Any, names: ScoreNames) -> None:
    """Define the x axes: iterations for training, the labeled share for results."""
    run.define_metric("iteration")
    run.define_metric("*", step_metric="iteration")
    run.define_metric(f"val/{names.primary.key}", step_metric="iteration", summary="max")
    run.define_metric("split_fraction")
    for key in _outcomes(names):
        run.define_metric(key, step_metric="split_fraction")


def _compared(values: Mapping[str, Any], names: ScoreNames) -> dict[str, Any]:
    """Values of ``summary.json`` under the keys that dashboards read."""
    primary = names.primary
    keys = {
        f"best/val/{primary.key}": primary.best,
        "best/iteration": "best_iteration",
        f"final/val/{primary.key}": primary.last,
    }
    found = {key: values.get(name) for key, name in keys.items()}
    if (seconds := values.get("wall_s")) is not None:
        found["wall_hours"] = seconds / 3600
    return {key: value for key, value in found.items() if value is not None}


def _overlay(wandb: Any, sample: Sample, labels: dict[int, str]) -> Any:
    masks = {"prediction": {"mask_data": sample.prediction, "class_labels": labels}}
    if sample.truth is not None:
        masks["truth"] = {"mask_data": sample.truth, "class_labels": labels}
    return wandb.Image(sample.image, caption=sample.id, masks=masks)
