"""Annealed bootstrapped cross entropy (CCT): pixels whose true class is predicted well enough are left out."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.contracts.training import SumCount
from semiseg.losses.reduction import Reduction, reduced, reducible


def _alone(values: Tensor) -> Tensor:
    """Return the values of a process that trains alone."""
    return values


@reducible(Tensor, SumCount)
def annealed_cross_entropy(
    logits: Tensor,
    target: Tensor,
    threshold: float,
    ignore_index: int = IGNORE_INDEX,
    *,
    reduction: Reduction = "mean",
    joined: Callable[[Tensor], Tensor] = _alone,
) -> Tensor | SumCount:
    """Average the cross entropy over the valid pixels whose true class has a probability below a threshold.

    Where fewer than N pixels are below, the threshold is the probability of the next one, the (N + 1)-th smallest.

    Args:
        logits: logits ``(N, C, H, W)``, floating point.
        target: labels ``(N, H, W) int64``, classes 0 to C-1 or ``ignore_index``.
        threshold: probability, see ``annealed_threshold``.
        ignore_index: label of pixels that do not count.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the number of pixels below the threshold.
        joined: function that concatenates values ``(n,)`` of all processes that share the batch, so that N are its
            images in all of them; without it, this process has the whole batch.
    """
    # Published code: utils/losses.py, abCE_loss.
    if logits.dtype != torch.float64:
        logits = logits.float()
    loss, valid = (
        F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none"),
        target != ignore_index,
    )
    probability = torch.where(valid, (-loss.detach()).exp(), math.inf)
    counts = joined(valid.sum()[None])
    least = len(counts) * len(target) + 1
    smallest = joined(probability.flatten().topk(min(least, loss.numel()), largest=False).values)
    smallest = smallest.topk(min(least, len(smallest)), largest=False, sorted=True).values
    place = (counts.sum() - 1).clamp(0, len(smallest) - 1)
    bound = smallest[place[None]].clamp_min(threshold)
    keep = valid & (probability < bound)
    return reduced(SumCount(torch.where(keep, loss, 0).sum(), keep.sum()), reduction)


def annealed_threshold(step: float, length: float, num_classes: int, highest: float = 0.9) -> float:
    """Return the threshold of a step: it rises from 1 / K towards ``highest``, quickly at first.

    From ``length`` on it stays at lowest + (1 - e^-5) (highest - lowest), a little below ``highest``.

    Args:
        step: 0-based step.
        length: steps of the rise.
        num_classes: number of classes K.
        highest: probability that it rises to.
    """
    share = min(step / length, 1.0) if length > 0 else 1.0
    lowest = 1 / num_classes
    return (highest - lowest) * (1 - math.exp(-5 * share)) + lowest
