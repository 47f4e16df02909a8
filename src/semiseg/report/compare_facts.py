"""What differs between two runs: settings, environment, results, classes; from their files alone."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from semiseg.config.marks import is_harmless
from semiseg.report.collect import RunRecord, number
from semiseg.report.facts import differences

IDENTITY = frozenset({"name", "run_dir", "sweep_dir"})
RESULTS = (
    "miou",
    "miou_best",
    "miou_last",
    "miou_test",
    "accuracy",
    "best_iteration",
    "iterations",
    "split_fraction",
    "train_images_per_s",
    "wall_s",
)
"""Numbers of ``summary.json`` that are set side by side."""


@dataclass(frozen=True)
class Difference:
    """A value that two runs do not share.

    Args:
        key: dotted name.
        a: value of the first run; None where it has none.
        b: value of the second.
        matters: whether a result can depend on it.
    """

    key: str
    a: Any
    b: Any
    matters: bool = True


@dataclass(frozen=True)
class Pair:
    """A number of both runs.

    Args:
        name: what was measured, or the class.
        a: of the first run; None where it has none. IoU and accuracy are shares, 0-1.
        b: of the second.
    """

    name: str
    a: float | None
    b: float | None

    @property
    def change(self) -> float | None:
        """The second less the first."""
        return None if self.a is None or self.b is None else self.b - self.a


@dataclass(frozen=True)
class Comparison:
    """What the files of two runs say about them.

    Args:
        a: the first run.
        b: the second run.
        cautions: why the numbers do not tell which is better, a sentence each.
        config: settings that differ, those that cannot change a result last.
        environment: versions, devices, threads and code states that differ.
        results: the numbers of both summaries.
        classes: IoU on the validation images by class.
        classes_test: IoU on the test images by class; empty where there are none.
    """

    a: RunRecord
    b: RunRecord
    cautions: list[str]
    config: list[Difference]
    environment: list[Difference]
    results: list[Pair]
    classes: list[Pair]
    classes_test: list[Pair]


def compare(a: RunRecord, b: RunRecord) -> Comparison:
    """Compare two runs by their files, whatever state they are in."""
    return Comparison(
        a,
        b,
        cautions(a, b),
        config_differences(a, b),
        _differences(_environment(a), _environment(b)),
        results(a, b),
        by_class(a, b, "iou"),
        by_class(a, b, "iou_test"),
    )


def config_differences(a: RunRecord, b: RunRecord) -> list[Difference]:
    """Settings that differ, those that cannot change a result last; where the runs lie is left out."""
    before, after = (dict(_leaves(run.config)) for run in (a, b))
    found = [
        Difference(
            each.key,
            each.a,
            each.b,
            not (is_harmless(each.key, a.config) and is_harmless(each.key, b.config)),
        )
        for each in _differences(before, after)
        if each.key not in IDENTITY
    ]
    named = {each.key.removesuffix(".name") for each in found if each.key.endswith(".name")}
    # Another option is another class: its name says so already.
    found = [each for each in found if each.key.removesuffix("._target_") not in named]
    return sorted(found, key=lambda each: not each.matters)


def results(a: RunRecord, b: RunRecord) -> list[Pair]:
    """The numbers of both summaries; those that neither has are left out."""
    pairs = [Pair(key, number(a.summary or {}, key), number(b.summary or {}, key)) for key in RESULTS]
    return [pair for pair in pairs if (pair.a, pair.b) != (None, None)]


def by_class(a: RunRecord, b: RunRecord, key: str) -> list[Pair]:
    """IoU of each class of either run, in the order of the first.

    Args:
        a: the first run.
        b: the second run.
        key: "iou" for the validation images, "iou_test" for the test images.
    """
    first, second = ((run.summary or {}).get(key) or {} for run in (a, b))
    names = dict.fromkeys([*first, *second])
    return [Pair(name, number(first, name), number(second, name)) for name in names]


def cautions(a: RunRecord, b: RunRecord) -> list[str]:
    """Say why the numbers of two runs do not tell which is better, each reason in one sentence."""
    found = [f"{run.path} has not finished ({run.state})." for run in (a, b) if run.summary is None]
    first, second = a.summary or {}, b.summary or {}
    if _dataset(a) != _dataset(b):
        found.append(f"Other datasets: {_dataset(a)} and {_dataset(b)}.")
    evaluators = [_evaluator(run) for run in (a, b)]
    if keys := [each.key for each in _differences(*evaluators) if each.key not in ("name", "batch_size")]:
        found.append(f"Evaluated in other ways: evaluator.{', evaluator.'.join(keys)}.")
    if not (first and second):
        return found
    hashes = [summary.get("split_sha256") or {} for summary in (first, second)]
    for kind in ("labeled", "unlabeled"):
        if hashes[0].get(kind) != hashes[1].get(kind):
            found.append(f"Trained on other {kind} images: {_split(first)} and {_split(second)}.")
    if a.validation_sha256() != b.validation_sha256():
        found.append("Selected on other validation images.")
    if first.get("iterations") != second.get("iterations"):
        found.append(
            f"Trained for other lengths: {first.get('iterations')} and {second.get('iterations')} iterations."
        )
    return found


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values at any depth; a list of plain values is one value."""
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list) and any(isinstance(item, Mapping) for item in node):
        for index, item in enumerate(node):
            yield from _leaves(item, f"{key}[{index}]")
    else:
        yield key, node


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    return [Difference(*each) for each in differences(a, b)]


def _environment(run: RunRecord) -> dict[str, Any]:
    known = {key: value for key, value in run.env.items() if key not in ("git", "command")}
    git = run.env.get("git") or {}
    code = {"git.commit": git.get("commit"), "git.uncommitted": _digest(git.get("diff"))}
    return dict(_leaves(known)) | code


def _digest(diff: str | None) -> str | None:
    """Tell changes apart without showing them."""
    if diff is None:
        return None
    return f"changes {hashlib.sha256(diff.encode()).hexdigest()[:8]}" if diff else "none"


def _dataset(run: RunRecord) -> Any:
    return (run.config.get("dataset") or {}).get("name")


def _evaluator(run: RunRecord) -> Mapping[str, Any]:
    """How the run evaluates; a run that has not finished says so in its config."""
    return (run.summary or {}).get("evaluator") or run.config.get("evaluator") or {}


def _split(summary: Mapping[str, Any]) -> str:
    return f"split {summary.get('split')} {summary.get('split_family')} {summary.get('split_id')}"
