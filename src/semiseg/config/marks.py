"""Effects of the keys of a config, as their declarations mark them; lists of keys are queries of these marks."""

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from semiseg.config.targets import OTHER_PARTS, BadTarget, locate
from semiseg.declare import Mark, Setting, as_node, declared
from semiseg.settings import COMPONENTS, RECORDS, RunSettings

SPLIT_KEYS = tuple(
    name
    for name, setting in declared(RunSettings).items()
    if setting.mark.affects == "data" and name not in COMPONENTS
)
"""Keys that choose the labeled, unlabeled and validation images."""


def mark_of(key: str, config: Mapping[str, Any]) -> Mark:
    """Return the mark of a dotted key.

    A setting without an effect of its own has that of its node: ``evaluator.flip`` affects the result, since
    ``evaluator`` does. The role of a group holds for the name of its option alone.

    Args:
        key: dotted key of a setting or of a whole group.
        config: config that the key belongs to; its nodes name their classes.
    """
    group, *below = key.split(".")
    top = declared(RunSettings).get(group)
    mark = top.mark if top else Mark()
    if not below:
        return mark
    if group in RECORDS:
        known = declared(RECORDS[group]).get(below[0])
        return _below(mark, known.mark if known else Mark())
    if below == ["name"]:
        return mark
    if len(below) > 1 and below[-1] == "name" and key.removesuffix(".name") in OTHER_PARTS:
        return mark_of(key.removesuffix(".name"), config)
    node = config.get(group) if group in COMPONENTS else None
    for name in below:
        known = _declaration(node, name)
        mark = _below(mark, known.mark if known else Mark())
        value = node.get(name) if isinstance(node, Mapping) else None
        # A node may leave out a setting that is a node itself.
        node = as_node(known.default if value is None else value, known.hint) if known else value
    return mark


def group_role(key: str) -> str | None:
    """Role of the config group that a dotted key belongs to."""
    top = declared(RunSettings).get(key.partition(".")[0])
    return top.mark.role if top else None


def is_harmless(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a key cannot change a result, so that a run may be resumed with another value."""
    return mark_of(key, config).affects == "nothing"


def first_fit(config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return value and default of the settings of the fit of a method that other runs may reuse.

    Their keys are the names that methods share. Methods without such a setting do what the default says.
    """
    node = config["method"]
    return {
        each.mark.same_as or name: (node.get(name, each.default), each.default)
        for name, each in _settings_of(str(node["_target_"])).items()
        if each.mark.first_fit
    }


@functools.cache
def _settings_of(target: str) -> Mapping[str, Setting]:
    try:
        return declared(locate(target))
    except (BadTarget, TypeError, ValueError):  # a fault that the check names
        return {}


def _below(outer: Mark, inner: Mark) -> Mark:
    return replace(inner, affects=inner.affects or outer.affects)


def _declaration(node: Any, name: str) -> Setting | None:
    if not isinstance(node, Mapping) or "_target_" not in node:
        return None
    return _settings_of(str(node["_target_"])).get(name)
