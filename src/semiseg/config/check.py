"""Find every fault of a config before data or device are touched."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from semiseg.config import build
from semiseg.config.check_keys import check_settings, plain_values
from semiseg.config.check_networks import build_on_meta, check_batches, check_probed, check_sizes, is_probed
from semiseg.config.compose import Draft
from semiseg.config.faults import Fault, faults_of_error
from semiseg.config.marks import SPLIT_KEYS, mark_of
from semiseg.config.other_networks import (
    config_of,
    named,
    other_parts,
    part_of,
    place,
    placed,
    role_of,
    roles,
)
from semiseg.config.split_keys import require_lists
from semiseg.config.stored import Config, plain
from semiseg.config.targets import OTHER_PARTS, BadTarget, check_node, locate
from semiseg.errors import UserError
from semiseg.runs.read import StoredRun
from semiseg.settings import COMPONENTS

if TYPE_CHECKING:
    from semiseg.contracts.dataset import Split
    from semiseg.runs.differences import CurrentRun

PUBLISHED_WEIGHTS = ("imagenet", "pretrained")
TRIED: dict[str, Callable[[Config], Any]] = {
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
        nodes = _nodes(values, wrong)
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
            trainer = [values["trainer"], values["method"], nodes["model"]]
            faults += self._once(trainer, partial(_trial, "method", partial(check_batches, draft.cfg)))
            sizes = [values["trainer"], values["evaluator"], nodes["backbone"], other_parts(values)]
            faults += self._once(sizes, partial(_trial, "backbone", partial(check_sizes, draft.cfg)))
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
            supplied = build.DECODER_ARGUMENTS if part_of(key) == "model" else ()
            faults += self._once([key, nodes[key]], partial(check_node, nodes[key], key, supplied))
        wrong = {fault.key for fault in faults}
        sound = [key for key in chosen if not _any_below(key, wrong)]
        for key in sound:
            if part_of(key) in TRIED:
                attempt = partial(_tried, part_of(key), cfg, role_of(key))
                faults += self._once([key, nodes[key], "built"], partial(_trial, key, attempt))
        for role in roles(cfg):
            faults += self._network(cfg, role, nodes, sound, wrong, fetch)
        return faults

    def _network(
        self,
        cfg: DictConfig,
        role: str | None,
        nodes: dict[str, Any],
        sound: list[str],
        wrong: set[str],
        fetch: bool,
    ) -> list[Fault]:
        """Build a network without memory, where its own nodes are sound."""
        parts = [place(part, cfg, role) for part in ("backbone", "model")]
        if not set(parts) <= nodes.keys() or not set(parts) & set(sound):
            return []
        if (role is not None and parts == ["backbone", "model"]) or any(
            _any_below(key, wrong) for key in parts
        ):
            return []
        faults: list[Fault] = []
        if "method" in nodes and is_probed(cfg, role):
            probed = [*parts, nodes[parts[0]], nodes[parts[1]], "probed", "probe" in cfg.method]
            faults = self._once(probed, partial(_trial, parts[1], partial(check_probed, cfg, role)))
        weights = nodes[parts[0]].get("weights")
        # The network of init_from replaces weights where it fits, which that of another kind need not.
        used = weights not in (None, "none") and (role is not None or cfg.get("init_from") is None)
        loaded = used and (fetch or weights not in PUBLISHED_WEIGHTS)
        key = f"{parts[0]}.weights" if loaded else parts[0]
        network = [*parts, nodes[parts[0]], nodes[parts[1]], loaded]
        built = self._once(network, partial(_trial, key, partial(build_on_meta, cfg, role, loaded)))
        return built or faults

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


def _nodes(values: dict[str, Any], wrong: set[str]) -> dict[str, Any]:
    """Return the nodes of all components that no fault is known of, those of other networks by themselves."""
    nodes = {key: values[key] for key in COMPONENTS if key in values} | other_parts(values)
    if isinstance(nodes.get("method"), dict):
        nodes["method"] = named(nodes["method"])
    # A fault of another network says nothing of the other settings of the method.
    own = {key for key in wrong if not any(_any_below(part, [key]) for part in OTHER_PARTS)}
    return {
        key: node for key, node in nodes.items() if not _any_below(key, own if key == "method" else wrong)
    }


def _tried(part: str, cfg: DictConfig, role: str | None) -> None:
    """Build a component that is cheap to build, of the run or of another network."""
    try:
        TRIED[part](config_of(cfg, role))
    except UserError as error:
        raise placed(error, cfg, role) from error


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
