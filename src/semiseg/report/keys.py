"""The keys of ``--by``: what names a cell of the report."""

from collections.abc import Sequence
from typing import Any

from semiseg.config.layers import flatten
from semiseg.errors import UserError, listed, nearest
from semiseg.report.collect import RunRecord
from semiseg.settings import COMPONENTS, RECORDS

ABSENT = "–"
GROUPS = (*COMPONENTS, *RECORDS)
METHOD = "method"
PLAIN = ("seed", "split", "split_family", "split_id")


def checked_keys(by: Sequence[str], records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the keys once each.

    Args:
        by: a config group such as "method", a key such as "split", or a dotted key such as "optimizer.lr".
        records: the runs, at least one of which has to have the key.

    Raises:
        UserError: no key, or no run has one of that name.
    """
    known = dict.fromkeys([*GROUPS, *PLAIN])
    for record in records:
        known |= dict.fromkeys(flatten(record.config))
    for key in by:
        if key not in known:
            near = nearest(key, known)
            hint = f" Did you mean {near}?" if near else ""
            raise UserError(
                f"--by={key}: no run has this key.{hint} Usual ones: {listed([*GROUPS, *PLAIN])}; "
                "any dotted key of the config goes too, such as optimizer.lr."
            )
    if not by:
        raise UserError("--by is empty: give keys that tell runs apart, such as method,split.")
    return tuple(dict.fromkeys(by))


def cell_key(record: RunRecord, by: Sequence[str]) -> dict[str, str]:
    """The values of the keys in a run; empty where the run left no config and its overrides do not tell all."""
    known = known_values(record, by)
    return known if len(known) == len(by) else {}


def known_values(record: RunRecord, keys: Sequence[str]) -> dict[str, str]:
    """The values of the keys in a run, in their order; of a run that left no config those that were typed."""
    if record.config:
        return {key: _value(record.config, key) for key in keys}
    typed = dict(text.lstrip("+").split("=", 1) for text in record.overrides if "=" in text)
    return {key: typed[key] for key in keys if key in typed}


def _value(config: dict[str, Any], key: str) -> str:
    if key in GROUPS:
        node = config.get(key)
        found = node.get("name") if isinstance(node, dict) else None
    else:
        found = flatten(config).get(key)
    if isinstance(found, bool):
        return str(found).lower()
    return ABSENT if found is None else str(found)


def of_method(key: str) -> bool:
    """Whether a key says which method it is, or a setting of it such as "method.weight"."""
    return key == METHOD or key.startswith(f"{METHOD}.")


def sort_rank(key: str, value: str, baseline: str | None) -> tuple[Any, ...]:
    """Order of the values of a key: the baseline first, numbers and ratios by size, then names."""
    if key == METHOD:
        return (value != baseline, 0.0, value)
    number = ratio(value)
    return (number is None, number or 0.0, value)


def ratio(text: str) -> float | None:
    """The number that a value such as "1/16", "732", "0.01" or "full" stands for; "full" comes after all."""
    if text == "full":
        return float("inf")
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        return None
