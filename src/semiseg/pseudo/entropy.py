"""Entropy of predictions, and percentiles of the pixels that count, computed without waiting for the device."""

from collections.abc import Sequence

import torch
from torch import Tensor


def entropy(probabilities: Tensor) -> Tensor:
    """Return ``-sum_c p_c ln(p_c + 1e-10)`` of class probabilities ``(N, C, H, W)`` as ``(N, H, W)``."""
    # Published code of U2PL: u2pl/utils/loss_helper.py, compute_unsupervised_loss.
    return -(probabilities * (probabilities + 1e-10).log()).sum(1)


def masked_percentiles(values: Tensor, counted: Tensor, percents: Sequence[float]) -> Tensor:
    """Return percentiles of the counted values, by NumPy's linear rule.

    One sort serves all of them. Where nothing is counted, they are infinite.

    Args:
        values: values of any shape, finite, floating point.
        counted: bool of the same shape.
        percents: numbers from 0 to 100.

    Returns:
        Percentiles ``(len(percents),)``, of the type of the values.
    """
    ordered = values.masked_fill(~counted, torch.inf).flatten().sort().values
    last = counted.sum() - 1
    positions = torch.stack([last.double() * (percent / 100) for percent in percents]).clamp_min(0)
    before = positions.floor().long()
    # Not beyond what is counted: the difference of infinite neighbors would be NaN.
    after = torch.minimum(before + 1, last.clamp_min(0))
    low, high = ordered.index_select(0, before), ordered.index_select(0, after)
    return torch.where(low == high, low, low.lerp(high, (positions - before).to(values.dtype)))
