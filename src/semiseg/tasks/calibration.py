"""Calibration of the confidence (Guo et al., On Calibration of Modern Neural Networks, ICML 2017)."""

from typing import Any

import torch
from torch import Tensor

SCALE = 2**24
"""Confidence is added up in whole numbers of this unit, so that no order of additions changes a sum."""


class CalibrationBins:
    """Counts pixels by confidence, on the device, without host synchronization.

    Bin m of M holds confidences above (m - 1) / M and at most m / M, that is the probability of the predicted class.
    A pixel counts where its target is in ``[0, num_classes)`` and is not ``ignore_index``.

    Args:
        num_classes: number of classes.
        bins: number of bins.
        ignore_index: target value that is never counted.
        device: device of the counts, and of the tensors that ``update`` gets.
    """

    def __init__(self, num_classes: int, bins: int, ignore_index: int, device: torch.device | str) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self._edges = torch.arange(1, bins, dtype=torch.float64, device=device) / bins
        # One more for pixels that do not count.
        self._counts = torch.zeros(3, bins + 1, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, confidence: Tensor, target: Tensor) -> None:
        """Add pixels: predicted classes, their probabilities and the truth, all of one shape."""
        void = (target < 0) | (target >= self.num_classes) | (target == self.ignore_index)
        bins = torch.bucketize(confidence.double(), self._edges).masked_fill(void, self._counts.shape[1] - 1)
        values = (
            torch.ones_like(bins),
            (confidence.double() * SCALE).round().long(),
            (prediction == target).long(),
        )
        for row, each in zip(self._counts, values, strict=True):
            row.scatter_add_(0, bins.flatten(), each.flatten())

    def compute(self) -> tuple[float, list[dict[str, Any]]]:
        """Return the expected calibration error and the reliability curve.

        The error is the mean of |accuracy - confidence| over the bins, weighted by their pixels; NaN without pixels.
        The curve has for each bin its number of pixels, and their mean confidence and accuracy, ``None`` without any.
        """
        pixels, sums, hits = self._counts[:, :-1].tolist()
        curve = [
            {
                "pixels": count,
                "confidence": total / SCALE / count if count else None,
                "accuracy": right / count if count else None,
            }
            for count, total, right in zip(pixels, sums, hits, strict=True)
        ]
        gaps = (abs(right - total / SCALE) for total, right in zip(sums, hits, strict=True))
        whole = sum(pixels)
        return sum(gaps) / whole if whole else float("nan"), curve
