"""Find every fault of a config before data or device are touched."""

import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from omegaconf import DictConfig

from semiseg.config import build
from semiseg.config.compose import Draft
from semiseg.config.faults import Fault
from semiseg.config.schema import COMPONENTS
from semiseg.config.settings import check_settings, plain_values
from semiseg.config.signature import BadTarget, check_node, locate
from semiseg.errors import UserError

PUBLISHED_WEIGHTS = ("none", "imagenet", "pretrained")
DATA_KEYS = ("dataset", "split", "split_family", "split_id", "split_lists", "unlabeled", "data_roots")
TRIED: dict[str, Callable[[DictConfig], Any]] = {
    "method": build.method,
    "augment": build.augment,
    "optimizer": build.optimizer,
    "schedule": build.schedule,
}
"""Components that are cheap to build and need no data."""


class Checker:
    """Checks the configs of one command; what the jobs of a sweep have in common is checked once."""

    def __init__(self) -> None:
        self._known: dict[str, list[Fault]] = {}

    def settings(self, draft: Draft) -> list[Fault]:
        """Find what can be found without importing torch."""
        if draft.cfg is None:
            return draft.faults
        return _sourced([*draft.faults, *check_settings(draft.cfg)], draft)

    def everything(self, draft: Draft) -> list[Fault]:
        """Find faults of settings and data, of the arguments of components, and of trial builds."""
        faults = self.settings(draft)
        return [*faults, *self.objects(draft, faults)]

    def objects(self, draft: Draft, known: list[Fault], elsewhere: bool = False) -> list[Fault]:
        """Find faults of data, of the arguments of components, and of trial builds.

        With faults, only components that somebody has touched are looked at: options that come with
        semiseg are right, and a typing mistake is answered before torch has been imported.

        Args:
            draft: the config.
            known: what ``settings`` found in it.
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
        if not any(_any_below(key, wrong) for key in DATA_KEYS):
            faults += _trial("dataset", partial(_divide, draft.cfg))
        if not (known or faults or elsewhere):
            faults += self._components(draft.cfg, nodes, list(nodes))
        return _sourced(faults, draft)

    def _components(self, cfg: DictConfig, nodes: dict[str, Any], chosen: list[str]) -> list[Fault]:
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
            network = [nodes["backbone"], nodes["model"]]
            key = "backbone.weights" if _own_weights(cfg) else "backbone"
            if not any(_any_below(part, wrong) for part in ("backbone", "model")):
                faults += self._once(network, partial(_trial, key, partial(_on_meta, cfg)))
        return faults

    def _device(self, values: dict[str, Any], wrong: set[str]) -> list[Fault]:
        name = values["trainer"].get("device") if isinstance(values.get("trainer"), dict) else None
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
    """Try something; a ``UserError`` becomes a fault of the key that its text begins with, else of ``key``."""
    try:
        attempt()
    except UserError as error:
        named = re.match(r"([a-z_]+(?:\.[a-z_0-9]+)*)=(\S*?): (.*)", str(error), re.DOTALL)
        return [Fault(named[1], named[3], named[2])] if named else [Fault(key, str(error))]
    return []


def _own_weights(cfg: DictConfig) -> bool:
    """Whether the backbone's weights come from a file that the user names."""
    return cfg.backbone.get("weights") not in (None, *PUBLISHED_WEIGHTS)


def _on_meta(cfg: DictConfig) -> None:
    """Build the network without memory; a weights file of the user's is compared with it."""
    import torch

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch remarks that nothing is copied to this device
        backbone = build.backbone(cfg, None if _own_weights(cfg) else "none")
        build.decoder_factory(cfg)(in_channels=backbone.channels, output_stride=backbone.output_stride)


def _divide(cfg: DictConfig) -> None:
    """List the dataset and divide it; no image is opened."""
    from semiseg.data.splits import make_split

    split = make_split(
        build.dataset(cfg), str(cfg.split), cfg.split_family, cfg.split_id, cfg.unlabeled, cfg.split_lists
    )
    if not split.unlabeled and _needs_unlabeled(cfg):
        raise UserError(
            f"split={cfg.split}: method={cfg.method.name} needs unlabeled images and this leaves none. Label fewer "
            "(split=1/8), learn from the labeled ones as unlabeled too (unlabeled=all), or take method=supervised."
        )


def _needs_unlabeled(cfg: DictConfig) -> bool:
    try:
        return bool(getattr(locate(str(cfg.method["_target_"])), "needs_unlabeled", False))
    except (BadTarget, KeyError, TypeError):  # a fault of its own
        return False
