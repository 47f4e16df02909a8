"""What may be compared: which settings of runs matter for what, and in what two runs differ.

What a setting affects, it says itself (``semiseg.declare.Mark``); the rules here ask for that.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

from semiseg.config.layers import flatten
from semiseg.config.marks import SPLIT_KEYS, group_role, is_harmless, mark_of
from semiseg.declare import Mark
from semiseg.errors import UserError, listed, nearest, shown
from semiseg.report.records import RunRecord
from semiseg.report.scores import NONE
from semiseg.settings import COMPONENTS, RECORDS

KINDS = ("dataset", "evaluator", "split", "iterations", "code", "settings")
"""Kinds of facts in the order in which they are shown."""

MEASURE = ("dataset", "evaluator")
"""Kinds in which runs have to agree for their scores to be comparable at all."""

MIXABLE = ("code", "settings", "iterations")
"""Kinds of differences that a person may choose to average over."""

METHOD = "method"
GROUPS = (*COMPONENTS, *RECORDS)
PLAIN = ("seed", "split", "split_family", "split_id")
"""Keys of ``--by`` that are no groups."""

FULL = "full"
VALIDATION = "ids of the validation images"
SHOWN_KEYS = 4

Facts = dict[str, dict[str, Any]]
Item = TypeVar("Item")
Name = TypeVar("Name", bound=Hashable)


def matters(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a result can depend on a setting."""
    return not is_harmless(key, config)


def must_agree(mark: Mark) -> bool:
    """Whether runs have to agree in a setting to be averaged.

    Partitions are compared by their hash, lengths by the iterations that were done, and the name of an option says
    nothing that its values do not.
    """
    return mark.affects not in ("nothing", "machine") and mark.role not in ("repetition", "length", "label")


def grouped(items: Iterable[Item], name: Callable[[Item], Name]) -> dict[Name, list[Item]]:
    """Put items of one name together, in the order of their first mention."""
    groups: dict[Name, list[Item]] = {}
    for item in items:
        groups.setdefault(name(item), []).append(item)
    return groups


def facts(record: RunRecord) -> Facts:
    """Return what runs have to agree in to be averaged: kind, key, plain value; what is null is left out."""
    found: Facts = {kind: {} for kind in KINDS}
    for key, value in flatten(record.config).items():
        mark = mark_of(key, record.config)
        if value is not None and must_agree(mark):
            found[_kind(key, mark)][key] = _comparable(mark, value)
    counts = record.results.get("split_counts") or {}
    found["dataset"]["classes"] = list(record.results.get(record.names.by_class.key) or ())
    found["evaluator"] |= {
        "validation images": counts.get("val"),
        "test images": counts.get("test"),
        VALIDATION: short(record.validation_sha256()),
    }
    found["iterations"]["iterations"] = record.results.get("iterations")
    found["code"]["code"] = record.code
    return found


def facts_of(runs: Iterable[RunRecord]) -> dict[Path, Facts]:
    """Facts of runs by their path.

    No run has the validation ids where one does not know them, as without its folder ``stages``.
    """
    found = {run.path: facts(run) for run in runs}
    if any(each["evaluator"][VALIDATION] is None for each in found.values()):
        for each in found.values():
            each["evaluator"][VALIDATION] = None
    return found


def short(digest: str | None) -> str | None:
    """First digits of a hash, which are enough to tell two apart."""
    return digest and digest[:8]


