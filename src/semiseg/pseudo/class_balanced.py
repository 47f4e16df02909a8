"""Pseudo-labels from class probabilities: hard labels, and thresholds that keep an equal share of every class."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX, Array, Confidence

KEEP_ALL = 1e-5
"""Threshold that keeps all pixels of a class: for classes with too few to choose among."""


def label_image(
    probabilities: Tensor, thresholds: Sequence[float] | None = None, ignore_index: int = IGNORE_INDEX
) -> tuple[Tensor, Tensor]:
    """Turn class probabilities of an image into a label and its confidence at every pixel.

    Args:
        probabilities: softmax over C classes ``(C, H, W)``, floating point; 255 classes at most.
        thresholds: smallest confidence of each class; below it the label becomes ``ignore_index`` and the
            confidence stays. ``None`` keeps every label.
        ignore_index: label of pixels below the threshold.

    Returns:
        Labels ``(H, W) uint8`` and the largest probability ``(H, W) float32``, on the same device.
    """
    confidence, label = probabilities.float().max(0)
    if thresholds is not None:
        needed = torch.tensor(tuple(thresholds), dtype=torch.float32, device=confidence.device)
        label = label.masked_fill(confidence < needed[label], ignore_index)
    return label.to(torch.uint8), confidence


class ClassConfidences:
    """Confidences of every ``stride``-th pixel by predicted class, and the thresholds that follow from them.

    Args:
        num_classes: number of classes C.
        ratio: share to keep, above 0.
        stride: pixels from one sample to the next, each of which takes four bytes of memory. Published: 16.

    Raises:
        ValueError: a ratio that is not above 0, or a stride below 1.
    """

    def __init__(self, num_classes: int, ratio: float, stride: int = 16) -> None:
        if ratio <= 0 or stride < 1:
            raise ValueError(
                f"ratio={ratio}, stride={stride}; expected a ratio above 0 and a stride of 1 or more"
            )
        self.ratio = ratio
        self.stride = stride
        self._found: list[list[NDArray[np.float32]]] = [[] for _ in range(num_classes)]

    def add(self, label: Array, confidence: Confidence) -> None:
        """Add label ``(H, W) uint8`` and confidence ``(H, W) float32`` of an image; 255 does not count."""
        sampled, values = label.ravel()[:: self.stride], confidence.ravel()[:: self.stride]
        order = np.argsort(sampled, kind="stable")
        ends = np.searchsorted(sampled[order], np.arange(len(self._found) + 1))
        for values_of_class, start, end in zip(self._found, ends[:-1], ends[1:], strict=True):
            if end > start:
                values_of_class.append(values[order[start:end]])

    def compute(self) -> list[float]:
        """Return the thresholds of ``class_balanced_thresholds``; the order of the images does not matter."""
        # published code of DMT: utils/common.py, generate_class_balanced_pseudo_labels
        thresholds = np.full(len(self._found), KEEP_ALL, np.float32)
        for number, parts in enumerate(self._found):
            count = sum(map(len, parts))
            if count and count * min(self.ratio, 1.0) >= 1:
                place = 0 if self.ratio >= 1 else count - 1 - int(count * self.ratio)
                thresholds[number] = np.partition(np.concatenate(parts), place)[place]
        return [float(value) for value in thresholds]


def class_balanced_thresholds(
    labeled: Iterable[tuple[Array, Confidence]], num_classes: int, ratio: float, stride: int = 16
) -> NDArray[np.float32]:
    """Find thresholds by which each predicted class keeps the same share of its pixels (CBST; DMT).

    Each ``stride``-th pixel of an image in row-major order is a sample, beginning with the first. A class with
    n of them gets the confidence at place ``floor(n * ratio)`` from the largest, so that one more than that
    survives ``confidence >= threshold``; with a ratio of 1 or more the smallest one, so other
    pixels may still lie below it; with ``n * ratio < 1``, and where there are none, 1e-5, which keeps all.

    Args:
        labeled: label ``(H, W) uint8`` and confidence ``(H, W) float32`` of each image; 255 does not count. Read
            once, such as ``(store.read(id) for id in store.ids)``.
        num_classes: number of classes C.
        ratio: share to keep, above 0.
        stride: pixels from one sample to the next, each of which takes four bytes of memory. Published: 16.

    Returns:
        Thresholds ``(C,) float32``.

    Raises:
        ValueError: a ratio that is not above 0, or a stride below 1.
    """
    confidences = ClassConfidences(num_classes, ratio, stride)
    for label, confidence in labeled:
        confidences.add(label, confidence)
    return np.array(confidences.compute(), np.float32)


def confident_labels(logits: Tensor, threshold: float, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Label pixels by the network's own prediction where it is surer than a threshold (DMT's online ablation).

    Args:
        logits: logits ``(N, C, H, W)``, floating point.
        threshold: probability that has to be exceeded. Published: 0.9.
        ignore_index: label of the other pixels.

    Returns:
        Labels ``(N, H, W) int64``, without gradient.
    """
    # published code of DMT: segmentation/utils/losses.py, OnlineLoss
    with torch.no_grad():
        confidence, label = logits.float().softmax(1).max(1)
        return label.masked_fill(confidence <= threshold, ignore_index)
