"""Stability of a prediction while a network learned."""

from collections.abc import Sequence

import torch
from torch import Tensor

_NUM_LABELS = 256


def stability_score(predictions: Sequence[Tensor]) -> Tensor:
    """Compute how stable the prediction of one image was while the network learned (ST++'s selection).

    The score is the mean mIoU of the earlier predictions with the last one, which takes the place of the ground
    truth; classes that are in neither are skipped.

    Args:
        predictions: label maps ``(H, W)`` of successive snapshots, integers 0-255, the final one last.

    Returns:
        Scalar float64 in 0 to 1, on the device of the predictions.

    Raises:
        ValueError: fewer than two predictions.
    """
    if len(predictions) < 2:
        raise ValueError(f"stability needs at least 2 predictions of an image, got {len(predictions)}")
    # published code: main.py, select_reliable; the paper sums over the snapshots, which ranks images equally.
    *earlier, last = (prediction.flatten().long() for prediction in predictions)
    return torch.stack([_mean_iou(prediction, last) for prediction in earlier]).mean()


def _mean_iou(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean IoU of two flat label maps over the classes that occur in either."""
    shared = torch.where(prediction == truth, truth, _NUM_LABELS)
    intersection = _histogram(shared)
    union = _histogram(prediction) + _histogram(truth) - intersection
    return (intersection / union.clamp_min(1)).sum() / (union > 0).sum()


def _histogram(labels: Tensor) -> Tensor:
    """Count the labels 0-255 as float64; ``torch.bincount`` would read its size back to the host."""
    counts = torch.zeros(_NUM_LABELS + 1, dtype=torch.int64, device=labels.device)
    return counts.scatter_add_(0, labels, torch.ones_like(labels))[:_NUM_LABELS].double()
