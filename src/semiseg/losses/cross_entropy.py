"""Cross entropy of all valid pixels, of the hard ones, and between two networks that teach each other."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.contracts.training import SumCount
from semiseg.losses.reduction import Reduction, reduced, reducible

Divisor = Literal["valid", "confident"]
ImageWeighting = Literal["pixelavg_shipped", "pixelavg", "pixelratio"]

OHEM_KEPT_SHARE = 5 / 64
"""Share of the pixels that hard example mining keeps at least: the published 50,000 of an 800 x 800 crop."""


@reducible(Tensor, SumCount)
def cross_entropy(
    logits: Tensor,
    target: Tensor,
    ignore_index: int = IGNORE_INDEX,
    label_smoothing: float = 0.0,
    *,
    reduction: Reduction = "mean",
) -> Tensor | SumCount:
    """Average the softmax cross entropy over all valid pixels of the batch.

    Args:
        logits: logits ``(N, C, ...)``, floating point.
        target: labels ``(N, ...) int64``, classes 0 to C-1 or ``ignore_index``.
        ignore_index: label of pixels that do not count.
        label_smoothing: share of each target that is spread evenly over all classes (Szegedy et al. 2016, section 7).
        reduction: ``"mean"`` or ``"sum_count"``; the count is the number of valid pixels.
    """
    loss = _pixel_loss(logits, target, ignore_index, label_smoothing)
    return reduced(SumCount(loss.sum(), (target != ignore_index).sum()), reduction)


@reducible(Tensor, SumCount)
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
        logits: logits ``(N, C, ...)``, floating point.
        target: labels ``(N, ...) int64``, classes 0 to C-1 or ``ignore_index``.
        threshold: probability of the true class above which a pixel is easy.
        min_kept: pixels kept at least, counted over the whole batch; ``None`` keeps 5/64 of its pixels.
        ignore_index: label of pixels that do not count.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the number of kept pixels.
    """
    # published code of CPS: furnace/seg_opr/loss_opr.py, ProbOhemCrossEntropy2d
    loss = _pixel_loss(logits, target, ignore_index)
    valid = target != ignore_index
    least = round(OHEM_KEPT_SHARE * loss.numel()) if min_kept is None else min_kept
    keep = valid & ((loss >= _mining_bound(loss.detach(), threshold, least)) | (valid.sum() < least))
    return reduced(SumCount(torch.where(keep, loss, 0.0).sum(), keep.sum()), reduction)


@reducible(Tensor, SumCount)
def confident_cross_entropy(
    logits: Tensor,
    label: Tensor,
    keep: Tensor,
    valid: Tensor,
    divisor: Divisor = "valid",
    *,
    reduction: Reduction = "mean",
) -> Tensor | SumCount:
    """Sum the cross entropy over confident pixels, and divide by the number of all pixels that are no padding.

    This is the unlabeled loss of FixMatch for segmentation and of UniMatch: a batch with few confident pixels counts
    little.

    Args:
        logits: logits ``(N, C, H, W)``, floating point.
        label: pseudo-labels ``(N, H, W) int64``, classes 0 to C-1 everywhere.
        keep: ``(N, H, W) bool``, pixels whose label is confident; or weights ``(N, H, W)``, floating point.
        valid: ``(N, H, W) bool``, False in padding.
        divisor: "valid" pixels, as published, or "confident" ones: the sum of ``keep`` over valid pixels.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the divisor.
    """
    # published code of UniMatch: unimatch.py, loss_u_s1 and its like.
    loss = _pixel_loss(logits, label, IGNORE_INDEX)
    used = keep * valid
    counted = valid.sum() if divisor == "valid" else used.sum()
    return reduced(SumCount((loss * used).sum(), counted), reduction)


@reducible(Tensor, SumCount)
def weighted_image_loss(
    logits: Tensor,
    label: Tensor,
    confidence: Tensor,
    keep: Tensor,
    valid: Tensor,
    weighting: ImageWeighting,
    *,
    reduction: Reduction = "mean",
) -> Tensor | SumCount:
    """Average the cross entropy of all pixels of an image, weighted by how sure the image's labels are (PrevMatch).

    Args:
        logits: logits ``(N, C, H, W)``, floating point.
        label: pseudo-labels ``(N, H, W) int64``.
        confidence: their probabilities ``(N, H, W)``.
        keep: ``(N, H, W) bool``, confident pixels.
        valid: ``(N, H, W) bool``, False in padding.
        weighting: "pixelavg" weighs each image by the mean confidence of its valid pixels; "pixelavg_shipped" sums that
            of all images and weighs the whole batch with it, padding included, as the published code does; "pixelratio"
            weighs each image, padding included, by its share of confident pixels.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the number of valid pixels.
    """
    # published code of PrevMatch: util/utils.py and prevmatch.py, confidence modes.
    loss = _pixel_loss(logits, label, IGNORE_INDEX)
    size = valid.sum((1, 2)).clamp_min(1)
    if weighting == "pixelratio":
        share = (keep & valid).sum((1, 2)) / size
        total = (loss.sum((1, 2)) * share).sum()
    else:
        mean = (confidence * valid).sum((1, 2)) / size
        shipped = weighting == "pixelavg_shipped"
        total = loss.sum() * mean.sum() if shipped else ((loss * valid).sum((1, 2)) * mean).sum()
    return reduced(SumCount(total, valid.sum()), reduction)


@reducible(Tensor, SumCount)
def cross_pseudo_loss(
    logits_a: Tensor, logits_b: Tensor, *, reduction: Reduction = "mean"
) -> Tensor | SumCount:
    """Sum the cross entropies of two networks with each other's hard predictions: CE(a, argmax b) + CE(b, argmax a).

    No threshold and nothing ignored: every pixel counts, padding too. The labels carry no gradient. This is
    the loss of CPS (arXiv 2106.01226).

    Args:
        logits_a: logits ``(N, C, H, W)`` of the first network, floating point.
        logits_b: logits of the second network on the same images.
        reduction: ``"mean"`` or ``"sum_count"``; the count is N * H * W, so the mean is the sum of two means.
    """
    # published code of CPS: exp.voc/*/train.py; L_cps of the paper without its weight.
    # On a CPU, max is several times faster than argmax over the channels.
    loss_a = _pixel_loss(logits_a, logits_b.detach().max(1).indices, IGNORE_INDEX)
    loss_b = _pixel_loss(logits_b, logits_a.detach().max(1).indices, IGNORE_INDEX)
    count = torch.full((), loss_a.numel(), dtype=torch.int64, device=loss_a.device)
    return reduced(SumCount(loss_a.sum() + loss_b.sum(), count), reduction)


def _pixel_loss(logits: Tensor, target: Tensor, ignore_index: int, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy of every pixel, 0 at ignored ones."""
    if logits.dtype != torch.float64:
        logits = logits.float()
    # Summing here rather than in the loss keeps CUDA deterministic: its own reduction adds atomically.
    return F.cross_entropy(
        logits, target, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction="none"
    )


def _mining_bound(loss: Tensor, threshold: float, min_kept: int) -> Tensor:
    """Smallest loss of a hard pixel: -log(max(threshold, k-th smallest probability of the true class))."""
    bound = loss.new_full((), -math.log(threshold))
    if min_kept == 0:
        return bound
    # With fewer pixels than min_kept nothing is mined, so any k in range will do.
    largest = loss.flatten().topk(min(min_kept, loss.numel()), sorted=False).values
    return torch.minimum(largest.min(), bound)
