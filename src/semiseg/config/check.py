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
        """Find faults of settings, of the arguments of all components, and of trial builds.

        Where settings are wrong and nobody has touched a component, components are not imported, so that
        a typing mistake is answered at once.
        """
        faults = self.settings(draft)
        if draft.cfg is None or (faults and not _components_touched(draft)):
            return faults
        cfg = draft.cfg
        values, _ = plain_values(cfg)
        wrong = {fault.key for fault in faults}
        nodes = {key: values[key] for key in COMPONENTS if key in values and not _any_below(key, wrong)}
        for key, node in nodes.items():
            supplied = build.DECODER_ARGUMENTS if key == "model" else ()
            faults += self._once([key, node], partial(check_node, node, key, supplied))
        wrong = {fault.key for fault in faults}
        sound = {key for key in nodes if not _any_below(key, wrong)}
        if isinstance(values.get("trainer"), dict) and "trainer.device" not in wrong:
            name = str(values["trainer"]["device"])
            faults += self._once(name, partial(_trial, "trainer.device", partial(build.device, name)))
        for key in sorted(sound & TRIED.keys()):
            faults += self._once([key, nodes[key], "built"], partial(_trial, key, partial(TRIED[key], cfg)))
        if sound >= {"backbone", "model"}:
            network = [nodes["backbone"], nodes["model"]]
            key = "backbone.weights" if _own_weights(cfg) else "backbone"
            faults += self._once(network, partial(_trial, key, partial(_on_meta, cfg)))
        wrong = {fault.key for fault in faults}
        if not any(_any_below(key, wrong) for key in DATA_KEYS):
            faults += _trial("dataset", partial(_divide, cfg))
        return _sourced(faults, draft)

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


def _components_touched(draft: Draft) -> bool:
    """Whether a component may differ from the options that come with semiseg, or a GPU was asked for."""
    touched = any(key.split(".")[0] in COMPONENTS for layer in draft.layers for key in layer.values)
    device = any(str(layer.values.get("trainer.device", "")).startswith("cuda") for layer in draft.layers)
    return touched or device


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
