"""A threshold of confidence that follows what a network is sure of while it learns (CorrMatch)."""

import torch
from torch import Tensor, nn

from semiseg.distributed import over_ranks
from semiseg.pseudo import class_peaks


class MovingThreshold(nn.Module):
    """A threshold that follows the confidence of predictions, as a buffer: a checkpoint holds it.

    Args:
        start: threshold before the first step.
        momentum: share that a step keeps; 1 for a fixed threshold.
    """

    value: Tensor

    def __init__(self, start: float, momentum: float) -> None:
        super().__init__()
        # In float64: a step may move it by less than what float32 tells apart at 1.
        self.register_buffer("value", torch.tensor(start, dtype=torch.float64))
        self.momentum = momentum

    @torch.no_grad()
    def forward(self, confidence: Tensor, label: Tensor, counted: Tensor, num_classes: int) -> Tensor:
        """Move it to the mean, over predicted classes, of their largest confidence, and return it.

        Args:
            confidence: ``(N, H, W)``, above 0.
            label: predicted classes ``(N, H, W) int64``.
            counted: ``(N, H, W) bool``, pixels that count; without any the threshold stays.
            num_classes: number of classes K.
        """
        # Published code: util/thresh_helper.py; over the images of all ranks.
        peaks = over_ranks(class_peaks(confidence, label, counted, num_classes)[None]).amax(0)
        classes = (peaks > 0).sum()
        moved = self.momentum * self.value + (1 - self.momentum) * peaks.sum() / classes
        self.value.copy_(torch.where(classes > 0, moved, self.value))
        return self.value
