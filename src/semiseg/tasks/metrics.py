"""Scores of segmentation that follow from one confusion matrix over a whole set of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from semiseg.contracts.dataset import DatasetInfo
from semiseg.contracts.score_names import ABSENT, COUNTED, PREDICTED_PIXELS, TRUE_PIXELS
from semiseg.errors import UserError, listed, nearest
from semiseg.settings import EvaluatorSettings

Shares = list[float | None]
"""A score of each class, 0-1; ``None`` for a class without one."""

NEIGHBORS = 32
"""Pixels that are counted at once."""

MOST_COUNTERS = 2**16
"""Counters of a confusion matrix, where that leaves at least one for each cell."""


@dataclass(frozen=True)
class Metrics:
    """Scores of a confusion matrix; all shares are 0-1, NaN where nothing was counted.

    Args:
        totals: scores of all classes together by key: "miou", "mdice", "mprecision", "mrecall", "accuracy", "fwiou",
            the "foreground_..." ones, and those of further measurements.
        classes: scores of each class by key: "iou", "dice", "class_precision", "class_recall".
        confusion: pixels by true class (rows) and predicted class (columns).
        true_pixels: pixels of each true class, with or without a predicted class.
        counted: classes that the means are over.
        coverage: share of the pixels with a true class that have a predicted class; 1 for a network,
            less for pseudo-labels with pixels left out. The other values count covered pixels alone.
        primary_key: key of the total that networks are selected by.
        more: further plain values by key.
    """

    totals: Mapping[str, float]
    classes: Mapping[str, Shares]
    confusion: list[list[int]]
    true_pixels: list[int]
    counted: list[int]
    coverage: float
    primary_key: str = "miou"
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def primary(self) -> float:
        """The score that networks are selected by."""
        return self.totals[self.primary_key]

    @property
    def miou(self) -> float:
        """The mean IoU; see ``ConfusionMatrix`` for absent classes and rounding."""
        return self.totals["miou"]

    @property
    def iou(self) -> Shares:
        """TP / (TP + FP + FN) of each class; ``None`` for a class that is left out."""
        return self.classes["iou"]

    @property
    def accuracy(self) -> float:
        """Share of the counted pixels that are predicted right."""
        return self.totals["accuracy"]

    @property
    def absent(self) -> list[int]:
        """Classes without a true pixel, in the means or not."""
        return [label for label, pixels in enumerate(self.true_pixels) if not pixels]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint or a JSON file."""
        predicted = [sum(column) for column in zip(*self.confusion, strict=True)]
        return {
            **self.totals,
            **self.classes,
            TRUE_PIXELS.key: self.true_pixels,
            PREDICTED_PIXELS.key: predicted,
            COUNTED: self.counted,
            ABSENT: self.absent,
            "confusion": self.confusion,
            "coverage": self.coverage,
            **self.more,
        }

    def by_class(self, classes: Sequence[str]) -> dict[str, float | None]:
        """IoU by class name."""
        return dict(zip(classes, self.iou, strict=True))


