"""Boundary IoU (Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from semiseg.tasks.metrics import Shares


class BoundaryCounts:
    """Counts the pixels of contours by class, on the device, without host synchronization.

    The contour of a class are its pixels at most d away from a pixel that is not of the class, or from the edge of the
    image; d is a share of the diagonal, 1 pixel at least, and distances are those of a square, as the erosion of the
    publication makes them. As for the IoU, pixels are added up over all images. Pixels without a true class are of no
    class in either map, and do not count.

    Args:
        num_classes: number of classes K.
        ratio: width of the contours as a share of the diagonal of the image.
        ignore_index: target value that is never counted.
        device: device of the counts, and of the tensors that ``update`` gets.
    """

    def __init__(self, num_classes: int, ratio: float, ignore_index: int, device: torch.device | str) -> None:
        self.num_classes = num_classes
        self.ratio = ratio
        self.ignore_index = ignore_index
        self._counts = torch.zeros(3, num_classes + 1, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add images of one size, ``(N, H, W)`` integers each."""
        none = self.num_classes
        void = (target < 0) | (target >= none) | (target == self.ignore_index)
        width = max(1, round(self.ratio * math.hypot(*target.shape[-2:])))
        truth, found = (labels.long().masked_fill(void, none) for labels in (target, prediction))
        truth, found = (labels.masked_fill(~contours(labels, width), none) for labels in (truth, found))
        both = truth.masked_fill(truth != found, none)
        for row, labels in zip(self._counts, (truth, found, both), strict=True):
            row.scatter_add_(0, labels.flatten(), labels.new_ones(()).expand(labels.numel()))

    def compute(self) -> Shares:
        """Return the boundary IoU of each class; ``None`` for one without a contour in truth and prediction."""
        truth, found, both = self._counts[:, : self.num_classes].tolist()
        unions = [a + b - c for a, b, c in zip(truth, found, both, strict=True)]
        return [part / whole if whole else None for part, whole in zip(both, unions, strict=True)]


def contours(labels: Tensor, width: int) -> Tensor:
    """Return which pixels lie at most ``width`` from another label or the edge of the image, ``(N, H, W) bool``."""
    height, breadth = labels.shape[-2:]
    found = torch.ones_like(labels, dtype=torch.bool)
    # Also of a strip, whose windows would be far larger than the image.
    if 2 * width >= min(height, breadth):
        return found
    inside = slice(width, height - width), slice(width, breadth - width)
    # One pass for all classes: a neighborhood holds another label where its largest and smallest differ.
    values, side = labels.to(torch.int16), 2 * width + 1
    most, least = (
        _extreme(_extreme(values, side, 1, choose), side, 2, choose)
        for choose in (torch.maximum, torch.minimum)
    )
    found[:, *inside] = most != least
    return found


def _extreme(maps: Tensor, side: int, axis: int, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the largest or smallest value of each window of ``side`` along an axis, in a few steps that double it."""
    reach = 1
    while reach < side:
        step = min(reach, side - reach)
        length = maps.shape[axis] - step
        maps = choose(maps.narrow(axis, 0, length), maps.narrow(axis, step, length))
        reach += step
    return maps
