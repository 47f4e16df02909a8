"""One training run: from a checked config to a summary."""

import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from semiseg.assembly import OpenedData, open_data, open_session
from semiseg.config import build
from semiseg.config.compose import Composed, as_yaml, render_run_yaml
from semiseg.config.stored import plain
from semiseg.contracts.score_names import ScoreNames
from semiseg.contracts.tracking import Tracker
from semiseg.data.fingerprint import fingerprint
from semiseg.engine.failures import explained
from semiseg.engine.lab import RunLab
from semiseg.engine.plan import make_plan
from semiseg.engine.plan_text import PlannedStep, render_plan
from semiseg.engine.session import Networks, Output, Session
from semiseg.engine.signals import StopRequest
from semiseg.engine.step import reset_peak_memory
from semiseg.errors import Interrupted, UserError
from semiseg.files import finite
from semiseg.models.precision import set_numerics
from semiseg.runs.directory import RunDir, environment
from semiseg.settings import EvaluatorSettings
from semiseg.summary import keep_reported, summarize
from semiseg.tasks.segmentation import Segmentation
from semiseg.track.console import ConsoleTracker, render_summary
from semiseg.track.jsonl import JsonlTracker
from semiseg.track.multi import MultiTracker
from semiseg.track.wandb_tracker import wandb_tracker

log = logging.getLogger(__name__)


def run(cfg: Composed, overrides: list[str], *, plan_only: bool = False) -> float:
    """Train, evaluate and summarize one run in ``cfg.run_dir``; go on where an earlier process stopped.

    Args:
        cfg: checked config; ``run_dir``, ``name`` and ``trainer.threads`` are set.
        overrides: overrides of the command line, for the record.
        plan_only: whether only a plan of the steps with their duration is printed.

    Returns:
        Primary score of the reported network on the validation images, NaN where there are none.

    Raises:
        UserError: bad data, or a directory that cannot be used.
        RunFailed: the loss is not finite, or memory or disk ran out.
        Interrupted: a signal or the time limit ended the run; its state is saved.
    """
    place = RunDir(Path(cfg.run_dir).expanduser())
    if (finished := place.summary) is not None and not plan_only:
        print(render_summary(finished, place.path))
        return _score(finished)
    torch.set_num_threads(cfg.trainer.threads)
    set_numerics(cfg.trainer.precision, deterministic=cfg.trainer.deterministic)
    with ExitStack() as stack:
        # First: a signal during minutes of decoding must end the process as cleanly as one during training.
        stop = stack.enter_context(StopRequest(time_limit(cfg.trainer.max_time)))
        if not plan_only:
            stack.enter_context(place.lock())
            stack.enter_context(_log_file(place.log))
        data = open_data(cfg, stop, filled=not plan_only)
        task = Segmentation(build.settings(EvaluatorSettings, cfg.evaluator))
        session, networks = open_session(cfg, task, place, data.dataset, data.report.split, stop)
        stack.callback(session.output.tracker.close, "planned")
        if plan_only:
            print(render_plan(_planned(cfg, session, networks)))
            stop.check()
            return math.nan
        kept = fingerprint(data.report.split, data.report.facts)
        place.require_same_data(kept)
        resumed = place.started
        print(_describe(cfg, session, resumed), flush=True)
        # A resumed run prints none: its steps are partly done, and timing them would delay it.
        plan = [] if resumed else _planned(cfg, session, networks)
        if plan:
            print(render_plan(plan), flush=True)
        yamls = render_run_yaml(cfg), as_yaml(cfg)
        place.begin(*yamls, overrides, environment(), [asdict(step) for step in plan], kept)
        # Trackers only now: a run that is merely planned, or refused so far, must leave no record.
        session = replace(session, output=_kept(place, cfg, session))
        return _guarded(place, cfg, session, networks, data)


def time_limit(text: str | None) -> float | None:
    """Turn "HH:MM:SS" or a number of minutes into seconds."""
    if text is None:
        return None
    if ":" not in str(text):
        return float(text) * 60
    seconds = 0.0
    for part in text.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def _planned(cfg: Composed, session: Session, networks: Networks) -> list[PlannedStep]:
    with explained(session.output.run_dir):
        return make_plan(build.method(cfg), session, networks)