def differences(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Keys whose values differ, with both values; ``None`` where one is missing."""
    keys = dict.fromkeys([*own, *other])
    return [(key, own.get(key), other.get(key)) for key in keys if own.get(key) != other.get(key)]


def spelled(unlike: Iterable[tuple[str, Any, Any]], whose: str = "") -> str:
    """Differences in words, for example "iterations=50 (averaged: 100)"."""
    return first_few([f"{key}={shown(own)} ({whose}{shown(other)})" for key, own, other in unlike])


def first_few(words: Sequence[str]) -> str:
    """Join the first words and count the others."""
    more = len(words) - SHOWN_KEYS
    return ", ".join(words[:SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")


def measured_otherwise(runs: Sequence[RunRecord]) -> list[str]:
    """Keys that keep the scores of runs from being comparable: what differs in data or evaluation."""
    found = list(facts_of(runs).values())
    known = dict.fromkeys((kind, key) for each in found for kind in MEASURE for key in each[kind])
    return [
        key for kind, key in known if any(each[kind].get(key) != found[0][kind].get(key) for each in found)
    ]


def not_comparable(own: RunRecord, base: RunRecord) -> list[str]:
    """Keys in which a run may not differ from one of the baseline if their scores are to be compared."""
    unlike = differences(facts(own)["settings"], facts(base)["settings"])
    network = [key for key, *_ in unlike if group_role(key) == "network"]
    return [*measured_otherwise((own, base)), *network]


def other_settings(own: RunRecord, base: RunRecord) -> list[tuple[str, Any, Any]]:
    """Settings and lengths that differ from the baseline's, but those that a method brings of its own."""
    (mine, theirs), kinds = map(facts, (own, base)), ("iterations", "settings")
    unlike = [each for kind in kinds for each in differences(mine[kind], theirs[kind])]
    return [
        each
        for each in unlike
        if not (of_method(each[0]) or mark_of(each[0], own.config).role == "of method")
    ]


def partition(run: RunRecord) -> tuple[Any, ...]:
    """Name of the labeled and the unlabeled images of a run."""
    return (run.option("dataset"), *(str(run.config.get(key)) for key in SPLIT_KEYS))


def pair_key(run: RunRecord) -> tuple[Any, ...]:
    """Seed and labeled images, which two runs have in common that are compared as a pair."""
    return (run.seed, run.split_hash[0])


def checked_keys(by: Sequence[str], records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the keys of ``--by`` once each.

    Args:
        by: Config groups such as "method", keys such as "split", dotted keys such as "optimizer.lr".
        records: Runs, at least one of which has to have each key.

    Raises:
        UserError: no key, or no run has one of that name.
    """
    known = dict.fromkeys([*GROUPS, *PLAIN])
    for record in records:
        known |= dict.fromkeys(flatten(record.config))
    for key in by:
        if key not in known:
            raise UserError(
                f"--by={key}: no run has this key.{did_you_mean(key, known)} Usual ones: "
                f"{listed([*GROUPS, *PLAIN])}; any dotted key of the config goes too, such as optimizer.lr."
            )
    if not by:
        raise UserError("--by is empty: give keys that tell runs apart, such as method,split.")
    return tuple(dict.fromkeys(by))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Hint at the nearest of the known words; empty where none is near."""
    near = nearest(word, known)
    return f" Did you mean {near}?" if near else ""


def cell_key(record: RunRecord, by: Sequence[str]) -> dict[str, str]:
    """Values of the keys in a run; empty where the run left no config and its overrides do not tell all."""
    known = known_values(record, by)
    return known if len(known) == len(by) else {}


def known_values(record: RunRecord, keys: Sequence[str]) -> dict[str, str]:
    """Values of the keys in a run, in their order; of a run that left no config those that were typed."""
    if record.config:
        return {key: _value(record, key) for key in keys}
    typed = dict(text.lstrip("+").split("=", 1) for text in record.overrides if "=" in text)
    return {key: typed[key] for key in keys if key in typed}


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
    """Number that a value such as "1/16", "732", "0.01" or "full" stands for; "full" comes after all."""
    if text == FULL:
        return float("inf")
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        return None


def _value(record: RunRecord, key: str) -> str:
    found = record.option(key) if key in GROUPS else flatten(record.config).get(key)
    if isinstance(found, bool):
        return str(found).lower()
    return NONE if found is None else str(found)


def _kind(key: str, mark: Mark) -> str:
    group = key.partition(".")[0]
    return group if group in MEASURE else "split" if mark.affects == "data" else "settings"


def _comparable(mark: Mark, value: Any) -> Any:
    """Value as runs are compared by it: files by their names, since folders differ from machine to machine; of runs
    to start from, which belong to a seed each, whether there is one.
    """
    if mark.role == "run":
        return "given"
    return PurePath(value).name if mark.role == "file" and isinstance(value, str) else value
