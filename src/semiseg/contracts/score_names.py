"""Names of the scores of a task, in the files of a run and for people; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from semiseg.settings import EvaluatorSettings

ABSENT, COUNTED, RELIABILITY = "absent_classes", "counted_classes", "reliability"
"""Keys of scores: classes without a true pixel, classes that the means are over, bins of the calibration."""


@dataclass(frozen=True)
class MetricName:
    """Names of one score: a share from 0 to 1; of those that are selected by, higher is better.

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
        secondary_by_class: further scores of each class.
        pixel_counts: numbers of pixels of each class.
    """

    primary: MetricName
    by_class: MetricName
    secondary: tuple[MetricName, ...] = ()
    secondary_by_class: tuple[MetricName, ...] = ()
    pixel_counts: tuple[MetricName, ...] = ()

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> ScoreNames:
        """Read the names that a ``summary.json`` gives; runs that give none are of segmentation."""
        if "primary" not in summary:
            return MEAN_IOU
        primary, by_class = (MetricName(**summary[kind]) for kind in ("primary", "by_class"))
        # Earlier versions had one score of each class, and no counts.
        more = (summary.get(kind, ()) for kind in ("secondary", "secondary_by_class", "pixel_counts"))
        return cls(primary, by_class, *(tuple(MetricName(**each) for each in names) for names in more))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for ``summary.json``."""
        return asdict(self)

    @property
    def totals(self) -> tuple[MetricName, ...]:
        """Scores of all classes together, the primary one first."""
        return (self.primary, *self.secondary)

    @property
    def of_each_class(self) -> tuple[MetricName, ...]:
        """Scores of each class, the one that belongs to the primary score first."""
        return (self.by_class, *self.secondary_by_class)

    def value(self, scores: Mapping[str, Any] | None) -> float | None:
        """Return the primary score among stored ones; ``None`` where it was not measured."""
        return None if scores is None else scores.get(self.primary.key)

    def of_classes(self, scores: Mapping[str, Any] | None, classes: Sequence[str]) -> dict[str, float | None]:
        """Return the scores of the classes by their names; empty where they were not measured."""
        found = None if scores is None else scores.get(self.by_class.key)
        return {} if found is None else dict(zip(classes, found, strict=True))

    def summarized(self, scores: Mapping[str, Any] | None, classes: Sequence[str]) -> dict[str, Any]:
        """Return scores as ``summary.json`` and the results of ``eval`` hold them: those of classes by class name.

        Args:
            scores: plain values of ``Scores.as_dict``, perhaps of an earlier version that measured less; ``None``
                where nothing was measured.
            classes: names of the classes.
        """
        if scores is None:
            return {self.by_class.key: {}, **{each.key: None for each in self.totals}}
        tables = (*self.of_each_class, *self.pixel_counts)
        return {
            **{each.key: scores.get(each.key) for each in self.totals},
            **{
                each.key: dict(zip(classes, scores[each.key], strict=True))
                for each in tables
                if each.key in scores
            },
            **{key: [classes[label] for label in scores[key]] for key in (ABSENT, COUNTED) if key in scores},
            **({RELIABILITY: scores[RELIABILITY]} if RELIABILITY in scores else {}),
        }

    def logged(
        self, prefix: str, scores: Mapping[str, Any], classes: Sequence[str] | None = None
    ) -> dict[str, float | None]:
        """Return scores under the keys that trackers use.

        Args:
            prefix: source of the scores: "val" or "pseudo".
            scores: plain values of ``Scores.as_dict``; totals that were not measured are left out.
            classes: names of the classes; ``None`` leaves their scores out.
        """
        values: dict[str, float | None] = {
            f"{prefix}/{each.key}": scores[each.key] for each in self.totals if each.key in scores
        }
        found = {} if classes is None else self.of_classes(scores, classes)
        return values | {f"{prefix}/{self.by_class.key}/{name}": value for name, value in found.items()}


IOU = MetricName("iou", "IoU")
DICE = MetricName("dice", "Dice")
PRECISION = MetricName("class_precision", "precision")
RECALL = MetricName("class_recall", "recall")
BOUNDARY_IOU = MetricName("boundary_iou", "boundary IoU")

TOTALS: Mapping[str, tuple[MetricName, MetricName]] = {
    total.key: (total, of_class)
    for total, of_class in (
        (MetricName("miou", "mIoU"), IOU),
        (MetricName("mdice", "mean Dice"), DICE),
        (MetricName("mprecision", "mean precision"), PRECISION),
        (MetricName("mrecall", "mean recall"), RECALL),
        (MetricName("accuracy", "pixel accuracy"), IOU),
        (MetricName("fwiou", "frequency-weighted IoU"), IOU),
        (MetricName("mboundary_iou", "mean boundary IoU"), BOUNDARY_IOU),
        (MetricName("foreground_iou", "foreground IoU"), IOU),
        (MetricName("foreground_dice", "foreground Dice"), DICE),
        (MetricName("foreground_precision", "foreground precision"), PRECISION),
        (MetricName("foreground_recall", "foreground recall"), RECALL),
        (MetricName("foreground_boundary_iou", "foreground boundary IoU"), BOUNDARY_IOU),
    )
}
"""Scores of segmentation that may be selected by, each with the score of a class that it belongs to."""

ECE = MetricName("ece", "calibration error (ECE)")
TRUE_PIXELS = MetricName("true_pixels", "true")
PREDICTED_PIXELS = MetricName("predicted_pixels", "predicted")


def segmentation_scores(settings: EvaluatorSettings) -> ScoreNames:
    """Name the scores that an evaluation of segmentation gives under some settings."""
    outline = "boundary_iou" in settings.metrics
    measured = [
        (total, of_class)
        for key, (total, of_class) in TOTALS.items()
        if (outline or of_class is not BOUNDARY_IOU)
        and (settings.foreground or not key.startswith("foreground"))
    ]
    primary, by_class = TOTALS[settings.primary]
    secondary = [total for total, _ in measured if total != primary]
    tables = dict.fromkeys(of_class for _, of_class in measured if of_class != by_class)
    if "calibration" in settings.metrics:
        secondary.append(ECE)
    return ScoreNames(primary, by_class, tuple(secondary), tuple(tables), (TRUE_PIXELS, PREDICTED_PIXELS))


MEAN_IOU = ScoreNames(
    MetricName("miou", "mIoU"), MetricName("iou", "IoU"), (MetricName("accuracy", "pixel accuracy"),)
)
"""Scores of a run of segmentation that names none, as the first version did not."""


def absent_remark(
    summary: Mapping[str, Any], names: ScoreNames, images: str = "validation", suffix: str = ""
) -> str | None:
    """Say which classes no mask held, and over how many the mean is; ``None`` where every class was there.

    Args:
        summary: content of ``summary.json``, or a result of ``eval``.
        names: names of its scores.
        images: kind of images, for the sentence.
        suffix: end of the keys: "_test" for the test images.
    """
    absent = summary.get(ABSENT + suffix) or []
    if not absent:
        return None
    counted, total = summary.get(COUNTED + suffix) or [], len(summary[names.by_class.key + suffix])
    text = f"no {images} image holds {', '.join(absent)}: "
    text += f"{names.primary.name} is over {len(counted)} of {total} classes"
    if zero := [name for name in absent if name in counted]:
        text += f" and counts {', '.join(zero)} as 0"
    return text
