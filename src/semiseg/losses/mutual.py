"""The dynamic mutual loss: cross entropy weighted by how a network and the labeler of its images agree."""

from typing import Literal, NamedTuple, get_args, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.contracts.training import SumCount
from semiseg.losses.cross_entropy import Reduction

Variant = Literal["dmt", "flip", "naive"]


class MutualStatistics(NamedTuple):
    """Scalars to log, without gradient.

    Args:
        disagreements: valid pseudo-labeled pixels that the network predicts otherwise, int64.
        wins: those of them where it is also more confident than the labeler, int64.
        mean_weight: mean weight of the valid pixels.
        cross_entropy: unweighted mean cross entropy of the valid pixels ("flip": with the targets replaced).
    """

    disagreements: Tensor
    wins: Tensor
    mean_weight: Tensor
    cross_entropy: Tensor


@overload
def dynamic_mutual_loss(
    logits: Tensor,
    target: Tensor,
    confidence: Tensor,
    is_pseudo: Tensor,
    gamma_agree: float,
    gamma_disagree: float,
    variant: Variant = ...,
    ignore_index: int = ...,
    *,
    reduction: Literal["mean"] = ...,
) -> tuple[Tensor, MutualStatistics]: ...
@overload
def dynamic_mutual_loss(
    logits: Tensor,
    target: Tensor,
    confidence: Tensor,
    is_pseudo: Tensor,
    gamma_agree: float,
    gamma_disagree: float,
    variant: Variant = ...,
    ignore_index: int = ...,
    *,
    reduction: Literal["sum_count"],
) -> tuple[SumCount, MutualStatistics]: ...
def dynamic_mutual_loss(
    logits: Tensor,
    target: Tensor,
    confidence: Tensor,
    is_pseudo: Tensor,
    gamma_agree: float,
    gamma_disagree: float,
    variant: Variant = "dmt",
    ignore_index: int = IGNORE_INDEX,
    *,
    reduction: Reduction = "mean",
) -> tuple[Tensor | SumCount, MutualStatistics]:
    """Average the cross entropy over all valid pixels, each pseudo-labeled one weighted (DMT, arXiv 2004.08514).

    With the network's own probabilities p, taken without gradient, the weight of a pseudo-labeled pixel is

    - p(target) ** gamma_agree where the network predicts the target;
    - p(target) ** gamma_disagree where it does not and the labeler is at least as confident;
    - 0 where it does not and is strictly more confident than the labeler: it wins.

    Labeled images have weight 1. The mean is over all valid pixels of both kinds, those of weight 0 included.
    With both exponents 0 every weight is 1, that of a win too: plain cross entropy, as in the published code.

    Args:
        logits: ``(N, C, H, W)`` floating point, of the network that is trained.
        target: ``(N, H, W) int64``, classes 0 to C-1 or ``ignore_index``.
        confidence: ``(N, H, W)`` floating point, 0 to 1: of the labeler in its label; without effect in labeled images.
        is_pseudo: ``(N,) bool``, which images have pseudo-labels.
        gamma_agree: exponent where both agree; a larger one learns less from unsure pixels.
        gamma_disagree: exponent where they do not; a larger one learns less from the labeler.
        variant: "dmt"; "flip" learns the network's own class with weight (1 - confidence) ** gamma_disagree
            where it wins; "naive" weights its wins as other disagreements, so that with equal exponents
            agreement is without effect.
        ignore_index: label of pixels that do not count.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the number of valid pixels.

    Returns:
        The loss, and what to log.

    Raises:
        ValueError: another variant, or a negative exponent.
    """
    _check(gamma_agree, gamma_disagree, variant)
    if logits.dtype != torch.float64:
        logits = logits.float()
    plain = gamma_agree == gamma_disagree == 0
    valid = target != ignore_index
    pseudo = is_pseudo.view(-1, *[1] * (target.ndim - 1))
    with torch.no_grad():
        # On a CPU, max is several times faster than argmax over the channels.
        own_confidence, own_class = logits.softmax(1).max(1)
        disagrees = (own_class != target) & valid & pseudo
        wins = disagrees & (own_confidence > confidence)
        if variant == "flip" and not plain:
            target = torch.where(wins, own_class, target)
    loss = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    weight = torch.ones_like(loss)
    if not plain:
        # exp(-gamma * loss) is p(target) ** gamma.
        exponent = torch.where(disagrees, -gamma_disagree * loss.detach(), -gamma_agree * loss.detach())
        weight = torch.where(pseudo, exponent.exp(), weight)
        if variant == "dmt":
            weight = weight.masked_fill(wins, 0.0)
        elif variant == "flip":
            weight = torch.where(wins, ((1 - confidence) ** gamma_disagree).to(weight.dtype), weight)
    count = valid.sum()
    at_least_one = count.clamp_min(1)
    total = (loss * weight).sum()
    statistics = MutualStatistics(
        disagrees.sum(),
        wins.sum(),
        torch.where(valid, weight, 0.0).sum() / at_least_one,
        loss.detach().sum() / at_least_one,
    )
    return (total / at_least_one if reduction == "mean" else SumCount(total, count)), statistics


def _check(gamma_agree: float, gamma_disagree: float, variant: str) -> None:
    if variant not in get_args(Variant):
        raise ValueError(f"variant is {variant!r}; expected one of {', '.join(get_args(Variant))}")
    if min(gamma_agree, gamma_disagree) < 0:
        raise ValueError(f"exponents are {gamma_agree} and {gamma_disagree}; expected 0 or more")
