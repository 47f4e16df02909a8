"""What runs have to have in common before they are averaged: everything but the seed and the partition."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from semiseg.config.layers import flatten
from semiseg.config.marks import is_harmless
from semiseg.report.collect import RunRecord

KINDS = ("dataset", "evaluator", "split", "iterations", "code", "settings")
"""Kinds of facts in the order in which they are told."""

MEASURE = ("dataset", "evaluator")
"""Kinds in which runs have to agree for their scores to be comparable at all."""

FREE = frozenset(
    {
        "seed",
        "split_id",
        "split_lists",
        "dataset.root",
        "trainer.threads",
        "trainer.iterations",
        "trainer.epochs",
        "trainer.device",
        "evaluator.name",
        "evaluator.batch_size",
        "augment.name",
        "optimizer.name",
        "schedule.name",
    }
)
"""Keys that may differ: partitions are compared by their hash, lengths by the iterations that were done, and the
name of an option says nothing that its values do not."""

FILES = ("backbone.weights", "method.weights_a", "method.weights_b")
"""Files are compared by their name, since folders differ from machine to machine."""

STARTS = ("init_from", "init_sha256", "method.baseline")
"""Runs to start from belong to a seed each; whether there is one is what is compared."""

SPLIT = ("split", "split_family", "unlabeled", "val_subset")

VALIDATION = "ids of the validation images"

Facts = dict[str, dict[str, Any]]


def facts(record: RunRecord) -> Facts:
    """Return the facts of a finished run: kind, key, plain value; what is null is left out."""
    summary = record.summary or {}
    found: Facts = {kind: {} for kind in KINDS}
    for key, value in flatten(record.config).items():
        if value is not None and key not in FREE and not is_harmless(key, record.config):
            found[_kind(key)][key] = _comparable(key, value)
    counts = summary.get("split_counts") or {}
    found["dataset"]["classes"] = list(summary.get("iou") or ())
    found["evaluator"] |= {
        "validation images": counts.get("val"),
        "test images": counts.get("test"),
        VALIDATION: short(record.validation_sha256()),
    }
    found["iterations"]["iterations"] = summary.get("iterations")
    found["code"]["code"] = code_version(record)
    return found


def code_version(record: RunRecord) -> str:
    """Version, commit and a hash of uncommitted changes; of each process of a run that was resumed by another."""
    return ", then ".join(dict.fromkeys(map(_version, (record.env, *record.resumed))))


def short(digest: str | None) -> str | None:
    """The first digits of a hash, which are enough to tell two apart."""
    return digest and digest[:8]


def signature(found: Facts, kinds: tuple[str, ...]) -> str:
    """A text that is equal where the facts of these kinds are."""
    return json.dumps([found[kind] for kind in kinds], sort_keys=True, default=str)


def level(found: Iterable[Facts]) -> None:
    """Forget the validation ids of all runs where one does not know them, as without its folder ``stages``."""
    found = list(found)
    if any(each["evaluator"][VALIDATION] is None for each in found):
        for each in found:
            each["evaluator"][VALIDATION] = None


def differences(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Keys whose values differ, with both values; None where one is missing."""
    keys = dict.fromkeys([*own, *other])
    return [(key, own.get(key), other.get(key)) for key in keys if own.get(key) != other.get(key)]


def measured_otherwise(runs: Sequence[RunRecord]) -> list[str]:
    """Keys that keep the scores of runs from being comparable: what differs in data or evaluation."""
    found = [facts(run) for run in runs]
    level(found)
    known = dict.fromkeys((kind, key) for each in found for kind in MEASURE for key in each[kind])
    return [
        key for kind, key in known if any(each[kind].get(key) != found[0][kind].get(key) for each in found)
    ]


def _kind(key: str) -> str:
    if key in SPLIT:
        return "split"
    group = key.partition(".")[0]
    return group if group in ("dataset", "evaluator") else "settings"


def _comparable(key: str, value: Any) -> Any:
    if key in STARTS:
        return "given"
    return PurePath(value).name if key in FILES and isinstance(value, str) else value


def _version(env: Mapping[str, Any]) -> str:
    version = str((env.get("packages") or {}).get("semiseg", "unknown"))
    git = env.get("git")
    if not git:
        return version
    diff = str(git.get("diff") or "")
    changes = f"+{hashlib.sha256(diff.encode()).hexdigest()[:6]}" if diff else ""
    return f"{version} {str(git.get('commit'))[:8]}{changes}"
