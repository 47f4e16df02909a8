"""Directional contrast between two views of the same pixels (CAC)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from semiseg.contracts.training import SumCount
from semiseg.errors import UserError
from semiseg.losses.half_bank import LOWEST_TEMPERATURE, HalfBank
from semiseg.losses.reduction import Reduction, reduced, reducible

Normalizer = Literal["anchors", "overlap"]
NORMALIZERS: tuple[Normalizer, ...] = ("anchors", "overlap")

_TILE = {"cpu": 2**21}
_ACCELERATOR_TILE = 2**26


@reducible(tuple[Tensor, Tensor], tuple[SumCount, SumCount])
def directional_contrast(
    features_1: Tensor,
    features_2: Tensor,
    labels_1: Tensor,
    labels_2: Tensor,
    confidence_1: Tensor,
    confidence_2: Tensor,
    bank_features: Tensor,
    bank_labels: Tensor,
    temperature: float = 0.1,
    positive_threshold: float = 0.75,
    normalizer: Normalizer = "anchors",
    eps: float = 1e-8,
    max_block: int = 8000,
    *,
    valid: Tensor | None = None,
    bank_valid: Tensor | None = None,
    num_classes: int | None = None,
    reduction: Reduction = "mean",
) -> tuple[Tensor | SumCount, Tensor | SumCount]:
    """Pull the less confident of two views of a pixel to the other one, away from other classes (CAC).

    L_1 is over the pixels where view 1 learns: ``confidence_1 < confidence_2`` and view 2 above the threshold.
    Such a pixel i has the loss ``-log(e^(p-m) / (D + eps) + eps)`` with ``p = f1_i . f2_i / temperature``,
    ``D = e^(p-m) + sum of e^(n_j-m)`` over the bank's entries of another class than ``labels_1[i]``,
    ``n_j = f1_i . bank_j / temperature``, and m the largest of p and of *all* n_j among the first ``max_block``
    entries. L_2 swaps the views. This is the loss of CAC (arXiv 2106.14133) as its authors' code has it.

    Gradient reaches only the view that learns (``features_1`` from L_1, ``features_2`` from L_2), m included;
    its target, the bank, labels and confidences get none. A pixel learns in one direction at most, so one pass
    over the bank serves both losses, and the gradient is computed in that pass: nothing of size M x N is kept.

    Features of length 1 below a temperature of about 0.025 may overflow float32 beyond the first block.

    Args:
        features_1: anchors ``(M, D)`` of view 1, of length 1.
        features_2: anchors of view 2; row i shows the same place as row i of view 1.
        labels_1: classes ``(M,)`` that view 1 predicts, integers.
        labels_2: classes ``(M,)`` that view 2 predicts.
        confidence_1: probabilities ``(M,)`` of ``labels_1``.
        confidence_2: probabilities ``(M,)`` of ``labels_2``.
        bank_features: negatives ``(N, D)``, of length 1; N may be 0.
        bank_labels: predicted classes ``(N,)`` of the negatives.
        temperature: divisor of the cosines. CAC: 0.1.
        positive_threshold: confidence that the target has to exceed. CAC: 0.75.
        normalizer: divisor of the sums: the number of "anchors" that learn in a direction, as in the authors'
            code, or of all valid positions of the "overlap", as in the paper.
        eps: both constants of the formula.
        max_block: number of entries of the bank that are compared at once, and that m is taken from. CAC: 8000.
        valid: ``(M,) bool``, rows that count, so that M can be the same in every step; ``None`` counts all.
        bank_valid: ``(N,) bool``, entries that exist, for a bank that is partly filled; ``None`` takes all.
        num_classes: number that all labels are below. Where it is given, CUDA's autocast multiplies in 16 bits
            with float32 sums, for temperatures from 0.1 on; without it, and elsewhere, all is float32.
        reduction: ``"mean"`` or ``"sum_count"``.

    Returns:
        ``(L_1, L_2)``, or a pair of ``(sum, count)``; 0 with zero gradient where nothing learns. Computed in
        float32, or in float64 where ``features_1`` is.

    Raises:
        UserError: an unknown ``normalizer``, or a temperature or block that is not above 0.
    """
    if normalizer not in NORMALIZERS:
        raise UserError(f"choose one of {', '.join(NORMALIZERS)}.", key="normalizer", value=normalizer)
    if temperature <= 0 or max_block < 1:
        raise UserError(f"temperature={temperature}, max_block={max_block}: expected numbers above 0.")
    dtype = torch.float64 if features_1.dtype == torch.float64 else torch.float32
    ones, others = features_1.to(dtype), features_2.to(dtype)
    # published code: models/model.py, CAC.forward (the masks of both directions)
    first = confidence_1 < confidence_2
    learning = (
        first & (confidence_2 > positive_threshold),
        (confidence_2 < confidence_1) & (confidence_1 > positive_threshold),
    )
    if valid is not None:
        learning = (learning[0] & valid, learning[1] & valid)
    halves = dtype == torch.float32 and features_1.is_cuda and torch.is_autocast_enabled("cuda")
    with torch.autocast(features_1.device.type, enabled=False):
        entries = (bank_features.detach().to(dtype), bank_labels, bank_valid)
        bank: HalfBank | _Bank
        if halves and num_classes is not None and temperature >= LOWEST_TEMPERATURE:
            bank = HalfBank(*entries, num_classes, max_block)
        else:
            bank = _Bank(*entries, max_block)
        loss = _Contrast.apply(
            torch.where(first[:, None], ones, others),
            torch.where(first[:, None], others, ones).detach(),
            torch.where(first, labels_1, labels_2),
            bank,
            temperature,
            eps,
        )
    positions = torch.full_like(first, True) if valid is None else valid
    loss_1, loss_2 = (
        SumCount(torch.where(rows, loss, 0.0).sum(), (rows if normalizer == "anchors" else positions).sum())
        for rows in learning
    )
    return reduced(loss_1, reduction), reduced(loss_2, reduction)


@dataclass(frozen=True)
class _Bank:
    """Negatives that are compared in their own precision; the arguments are those of ``HalfBank``."""

    features: Tensor
    labels: Tensor
    valid: Tensor | None
    max_block: int

    def compare(
        self, query: Tensor, target: Tensor, positive: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Do what ``HalfBank.compare`` does."""
        peak, nearest = positive, target
        total, weighted = torch.zeros_like(positive), torch.zeros_like(target)
        for begin in range(0, len(self.features), self.max_block):
            part = slice(begin, begin + self.max_block)
            block = self.features[part]
            hidden = labels[:, None] == self.labels[part]
            energy = query @ block.T
            if self.valid is not None:
                hidden |= ~self.valid[part]
            if begin == 0:
                peak, nearest = _peak(positive, target, energy, block, self.valid)
            energy.sub_(peak[:, None]).exp_().masked_fill_(hidden, 0.0)
            total += energy.sum(1)
            weighted.addmm_(energy, block)
        return peak, nearest, total, weighted