class ConfusionMatrix:
    """Counts pixels by true and predicted class, on the device, in int64, without host synchronization.

    A pixel counts where its target is in ``[0, num_classes)`` and is not ``ignore_index``.

    Args:
        num_classes: number of classes K.
        absent: rule for the means: ``"true_only"`` leaves out classes without a true pixel, predicted or not;
            ``"skip"`` those in neither truth nor prediction (ST++, CPS); ``"zero"`` none, so that they count 0 (CAC).
        decimals: digits that the mean IoU is rounded to, as CAC does before it compares and logs; ``None`` keeps all.
        ignore_index: target value that is never counted.
        device: device of the counts, and of the tensors that ``update`` gets.
        primary: key of the score that networks are selected by.
        foreground: classes whose means are computed too.
    """

    def __init__(
        self,
        num_classes: int,
        absent: str = "skip",
        decimals: int | None = None,
        ignore_index: int = 255,
        device: torch.device | str = "cpu",
        *,
        primary: str = "miou",
        foreground: Sequence[int] = (),
    ) -> None:
        self.num_classes = num_classes
        self.absent = absent
        self.decimals = decimals
        self.ignore_index = ignore_index
        self.primary = primary
        self.foreground = foreground
        # One more row and column count values that are no class, so that no pixel has to be selected.
        cells = (num_classes + 1) ** 2
        # Neighbors are mostly of one cell. Each has a counter of its own there, so that a GPU adds them at once.
        counters = max(1, min(NEIGHBORS, MOST_COUNTERS // cells))
        self._counts = torch.zeros(cells, counters, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add pixels; both are integer tensors of one shape, values outside the classes mean "none"."""
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ")
        truth = self._bounded(target).masked_fill_(target == self.ignore_index, self.num_classes)
        cells = truth.mul_(self.num_classes + 1).add_(self._bounded(prediction)).flatten()
        counters, one = self._counts.shape[1], cells.new_ones(())
        whole = cells.numel() // counters * counters
        # Like bincount, which would wait for the device to learn the largest value.
        for rows in (cells[:whole].view(-1, counters), cells[whole:][None]):
            self._counts[:, : rows.shape[1]].scatter_add_(0, rows, one.expand(rows.shape))

    def _bounded(self, labels: Tensor) -> Tensor:
        result = labels.long()
        outside = (result < 0) | (result > self.num_classes)
        return result.masked_fill(outside, self.num_classes)

    def compute(self) -> Metrics:
        """Compute the scores of the pixels counted so far."""
        counts = self._counts.sum(1).view(self.num_classes + 1, -1).cpu()
        rows, matrix = counts[:-1], counts[:-1, :-1]
        true_pixels, covered, predicted, hits = (
            each.tolist() for each in (rows.sum(1), matrix.sum(1), matrix.sum(0), matrix.diagonal())
        )
        pixels, counted = sum(covered), self._counted(covered, predicted)
        told = counted if self.absent == "true_only" else range(self.num_classes)
        columns = list(zip(hits, covered, predicted, strict=True))

        def shares(part: int, whole: list[int]) -> Shares:
            """``part`` times the right pixels of each class as a share of a whole."""
            return [
                part * hit / size if size and label in told else None
                for label, (hit, size) in enumerate(zip(hits, whole, strict=True))
            ]

        classes = {
            "iou": shares(1, [truth + found - hit for hit, truth, found in columns]),
            "dice": shares(2, [truth + found for _, truth, found in columns]),
            # Of a class that is left out too, since it shows its false positives.
            "class_precision": [_or_none(hit, found) for hit, _, found in columns],
            "class_recall": [_or_none(hit, truth) for hit, truth, _ in columns],
        }
        totals = means(classes, counted, self.foreground)
        if self.decimals is not None:
            totals["miou"] = round(totals["miou"], self.decimals)
        weighted = (size * (share or 0) for size, share in zip(covered, classes["iou"], strict=True))
        totals |= {"accuracy": _share(sum(hits), pixels), "fwiou": _share(sum(weighted), pixels)}
        return Metrics(
            totals=totals,
            classes=classes,
            confusion=matrix.tolist(),
            true_pixels=true_pixels,
            counted=counted,
            coverage=_share(pixels, sum(true_pixels)),
            primary_key=self.primary,
        )

    def _counted(self, covered: list[int], predicted: list[int]) -> list[int]:
        """Classes that the means are over; none where no pixel was counted."""
        if self.absent == "zero":
            return list(range(self.num_classes)) if any(covered) else []
        both = zip(covered, predicted, strict=True)
        return [
            label for label, (truth, found) in enumerate(both) if truth or (found and self.absent == "skip")
        ]


def means(
    classes: Mapping[str, Shares], counted: Sequence[int], foreground: Sequence[int]
) -> dict[str, float]:
    """Return the means of scores of classes; a counted class without a score of its own counts 0.

    So does a class that is never predicted in the mean precision.

    Args:
        classes: scores of each class by key; a mean has the key with "m" before it, and without "class_".
        counted: classes that the means are over.
        foreground: classes whose means are wanted too, under "foreground_" and that key; those that are not counted
            are left out of these means too.
    """
    chosen = [label for label in foreground if label in counted]
    named = {key.removeprefix("class_"): shares for key, shares in classes.items()}
    found = {f"m{key}": _mean(shares, counted) for key, shares in named.items()}
    if foreground:
        found |= {f"foreground_{key}": _mean(shares, chosen) for key, shares in named.items()}
    return found


def foreground_labels(settings: EvaluatorSettings, info: DatasetInfo) -> tuple[int, ...]:
    """Return the label values of ``evaluator.foreground``.

    Raises:
        UserError: a name is no class of the dataset.
    """
    for name in settings.foreground:
        if name not in info.classes:
            near = nearest(name, info.classes)
            hint = f" Did you mean {near}?" if near else ""
            raise UserError(
                f"'{name}' is no class of dataset '{info.name}'.{hint} There are: {listed(info.classes)}.",
                key="evaluator.foreground",
                value=list(settings.foreground),
            )
    return tuple(dict.fromkeys(info.classes.index(name) for name in settings.foreground))


def _mean(shares: Shares, labels: Sequence[int]) -> float:
    return _share(sum(shares[label] or 0 for label in labels), len(labels))


def _share(part: float, whole: int) -> float:
    return part / whole if whole else float("nan")


def _or_none(part: int, whole: int) -> float | None:
    return part / whole if whole else None
