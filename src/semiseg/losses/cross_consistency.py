"""Distances of the predictions of auxiliary decoders from those of the main one, and from each other (CCT)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.training import SumCount
from semiseg.losses.reduction import Reduction, reduced, reducible

DecoderDistance = Literal["mse", "kl", "js"]

JS_FLOOR = 1e-5
"""Number that is added to the target alone inside of the logarithm of "js"."""


@reducible(Tensor, SumCount)
def decoder_consistency(
    logits: Tensor,
    target: Tensor,
    distance: DecoderDistance = "mse",
    threshold: float | None = None,
    valid: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor | SumCount:
    """Average the distance of predictions from probabilities over all elements, classes included.

    Args:
        logits: logits ``(D, K, ...)``, floating point.
        target: probabilities ``(N, K, ...)`` with N = D, or N = 1 for all; they get no gradient.
        distance: squared difference of probabilities ("mse"), divergence of the prediction from the target ("kl"), or
            the mean of both divergences from their mean ("js").
        threshold: probability that the target's class must exceed; others do not count. "kl" is then divided by the
            number of all pixels, not of kept elements, as published. ``None`` for all pixels.
        valid: ``(N, ...) bool``, False where pixels do not count; ``None`` counts all.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the divisor.

    Raises:
        ValueError: a threshold with "js".
    """
    # Published code: utils/losses.py, softmax_mse_loss and its like.
    if distance == "js" and threshold is not None:
        raise ValueError("the Jensen-Shannon distance takes no threshold")
    target = target.detach()
    if logits.dtype != torch.float64:
        logits, target = logits.float(), target.float()
    repeats = len(logits) // len(target)
    kept = valid if threshold is None else _both(target.amax(1) > threshold, valid)
    total = _summed_distance(logits, target.expand_as(logits), distance, kept)
    if kept is None:
        return reduced(SumCount(total, _full(logits.numel(), logits)), reduction)
    if distance == "kl" and threshold is not None:
        counted = _full(kept.numel(), logits) if valid is None else valid.sum()
        return reduced(SumCount(total, counted * repeats), reduction)
    return reduced(SumCount(total, kept.sum() * (logits.shape[1] * repeats)), reduction)


@reducible(Tensor, SumCount)
def decoder_variance(logits: Tensor, *, reduction: Reduction = "mean") -> Tensor | SumCount:
    """Average the variance of the probabilities of D decoders, summed over classes, over pixels.

    Args:
        logits: logits ``(D, K, ...)``, floating point.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the number of pixels.
    """
    # Published code: utils/losses.py, pair_wise_loss.
    found = (logits if logits.dtype == torch.float64 else logits.float()).softmax(1)
    variance = (found - found.mean(0)).square().mean(0).sum(0)
    return reduced(SumCount(variance.sum(), _full(variance.numel(), variance)), reduction)


def _summed_distance(
    logits: Tensor, target: Tensor, distance: DecoderDistance, kept: Tensor | None
) -> Tensor:
    if distance == "mse":
        found = logits.softmax(1)
        if kept is not None:
            found, target = found * kept[:, None], target * kept[:, None]
        # Of many decoders this is the largest part of a step: the fused loss keeps nothing but its arguments.
        return F.mse_loss(found, target, reduction="sum")
    if distance == "kl":
        loss = F.kl_div(logits.log_softmax(1), target, reduction="none")
    else:
        middle = (logits.softmax(1) + target) / 2
        first = F.kl_div(logits.log_softmax(1), middle, reduction="none")
        loss = (first + F.kl_div((target + JS_FLOOR).log(), middle, reduction="none")) / 2
    return (loss if kept is None else loss * kept[:, None]).sum()


def _both(first: Tensor, second: Tensor | None) -> Tensor:
    return first if second is None else first & second


def _full(number: int, like: Tensor) -> Tensor:
    return torch.full((), number, dtype=torch.int64, device=like.device)
