"""Pseudo-labels of a batch and which of them are confident enough to be learned: settings and module for methods."""

from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn

from semiseg.declare import Ge, Le, record
from semiseg.pseudo import mixed, reversed_within


@record
class ConfidenceSettings:
    """Settings of confident pseudo-labels, for methods to inherit."""

    threshold: Annotated[float, Ge(0), Le(1)] = 0.95
    """Probability that a pixel's pseudo-label needs at least to be learned. Published: 0.95; UniMatch and CorrMatch on
    Cityscapes 0."""


class Guess(NamedTuple):
    """Pseudo-labels of a batch of unlabeled images, without gradient.

    Args:
        label: most probable class, ``(N, H, W) int64``.
        confidence: its probability, ``(N, H, W)``.
        keep: whether it is confident enough, ``(N, H, W) bool``.
        valid: False in padding, ``(N, H, W) bool``.
    """

    label: Tensor
    confidence: Tensor
    keep: Tensor
    valid: Tensor

    def mixed(self, other: "Guess", inside: Tensor) -> "Guess":
        """Take the partner's values inside of the boxes ``(N, H, W) bool``."""
        return Guess(*(mixed(a, b, inside) for a, b in zip(self, other, strict=True)))

    def reversed(self, groups: int = 1) -> "Guess":
        """Return the guess of the images in reversed order, within each of ``groups`` parts of the batch."""
        return Guess(*(reversed_within(values, groups) for values in self))

    def statistics(self) -> dict[str, Tensor]:
        """Scalars to log: share of the pixels, without padding, that are learned, and their mean confidence."""
        count = self.valid.sum().clamp_min(1)
        return {
            "unlabeled_used": (self.keep & self.valid).sum() / count,
            "unlabeled_confidence": (self.confidence * self.valid).sum() / count,
        }


class PseudoLabeler(nn.Module):
    """The rule by which logits become pseudo-labels; what it learns of the data are buffers of the learner.

    Args:
        settings: threshold and its rule.
        num_classes: number of classes K.
    """

    def __init__(self, settings: ConfidenceSettings, num_classes: int) -> None:
        super().__init__()
        self.settings = settings
        self.num_classes = num_classes

    @torch.no_grad()
    def forward(self, logits: Tensor, valid: Tensor, learn: bool = True) -> Guess:
        """Label a batch.

        Args:
            logits: logits ``(N, K, H, W)``, floating point.
            valid: ``(N, H, W) bool``, False in padding.
            learn: whether statistics of the data may be updated by this batch; partners of CutMix, which are labeled
                in addition, do not count.
        """
        if logits.dtype != torch.float64:
            logits = logits.float()
        confidence, label = logits.softmax(1).max(1)
        # Published code of UniMatch: the threshold itself is confident enough.
        return Guess(label, confidence, confidence >= self.settings.threshold, valid)
