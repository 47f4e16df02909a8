"""Rules of comparison: settings in which runs must agree, and differences between two runs.

The declaration of a setting marks its effects (``semiseg.declare.Mark``); these rules read the marks.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

from semiseg.config.layers import flatten
from semiseg.config.marks import SPLIT_KEYS, group_role, is_harmless, mark_of
from semiseg.config.other_networks import config_of, other_parts
from semiseg.config.targets import OTHER_PARTS
from semiseg.declare import Mark
from semiseg.errors import UserError, listed, nearest, shown
from semiseg.report.records import RunRecord
from semiseg.report.scores import NONE
from semiseg.settings import COMPONENTS, RECORDS

KINDS = ("dataset", "evaluator", "split", "iterations", "code", "settings")
"""Kinds of facts in the order in which they are shown."""

MEASURE = ("dataset", "evaluator")
"""Kinds in which runs must agree for their scores to be comparable at all."""

MIXABLE = ("code", "settings", "iterations")
"""Kinds of differences that the user may choose to average over."""

METHOD, DECODER = "method", "model"
GROUPS = (*COMPONENTS, *RECORDS)
PLAIN = ("seed", "split", "split_family", "split_id")
"""Keys of ``--by`` that are no groups."""

FULL = "full"
VALIDATION = "ids of the validation images"
MASKS = "sizes and masks of the validation images"
WHERE_KNOWN = (VALIDATION, MASKS)
"""Facts that runs of earlier versions, or without some of their files, do not have."""

SHOWN_KEYS = 4

Facts = dict[str, dict[str, Any]]
Item = TypeVar("Item")
Name = TypeVar("Name", bound=Hashable)


def matters(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a result can depend on a setting."""
    return not is_harmless(key, config)


def must_agree(mark: Mark) -> bool:
    """Whether runs must agree in a setting to be averaged.

    Partitions are compared by their hash, lengths by the iterations that were done, and options by their values, not
    their names.
    """
    return mark.affects not in ("nothing", "machine") and mark.role not in (
        "repetition",
        "length",
        "label",
        "extra",
    )


def grouped(items: Iterable[Item], name: Callable[[Item], Name]) -> dict[Name, list[Item]]:
    """Group items by their names, in the order in which the names first appear."""
    groups: dict[Name, list[Item]] = {}
    for item in items:
        groups.setdefault(name(item), []).append(item)
    return groups


def facts(record: RunRecord) -> Facts:
    """Return the values in which runs must agree to be averaged, by kind and key; those that are null are left out."""
    found: Facts = {kind: {} for kind in KINDS}
    for key, value in flatten(record.settings).items():
        mark = mark_of(key, record.settings)
        if value is not None and must_agree(mark):
            found[_kind(key, mark)][key] = _comparable(mark, value)
    counts = record.results.get("split_counts") or {}
    found["dataset"]["classes"] = list(record.results.get(record.names.by_class.key) or ())
    found["evaluator"] |= {
        "validation images": counts.get("val"),
        "test images": counts.get("test"),
        VALIDATION: short(record.validation_sha256()),
        MASKS: short(record.fingerprint.sha256("val") if record.fingerprint else None),
    }
    found["iterations"]["iterations"] = record.results.get("iterations")
    found["code"]["code"] = record.code
    return found


def facts_of(runs: Iterable[RunRecord]) -> dict[Path, Facts]:
    """Return the facts of runs by their path.

    Ids and masks of the validation images are left out of all where one run, such as one of an earlier version, does
    not have them.
    """
    found = {run.path: facts(run) for run in runs}
    for key in WHERE_KNOWN:
        if any(each["evaluator"][key] is None for each in found.values()):
            for each in found.values():
                each["evaluator"][key] = None
    return found


def short(digest: str | None) -> str | None:
    """Return the first digits of a hash, which are enough to distinguish two."""
    return digest and digest[:8]