def _guarded(place: RunDir, cfg: Composed, session: Session, networks: Networks, data: OpenedData) -> float:
    """Run the recipe; leave a status file and closed trackers, however it ends."""
    earlier = place.status
    position: dict[str, Any] = {"step": earlier.get("step"), "iteration": earlier.get("iteration", 0)}
    state, error = "failed", None

    def status(step: str, iteration: int) -> None:
        position.update(step=step, iteration=iteration)
        place.write_status("running", **position)

    try:
        with explained(place.path):
            place.write_status("running", **position)
            summary = _recipe(place, cfg, RunLab(session, networks, status), data)
        state = "done"
        print(render_summary(summary, place.path), flush=True)
        return _score(summary)
    except Interrupted as request:
        state, error = "interrupted", request.reason
        print(f"Stopped ({request.reason}). To go on: semiseg train run_dir={place.path}", flush=True)
        raise
    except BaseException as fault:
        error = f"{type(fault).__name__}: {fault}"
        raise
    finally:
        try:
            place.write_status(state, **position, error=error)
            session.output.tracker.close(state)
        except OSError as fault:  # must not hide what ended the run, such as the same full disk
            print(f"semiseg: the end of the run could not be recorded: {fault}", file=sys.stderr)


def _recipe(place: RunDir, cfg: Composed, lab: RunLab, data: OpenedData) -> dict[str, Any]:
    """Train, summarize and store; return the summary as a later process reads it."""
    session = lab.session
    reset_peak_memory(session.compute.device)
    began = time.perf_counter()
    network = build.method(cfg).run(lab)
    with lab.report():
        summary: dict[str, Any] = finite(summarize(plain(cfg), lab, network, time.perf_counter() - began))
        faults = data.report.skipped
        summary["skipped_files"] = [
            {"id": each.id, "file": each.file, "reason": each.reason} for each in faults
        ]
        summary["trust"] = data.trust.as_dict()
        keep_reported(lab, network, summary)
        place.write_summary(summary)
        session.output.tracker.summary(summary)
    return summary


def _score(summary: Mapping[str, Any]) -> float:
    """Return the primary score of a run; NaN where there is none."""
    score = ScoreNames.of(summary).value(summary)
    return math.nan if score is None else float(score)


def _kept(place: RunDir, cfg: Composed, session: Session) -> Output:
    """Return the output of a session with a journal and trackers that keep its log."""
    journal = JsonlTracker(place.journal)
    trackers: list[Tracker] = [journal, ConsoleTracker(session.task.names.primary, len(place.plan) or None)]
    if cfg.tracker.mode != "disabled":
        data, names = session.data, session.task.names
        trackers.append(wandb_tracker(plain(cfg), data.split, data.info, names, place.path))
    return replace(session.output, journal=journal, tracker=MultiTracker(trackers))


def _describe(cfg: Composed, session: Session, resumed: bool) -> str:
    split = session.data.split
    counts = split.counts
    lines = [
        as_yaml(cfg).rstrip(),
        "",
        f"{'Going on with' if resumed else 'Run'} {session.output.run_dir} on {session.compute.device}: "
        f"{cfg.method.name} on {cfg.dataset.name}, {counts['labeled']} labeled, {counts['unlabeled']} unlabeled, "
        f"{counts['val']} validation, {counts['test']} test images; labeled ids sha256 {split.sha256['labeled'][:12]}",
    ]
    return "\n".join(lines[2:] if resumed else lines)


class _LogFile(logging.FileHandler):
    """A log file, made with its first message, that stays quiet when the disk is full."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self.setLevel(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        """A traceback of logging would bury the message that says why the run ended."""


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Copy log messages into the run directory, and the traceback of an error that ends the run."""
    handler = _LogFile(path)
    root = logging.getLogger("semiseg")
    root.addHandler(handler)
    try:
        yield
    except Exception as fault:
        if not isinstance(fault, UserError | Interrupted):
            trace = (type(fault), fault, fault.__traceback__)
            handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, "The run failed", (), trace))
        raise
    finally:
        root.removeHandler(handler)
        handler.close()
