"""Mixtures of U2PL: boxes of half of an image, and half of its classes."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def half_boxes(
    generator: np.random.Generator | np.random.RandomState, n: int, size: tuple[int, int]
) -> Tensor:
    """Draw boxes of half of an image: ``(n, 4) int64`` of (top, left, height, width), on the CPU.

    The width is uniform above half of the image's, the height follows, and the place is uniform inside. They equal
    those of U2PL for the same NumPy generator.

    Args:
        generator: source of all draws.
        n: number of boxes.
        size: (height, width) of the images.
    """
    draw = generator.integers if isinstance(generator, np.random.Generator) else generator.randint
    rows, columns = size
    boxes = []
    # Published code: u2pl/dataset/augmentation.py, generate_cutout_mask.
    for _ in range(n):
        width = int(draw(min(columns // 2 + 1, columns - 1), columns))
        height = int(np.round(rows * columns / 2 / width))
        left = int(draw(0, columns - width + 1))
        top = int(draw(0, rows - height + 1))
        boxes.append((top, left, height, width))
    return torch.tensor(boxes, dtype=torch.int64).view(n, 4)


def half_of_classes(keys: Tensor, labels: Tensor) -> Tensor:
    """Choose half of the classes of each image, rounded down, and return where they are, ``(N, H, W) bool``.

    Olsson et al., ClassMix, arXiv 2007.07936, as U2PL has it.

    Args:
        keys: random numbers ``(N, K)`` of images and classes; those with the smallest are chosen.
        labels: labels ``(N, H, W) int64``; numbers of K and more, such as ignored ones, are no class.
    """
    # Published code: u2pl/dataset/augmentation.py, generate_class_mask.
    count = keys.shape[1]
    index = labels.clamp_max(count).flatten(1)
    present = torch.zeros(len(keys), count + 1, dtype=torch.bool, device=labels.device)
    present = present.scatter(1, index, True)[:, :count]
    rank = keys.masked_fill(~present, torch.inf).argsort(1).argsort(1)
    chosen = present & (rank < present.sum(1, keepdim=True) // 2)
    padded = F.pad(chosen, (0, 1))
    return padded.gather(1, index).view_as(labels)
