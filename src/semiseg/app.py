"""One training run: from a checked config to a summary."""

import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from semiseg.config import build
from semiseg.config.compose import Composed, as_yaml, render_run_yaml
from semiseg.config.stored import plain, settings_that_matter
from semiseg.contracts.dataset import SegDataset, Split
from semiseg.contracts.tracking import Tracker
from semiseg.data.file_faults import CheckReport, check_files
from semiseg.data.store import stored
from semiseg.engine.evaluate import quality_ids
from semiseg.engine.failures import explained
from semiseg.engine.lab import Lab
from semiseg.engine.plan import PlannedStep, make_plan, render_plan
from semiseg.engine.session import Compute, Data, Networks, Output, Session, Training
from semiseg.engine.signals import StopRequest
from semiseg.engine.step import reset_peak_memory
from semiseg.errors import Interrupted, UserError
from semiseg.files import finite
from semiseg.runs.differences import CurrentRun
from semiseg.runs.directory import RunDir, environment, fingerprint
from semiseg.runs.reuse import find_fit, find_initial
from semiseg.settings import EvaluatorSettings, TrainerSettings
from semiseg.splits.published_lists import unlike_published
from semiseg.summary import as_float, keep_reported, summarize
from semiseg.track.console import ConsoleTracker, render_summary
from semiseg.track.jsonl import JsonlTracker
from semiseg.track.multi import MultiTracker
from semiseg.track.samples import sample_ids
from semiseg.track.wandb_tracker import wandb_tracker

log = logging.getLogger(__name__)


def run(cfg: Composed, overrides: list[str], *, plan_only: bool = False) -> float:
    """Train, evaluate and summarize one run in ``cfg.run_dir``; go on where an earlier process stopped.

    Args:
        cfg: the checked config; ``run_dir``, ``name`` and ``trainer.threads`` are set.
        overrides: overrides of the command line, for the record.
        plan_only: whether only a plan of the steps with their duration is printed.

    Returns:
        mIoU of the reported network on the validation images, NaN where there are none.

    Raises:
        UserError: bad data, or a directory that cannot be used.
        RunFailed: the loss is not finite, or memory or disk ran out.
        Interrupted: a signal or the time limit ended the run; its state is saved.
    """
    place = RunDir(Path(cfg.run_dir).expanduser())
    if (finished := place.summary) is not None and not plan_only:
        print(render_summary(finished, place.path))
        return as_float(finished["miou"])
    torch.set_num_threads(cfg.trainer.threads)
    torch.use_deterministic_algorithms(cfg.trainer.deterministic)
    torch.backends.cudnn.benchmark = not cfg.trainer.deterministic
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest(time_limit(cfg.trainer.max_time)))
        if not plan_only:
            stack.enter_context(place.lock())
            stack.enter_context(_log_file(place.log))
        dataset, report = open_data(cfg, stop, filled=not plan_only)
        session, networks = open_session(cfg, place, dataset, report.split, stop)
        stack.callback(session.output.tracker.close, "planned")
        if plan_only:
            print(render_plan(_planned(cfg, session, networks)))
            stop.check()
            return math.nan
        resumed = place.started
        print(_describe(cfg, session, resumed), flush=True)
        plan = [] if resumed else _planned(cfg, session, networks)
        if plan:
            print(render_plan(plan), flush=True)
        yamls = render_run_yaml(cfg), as_yaml(cfg)
        place.begin(*yamls, overrides, environment(), [asdict(step) for step in plan])
        session = replace(session, output=_kept(place, cfg, session))
        return _guarded(place, cfg, session, networks, report)


