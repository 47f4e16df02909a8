"""A linear discriminant of features, from sums over labeled pixels: a classifier without training."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ABSENT_LOGIT = -20.0
"""Logit of a class without a labeled pixel. The largest of centered logits is never below 0, so that it is not
predicted, and training can still raise it."""

RIDGE = 1e-6
"""Share of the mean variance that is added to each variance, so that constant channels do no harm. That is at least
the same share of the variance between classes, which may be all that there is."""

BLOCK = 4096
"""Pixels that are multiplied at once, which bounds the memory of a large image."""

STRIP = 512
"""Rows of the matrix of products that are computed at once, up to its diagonal: it is symmetric."""


class Discriminant(NamedTuple):
    """Linear classifier ``logits = features @ weight.T + bias``.

    Args:
        weight: ``(K, D) float64``; 0 for classes without a labeled pixel.
        bias: ``(K,) float64``; ``ABSENT_LOGIT`` for such classes.
    """

    weight: Tensor
    bias: Tensor


class ClassMoments:
    """Sums of features by class, in float64 on the device of the features, from which a discriminant is solved.

    Args:
        num_classes: number of classes K.
        origin: point ``(D,)`` near the features, on their device, which the sums are taken around, so that they keep
            their digits where means are far from 0.
    """

    def __init__(self, num_classes: int, origin: Tensor) -> None:
        self.num_classes = num_classes
        self.origin = origin.double()
        self.products = self.origin.new_zeros(len(origin), len(origin))
        self.sums = self.origin.new_zeros(num_classes, len(origin))
        self.counts = self.origin.new_zeros(num_classes)

    @property
    def present(self) -> Tensor:
        """Whether each class has pixels, ``(K,) bool``."""
        return self.counts > 0

    def add(self, features: Tensor, labels: Tensor, weight: float = 1.0) -> None:
        """Add labeled pixels.

        Args:
            features: ``(P, D)``, floating point.
            labels: ``(P,) int64`` on the same device; those that are no class, such as 255, do not count.
            weight: number of times that each pixel counts.
        """
        counted = (labels >= 0) & (labels < self.num_classes)
        features, labels = features[counted], labels[counted]
        for part, part_labels in zip(torch.split(features, BLOCK), torch.split(labels, BLOCK), strict=True):
            moved = part.double() - self.origin
            classes = weight * F.one_hot(part_labels, self.num_classes).double()
            for start in range(0, moved.shape[1], STRIP):
                stop = start + STRIP
                self.products[start:stop, :stop] += weight * moved[:, start:stop].T @ moved[:, :stop]
            self.sums += classes.T @ moved
            self.counts += classes.sum(0)

    def merge(self, other: "ClassMoments", weight: float = 1.0) -> None:
        """Add the sums of other pixels around the same origin, each of which counts ``weight`` times."""
        self.products += weight * other.products
        self.sums += weight * other.sums
        self.counts += weight * other.counts

    def solve(self, shrinkage: float) -> Discriminant:
        """Return the discriminant of the classes that have pixels (Fisher; equal covariances, priors as counted).

        Logits are centered: they sum to 0 over the present classes.

        Args:
            shrinkage: share by which covariances between channels are reduced; 1 leaves the variances alone.

        Raises:
            ValueError: no pixel is labeled.
        """
        if not self.present.any():
            raise ValueError("no labeled pixel")
        products, sums, all_counts, origin = (
            each.cpu() for each in (self.products, self.sums, self.counts, self.origin)
        )
        products = products.tril() + products.tril(-1).T
        present, total = self.present.cpu(), all_counts.sum()
        counts = all_counts[present]
        means = sums[present] / counts[:, None]
        between = (means - counts @ means / total).square().T @ counts / total
        within = (products - (means.T * counts) @ means) / total
        variances = within.diagonal().clamp_min(0)
        least = (RIDGE * between.mean()).clamp_min(torch.finfo(torch.float32).tiny)
        ridge = RIDGE * torch.maximum(variances.mean(), least)
        within = (1 - shrinkage) * within + torch.diag(shrinkage * variances + ridge)
        directions = torch.cholesky_solve(means.T, torch.linalg.cholesky(within)).T
        bias = -0.5 * (means * directions).sum(1) + (counts / total).log()
        directions, bias = directions - directions.mean(0), bias - bias.mean()
        weight = torch.zeros_like(sums)
        offset = torch.full_like(all_counts, ABSENT_LOGIT)
        weight[present] = directions
        offset[present] = bias - directions @ origin
        return Discriminant(weight, offset)
