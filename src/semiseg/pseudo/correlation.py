"""Correlation between the positions of a feature map: what it passes on, and regions that it finds (CorrMatch)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Propagation = Literal["scatter", "normalized", "gather"]

CUT = 0.5
"""Share of a row's span above which a position belongs to its region."""


def correlation_map(one: Tensor, two: Tensor) -> Tensor:
    """Return how much each of the P = h * w positions correlates with each other: ``(N, P, P)``, rows that sum to 1.

    Args:
        one: features ``(N, K, h, w)`` of the rows, floating point.
        two: features ``(N, K, h, w)`` of the columns.
    """
    # CorrMatch: M = softmax(one^T two / sqrt(K)) over its last index. Autocast would cut it to 8 bits.
    with torch.autocast(one.device.type, enabled=False):
        rows, columns = (_precise(each).flatten(2) for each in (one, two))
        return (rows.transpose(1, 2) @ columns / math.sqrt(one.shape[1])).softmax(-1)


def propagated(logits: Tensor, correlation: Tensor, rule: Propagation = "scatter") -> Tensor:
    """Pass logits on along a correlation map M, ``(N, K, h, w)``.

    Args:
        logits: logits ``(N, K, h, w)`` of its positions.
        correlation: ``(N, P, P)``, see ``correlation_map``.
        rule: "scatter" sums z_i M[i, j] over i, as published, so that a position to which many point gets large logits;
            "normalized" divides that by the sum of M[i, j] over i; "gather" takes the mean of z_j M[i, j] over j.
    """
    with torch.autocast(logits.device.type, enabled=False):
        values = logits.to(correlation.dtype).flatten(2)
        passed = values @ (correlation.transpose(1, 2) if rule == "gather" else correlation)
        if rule == "normalized":
            passed = passed / correlation.sum(1, keepdim=True)
    return passed.view_as(logits)


@torch.no_grad()
def correlated_regions(
    correlation: Tensor, rows: Tensor, shape: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Return the region of each of R positions: where its correlation lies in the upper half of its span.

    Args:
        correlation: ``(N, P, P)``, see ``correlation_map``.
        rows: R numbers of positions, ``(R,) int64``, the same for all images.
        shape: (h, w) of the map, with P = h * w.
        size: (H, W) of the regions.

    Returns:
        ``(N, R, H, W) bool``; nothing for a position that correlates equally with all.
    """
    chosen = correlation.index_select(1, rows).view(len(correlation), len(rows), *shape)
    # One image at a time: R maps of full size are large as long as they are numbers.
    return torch.stack([_region(each, size) for each in chosen])


def _region(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut ``(R, h, w)`` correlations at full size."""
    full = F.interpolate(maps[None], size, mode="bilinear", align_corners=True)[0]
    low, high = full.amin((1, 2), keepdim=True), full.amax((1, 2), keepdim=True)
    # Rounding alone would cut an arbitrary region out of a row that is constant.
    told_apart = high - low > 1024 * torch.finfo(full.dtype).eps * high
    return ((full - low) / (high - low) > CUT) & told_apart


@torch.no_grad()
def region_votes(
    regions: Tensor, label: Tensor, sure: Tensor, threshold: Tensor | float, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Give whole regions the class that most of their confident pixels have, one region after the other.

    A region counts if it has a confident pixel and their share is at least the threshold. If then the share of the most
    frequent class among them, the lowest one on ties, exceeds the threshold, all of the region gets this class and
    becomes confident. Each vote sees the labels that regions before it have changed; which pixels vote stays as it was.

    Args:
        regions: ``(N, R, H, W) bool``, in the order of the votes.
        label: pseudo-labels ``(N, H, W) int64``.
        sure: ``(N, H, W) bool``, the confident pixels.
        threshold: number or scalar.
        num_classes: number of classes K.

    Returns:
        The new labels, and which pixels are confident now.
    """
    areas, voters = regions.flatten(2), (regions & sure[:, None]).flatten(2)
    size, count = areas.sum(-1), voters.sum(-1)
    # Known before any vote; the others follow one another, on the device alone.
    counts = (count > 0) & (count / size >= threshold)
    kept, flat = sure.flatten(1), label.flatten(1)
    for area, voter, total, admitted in zip(
        areas.unbind(1), voters.unbind(1), count.unbind(1), counts.unbind(1), strict=True
    ):
        votes = torch.zeros(len(flat), num_classes, dtype=torch.int64, device=flat.device)
        votes.scatter_add_(1, flat, voter.long())
        most = votes.amax(1, keepdim=True)
        # Not argmax, which may return any of several largest.
        winner = torch.where(votes == most, torch.arange(num_classes, device=flat.device), num_classes).amin(
            1
        )
        won = area & (admitted & (most[:, 0] / total > threshold))[:, None]
        flat = torch.where(won, winner[:, None], flat)
        kept = kept | won
    return flat.view_as(label), kept.view_as(sure)


def class_peaks(confidence: Tensor, label: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Return the largest confidence of each class, ``(K,)``; 0 where no valid pixel has it.

    Args:
        confidence: ``(N, H, W)``, above 0.
        label: classes ``(N, H, W) int64``.
        valid: ``(N, H, W) bool``, pixels that count.
        num_classes: number of classes K.
    """
    counted = torch.where(valid, confidence, 0).flatten()
    return counted.new_zeros(num_classes).scatter_reduce(0, label.flatten(), counted, "amax")


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
