"""Data and session of a run, put together from its config."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semiseg.config import build
from semiseg.config.compose import Composed
from semiseg.config.other_networks import config_of, others
from semiseg.config.stored import Config, plain, settings_that_matter
from semiseg.contracts.dataset import SegDataset, Split
from semiseg.contracts.task import Task
from semiseg.cores import warn_of_little_shared_memory
from semiseg.data.band_augment import for_bands
from semiseg.data.file_faults import CheckReport, check_files
from semiseg.data.store import stored
from semiseg.data.trust import Trust, weigh
from semiseg.engine.compute import Compute
from semiseg.engine.session import Data, Networks, Output, Session, Training
from semiseg.engine.signals import StopRequest
from semiseg.errors import UserError
from semiseg.runs.differences import CurrentRun
from semiseg.runs.directory import RunDir, fingerprint
from semiseg.runs.reuse import find_fit, find_initial
from semiseg.settings import EvaluatorSettings, TrainerSettings
from semiseg.splits.published_lists import unlike_published
from semiseg.tasks.evaluate import quality_ids
from semiseg.tasks.metrics import foreground_labels
from semiseg.tasks.samples import sample_ids
from semiseg.track.jsonl import JsonlTracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenedData:
    """Checked data of a run.

    Args:
        dataset: images and masks.
        report: result of the check of the files, with the split to train with.
        trust: what limits the meaning of a result on them.
    """

    dataset: SegDataset
    report: CheckReport
    trust: Trust


def open_data(cfg: Composed, stop: StopRequest, *, filled: bool = True) -> OpenedData:
    """Build the dataset and its split, decode the files that its store lacks, and log what limits a result.

    Args:
        cfg: config of the run.
        stop: request to stop, checked between two files.
        filled: whether the store is filled first; ``False`` reads images that it lacks from their files.

    Raises:
        UserError: a leak; bad files, all of which it names; nothing to learn or to measure; warnings where
            ``strict`` is set; no such class of ``evaluator.foreground``; or a store without room.
        Interrupted: a stop was requested.
    """
    dataset = build.dataset(cfg)
    # Before minutes of decoding, and not at the first evaluation.
    evaluator = build.settings(EvaluatorSettings, cfg.evaluator)
    foreground_labels(evaluator, dataset.info)
    split = build.split(cfg, dataset)
    name = split.family, split.name, split.split_id
    if unlike := unlike_published(dataset.info.name, name, split.labeled):
        log.warning("split_family=%s split=%s split_id=%s is %s.", *name, unlike)
    read = stored(dataset, split, stop.check, filled=filled)
    report = check_files(read, split, lambda done, total: stop.check(), seed=cfg.seed)
    stop.check()
    trust = weigh(dataset, report, evaluator)
    warnings = (*trust.warnings, *trust.unmeasured)
    if cfg.strict and warnings:
        listed = "\n  ".join(warnings)
        raise UserError(f"not trained, because the check warns and strict=true:\n  {listed}")
    for warning in warnings:
        log.warning("Warning: %s.", warning)
    for note in trust.notes:
        log.info("Note: %s.", note)
    return OpenedData(read, report, trust)


def open_session(
    cfg: Composed, task: Task, place: RunDir, dataset: SegDataset, split: Split, stop: StopRequest
) -> tuple[Session, Networks]:
    """Build the session of a run and the source of its networks; what the session logs is not kept yet."""
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
        network_config=_structure(config),
        other_configs={role: _structure(config_of(config, role)) for role in others(config)},
        fingerprint=fingerprint(settings_that_matter(begun)),
        keep_pseudo_labels=cfg.keep_pseudo_labels,
    )
    data = Data(
        dataset=dataset,
        split=split,
        augment=for_bands(build.augment(cfg), dataset.info.bands),
        quality_ids=quality_ids(split.unlabeled, cfg.seed),
        sample_ids=sample_ids(split.val, cfg.tracker.samples),
    )
    training = Training(
        trainer=trainer,
        evaluator=build.settings(EvaluatorSettings, cfg.evaluator),
        optimizer=build.optimizers(cfg),
        schedule=build.schedule(cfg),
        seed=cfg.seed,
    )
    networks = Networks(
        build.network_factory(cfg, dataset.info),
        initial,
        lambda wanted: find_fit(wanted, here),
        cfg.init_head == "probe",
    )
    compute = _compute(trainer)
    warn_of_little_shared_memory(trainer.num_workers, compute.device.type == "cuda")
    return Session(task, data, compute, training, output, stop), networks


def _structure(config: Config) -> dict[str, Any]:
    """Return the nodes that a stored network holds, to be built again."""
    return {key: config[key] for key in ("backbone", "model")}


def _compute(trainer: TrainerSettings) -> Compute:
    device = build.device(trainer.device)
    # Some CUDA calls without a device, such as those of random numbers, use the current one.
    if device.index is not None:
        torch.cuda.set_device(device)
    layout = torch.channels_last if trainer.channels_last else torch.contiguous_format
    return Compute(device, trainer.precision, layout)
