"""What a key of a config affects, asked of its declaration; lists of keys are queries of these marks."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from semiseg.config.targets import BadTarget, locate
from semiseg.declare import Affects, Mark, Role, Setting, declared
from semiseg.settings import COMPONENTS, RECORDS, RunSettings


def mark_of(key: str, config: Mapping[str, Any]) -> Mark:
    """Return the mark of a dotted key.

    What a setting does not say about itself, the node that holds it says: ``evaluator.flip`` affects the result, since
    ``evaluator`` does. The role of a group holds for the name of its option alone.

    Args:
        key: dotted key, of a setting or of a whole group.
        config: the config that the key belongs to; its nodes name their classes.
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
    node = config.get(group) if group in COMPONENTS else None
    for name in below:
        mark = _below(mark, _own_mark(node, name))
        node = node.get(name) if isinstance(node, Mapping) and name in node else None
    return mark


def is_harmless(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a key cannot change a result, so that a run may be resumed with another value."""
    return mark_of(key, config).affects == "nothing"


def affects(key: str, config: Mapping[str, Any]) -> Affects:
    """Say what a dotted key affects; one that nobody has declared may affect training."""
    return mark_of(key, config).affects or "training"


def has_role(key: str, config: Mapping[str, Any], role: Role) -> bool:
    """Whether the value of a dotted key has a further property, see ``Mark``."""
    return mark_of(key, config).role == role


def keys_of(
    keys: Iterable[str],
    config: Mapping[str, Any],
    affecting: Iterable[Affects] | None = None,
    role: Role | None = None,
) -> list[str]:
    """Return those of some dotted keys that affect one of several things, and have a role.

    Args:
        keys: dotted keys.
        config: the config that they belong to.
        affecting: what they affect; ``None`` takes all.
        role: their role; ``None`` takes all.
    """
    wanted = None if affecting is None else set(affecting)
    return [
        key
        for key in keys
        if (wanted is None or affects(key, config) in wanted)
        and (role is None or has_role(key, config, role))
    ]


def groups_of(role: Role) -> list[str]:
    """Return the config groups of a role; those that the network is made of are ``backbone`` and ``model``."""
    return [key for key in COMPONENTS if declared(RunSettings)[key].mark.role == role]


def split_keys() -> list[str]:
    """Return the keys outside of groups that choose the images of a run and their labels."""
    found = declared(RunSettings).items()
    return [key for key, setting in found if setting.mark.affects == "data" and key not in COMPONENTS]


def first_fit(config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return value and default of the settings of the fit of a method that other runs may reuse.

    They stand under the names that methods share. The default is what methods do that have no such setting.
    """
    node = config["method"]
    return {
        each.mark.same_as or name: (node.get(name, each.default), each.default)
        for name, each in _declared(node).items()
        if each.mark.first_fit
    }


def _below(outer: Mark, inner: Mark) -> Mark:
    return replace(inner, affects=inner.affects or outer.affects)


def _own_mark(node: Any, name: str) -> Mark:
    known = _declared(node).get(name)
    return known.mark if known else Mark()


def _declared(node: Any) -> Mapping[str, Setting]:
    if not isinstance(node, Mapping) or "_target_" not in node:
        return {}
    try:
        return declared(locate(str(node["_target_"])))
    except (BadTarget, TypeError, ValueError):  # a fault that the check names
        return {}
