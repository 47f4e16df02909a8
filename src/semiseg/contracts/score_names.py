"""Names of the scores of a task, in the files of a run and for people; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class MetricName:
    """Names of one score: a share from 0 to 1, higher is better.

    Args:
        key: key of the score in the files of a run, such as "miou".
        name: name of the score for people, such as "mIoU".
    """

    key: str
    name: str

    @property
    def best(self) -> str:
        """Key in ``summary.json`` of the score of the best network."""
        return f"{self.key}_best"

    @property
    def last(self) -> str:
        """Key in ``summary.json`` of the score of the last network."""
        return f"{self.key}_last"

    @property
    def test(self) -> str:
        """Key in ``summary.json`` of the score on the test images."""
        return f"{self.key}_test"


@dataclass(frozen=True)
class ScoreNames:
    """Names of all scores of a task.

    Args:
        primary: score that networks are selected and compared by.
        by_class: score of each class by itself.
        secondary: further scores of all classes together.
    """

    primary: MetricName
    by_class: MetricName
    secondary: tuple[MetricName, ...] = ()

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> ScoreNames:
        """Read the names that a ``summary.json`` gives; runs that give none are of segmentation."""
        if "primary" not in summary:
            return MEAN_IOU
        primary, by_class = (MetricName(**summary[kind]) for kind in ("primary", "by_class"))
        return cls(primary, by_class, tuple(MetricName(**each) for each in summary["secondary"]))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for ``summary.json``."""
        return asdict(self)

    @property
    def totals(self) -> tuple[MetricName, ...]:
        """Scores of all classes together, the primary one first."""
        return (self.primary, *self.secondary)

    def value(self, scores: Mapping[str, Any] | None) -> float | None:
        """Return the primary score among stored ones; ``None`` where nothing was measured."""
        return None if scores is None else scores[self.primary.key]

    def of_classes(self, scores: Mapping[str, Any] | None, classes: Sequence[str]) -> dict[str, float | None]:
        """Return the scores of the classes by their names; empty where nothing was measured."""
        return {} if scores is None else dict(zip(classes, scores[self.by_class.key], strict=True))

    def logged(
        self, prefix: str, scores: Mapping[str, Any], classes: Sequence[str] | None = None
    ) -> dict[str, float | None]:
        """Return scores under the keys that trackers use.

        Args:
            prefix: source of the scores: "val" or "pseudo".
            scores: plain values of ``Scores.as_dict``.
            classes: names of the classes; ``None`` leaves their scores out.
        """
        values: dict[str, float | None] = {f"{prefix}/{each.key}": scores[each.key] for each in self.totals}
        found = {} if classes is None else self.of_classes(scores, classes)
        return values | {f"{prefix}/{self.by_class.key}/{name}": value for name, value in found.items()}


MEAN_IOU = ScoreNames(
    MetricName("miou", "mIoU"), MetricName("iou", "IoU"), (MetricName("accuracy", "pixel accuracy"),)
)
"""Scores of segmentation."""
