"""Mean IoU, IoU of each class and pixel accuracy, from one confusion matrix over a whole set of images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Metrics:
    """Scores of a confusion matrix; all shares are 0-1, NaN where nothing was counted.

    Args:
        miou: mean IoU over the classes (see ``ConfusionMatrix`` for absent ones and rounding).
        iou: TP / (TP + FP + FN) of each class; ``None`` for a class in neither truth nor prediction.
        accuracy: share of the counted pixels that are predicted right.
        confusion: pixels by true class (rows) and predicted class (columns).
        coverage: share of the pixels with a true class that have a predicted class; 1 for a network,
            less for pseudo-labels with pixels left out. The other values count covered pixels alone.
    """

    miou: float
    iou: list[float | None]
    accuracy: float
    confusion: list[list[int]]
    coverage: float

    @property
    def primary(self) -> float:
        """The mean IoU."""
        return self.miou

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint or a JSON file."""
        return asdict(self)

    def by_class(self, classes: Sequence[str]) -> dict[str, float | None]:
        """IoU by class name."""
        return dict(zip(classes, self.iou, strict=True))


class ConfusionMatrix:
    """Counts pixels by true and predicted class, on the device, in int64, without host synchronization.

    A pixel counts where its target is in ``[0, num_classes)`` and is not ``ignore_index``.

    Args:
        num_classes: number of classes K.
        absent: rule for a class in neither truth nor prediction: ``"skip"`` leaves it out of the mean (ST++, CPS),
            ``"zero"`` counts it as 0 (CAC).
        decimals: digits that the mean IoU is rounded to, as CAC does before it compares and logs; ``None`` keeps all.
        ignore_index: target value that is never counted.
        device: device of the counts, and of the tensors that ``update`` gets.
    """

    def __init__(
        self,
        num_classes: int,
        absent: str = "skip",
        decimals: int | None = None,
        ignore_index: int = 255,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_classes = num_classes
        self.absent = absent
        self.decimals = decimals
        self.ignore_index = ignore_index
        # One more row and column count values that are no class, so that no pixel has to be selected.
        self._counts = torch.zeros((num_classes + 1) ** 2, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add pixels; both are integer tensors of one shape, values outside the classes mean "none"."""
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ")
        truth = self._bounded(target).masked_fill_(target == self.ignore_index, self.num_classes)
        cells = truth.mul_(self.num_classes + 1).add_(self._bounded(prediction)).flatten()
        # Like bincount, which would wait for the device to learn the largest value.
        self._counts.scatter_add_(0, cells, cells.new_ones(()).expand(cells.numel()))

    def _bounded(self, labels: Tensor) -> Tensor:
        result = labels.long()
        outside = (result < 0) | (result > self.num_classes)
        return result.masked_fill(outside, self.num_classes)

    def compute(self) -> Metrics:
        """Compute the scores of the pixels counted so far."""
        counts = self._counts.view(self.num_classes + 1, -1).cpu()
        rows, matrix = counts[:-1], counts[:-1, :-1]
        hits = matrix.diagonal()
        union = matrix.sum(0) + matrix.sum(1) - hits
        iou = [int(hit) / int(whole) if whole else None for hit, whole in zip(hits, union, strict=True)]
        present = [value for value in iou if value is not None]
        classes = self.num_classes if self.absent == "zero" and present else len(present)
        miou = _share(sum(present), classes)
        return Metrics(
            miou=miou if self.decimals is None else round(miou, self.decimals),
            iou=iou,
            accuracy=_share(int(hits.sum()), int(matrix.sum())),
            confusion=matrix.tolist(),
            coverage=_share(int(matrix.sum()), int(rows.sum())),
        )


def _share(part: float, whole: int) -> float:
    return part / whole if whole else float("nan")
