"""Numbers of a run over its iterations, from ``metrics.jsonl``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semiseg.report.collect import RunRecord, number

Record = Mapping[str, Any]
COVERAGE = ("train/unlabeled_used", "train/pseudo_used")
STORED = "pseudo/coverage"


@dataclass(frozen=True)
class Curve:
    """One quantity of one run.

    Args:
        stages: name of the recipe's step of each point.
        iterations: optimizer steps done in the whole run.
        values: as logged.
        joined: whether points of one stage follow each other; else each stands for itself.
    """

    stages: tuple[str, ...]
    iterations: tuple[int, ...]
    values: tuple[float, ...]
    joined: bool = True

    def __bool__(self) -> bool:
        return bool(self.values)


@dataclass(frozen=True)
class RunCurves:
    """What is drawn of a run.

    Args:
        miou: on the validation images, at each evaluation.
        coverage: share of pixels of unlabeled images that are learned from: of stored pseudo-labels where the
            method stores them, else as logged in training.
        accuracy: share of correct pixels: among those that stored pseudo-labels cover, else of what the
            network says about all pixels of unlabeled images. Empty for methods that learn from no unlabeled
            image, or without masks to compare with.
    """

    miou: Curve
    coverage: Curve
    accuracy: Curve


def curves(run: RunRecord) -> RunCurves:
    """Read the curves of a run; those that it did not log are empty."""
    records = run.metrics()
    miou = _curve(records, "val/miou")
    stored = [record for record in records if number(record, STORED) is not None]
    if stored:
        return RunCurves(
            miou, _curve(stored, STORED, joined=False), _curve(stored, "pseudo/accuracy", joined=False)
        )
    coverage = next(filter(None, (_curve(records, key) for key in COVERAGE)), Curve((), (), ()))
    accuracy = _curve(records, "pseudo/accuracy") if coverage else Curve((), (), ())
    return RunCurves(miou, coverage, accuracy)


def mean_curve(parts: Sequence[Curve]) -> Curve:
    """Average curves point by point; points that not all of them have are left out."""
    if not parts:
        return Curve((), (), ())
    tables = [
        dict(zip(zip(part.stages, part.iterations, strict=True), part.values, strict=True)) for part in parts
    ]
    shared = [point for point in tables[0] if all(point in table for table in tables)]
    means = tuple(sum(table[point] for table in tables) / len(tables) for point in shared)
    return Curve(
        tuple(stage for stage, _ in shared), tuple(step for _, step in shared), means, parts[0].joined
    )


def _curve(records: Iterable[Record], key: str, joined: bool = True) -> Curve:
    points = [
        (str(record.get("stage")), int(number(record, "iteration") or 0), value)
        for record in records
        if (value := number(record, key)) is not None
    ]
    stages, iterations, values = zip(*points, strict=True) if points else ((), (), ())
    return Curve(stages, iterations, values, joined)
