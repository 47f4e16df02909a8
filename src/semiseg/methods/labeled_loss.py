"""Loss of labeled pixels, which all methods share: its settings, and the loss that a run makes of them."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import SumCount
from semiseg.declare import Ge, Gt, Le, Lt, Mark, record
from semiseg.errors import UserError
from semiseg.losses import class_weighted, cross_entropy, dice_loss, focal_loss, ohem_cross_entropy

FirstFit = Mark(first_fit=True)
"""Mark of the settings of a fit that other runs may reuse (``method.baseline``)."""


@record
class LabeledLossSettings:
    """Settings of the loss of labeled pixels, for methods to inherit."""

    loss: Annotated[Literal["ce", "ohem", "focal"], FirstFit] = "ce"
    """Loss of labeled pixels: "ce", cross entropy; "ohem", of the hard ones alone, as CPS takes it on Cityscapes; or
    "focal", which weighs hard ones more."""
    ohem_threshold: Annotated[float, Gt(0), Le(1), FirstFit] = 0.7
    """Probability of the true class above which "ohem" leaves a pixel out."""
    ohem_min_kept: Annotated[Annotated[int, Ge(0)] | None, FirstFit] = None
    """Number of pixels of a batch that "ohem" keeps at least; ``null`` keeps the published share of 5/64."""
    focal_gamma: Annotated[Annotated[float, Ge(0)] | None, FirstFit] = None
    """Exponent of "focal"; ``null`` takes the published 2."""
    class_weights: Annotated[Sequence[Annotated[float, Ge(0)]] | None, FirstFit] = None
    """Weight of each class in the cross entropy of labeled pixels, in the order of the classes, for loss "ce"; ``null``
    weighs all equally."""
    label_smoothing: Annotated[float, Ge(0), Lt(1), FirstFit] = 0.0
    """Share of each label that is spread evenly over all classes, for loss "ce" without ``class_weights``."""
    logit_adjustment: Annotated[float, Ge(0), FirstFit] = 0.0
    """Factor of the logarithm of each class's share of the labeled pixels, which is added to the logits in the cross
    entropy alone, so that rare classes are predicted more (arXiv 2007.07314, there 1); for loss "ce" without
    ``class_weights``. 0 adds nothing."""
    dice_weight: Annotated[Annotated[float, Gt(0)] | None, FirstFit] = None
    """Weight of the Dice loss of labeled pixels, which is added to the other; ``null`` adds none. It is a mean over the
    images of a pass, so that ``trainer.accumulate`` changes it a little."""

    def conflicts(self) -> Iterator[UserError]:
        """Find values that are wrong together."""
        for name in ("label_smoothing", "logit_adjustment"):
            value = getattr(self, name)
            if value and (self.loss != "ce" or self.class_weights is not None):
                expected = "goes with method.loss=ce without method.class_weights."
                yield UserError(expected, key=f"method.{name}", value=value)
        if self.class_weights is not None and self.loss != "ce":
            expected = f"goes with method.loss=ce, not {self.loss}."
            yield UserError(expected, key="method.class_weights", value=list(self.class_weights))

    def labeled_loss(self, lab: Lab) -> "LabeledLoss":
        """Return the loss of the labeled pixels of a run; masks are read for ``logit_adjustment`` alone.

        Raises:
            UserError: ``class_weights`` are not one for each class.
        """
        classes, weights = lab.info.num_classes, self.class_weights
        if weights is not None and (len(weights) != classes or not any(weights)):
            raise UserError(
                f"give one weight for each of the {classes} classes, at least one above 0.",
                key="method.class_weights",
                value=list(weights),
            )
        if not self.logit_adjustment:
            return LabeledLoss(self)
        # eq. (10): tau log pi_y
        adjustment = self.logit_adjustment * torch.from_numpy(lab.class_shares).log()
        return LabeledLoss(self, adjustment.float())


class LabeledLoss(nn.Module):
    """Loss of labeled pixels, of logits ``(N, C, H, W)`` and labels ``(N, H, W) int64``.

    It is a module so that its numbers move to the device with the learner that it is part of.

    Args:
        settings: kind of the loss.
        adjustment: number for each class that is added to its logits in the cross entropy; ``None`` adds nothing.
    """

    adjustment: Tensor | None

    def __init__(self, settings: LabeledLossSettings, adjustment: Tensor | None = None) -> None:
        super().__init__()
        self.settings = settings
        # Not in checkpoints: it follows from settings and split.
        self.register_buffer("adjustment", adjustment, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> SumCount:
        """Return the sum of the losses and the number of pixels in it."""
        parts, weight = self._pixel_loss(logits, target), self.settings.dice_weight
        if weight is None:
            return parts
        return SumCount(parts.total + weight * dice_loss(logits, target) * parts.counted, parts.counted)

    def _pixel_loss(self, logits: Tensor, target: Tensor) -> SumCount:
        """Return the loss without Dice."""
        settings = self.settings
        if settings.class_weights is not None:
            return class_weighted(logits, target, settings.class_weights, reduction="sum_count")
        if settings.loss == "focal":
            gamma = 2.0 if settings.focal_gamma is None else settings.focal_gamma
            return focal_loss(logits, target, gamma, reduction="sum_count")
        if settings.loss == "ohem":
            # published code of CPS: furnace/seg_opr/loss_opr.py, ProbOhemCrossEntropy2d
            return ohem_cross_entropy(
                logits, target, settings.ohem_threshold, settings.ohem_min_kept, reduction="sum_count"
            )
        if self.adjustment is not None:
            # "Long-tail learning via logit adjustment" (arXiv 2007.07314), eq. (10); float32 where logits have less.
            logits = logits + self.adjustment[:, None, None]
        return cross_entropy(logits, target, label_smoothing=settings.label_smoothing, reduction="sum_count")
