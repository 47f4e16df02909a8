"""Divergence of one prediction from another, pixel by pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.training import SumCount
from semiseg.losses.cross_entropy import Divisor
from semiseg.losses.reduction import Reduction, reduced, reducible


@reducible(Tensor, SumCount)
def confident_divergence(
    logits: Tensor,
    target_logits: Tensor,
    keep: Tensor,
    valid: Tensor,
    divisor: Divisor = "valid",
    *,
    reduction: Reduction = "mean",
) -> Tensor | SumCount:
    """Sum KL(target || prediction) over confident pixels, and divide by the number of all that are no padding.

    Args:
        logits: logits ``(N, C, H, W)``, floating point.
        target_logits: logits ``(N, C, H, W)`` of the target, which get no gradient.
        keep: ``(N, H, W) bool``, pixels whose target is confident.
        valid: ``(N, H, W) bool``, False in padding.
        divisor: "valid" pixels, or "confident" ones, see ``confident_cross_entropy``.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the divisor.
    """
    predicted, target = (_log_probabilities(each) for each in (logits, target_logits.detach()))
    loss = F.kl_div(predicted, target, log_target=True, reduction="none").sum(1)
    used = keep & valid
    counted = valid.sum() if divisor == "valid" else used.sum()
    return reduced(SumCount((loss * used).sum(), counted), reduction)


def _log_probabilities(logits: Tensor) -> Tensor:
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(1)
