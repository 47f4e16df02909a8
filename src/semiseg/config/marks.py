"""What a key of a config affects, asked of its declaration; lists of keys are queries of these marks."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from semiseg.config.targets import BadTarget, locate
from semiseg.declare import Mark, declared
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


def _below(outer: Mark, inner: Mark) -> Mark:
    return replace(inner, affects=inner.affects or outer.affects)


def _own_mark(node: Any, name: str) -> Mark:
    if not isinstance(node, Mapping) or "_target_" not in node:
        return Mark()
    try:
        known = declared(locate(str(node["_target_"]))).get(name)
    except (BadTarget, TypeError, ValueError):  # a fault that the check names
        return Mark()
    return known.mark if known else Mark()