def open_data(cfg: Composed, stop: StopRequest, *, filled: bool = True) -> tuple[SegDataset, CheckReport]:
    """Build the dataset and its split, and decode the files that its store lacks.

    Args:
        cfg: the config.
        stop: request to stop, checked between two files.
        filled: whether the store is filled first; False reads images that it lacks from their files.

    Raises:
        UserError: a leak; bad files, all of which it names; or a store without room.
        Interrupted: a stop was requested.
    """
    dataset = build.dataset(cfg)
    split = build.split(cfg, dataset)
    name = split.family, split.name, split.split_id
    if unlike := unlike_published(dataset.info.name, name, split.labeled):
        log.warning("split_family=%s split=%s split_id=%s is %s.", *name, unlike)
    dataset = stored(dataset, split, stop.check, filled=filled)
    report = check_files(dataset, split, lambda done, total: stop.check())
    stop.check()
    return dataset, report


def open_session(
    cfg: Composed, place: RunDir, dataset: SegDataset, split: Split, stop: StopRequest
) -> tuple[Session, Networks]:
    """Build the session that all steps share, and the source of its networks; nothing that it logs is kept yet."""
    nowhere = JsonlTracker(Path(os.devnull))
    config = plain(cfg)
    trainer = build.settings(TrainerSettings, cfg.trainer)
    here = CurrentRun(config, dataset, split)
    initial = find_initial(config, here)
    for remark in initial.remarks if initial else ():
        log.warning(remark)
    # A step continues under the settings that its run began with, even if keys have been added since.
    begun = place.config if place.started and place.has_config else config
    output = Output(
        run_dir=place.path,
        tracker=nowhere,
        journal=nowhere,
        network_config={key: config[key] for key in ("backbone", "model")},
        fingerprint=fingerprint(settings_that_matter(begun)),
        keep_pseudo_labels=cfg.keep_pseudo_labels,
    )
    data = Data(
        dataset=dataset,
        split=split,
        augment=build.augment(cfg),
        quality_ids=quality_ids(split.unlabeled, cfg.seed),
        sample_ids=sample_ids(split.val, cfg.tracker.samples),
    )
    training = Training(
        trainer=trainer,
        evaluator=build.settings(EvaluatorSettings, cfg.evaluator),
        optimizer=build.optimizer(cfg),
        schedule=build.schedule(cfg),
        seed=cfg.seed,
    )
    networks = Networks(
        build.network_factory(cfg, dataset.info), initial, lambda wanted: find_fit(wanted, here)
    )
    return Session(data, _compute(trainer), training, output, stop), networks


def _compute(trainer: TrainerSettings) -> Compute:
    device = build.device(trainer.device)
    if device.index is not None:
        torch.cuda.set_device(device)
    layout = torch.channels_last if trainer.channels_last else torch.contiguous_format
    return Compute(device, trainer.precision, layout)


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


def _guarded(
    place: RunDir, cfg: Composed, session: Session, networks: Networks, report: CheckReport
) -> float:
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
            summary = _recipe(place, cfg, Lab(session, networks, status), report)
        state = "done"
        print(render_summary(summary, place.path), flush=True)
        return as_float(summary["miou"])
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


def _recipe(place: RunDir, cfg: Composed, lab: Lab, report: CheckReport) -> dict[str, Any]:
    """Train, summarize and store; return the summary as a later process reads it."""
    session = lab.session
    reset_peak_memory(session.compute.device)
    began = time.perf_counter()
    network = build.method(cfg).run(lab)
    with lab.report():
        summary: dict[str, Any] = finite(summarize(plain(cfg), lab, network, time.perf_counter() - began))
        summary["skipped_files"] = [asdict(fault) for fault in report.skipped]
        keep_reported(lab, network, summary)
        place.write_summary(summary)
        session.output.tracker.summary(summary)
    return summary


def _kept(place: RunDir, cfg: Composed, session: Session) -> Output:
    """Return the output of a session with a journal and trackers that keep its log."""
    journal = JsonlTracker(place.journal)
    trackers: list[Tracker] = [journal, ConsoleTracker(len(place.plan) or None)]
    if cfg.tracker.mode != "disabled":
        trackers.append(wandb_tracker(plain(cfg), session.data.split, session.data.info, place.path))
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
