"""Thresholds of each class that follow from histograms of the confidence; nothing is read back from the device."""

import torch
from torch import Tensor


def confidence_histogram(
    confidence: Tensor, label: Tensor, count: Tensor, num_classes: int, bins: int
) -> Tensor:
    """Count pixels by predicted class and confidence, ``(num_classes, bins) float32``.

    Args:
        confidence: largest probabilities, any shape, from 0 to 1; bin b holds those from b / bins.
        label: predicted classes of the same shape, int64.
        count: whether a pixel counts, of the same shape, bool.
        num_classes: number of classes K.
        bins: number of bins.
    """
    places = (confidence.float() * bins).long().clamp(0, bins - 1) + label * bins
    counts = torch.zeros(num_classes * bins, dtype=torch.int64, device=label.device)
    # Whole numbers add up exactly in any order; bincount would make the host wait.
    counts.scatter_add_(0, places.flatten(), count.flatten().long())
    return counts.view(num_classes, bins).float()


def best_share_thresholds(histogram: Tensor, share: float) -> Tensor:
    """Return the confidence above which each class keeps at least this share of its pixels, ``(K,)``.

    Args:
        histogram: pixels by predicted class and confidence, see ``confidence_histogram``.
        share: share of the pixels of a class that is kept, above 0 up to 1; a class without pixels keeps all.
    """
    above = histogram.flip(1).cumsum(1).flip(1)
    # The last bin that still has enough pixels at or above it.
    enough = above >= share * above[:, :1]
    found = above[:, 0] > 0
    return torch.where(found, enough.sum(1) - 1, 0) / histogram.shape[1]


def precise_thresholds(hits: Tensor, histogram: Tensor, precision: float, fallback: float) -> Tensor:
    """Return the smallest confidence from which predictions of each class are as precise as asked, ``(K,)``.

    Args:
        hits: correct pixels by predicted class and confidence, see ``confidence_histogram``.
        histogram: all pixels with a true label, in the same bins.
        precision: share of correct pixels among those at or above the threshold.
        fallback: threshold of classes that are never predicted. A class that is never so precise gets a threshold above
            1, which keeps none.
    """
    bins = histogram.shape[1]
    above = histogram.flip(1).cumsum(1).flip(1)
    right = hits.flip(1).cumsum(1).flip(1)
    # Compared without a division: an empty tail of a class is not precise.
    precise = (right >= precision * above) & (above > 0)
    places = torch.arange(bins, device=hits.device)
    first = torch.where(precise, places, bins + 1).min(1).values
    return torch.where(above[:, 0] > 0, first / bins, fallback)
