"""A linear discriminant of features, from sums over labeled pixels: a classifier without training."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ABSENT_LOGIT = -20.0
"""Logit of a class without a labeled pixel. The largest of centered logits is never below 0, so that it is not
predicted, and training can still raise it."""

RIDGE = 1e-6
"""Share of the mean variance that is added to each variance, so that constant channels do no harm."""

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
        channels: number of channels D.
    """

    def __init__(self, num_classes: int, channels: int) -> None:
        self.num_classes = num_classes
        self.origin: Tensor | None = None
        self.products = torch.zeros(channels, channels, dtype=torch.float64)
        self.sums = torch.zeros(num_classes, channels, dtype=torch.float64)
        self.counts = torch.zeros(num_classes, dtype=torch.float64)

    def add(self, features: Tensor, labels: Tensor, weight: float = 1.0) -> None:
        """Add labeled pixels.

        Args:
            features: ``(P, D)``, floating point.
            labels: ``(P,) int64`` on the same device; those that are no class, such as 255, do not count.
            weight: number of times that each pixel counts.
        """
        counted = (labels >= 0) & (labels < self.num_classes)
        features, labels = features[counted], labels[counted]
        if not len(labels):
            return
        if self.origin is None:
            # Sums around a point inside of the cloud keep their digits where means are far from 0.
            self.origin = features.double().mean(0)
            self.products, self.sums, self.counts = (
                each.to(features.device) for each in (self.products, self.sums, self.counts)
            )
        for part, part_labels in zip(torch.split(features, BLOCK), torch.split(labels, BLOCK), strict=True):
            moved = part.double() - self.origin
            classes = weight * F.one_hot(part_labels, self.num_classes).double()
            for start in range(0, moved.shape[1], STRIP):
                stop = start + STRIP
                self.products[start:stop, :stop] += weight * moved[:, start:stop].T @ moved[:, :stop]
            self.sums += classes.T @ moved
            self.counts += classes.sum(0)

    def solve(self, shrinkage: float = 0.1) -> Discriminant:
        """Return the discriminant of the classes that have pixels (Fisher; equal covariances, priors as counted).

        Logits are centered: they sum to 0 over the present classes.

        Args:
            shrinkage: share by which covariances between channels are reduced; 1 leaves the variances alone.

        Raises:
            ValueError: no pixel is labeled.
        """
        if self.origin is None:
            raise ValueError("no labeled pixel")
        products, sums, all_counts, origin = (
            each.cpu() for each in (self.products, self.sums, self.counts, self.origin)
        )
        products = products.tril() + products.tril(-1).T
        present, total = all_counts > 0, all_counts.sum()
        counts = all_counts[present]
        means = sums[present] / counts[:, None]
        within = (products - (means.T * counts) @ means) / total
        variances = within.diagonal().clamp_min(0)
        ridge = RIDGE * variances.mean().clamp_min(torch.finfo(torch.float32).tiny)
        within = (1 - shrinkage) * within + torch.diag(shrinkage * variances + ridge)
        directions = torch.linalg.solve(within, means.T).T
        bias = -0.5 * (means * directions).sum(1) + (counts / total).log()
        directions, bias = directions - directions.mean(0), bias - bias.mean()
        weight = torch.zeros_like(sums)
        offset = torch.full_like(all_counts, ABSENT_LOGIT)
        weight[present] = directions
        offset[present] = bias - directions @ origin
        return Discriminant(weight, offset)
