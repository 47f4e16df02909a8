"""Shrinkage and temperature of a linear discriminant, chosen by cross-validation over the labeled images."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.models.discriminant import ClassMoments

FOLDS = 4
SHRINKAGES = (0.03, 0.1, 0.3, 0.5)
TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 14.0, 20.0)
PIXELS = 400
"""Labeled pixels of a map that are kept to measure on, evenly spread, as long as the images are few."""
ALL_PIXELS = 20_000
"""About the number of pixels that are kept of all images together: with 3,584 channels, 290 MB."""

ONE_IMAGE = (0.5, 5.0)
"""Shrinkage and temperature where there is nothing to validate on."""


class ProbeChoice(NamedTuple):
    """Values of the settings that are ``null``, and the given ones.

    Args:
        shrinkage: share by which covariances are reduced.
        temperature: divisor of the logits.
    """

    shrinkage: float
    temperature: float


class Folds:
    """Sums over the labeled pixels of the images of each fold, and some of these pixels.

    Args:
        num_classes: number of classes K.
        origin: point ``(D,)`` near the features.
        images: number of labeled images.
    """

    def __init__(self, num_classes: int, origin: Tensor, images: int) -> None:
        self.moments = [ClassMoments(num_classes, origin) for _ in range(min(FOLDS, images))]
        self.pixels: list[tuple[int, Tensor, Tensor]] = []
        self._images = images

    def add(self, image: int, features: Tensor, labels: Tensor, weight: float, views: int) -> None:
        """Add labeled pixels of a map.

        Args:
            image: number of the image.
            features: ``(P, D)``, floating point.
            labels: ``(P,) int64``.
            weight: number of times that each pixel counts.
            views: number of maps of this image: its sizes and windows.
        """
        fold = image % len(self.moments)
        self.moments[fold].add(features, labels, weight)
        count = min(max(min(PIXELS, ALL_PIXELS // (self._images * views)), 1), len(labels))
        kept = torch.linspace(0, len(labels) - 1, count, device=labels.device).long()
        self.pixels.append((fold, features[kept].float(), labels[kept]))

    @property
    def total(self) -> ClassMoments:
        """Sums over all pixels."""
        return self.without(None)

    def without(self, fold: int | None) -> ClassMoments:
        """Return the sums over the pixels of all other folds."""
        first = self.moments[0]
        whole = ClassMoments(first.num_classes, first.origin)
        for number, each in enumerate(self.moments):
            if number != fold:
                whole.merge(each)
        return whole


def choose(folds: Folds, shrinkage: float | None, temperature: float | None) -> ProbeChoice:
    """Return the values with the smallest mean negative log-likelihood of pixels that are held out.

    Pixels of a class that the other folds lack say nothing about either, and are left out.

    Args:
        folds: sums and pixels.
        shrinkage: value that is given; ``None`` chooses one.
        temperature: value that is given; ``None`` chooses one.
    """
    if shrinkage is not None and temperature is not None:
        return ProbeChoice(shrinkage, temperature)
    tried = []
    for value in SHRINKAGES if shrinkage is None else (shrinkage,):
        logits, labels = _held_out(folds, value)
        for divisor in TEMPERATURES if temperature is None else (temperature,):
            if len(labels):
                tried.append((float(F.cross_entropy(logits / divisor, labels)), ProbeChoice(value, divisor)))
    if tried:
        return min(tried, key=lambda each: each[0])[1]
    first, second = ONE_IMAGE
    return ProbeChoice(
        first if shrinkage is None else shrinkage, second if temperature is None else temperature
    )


def _held_out(folds: Folds, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Return logits ``(P, K)`` of pixels by the discriminant of the other folds, and their labels."""
    logits, labels = [torch.zeros(0, folds.moments[0].num_classes)], [torch.zeros(0, dtype=torch.int64)]
    for fold in range(len(folds.moments)):
        others = folds.without(fold)
        if not others.present.any():
            continue
        found = others.solve(shrinkage)
        for _, features, truth in (each for each in folds.pixels if each[0] == fold):
            known = others.present.to(truth.device)[truth]
            scores = features[known] @ found.weight.T.to(features) + found.bias.to(features)
            logits.append(scores.cpu())
            labels.append(truth[known].cpu())
    return torch.cat(logits), torch.cat(labels)