def differences(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return keys whose values differ, with both values; ``None`` where one is missing."""
    keys = dict.fromkeys([*own, *other])
    return [(key, own.get(key), other.get(key)) for key in keys if own.get(key) != other.get(key)]


def spelled(unlike: Iterable[tuple[str, Any, Any]], whose: str = "") -> str:
    """Write differences in words, for example "iterations=50 (averaged: 100)"."""
    return first_few([f"{key}={shown(own)} ({whose}{shown(other)})" for key, own, other in unlike])


def first_few(words: Sequence[str]) -> str:
    """Join the first words and count the others."""
    more = len(words) - SHOWN_KEYS
    return ", ".join(words[:SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")


def measured_otherwise(runs: Sequence[RunRecord]) -> list[str]:
    """Return differing keys of data or evaluation, which make scores of runs incomparable."""
    found = list(facts_of(runs).values())
    known = dict.fromkeys((kind, key) for each in found for kind in MEASURE for key in each[kind])
    return [
        key for kind, key in known if any(each[kind].get(key) != found[0][kind].get(key) for each in found)
    ]


def not_comparable(own: RunRecord, base: RunRecord) -> list[str]:
    """Return differing keys of data, evaluation or network, which forbid a comparison with the baseline.

    A method that trains no network brings a decoder along, which is a part of the method.
    """
    keys = [key for key, *_ in differences(_reported_network(own), _reported_network(base))]
    if not (trains(own) and trains(base)):
        keys = [key for key in keys if key.partition(".")[0] != DECODER]
    return [*measured_otherwise((own, base)), *keys]


def _reported_network(run: RunRecord) -> dict[str, Any]:
    """Return the settings of the network whose scores a run reports, by dotted key."""
    config = config_of(run.settings, run.results.get("network"))
    marks = {key: mark_of(key, config) for key in flatten(config) if group_role(key) == "network"}
    values = {key: _comparable(marks[key], value) for key, value in flatten(config).items() if key in marks}
    return {key: value for key, value in values.items() if value is not None and must_agree(marks[key])}


def other_settings(own: RunRecord, base: RunRecord) -> list[tuple[str, Any, Any]]:
    """Return settings and lengths that differ from the baseline's, except those that belong to a method.

    A method that trains no network has no length.
    """
    (mine, theirs), trained = map(facts, (own, base)), all(map(trains, (own, base)))
    kinds = ("iterations", "settings") if trained else ("settings",)
    unlike = [each for kind in kinds for each in differences(mine[kind], theirs[kind])]
    return [
        each
        for each in unlike
        if not (of_method(each[0]) or mark_of(each[0], own.settings).role == "of method")
    ]


def trains(run: RunRecord) -> bool:
    """Whether a finished run has trained a network; one of a method without a training loop has made no step."""
    return run.results.get("iterations") != 0


def partition(run: RunRecord) -> tuple[Any, ...]:
    """Return the name of the labeled and the unlabeled images of a run."""
    return (run.option("dataset"), *(str(run.config.get(key)) for key in SPLIT_KEYS))


def pair_key(run: RunRecord) -> tuple[Any, ...]:
    """Return seed and labeled images, by which runs of two methods are paired."""
    return (run.seed, run.split_hash[0])


def usual_keys(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the keys that make a cell where none are given: method and split, of several datasets also these.

    The methods of a dataset and a split then follow each other, since scores of several datasets are not compared.
    """
    datasets = {record.option("dataset") for record in records if record.config}
    return (METHOD, "split") if len(datasets) < 2 else ("dataset", "split", METHOD)


def checked_keys(by: Sequence[str], records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the keys of ``--by`` once each.

    Args:
        by: Config groups such as "method", keys such as "split", dotted keys such as "optimizer.lr".
        records: Runs, of which each key must be in one at least.

    Raises:
        UserError: no key, or no run has one of that name.
    """
    known = dict.fromkeys([*GROUPS, *PLAIN])
    for record in records:
        known |= dict.fromkeys([*flatten(record.config), *other_parts(record.config)])
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
    """Suggest the nearest of the known words; empty where none is near."""
    near = nearest(word, known)
    return f" Did you mean {near}?" if near else ""


def cell_key(record: RunRecord, by: Sequence[str]) -> dict[str, str]:
    """Return the values of the keys in a run; empty where it left no config and its overrides lack some."""
    known = known_values(record, by)
    return known if len(known) == len(by) else {}


def known_values(record: RunRecord, keys: Sequence[str]) -> dict[str, str]:
    """Return the values of the keys in a run, in order; of a run that left no config those that were typed."""
    if record.config:
        return {key: _value(record, key) for key in keys}
    typed = dict(text.lstrip("+").split("=", 1) for text in record.overrides if "=" in text)
    return {key: typed[key] for key in keys if key in typed}


def of_method(key: str) -> bool:
    """Whether a key names the method, or a setting of it such as "method.weight"."""
    return key == METHOD or key.startswith(f"{METHOD}.")


def sort_rank(key: str, value: str, first: Sequence[str | None] = ()) -> tuple[Any, ...]:
    """Return the rank of a value of a key: these methods first, numbers and ratios by size, then names."""
    if key == METHOD:
        return (first.index(value) if value in first else len(first), 0.0, value)
    number = ratio(value)
    return (number is None, number or 0.0, value)


def ratio(text: str) -> float | None:
    """Return the number of a value such as "1/16", "732", "0.01" or "full"; "full" is larger than all."""
    if text == FULL:
        return float("inf")
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        return None


def _value(record: RunRecord, key: str) -> str:
    found = record.option(key) if key in GROUPS else flatten(record.config).get(key)
    if key in OTHER_PARTS:
        found = other_parts(record.config).get(key, {}).get("name")
    if isinstance(found, bool):
        return str(found).lower()
    return NONE if found is None else str(found)


def _kind(key: str, mark: Mark) -> str:
    group = key.partition(".")[0]
    return group if group in MEASURE else "split" if mark.affects == "data" else "settings"


def _comparable(mark: Mark, value: Any) -> Any:
    """Return a value by which runs are compared: of a file its name, since folders differ from machine to machine; of
    a run to start from, which may differ by seed, only that there is one.
    """
    if mark.role == "run":
        return "given"
    return PurePath(value).name if mark.role == "file" and isinstance(value, str) else value