class _Contrast(torch.autograd.Function):
    """The loss of each row, and its gradient with respect to the anchor, in one pass over the bank."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        targets: Tensor,
        labels: Tensor,
        bank: HalfBank | _Bank,
        temperature: float,
        eps: float,
    ) -> Tensor:
        losses, gradients = torch.empty_like(anchors[:, 0]), torch.empty_like(anchors)
        tile = _TILE.get(anchors.device.type, _ACCELERATOR_TILE)
        rows = max(tile // max(min(bank.max_block, len(bank.features)), 1), 1)
        for start in range(0, len(anchors), rows):
            part = slice(start, start + rows)
            query, target = anchors[part] / temperature, targets[part]
            positive = (query * target).sum(1)
            peak, nearest, total, weighted = bank.compare(query, target, positive, labels[part])
            # -log(e^(p-m) / (D + eps) + eps), with share = e^(p-m) / (D + eps)
            own = (positive - peak).exp()
            scale = own + total + eps
            share = own / scale
            losses[part] = -(share + eps).log()
            # Derivative by the anchor, in closed form; ``nearest`` is the vector that m comes from.
            slope = -share / ((share + eps) * scale * temperature)
            gradients[part] = slope[:, None] * ((total + eps)[:, None] * target - weighted - eps * nearest)
        ctx.save_for_backward(gradients)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors
        return gradients * upstream[:, None], None, None, None, None, None


def _peak(
    positive: Tensor, target: Tensor, energy: Tensor, block: Tensor, bank_valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The largest exponent of each row, its own positive included, and the vector that it comes from."""
    if bank_valid is not None:
        energy = energy.masked_fill(~bank_valid[: len(block)], -torch.inf)
    highest, place = energy.max(1)
    above = highest > positive
    return torch.where(above, highest, positive), torch.where(above[:, None], block[place], target)
