"""Entropy of predictions, and percentiles of the pixels that count, computed without waiting for the device."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.declare import Ge, Le, record

Percent = Annotated[float, Ge(0), Le(100)]


@record
class EntropySettings:
    """Settings of reliable and unreliable pixels, for methods to inherit (U2PL, arXiv 2203.03884, eq. (6))."""

    unreliable_percent: Percent = 20.0
    """Percent of the pseudo-labels, those of highest entropy, that L_u leaves out at first; falls to 0 linearly."""
    entropy_percent: Percent = 20.0
    """Percent of the pixels that have low, and that have high entropy for L_c at first; falls to 0 linearly."""

    def reliability(self, amount: Tensor, label: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return which pixels have low entropy, high entropy, and too much for L_u; all of them among the labeled ones.

        Args:
            amount: entropy ``(N, H, W)``.
            label: pseudo-labels ``(N, H, W) int64``, classes or 255.
            share: factor of both percents, 1 at first and 0 at the end.
        """
        counted, percent = label != IGNORE_INDEX, self.entropy_percent * share
        bounds = masked_percentiles(
            amount, counted, [percent, 100 - percent, 100 - self.unreliable_percent * share]
        )
        # Bounds belong to what they bound, so that at the end the one surest and the one unsurest pixel are left.
        return (
            (amount <= bounds[0]) & counted,
            (amount >= bounds[1]) & counted,
            (amount >= bounds[2]) & counted,
        )


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
