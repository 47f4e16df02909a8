"""Losses of labeled pixels for unbalanced classes: Dice, focal, and cross entropy with weights of classes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.contracts.training import SumCount
from semiseg.losses.reduction import Reduction, reduced, reducible


def dice_loss(logits: Tensor, target: Tensor, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Return 1 - the mean soft Dice coefficient over the classes that occur in the batch (arXiv 1606.04797, eq. 3).

    The squares of the denominator are those of the publication. 0 with zero gradient where nothing is valid.

    Args:
        logits: logits ``(N, C, H, W)``, floating point.
        target: labels ``(N, H, W) int64``, classes 0 to C-1 or ``ignore_index``.
        ignore_index: label of pixels that do not count.
    """
    if logits.dtype != torch.float64:
        logits = logits.float()
    valid = (target != ignore_index)[:, None]
    known = torch.where(valid[:, 0], target, 0)
    truth = torch.zeros_like(logits).scatter_(1, known[:, None], 1.0) * valid
    probabilities = logits.softmax(1) * valid
    axes = (0, 2, 3)
    shared = 2 * (probabilities * truth).sum(axes)
    total = probabilities.square().sum(axes) + truth.sum(axes)
    present = truth.sum(axes) > 0
    dice = torch.where(present, shared / total.clamp_min(1e-6), 0.0)
    count = present.sum()
    return (count - dice.sum()) / count.clamp_min(1)


@reducible(Tensor, SumCount)
def focal_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    ignore_index: int = IGNORE_INDEX,
    *,
    reduction: Reduction = "mean",
) -> Tensor | SumCount:
    """Average (1 - p)^gamma * cross entropy, with p the probability of the true class (arXiv 1708.02002, eq. 4).

    Args:
        logits: logits ``(N, C, H, W)``, floating point.
        target: labels ``(N, H, W) int64``, classes 0 to C-1 or ``ignore_index``.
        gamma: exponent; 0 gives cross entropy.
        ignore_index: label of pixels that do not count.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the number of valid pixels.
    """
    if logits.dtype != torch.float64:
        logits = logits.float()
    loss = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    # expm1 keeps the factor exact where p is near 1; ignored pixels have loss 0, so factor 0.
    missing = -torch.expm1(-loss)
    factor = missing.clamp_min(torch.finfo(missing.dtype).tiny).pow(gamma)
    return reduced(SumCount((factor * loss).sum(), (target != ignore_index).sum()), reduction)


@reducible(Tensor, SumCount)
def class_weighted(
    logits: Tensor,
    target: Tensor,
    weights: Sequence[float],
    ignore_index: int = IGNORE_INDEX,
    *,
    reduction: Reduction = "mean",
) -> Tensor | SumCount:
    """Average the cross entropy over all valid pixels, weighted by their classes.

    Args:
        logits: logits ``(N, C, H, W)``, floating point.
        target: labels ``(N, H, W) int64``, classes 0 to C-1 or ``ignore_index``.
        weights: weight of each of the C classes, 0 or more; a common factor changes nothing.
        ignore_index: label of pixels that do not count.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the sum of the weights, whose mean over the classes is 1.
    """
    if logits.dtype != torch.float64:
        logits = logits.float()
    chosen = torch.tensor(weights, dtype=logits.dtype)
    chosen = (chosen / chosen.mean()).to(logits.device, non_blocking=True)
    loss = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    valid = target != ignore_index
    factors = chosen[torch.where(valid, target, 0)] * valid
    return reduced(SumCount((loss * factors).sum(), factors.sum()), reduction)
