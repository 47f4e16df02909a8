"""Pure pieces of learning from unlabeled images: CutMix masks, stability between snapshots."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_NUM_LABELS = 256


def box_masks(
    generator: np.random.Generator | np.random.RandomState,
    n: int,
    size: tuple[int, int],
    boxes: int = 3,
    area_range: tuple[float, float] = (0.25, 0.5),
) -> Tensor:
    """Draw CutMix masks; True takes the second image.

    Each box has ``a / boxes`` of the area with a ~ U(area_range), a random shape and position, and toggles
    what it covers, so that overlaps cancel: with the defaults the mean share of True is about 0.25, not the
    0.375 that one may expect. Equal to the masks of CPS for an equal NumPy generator (draw order: all areas,
    all shapes, all positions).

    Args:
        generator: source of all draws.
        n: number of masks.
        size: (height, width) in pixels.
        boxes: boxes a mask.
        area_range: bounds of the area of all boxes together, as a share of the image.

    Returns:
        ``(n, 1, height, width) bool`` on the CPU.
    """
    area = generator.uniform(*area_range, size=(n, boxes))
    exponent = generator.uniform(size=(n, boxes))
    height = area**exponent
    shares = np.stack([height, area / height], axis=2) * np.sqrt(1 / boxes)
    extents = np.round(shares * np.asarray(size))
    corners = np.round((np.asarray(size) - extents) * generator.uniform(size=(n, boxes, 2)))
    masks = np.zeros((n, 1, *size), dtype=bool)
    spans = np.concatenate([corners, corners + extents], axis=2).astype(int)
    for mask, drawn in zip(masks[:, 0], spans, strict=True):
        for top, left, bottom, right in drawn:
            mask[top:bottom, left:right] ^= True
    return torch.from_numpy(masks)


def stability_score(predictions: Sequence[Tensor]) -> Tensor:
    """Say how stable the prediction of one image was while the network learned (ST++'s selection).

    The mean over the earlier predictions of their mIoU with the last one, which plays the ground truth;
    classes that are in neither are skipped.

    Args:
        predictions: label maps ``(H, W)`` of successive snapshots, integers 0-255, the final one last.

    Returns:
        Scalar float64 in 0 to 1, on the device of the predictions.

    Raises:
        ValueError: fewer than two predictions.
    """
    if len(predictions) < 2:
        raise ValueError(f"stability needs at least 2 predictions of an image, got {len(predictions)}")
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
