"""Boxes of labeled images in unlabeled ones, more of them where a network is unsure of the image (AugSeg)."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from semiseg.contracts.training import Progress
from semiseg.pseudo.draws import on_device, own_rows
from semiseg.seeding import derive_seed

LABELED_BETA = (8.0, 2.0)
"""Parameters of the Beta distribution of 1 - the share of the box of labeled pixels."""

MIXED_BETA = (4.0, 4.0)
"""The same of the box of another unlabeled image."""


@torch.no_grad()
def image_confidence(logits: Tensor) -> Tensor:
    """Return how sure a network is of each image, ``(N,)`` from 0 to 1.

    Args:
        logits: logits ``(N, K, H, W)``, floating point, K at least 2.
    """
    # Published code: train_semi.py; the mean of (1 - H / ln K) max p over the pixels, with the entropy H.
    values = (logits if logits.dtype == torch.float64 else logits.float()).softmax(1)
    entropy = -(values * (values + 1e-10).log()).sum(1)
    return ((1 - entropy / math.log(logits.shape[1])) * values.amax(1)).mean((1, 2))


class Injection(NamedTuple):
    """Draws of one batch of N unlabeled images.

    Args:
        partner: permutation of the images, ``(N,) int64``.
        labeled_box: box of labeled pixels (top, left, height, width) of each image, ``(N, 4) int64``.
        box: box of the partner's pixels, ``(N, 4) int64``.
        chance: uniform numbers ``(N,)``; an image gets labeled pixels where its confidence is below.
    """

    partner: Tensor
    labeled_box: Tensor
    box: Tensor
    chance: Tensor


def cut_boxes(
    draws: np.random.RandomState, n: int, size: tuple[int, int], beta: tuple[float, float]
) -> Tensor:
    """Draw boxes of one size for n images, cut where they exceed the image: ``(n, 4) int64``.

    Args:
        draws: source of lambda, then of the rows and of the columns of the centers.
        n: number of images.
        size: (height, width) of the images.
        beta: parameters of the distribution of lambda, with which a whole box has the share 1 - lambda.
    """
    # Published code: augs_ALIA.py, rand_bbox; no center lies in the upper or left eighth.
    share = math.sqrt(1 - draws.beta(*beta))
    firsts, lengths = [], []
    for extent in size:
        center, half = draws.randint(extent // 8, extent, n), int(extent * share) // 2
        first, last = (center + shift for shift in (-half, half))
        firsts.append(first.clip(0, extent))
        lengths.append(last.clip(0, extent) - firsts[-1])
    return torch.from_numpy(np.stack([*firsts, *lengths], 1).astype(np.int64))


def draw_injection(progress: Progress, n: int, size: tuple[int, int], device: torch.device) -> Injection:
    """Draw partners, boxes and chances for the n unlabeled images of this process, without waiting for the device."""
    total, rows = own_rows(progress, n)
    draws = np.random.RandomState(np.random.MT19937(derive_seed(progress.seed, "injection")))
    # The ranks of random numbers are a random permutation; partners are images of the same process.
    partner = torch.from_numpy(draws.uniform(size=total)[rows].argsort())
    labeled_box, box = (cut_boxes(draws, total, size, beta)[rows] for beta in (LABELED_BETA, MIXED_BETA))
    drawn = [partner, labeled_box, box, torch.from_numpy(draws.uniform(size=total)[rows])]
    return Injection(*(on_device(each, device) for each in drawn))
