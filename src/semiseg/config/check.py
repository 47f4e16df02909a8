"""Find every fault of a config before data or device are touched."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from semiseg.config import build
from semiseg.config.check_keys import check_settings, plain_values
from semiseg.config.compose import Draft
from semiseg.config.faults import Fault, faults_of_error
from semiseg.config.marks import SPLIT_KEYS, mark_of
from semiseg.config.split_keys import require_lists
from semiseg.config.stored import plain
from semiseg.config.targets import BadTarget, check_node, locate
from semiseg.errors import UserError
from semiseg.runs.read import StoredRun
from semiseg.settings import COMPONENTS, TrainerSettings

if TYPE_CHECKING:
    from semiseg.contracts.dataset import Split
    from semiseg.runs.differences import CurrentRun

PUBLISHED_WEIGHTS = ("imagenet", "pretrained")
TRIED: dict[str, Callable[[DictConfig], Any]] = {
    "method": build.method,
    "augment": build.augment,
    "optimizer": build.optimizer,
    "schedule": build.schedule,
}
"""Components that are cheap to build and need no data."""


class Checker:
    """Checks the configs of one command; parts that the jobs of a sweep have in common are checked once."""

    def __init__(self) -> None:
        self._known: dict[str, list[Fault]] = {}

    def settings(self, draft: Draft) -> list[Fault]:
        """Find the faults that can be found without importing torch."""
        if draft.cfg is None:
            return draft.faults
        return _sourced([*draft.faults, *check_settings(draft.cfg)], draft)

    def everything(self, draft: Draft) -> list[Fault]:
        """Find faults of settings and data, of the arguments of components, and of trial builds."""
        faults = self.settings(draft)
        return [*faults, *self.objects(draft, faults)]

    def objects(self, draft: Draft, known: list[Fault], elsewhere: bool = False) -> list[Fault]:
        """Find faults of data, of the arguments of components, and of trial builds.

        Where faults are known already, only components that the user has changed are checked: options that come
        with semiseg are right, and a typing mistake is answered before torch has been imported.

        Args:
            draft: config to check.
            known: faults that ``settings`` found in it.
            elsewhere: whether another config of the same command has faults.
        """
        if draft.cfg is None:
            return []
        values, _ = plain_values(draft.cfg)
        wrong = {fault.key for fault in known}
        nodes = {key: values[key] for key in COMPONENTS if key in values and not _any_below(key, wrong)}
        touched = [key for key in nodes if any(layer.sets(key) for layer in draft.layers)]
        faults = [*self._components(draft.cfg, nodes, touched), *self._device(values, wrong)]
        wrong |= {fault.key for fault in faults}
        if not any(_any_below(key, wrong) for key in ("dataset", "data_roots", *SPLIT_KEYS)):
            faults += _trial("split_family", partial(require_lists, values))
            faults += _trial("dataset", partial(_divide, draft.cfg))
        # From the cheap to the costly: each stage builds on parts that the stages before found right.
        if not (known or faults or elsewhere):
            faults += self._components(draft.cfg, nodes, list(nodes), fetch=True)
        if not (known or faults or elsewhere) and draft.usual_length:
            faults += _lengths_without_epochs(draft.cfg)
        if not (known or faults or elsewhere):
            trainer = [values["trainer"], nodes["method"], nodes["model"]]
            faults += self._once(trainer, partial(_trial, "method", partial(_check_batches, draft.cfg)))
            sizes = [values["trainer"], values["evaluator"], nodes["backbone"]]
            faults += self._once(sizes, partial(_trial, "backbone", partial(_check_sizes, draft.cfg)))
        if not (known or faults or elsewhere):
            faults += _trial("method", partial(_check_split, draft.cfg))
        if not (known or faults or elsewhere):
            faults += _trial("init_from", partial(_check_initial, draft.cfg))
            faults += _trial("method.baseline", partial(_check_reused_fits, draft.cfg))
        return _sourced(faults, draft)

    def _components(
        self, cfg: DictConfig, nodes: dict[str, Any], chosen: list[str], fetch: bool = False
    ) -> list[Fault]:
        """Check and build components; ``fetch`` also reads published weights, and fetches them as a run would."""
        faults: list[Fault] = []
        for key in chosen:
            supplied = build.DECODER_ARGUMENTS if key == "model" else ()
            faults += self._once([key, nodes[key]], partial(check_node, nodes[key], key, supplied))
        wrong = {fault.key for fault in faults}
        sound = [key for key in chosen if not _any_below(key, wrong)]
        for key in sound:
            if key in TRIED:
                faults += self._once(
                    [key, nodes[key], "built"], partial(_trial, key, partial(TRIED[key], cfg))
                )
        if {"backbone", "model"} <= nodes.keys() and {"backbone", "model"} & set(sound):
            weights = cfg.backbone.get("weights")
            used = weights not in (None, "none") and cfg.get("init_from") is None
            loaded = used and (fetch or weights not in PUBLISHED_WEIGHTS)
            network = [nodes["backbone"], nodes["model"], loaded]
            key = "backbone.weights" if loaded else "backbone"
            if not any(_any_below(part, wrong) for part in ("backbone", "model")):
                faults += self._once(network, partial(_trial, key, partial(_on_meta, cfg, loaded)))
        return faults

    def _device(self, values: dict[str, Any], wrong: set[str]) -> list[Fault]:
        name = values["trainer"].get("device") if isinstance(values.get("trainer"), dict) else None
        # Only a GPU may be missing, and asking for GPUs imports torch.
        if not isinstance(name, str) or not name.startswith("cuda") or "trainer.device" in wrong:
            return []
        return self._once(name, partial(_trial, "trainer.device", partial(build.device, name)))

    def _once(self, content: Any, find: Callable[[], list[Fault]]) -> list[Fault]:
        key = json.dumps(content, sort_keys=True, default=str)
        if key not in self._known:
            self._known[key] = find()
        return self._known[key]


def _any_below(key: str, keys: Iterable[str]) -> bool:
    return any(each == key or each.startswith(f"{key}.") for each in keys)


def _sourced(faults: list[Fault], draft: Draft) -> list[Fault]:
    return [
        fault if fault.source else dataclasses.replace(fault, source=draft.source(fault.key))
        for fault in faults
    ]


def _trial(key: str, attempt: Callable[[], Any]) -> list[Fault]:
    """Call a function; a ``UserError`` becomes faults of the keys that it carries, else of ``key``."""
    try:
        attempt()
    except UserError as error:
        return faults_of_error(error, key)
    return []


def _lengths_without_epochs(cfg: DictConfig) -> list[Fault]:
    """Find lengths of single fits of a method where the run gives no epochs for its other fits."""
    needed = "needs trainer.epochs too: the length of the fits that have none of their own."
    keys = [key for key in cfg.method if cfg.method[key] is not None]
    return [
        Fault(f"method.{key}", needed, cfg.method[key])
        for key in keys
        if mark_of(f"method.{key}", cfg).role == "length"
    ]


def _on_meta(cfg: DictConfig, loaded: bool) -> None:
    """Build the network without memory; where it is ``loaded``, its weights file is read and compared with it."""
    import torch

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch remarks that nothing is copied to this device
        backbone = build.backbone(cfg, None if loaded else "none")
        build.decoder_factory(cfg)(backbone.stages)


def _check_batches(cfg: DictConfig) -> None:
    """Find batches that can't be accumulated or are too small for the decoder."""
    from semiseg.contracts.recipe import ChecksBatches

    method = build.method(cfg)
    if not isinstance(method, ChecksBatches):
        return
    parts = int(cfg.trainer.accumulate)
    smallest = getattr(locate(str(cfg.model["_target_"])), "smallest_batch", 1)
    trainer = build.settings(TrainerSettings, cfg.trainer)
    for key, size in method.batch_sizes(trainer).items():
        if size % parts:
            raise UserError(
                f"cannot divide {key}={size} into equal parts.", key="trainer.accumulate", value=parts
            )
        if size // parts < smallest:
            too_few = (
                f"too few images go through the network at once: model={cfg.model.name} pools whole images, and its "
                f"batch norm needs {smallest} of them."
            )
            if parts > 1:
                raise UserError(f"with {key}={size} {too_few}", key="trainer.accumulate", value=parts)
            raise UserError(too_few, key=key, value=size)


