"""Distances between the predictions of a student and its teacher: Mean Teacher and CutMix-Seg; and their ramps."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.training import SumCount
from semiseg.losses.reduction import Reduction, reduced, reducible

Distance = Literal["mse_sum", "mse_mean", "kl", "ce_hard", "bce", "logits", "smooth_l1"]
ConfidenceRule = Literal["batch_mean", "pixel"]
PixelDivisor = Literal["all", "valid"]
Ramp = Literal["sigmoid", "linear"]

BCE_FLOOR = 1e-6
"""Number that the binary cross entropy of CutMix-Seg adds inside both logarithms."""


@reducible(Tensor, SumCount)
def consistency_loss(
    logits: Tensor,
    teacher: Tensor,
    keep: Tensor | None = None,
    valid: Tensor | None = None,
    distance: Distance = "mse_sum",
    confidence: ConfidenceRule = "batch_mean",
    divisor: PixelDivisor = "all",
    *,
    reduction: Reduction = "mean",
) -> Tensor | SumCount:
    """Average the distance of a student's predictions from its teacher's over pixels.

    The defaults are the loss of CutMix-Seg; ``mse_mean`` without ``keep`` and ``valid`` is that of Mean Teacher in
    TorchSemiSeg. The sum of "sum_count" with ``mse_mean`` or ``kl`` is that of Mean Teacher's own code.

    Args:
        logits: logits ``(N, C, H, W)`` of the student, floating point.
        teacher: logits of the teacher on the same pixels; they get no gradient.
        keep: ``(N, H, W) bool``, pixels of which the teacher is confident; ``None`` for all.
        valid: weights ``(N, H, W)``, bool or from 0 to 1, 0 in padding; ``None`` counts padding.
        distance: what is compared, see ``pixel_distance``.
        confidence: use of ``keep``: "batch_mean" multiplies every pixel of the batch by its mean, as published, so
            that unsure pixels are learned too; "pixel" leaves unsure pixels out.
        divisor: "all" pixels, as published, or the "valid" ones alone. Unsure pixels count in both.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the divisor.
    """
    # Published code of CutMix-Seg: train_seg_semisup_mask_mt.py
    loss = pixel_distance(logits, teacher.detach(), distance)
    count = torch.full((), loss.numel(), dtype=torch.int64, device=loss.device)
    if keep is not None:
        factor = keep.to(loss.dtype)
        loss = loss * (factor.mean() if confidence == "batch_mean" else factor)
    if valid is not None:
        loss = loss * valid.to(loss.dtype)
        count = valid.sum() if divisor == "valid" else count
    return reduced(SumCount(loss.sum(), count), reduction)


def pixel_distance(logits: Tensor, teacher: Tensor, distance: Distance) -> Tensor:
    """Return the distance at every pixel, ``(N, H, W)``, float32 at least.

    Args:
        logits: logits ``(N, C, H, W)`` of the student.
        teacher: logits of the teacher.
        distance: squared difference of probabilities, summed ("mse_sum") or averaged over classes ("mse_mean"); "kl",
            divergence of the student from the teacher; "ce_hard", cross entropy with the teacher's class; "bce", binary
            cross entropy of each class; squared difference ("logits") or "smooth_l1" of logits, over sqrt(C).
    """
    if logits.dtype != torch.float64:
        logits, teacher = logits.float(), teacher.float()
    classes = logits.shape[1]
    if distance == "ce_hard":
        return F.cross_entropy(logits, teacher.max(1).indices, reduction="none")
    if distance == "kl":
        return F.kl_div(logits.log_softmax(1), teacher.softmax(1), reduction="none").sum(1)
    if distance == "logits":
        return (logits - teacher).square().sum(1) / math.sqrt(classes)
    if distance == "smooth_l1":
        return F.smooth_l1_loss(logits, teacher, reduction="none").sum(1) / math.sqrt(classes)
    p, q = logits.softmax(1), teacher.softmax(1)
    if distance == "bce":
        # Published code of CutMix-Seg: network_architectures.py, robust_binary_crossentropy
        return -(q * (p + BCE_FLOOR).log() + (1 - q) * (1 - p + BCE_FLOOR).log()).sum(1)
    squared = (p - q).square().sum(1)
    return squared / classes if distance == "mse_mean" else squared


def ramp_up(epoch: float, length: float, ramp: Ramp = "sigmoid") -> float:
    """Return a factor that rises from almost 0 at epoch 0 to 1 at epoch ``length``; 1 where that is 0.

    Args:
        epoch: epochs since the start, 0 or more.
        length: epochs until the factor is 1.
        ramp: "sigmoid", ``exp(-5 (1 - t)^2)`` with ``t = epoch / length`` (Mean Teacher's ``ramps.py``), or ``t``
            itself ("linear").
    """
    share = min(epoch / length, 1.0) if length > 0 else 1.0
    return share if ramp == "linear" else math.exp(-5.0 * (1.0 - share) ** 2)
