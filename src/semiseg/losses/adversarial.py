"""Losses of and by a discriminator: AdvSemiSeg (arXiv 1802.07934) and s4GAN (arXiv 1908.05724)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.training import SumCount
from semiseg.losses.reduction import Reduction, reduced, reducible


@reducible(Tensor, SumCount)
def adversarial_loss(
    logits: Tensor, real: bool, valid: Tensor | None = None, *, reduction: Reduction = "mean"
) -> Tensor | SumCount:
    """Average the binary cross entropy of a discriminator's logits with one target over valid positions.

    The discriminator itself learns real ones with ``real=True`` and predictions with ``real=False`` (eq. (1) of
    arXiv 1802.07934); a network deceives it with ``real=True`` (eq. (4) there).

    Args:
        logits: logits of being true ``(N, ...)``, floating point.
        real: target of all positions.
        valid: ``(N, ...) bool``, positions that count; ``None`` for all.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the number of valid positions.
    """
    # Published code: utils/loss.py, BCEWithLogitsLoss2d.
    precise = logits if logits.dtype == torch.float64 else logits.float()
    loss = F.softplus(-precise if real else precise)
    if valid is None:
        count = torch.full((), loss.numel(), dtype=torch.int64, device=loss.device)
        return reduced(SumCount(loss.sum(), count), reduction)
    return reduced(SumCount(torch.where(valid, loss, 0.0).sum(), valid.sum()), reduction)


def feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean over channels of the distance between the mean features of two batches (s4GAN).

    It is no mean over images, so that parts of a batch don't add up. The real features get no gradient.

    Args:
        real: features of true label maps ``(N, C)``, floating point.
        fake: features of predictions ``(M, C)``.
    """
    # Published code: train_s4GAN.py, L_fm.
    return (real.detach().mean(0) - fake.mean(0)).abs().mean()


@reducible(Tensor, SumCount)
def selected_cross_entropy(
    logits: Tensor, chosen: Tensor, valid: Tensor | None = None, *, reduction: Reduction = "mean"
) -> Tensor | SumCount:
    """Average the cross entropy with the network's own labels over all pixels of chosen images (s4GAN).

    Args:
        logits: logits ``(N, K, H, W)``, floating point.
        chosen: ``(N,) bool``, images that are learned.
        valid: ``(N, H, W) bool``, False in padding that is left out; ``None`` counts all pixels.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the number of pixels that are learned.
    """
    # Published code: train_s4GAN.py, find_good_maps and the loss of self-training.
    precise = logits if logits.dtype == torch.float64 else logits.float()
    loss = F.cross_entropy(precise, precise.detach().max(1).indices, reduction="none")
    learned = chosen[:, None, None].expand_as(loss)
    learned = learned if valid is None else learned & valid
    return reduced(SumCount(torch.where(learned, loss, 0.0).sum(), learned.sum()), reduction)
