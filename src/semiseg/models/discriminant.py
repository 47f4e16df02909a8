"""A linear discriminant of features, from sums over labeled pixels: a classifier without training."""

from typing import NamedTuple

import torch
from torch import Tensor

ABSENT_LOGIT = -20.0
"""Logit of a class without a labeled pixel: far below those of all others, and still one that training can raise."""

RIDGE = 1e-6
"""Share of the mean variance that is added to each variance, so that constant channels do no harm."""


class Discriminant(NamedTuple):
    """Linear classifier ``logits = features @ weight.T + bias``.

    Args:
        weight: ``(K, D) float64``; 0 for classes without a labeled pixel.
        bias: ``(K,) float64``; ``ABSENT_LOGIT`` for such classes.
    """

    weight: Tensor
    bias: Tensor


class ClassMoments:
    """Sums of features by class, from which a linear discriminant is solved.

    Args:
        num_classes: number of classes K.
        origin: point ``(D,)`` near the features, which the sums are taken around, so that they keep their digits where
            means are far from 0.
    """

    def __init__(self, num_classes: int, origin: Tensor) -> None:
        self.num_classes = num_classes
        self.origin = origin.float()
        channels = len(origin)
        self.products = torch.zeros(channels, channels, dtype=torch.float64)
        self.sums = torch.zeros(num_classes, channels, dtype=torch.float64)
        self.counts = torch.zeros(num_classes, dtype=torch.float64)

    def add(self, features: Tensor, labels: Tensor, weight: float = 1.0) -> None:
        """Add labeled pixels.

        Args:
            features: ``(P, D)``, floating point.
            labels: ``(P,) int64``; those that are no class, such as 255, do not count.
            weight: number of times that each pixel counts.
        """
        counted = (labels >= 0) & (labels < self.num_classes)
        features, labels = features[counted].float() - self.origin, labels[counted]
        classes = torch.nn.functional.one_hot(labels, self.num_classes).to(features.dtype)
        self.products += weight * (features.T @ features).cpu().double()
        self.sums += weight * (classes.T @ features).cpu().double()
        self.counts += weight * classes.sum(0).cpu().double()

    def merge(self, other: "ClassMoments", sign: int = 1) -> "ClassMoments":
        """Add the sums of other pixels around the same origin, or take them away with ``sign=-1``; return itself."""
        self.products += sign * other.products
        self.sums += sign * other.sums
        self.counts += sign * other.counts
        return self

    @property
    def present(self) -> Tensor:
        """Whether each class has pixels, ``(K,) bool``."""
        return self.counts > 1e-6  # what is left of weights that were taken away again is no pixel

    def solve(self, shrinkage: float) -> Discriminant:
        """Return the discriminant of the classes that have pixels (Fisher; equal covariances, priors as counted).

        Logits are centered: they sum to 0 over the present classes.

        Args:
            shrinkage: share by which covariances between channels are reduced; 1 leaves the variances alone.

        Raises:
            ValueError: no pixel is labeled.
        """
        present = self.present
        total = self.counts.sum()
        if not present.any():
            raise ValueError("no labeled pixel")
        counts = self.counts[present]
        means = self.sums[present] / counts[:, None]
        within = (self.products - (means.T * counts) @ means) / total
        variances = within.diagonal().clamp_min(0)
        ridge = RIDGE * variances.mean().clamp_min(torch.finfo(torch.float32).tiny)
        within = (1 - shrinkage) * within + torch.diag(shrinkage * variances + ridge)
        directions = torch.linalg.solve(within, means.T).T
        bias = -0.5 * (means * directions).sum(1) + (counts / total).log()
        directions, bias = directions - directions.mean(0), bias - bias.mean()
        weight = torch.zeros(self.num_classes, len(self.origin), dtype=torch.float64)
        offset = torch.full((self.num_classes,), ABSENT_LOGIT, dtype=torch.float64)
        weight[present] = directions
        offset[present] = bias - directions @ self.origin.cpu().double()
        return Discriminant(weight, offset)