def _check_sizes(cfg: DictConfig) -> None:
    """Find crops and windows whose sides the backbone can't take; whole images are padded for it."""
    import torch

    from semiseg.models.segmodel import require_multiple

    with torch.device("meta"):
        backbone = build.backbone(cfg, "none")
    multiple = backbone.size_multiple
    crop = cfg.trainer.crop_size
    height, width = [crop, crop] if isinstance(crop, int) else list(crop)
    require_multiple("trainer.crop_size", [crop] if isinstance(crop, int) else list(crop), multiple)
    backbone.require_size("trainer.crop_size", (height, width))
    if cfg.evaluator.mode == "slide" and cfg.evaluator.window_edge == "shift":
        window = cfg.evaluator.window
        require_multiple("evaluator.window", [window], multiple)
        backbone.require_size("evaluator.window", (window, window))
    if cfg.evaluator.fit_to is not None:
        require_multiple("evaluator.fit_to", [cfg.evaluator.fit_to], multiple)


def _split(cfg: DictConfig) -> Split:
    """List the dataset and divide it; no image is opened."""
    return build.split(cfg, build.dataset(cfg))


def _check_split(cfg: DictConfig) -> None:
    """Ask the method whether it can learn from the split."""
    from semiseg.contracts.recipe import ChecksSplit

    method = build.method(cfg)
    if isinstance(method, ChecksSplit):
        method.check_split(_split(cfg))


