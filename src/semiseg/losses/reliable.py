"""Cross entropy with reliable pseudo-labels, weighted up by the share of the pixels that are left (U2PL)."""

from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.contracts.training import SumCount
from semiseg.losses.cross_entropy import cross_entropy
from semiseg.losses.reduction import Reduction, reduced, reducible


@reducible(Tensor, SumCount)
def reliable_cross_entropy(
    logits: Tensor,
    label: Tensor,
    unreliable: Tensor,
    ignore_index: int = IGNORE_INDEX,
    *,
    reduction: Reduction = "mean",
) -> Tensor | SumCount:
    """Average the cross entropy over the n reliable pixels, times N / n with N pixels in all (arXiv 2203.03884).

    Of parts of a batch that are added up, each has its own N / n; their means are weighted by n.

    Args:
        logits: logits ``(N, C, H, W)``, floating point.
        label: pseudo-labels ``(N, H, W) int64``, classes 0 to C-1 or ``ignore_index``.
        unreliable: ``(N, H, W) bool``, pixels to leave out.
        ignore_index: label of further pixels that are left out; they count in N.
        reduction: ``"mean"`` or ``"sum_count"``; the count is n, and the sum has the factor N / n already.
    """
    # Published code: u2pl/utils/loss_helper.py, compute_unsupervised_loss.
    kept = label.masked_fill(unreliable, ignore_index)
    total, count = cross_entropy(logits, kept, ignore_index, reduction="sum_count")
    return reduced(SumCount(total * label.numel() / count.clamp_min(1), count), reduction)
