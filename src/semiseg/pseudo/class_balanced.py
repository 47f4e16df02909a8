"""Pseudo-labels from class probabilities: hard labels, and thresholds that keep an equal share of every class."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX, Array, Confidence

KEEP_ALL = 1e-5
"""Threshold of a class with too few pixels to choose among."""


def label_image(
    probabilities: Tensor, thresholds: Sequence[float] | None = None, ignore_index: int = IGNORE_INDEX
) -> tuple[Tensor, Tensor]:
    """Turn class probabilities of an image into a label and its confidence at every pixel.

    Args:
        probabilities: ``(C, H, W)`` floating point, softmax over C; 255 classes at most.
        thresholds: C values by class; where the confidence is below that of the pixel's class, the label is
            ``ignore_index``, and the confidence stays. None keeps every label.
        ignore_index: label of pixels below the threshold.

    Returns:
        Labels ``(H, W) uint8`` and the largest probability ``(H, W) float32``, on the same device.
    """
    confidence, label = probabilities.float().max(0)
    if thresholds is not None:
        needed = torch.tensor(tuple(thresholds), dtype=torch.float32, device=confidence.device)
        label = label.masked_fill(confidence < needed[label], ignore_index)
    return label.to(torch.uint8), confidence


def class_balanced_thresholds(
    labeled: Iterable[tuple[Array, Confidence]], num_classes: int, ratio: float, stride: int = 16
) -> NDArray[np.float32]:
    """Find thresholds by which each predicted class keeps the same share of its pixels (CBST; DMT).

    Of every image each ``stride``-th pixel in row-major order is looked at, beginning with the first. A class with
    n of them gets the confidence at place ``floor(n * ratio)`` from the largest, so that one more than that
    survives ``confidence >= threshold``; with a ratio of 1 or more the smallest one, so that the pixels not
    looked at may still lie below; with ``n * ratio < 1``, and where there are none, 1e-5, which keeps all.

    Args:
        labeled: label ``(H, W) uint8`` and confidence ``(H, W) float32`` of each image; 255 does not count. Gone
            through once, such as ``(store.read(id) for id in store.ids)``.
        num_classes: number of classes C.
        ratio: share to keep, above 0.
        stride: pixels from one sample to the next; published: 16. Four bytes of memory a sample.

    Returns:
        ``(C,) float32``.

    Raises:
        ValueError: a ratio that is not above 0, or a stride below 1.
    """
    if ratio <= 0 or stride < 1:
        raise ValueError(
            f"ratio={ratio}, stride={stride}; expected a ratio above 0 and a stride of 1 or more"
        )
    found: list[list[NDArray[np.float32]]] = [[] for _ in range(num_classes)]
    for label, confidence in labeled:
        sampled, values = label.ravel()[::stride], confidence.ravel()[::stride]
        order = np.argsort(sampled, kind="stable")
        ends = np.searchsorted(sampled[order], np.arange(num_classes + 1))
        for values_of_class, start, end in zip(found, ends[:-1], ends[1:], strict=True):
            if end > start:
                values_of_class.append(values[order[start:end]])
    thresholds = np.full(num_classes, KEEP_ALL, np.float32)
    for number, parts in enumerate(found):
        count = sum(map(len, parts))
        if count and count * min(ratio, 1.0) >= 1:
            place = 0 if ratio >= 1 else count - 1 - int(count * ratio)
            thresholds[number] = np.partition(np.concatenate(parts), place)[place]
            parts.clear()
    return thresholds


def confident_labels(logits: Tensor, threshold: float, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Label pixels by the network's own prediction where it is surer than a threshold (DMT's online ablation).

    Args:
        logits: ``(N, C, H, W)`` floating point.
        threshold: probability that has to be exceeded; published: 0.9.
        ignore_index: label of the other pixels.

    Returns:
        ``(N, H, W) int64``, without gradient.
    """
    with torch.no_grad():
        confidence, label = logits.float().softmax(1).max(1)
        return label.masked_fill(confidence <= threshold, ignore_index)