def _current_run(cfg: DictConfig) -> CurrentRun:
    """Return the run of a config, for the comparison with other runs."""
    from semiseg.runs.differences import CurrentRun

    dataset = build.dataset(cfg)
    return CurrentRun(plain(cfg), dataset, build.split(cfg, dataset))


def _check_initial(cfg: DictConfig) -> None:
    """Check the network that this run's networks begin as; a finished run no longer needs it."""
    done = cfg.run_dir is not None and StoredRun(Path(str(cfg.run_dir)).expanduser()).summary is not None
    if cfg.init_from is not None and not done:
        from semiseg.runs.reuse import find_initial

        find_initial(cfg, _current_run(cfg))


def _check_reused_fits(cfg: DictConfig) -> None:
    """Check the fits of other runs that the method uses; a run that has begun has copied them already."""
    from semiseg.contracts.recipe import ReusesFits

    method = build.method(cfg)
    given = method.reused_fits() if isinstance(method, ReusesFits) else []
    begun = cfg.run_dir is not None and StoredRun(Path(str(cfg.run_dir)).expanduser()).started
    if given and not begun:
        from semiseg.runs.reuse import find_fit, require_different

        run = _current_run(cfg)
        require_different([find_fit(each, run) for each in given], cfg.trainer.select)


def _divide(cfg: DictConfig) -> None:
    """Divide the dataset and check that there are unlabeled images where they are needed."""
    split = _split(cfg)
    if split.unlabeled:  # the class of the method is imported where it is needed: that takes torch
        return
    try:
        method = locate(str(cfg.method["_target_"]))
    except (BadTarget, KeyError, TypeError, OmegaConfBaseException):  # other checks name this fault
        return
    if getattr(method, "needs_unlabeled", False):
        split.require_unlabeled(cfg.method.name)
