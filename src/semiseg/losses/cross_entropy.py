"""Cross entropy over the valid pixels, over the hard ones, and of two networks that teach each other."""

import math
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.contracts.training import SumCount

Reduction = Literal["mean", "sum_count"]

OHEM_KEPT_SHARE = 5 / 64
"""Pixels that hard example mining keeps at least: the published 50,000 of an 800 x 800 crop."""


@overload
def cross_entropy(
    logits: Tensor, target: Tensor, ignore_index: int = ..., *, reduction: Literal["mean"] = ...
) -> Tensor: ...
@overload
def cross_entropy(
    logits: Tensor, target: Tensor, ignore_index: int = ..., *, reduction: Literal["sum_count"]
) -> SumCount: ...
def cross_entropy(
    logits: Tensor, target: Tensor, ignore_index: int = IGNORE_INDEX, *, reduction: Reduction = "mean"
) -> Tensor | SumCount:
    """Average the softmax cross entropy over all valid pixels of the batch.

    Args:
        logits: ``(N, C, ...)`` floating point.
        target: ``(N, ...) int64``, classes 0 to C-1 or ``ignore_index``.
        ignore_index: label of pixels that do not count.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the number of valid pixels.
    """
    loss = _pixel_loss(logits, target, ignore_index)
    return _reduce(loss.sum(), (target != ignore_index).sum(), reduction)


@overload
def ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    threshold: float = ...,
    min_kept: int | None = ...,
    ignore_index: int = ...,
    *,
    reduction: Literal["mean"] = ...,
) -> Tensor: ...
@overload
def ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    threshold: float = ...,
    min_kept: int | None = ...,
    ignore_index: int = ...,
    *,
    reduction: Literal["sum_count"],
) -> SumCount: ...
def ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    threshold: float = 0.7,
    min_kept: int | None = None,
    ignore_index: int = IGNORE_INDEX,
    *,
    reduction: Reduction = "mean",
) -> Tensor | SumCount:
    """Average the cross entropy over the pixels that the network finds hard (online hard example mining).

    A valid pixel is kept where the probability of its true class is at most ``threshold`` or among the
    ``min_kept`` smallest, ties included. With fewer than ``min_kept`` valid pixels nothing is mined and all
    of them count. This is the supervised loss of CPS on Cityscapes.

    Args:
        logits: ``(N, C, ...)`` floating point.
        target: ``(N, ...) int64``, classes 0 to C-1 or ``ignore_index``.
        threshold: probability of the true class above which a pixel is easy.
        min_kept: pixels kept at least, counted over the whole batch; None takes 5/64 of its pixels.
        ignore_index: label of pixels that do not count.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the number of kept pixels.
    """
    loss = _pixel_loss(logits, target, ignore_index)
    valid = target != ignore_index
    least = round(OHEM_KEPT_SHARE * loss.numel()) if min_kept is None else min_kept
    keep = valid & ((loss >= _mining_bound(loss.detach(), threshold, least)) | (valid.sum() < least))
    return _reduce(torch.where(keep, loss, 0.0).sum(), keep.sum(), reduction)


@overload
def cross_pseudo_loss(logits_a: Tensor, logits_b: Tensor, *, reduction: Literal["mean"] = ...) -> Tensor: ...
@overload
def cross_pseudo_loss(logits_a: Tensor, logits_b: Tensor, *, reduction: Literal["sum_count"]) -> SumCount: ...
def cross_pseudo_loss(
    logits_a: Tensor, logits_b: Tensor, *, reduction: Reduction = "mean"
) -> Tensor | SumCount:
    """Let two networks teach each other with their hard predictions: CE(a, argmax b) + CE(b, argmax a).

    No threshold and nothing ignored: every pixel counts, padding too. The labels carry no gradient. This is
    the loss of CPS (arXiv 2106.01226).

    Args:
        logits_a: ``(N, C, H, W)`` floating point, of the first network.
        logits_b: the same of the second network, on the same images.
        reduction: ``"mean"`` or ``"sum_count"``; the count is N * H * W, so the mean is the sum of two means.
    """
    # On a CPU, max is several times faster than argmax over the channels.
    loss_a = _pixel_loss(logits_a, logits_b.detach().max(1).indices, IGNORE_INDEX)
    loss_b = _pixel_loss(logits_b, logits_a.detach().max(1).indices, IGNORE_INDEX)
    count = torch.full((), loss_a.numel(), dtype=torch.int64, device=loss_a.device)
    return _reduce(loss_a.sum() + loss_b.sum(), count, reduction)


def _pixel_loss(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Cross entropy of every pixel, 0 at ignored ones."""
    if logits.dtype != torch.float64:
        logits = logits.float()
    # Summing here rather than in the loss keeps CUDA deterministic: its own reduction adds atomically.
    return F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")


def _mining_bound(loss: Tensor, threshold: float, min_kept: int) -> Tensor:
    """Loss from which a pixel is hard: -log(max(threshold, k-th smallest probability of the true class))."""
    bound = loss.new_full((), -math.log(threshold))
    if min_kept == 0:
        return bound
    # With fewer pixels than min_kept nothing is mined, so that any valid k will do.
    largest = loss.flatten().topk(min(min_kept, loss.numel()), sorted=False).values
    return torch.minimum(largest.min(), bound)


def _reduce(total: Tensor, count: Tensor, reduction: Reduction) -> Tensor | SumCount:
    return total / count.clamp_min(1) if reduction == "mean" else SumCount(total, count)
