"""The dynamic mutual loss of DMT: cross entropy weighted by the agreement of a network with its labeler."""

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.contracts.training import SumCount
from semiseg.losses.reduction import Reduction, reduced, reducible

Variant = Literal["dmt", "flip", "naive"]


class MutualStatistics(NamedTuple):
    """Scalars to log, without gradient.

    Args:
        disagreements: number of valid pseudo-labeled pixels that the network predicts otherwise, int64.
        wins: number of disagreements where the network is more confident than the labeler, int64.
        mean_weight: mean weight of the valid pixels.
        cross_entropy: unweighted mean cross entropy of the valid pixels ("flip": with the targets replaced).
    """

    disagreements: Tensor
    wins: Tensor
    mean_weight: Tensor
    cross_entropy: Tensor


@reducible(tuple[Tensor, MutualStatistics], tuple[SumCount, MutualStatistics])
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
        logits: logits ``(N, C, H, W)`` of the network that is trained, floating point.
        target: labels ``(N, H, W) int64``, classes 0 to C-1 or ``ignore_index``.
        confidence: confidence ``(N, H, W)`` of the labeler in its label, 0 to 1; labeled images ignore it.
        is_pseudo: images ``(N,) bool`` that have pseudo-labels.
        gamma_agree: exponent where network and labeler agree; a larger one learns less from unsure pixels.
        gamma_disagree: exponent where they disagree; a larger one learns less from the labeler.
        variant: rule for pixels where the network wins: "dmt" gives them weight 0; "flip" learns the network's own
            class with weight (1 - confidence) ** gamma_disagree; "naive" weights them like other disagreements, so
            agreement does not matter where both exponents are equal.
        ignore_index: label of pixels that do not count.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the number of valid pixels.

    Returns:
        The loss and the statistics to log.

    Raises:
        ValueError: another variant, or a negative exponent.
    """
    _check(gamma_agree, gamma_disagree, variant)
    if logits.dtype != torch.float64:
        logits = logits.float()
    plain = gamma_agree == gamma_disagree == 0
    valid = target != ignore_index
    pseudo = is_pseudo.view(-1, *[1] * (target.ndim - 1))
    # published code: segmentation/utils/losses.py, DynamicMutualLoss, FlipLoss and DynamicNaiveLoss
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
        # exp(-gamma * loss) is p(target) ** gamma, from the log-probabilities that the loss has already.
        exponent = torch.where(disagrees, -gamma_disagree * loss.detach(), -gamma_agree * loss.detach())
        weight = torch.where(pseudo, exponent.exp(), weight)
        if variant == "dmt":
            weight = weight.masked_fill(wins, 0.0)
        elif variant == "flip":
            weight = torch.where(wins, ((1 - confidence) ** gamma_disagree).to(weight.dtype), weight)
    count = valid.sum()
    at_least_one = count.clamp_min(1)
    statistics = MutualStatistics(
        disagrees.sum(),
        wins.sum(),
        torch.where(valid, weight, 0.0).sum() / at_least_one,
        loss.detach().sum() / at_least_one,
    )
    return reduced(SumCount((loss * weight).sum(), count), reduction), statistics


def _check(gamma_agree: float, gamma_disagree: float, variant: str) -> None:
    if variant not in get_args(Variant):
        raise ValueError(f"variant is {variant!r}; expected one of {', '.join(get_args(Variant))}")
    if min(gamma_agree, gamma_disagree) < 0:
        raise ValueError(f"exponents are {gamma_agree} and {gamma_disagree}; expected 0 or more")
