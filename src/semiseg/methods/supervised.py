"""Training on labeled images alone: the baseline of every method, and the teacher and student of ST++."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, cast

from torch import Tensor

from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Batch, Learner, LossTerm, Network, Progress, StepOutput, SumCount
from semiseg.data.epochs import labeled
from semiseg.declare import Ge, Gt, Le, Lt, Mark, record
from semiseg.engine.ema import EMA
from semiseg.errors import UserError
from semiseg.losses import class_weighted, cross_entropy, dice_loss, focal_loss, ohem_cross_entropy
from semiseg.models.grouped_norm import group_batch_norm
from semiseg.settings import TrainerSettings

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
    dice_weight: Annotated[Annotated[float, Gt(0)] | None, FirstFit] = None
    """Weight of the Dice loss of labeled pixels, which is added to the other; ``null`` adds none. It is a mean over the
    images of a pass, so that ``trainer.accumulate`` changes it a little."""

    def labeled_loss(self, logits: Tensor, target: Tensor) -> SumCount:
        """Return the sum of the losses of ``(N, C, H, W)`` logits and the number of pixels in it.

        Raises:
            UserError: ``class_weights`` are not one for each class, or given beside another loss; or
                ``label_smoothing`` is given beside another loss or ``class_weights``.
        """
        parts = self._pixel_loss(logits, target)
        if self.dice_weight is None:
            return parts
        return SumCount(
            parts.total + self.dice_weight * dice_loss(logits, target) * parts.counted, parts.counted
        )

    def _pixel_loss(self, logits: Tensor, target: Tensor) -> SumCount:
        """Return the loss without Dice."""
        if self.label_smoothing and (self.loss != "ce" or self.class_weights is not None):
            raise UserError(
                "goes with method.loss=ce without method.class_weights.",
                key="method.label_smoothing",
                value=self.label_smoothing,
            )
        if self.class_weights is not None:
            self._check_class_weights(logits.shape[1])
            return class_weighted(logits, target, self.class_weights, reduction="sum_count")
        if self.loss == "focal":
            gamma = 2.0 if self.focal_gamma is None else self.focal_gamma
            return focal_loss(logits, target, gamma, reduction="sum_count")
        if self.loss == "ohem":
            # published code of CPS: furnace/seg_opr/loss_opr.py, ProbOhemCrossEntropy2d
            return ohem_cross_entropy(
                logits, target, self.ohem_threshold, self.ohem_min_kept, reduction="sum_count"
            )
        return cross_entropy(logits, target, label_smoothing=self.label_smoothing, reduction="sum_count")

    def _check_class_weights(self, classes: int) -> None:
        weights = list(self.class_weights or ())
        if self.loss != "ce":
            raise UserError(
                f"goes with method.loss=ce, not {self.loss}.", key="method.class_weights", value=weights
            )
        if len(weights) != classes or not any(weights):
            raise UserError(
                f"give one weight for each of the {classes} classes, at least one above 0.",
                key="method.class_weights",
                value=weights,
            )


GroupSize = Annotated[Annotated[int, Ge(2)] | None, FirstFit]
"""Number of images of a batch that share the statistics of batch norm; ``None`` takes the whole batch."""


@dataclass(frozen=True)
class NormGroups:
    """Groups of images of a batch that share the statistics of batch norm while training.

    The running statistics are those of the first group, as ``DataParallel`` keeps those of its first device.

    Args:
        size: number of images of a group; ``None`` takes the whole batch.
    """

    size: int | None = None

    def check(self, batch_size: int, trainer: TrainerSettings, given: str) -> None:
        """Require that the groups of a pass through the network are equal.

        Args:
            batch_size: number of images of a step.
            trainer: settings with the number of passes of a step.
            given: keys that give the batch size, for the message.

        Raises:
            UserError: they are not equal.
        """
        at_once = batch_size // trainer.accumulate
        if self.size is not None and at_once % self.size:
            parts = f" / trainer.accumulate={trainer.accumulate}" if trainer.accumulate > 1 else ""
            raise UserError(
                f"no divisor of the {at_once} images that go through the network at once ({given} = "
                f"{batch_size}{parts}). Choose a divisor, or null.",
                key="method.bn_group_size",
                value=self.size,
            )

    def apply(self, network: Network, batch_size: int, trainer: TrainerSettings) -> Network:
        """Convert the batch norms of a network in place, and return it; raises as ``check`` does."""
        self.check(batch_size, trainer, "images a step")
        if self.size is not None:
            group_batch_norm(network, batch_size // trainer.accumulate // self.size, running="first")
        return network


@record
class Supervised(LabeledLossSettings):
    """Train on the labeled images alone."""

    augment: Annotated[Literal["weak", "strong"], Mark(first_fit=True, same_as="teacher_augment")] = "weak"
    """View of the images: "weak", or "strong" to add the photometric changes and cutout of ``augment``."""
    double_below: Annotated[int, FirstFit] = 0
    """Number of images below which the list is used twice per epoch; the baseline of ST++ has 200."""
    bn_group_size: GroupSize = None
    """Number of images whose statistics batch norm takes together; the baseline of ST++ has 8 of 16. ``null`` takes the
    whole batch."""
    ema_decay: Annotated[Annotated[float, Ge(0), Lt(1)] | None, FirstFit] = None
    """Decay of the moving average of the network that is reported, for example 0.99; ``null`` reports the network."""
    snapshots: Sequence[Annotated[float, Gt(0), Le(1)]] | None = None
    """Fractions of the training at which the network is kept too, for method=stpp method.baseline=THIS_RUN; ``null``
    keeps none."""

    needs_unlabeled: ClassVar[bool] = False

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Return the number of labeled images.

        Raises:
            UserError: batch norm can't be taken over equal groups of them.
        """
        NormGroups(self.bn_group_size).check(trainer.batch_size, trainer, "trainer.batch_size")
        return {"trainer.batch_size": trainer.batch_size}

    def run(self, lab: Lab) -> Network:
        """Train one network and return it."""
        view = lab.augment.strong if self.augment == "strong" else lab.augment.weak
        batch_size = lab.trainer.batch_size
        streams = labeled(lab.split.labeled, view, batch_size, lab.budget, double_below=self.double_below)
        network = NormGroups(self.bn_group_size).apply(lab.network("model"), batch_size, lab.trainer)
        learner = SupervisedLearner(network, self.labeled_loss, self.ema_decay)
        return lab.fit("train", learner, streams, self.snapshots or ()).selected


class SupervisedLearner(Learner):
    """One network on one stream of images with labels, true ones or pseudo-labels.

    Args:
        model: network to train.
        loss: loss of logits and labels, summed over the valid pixels; ``None`` takes cross entropy.
        ema_decay: decay of an exponential moving average of the network, which is then evaluated and reported;
            ``None`` takes no average.
    """

    def __init__(
        self,
        model: Network,
        loss: Callable[[Tensor, Tensor], SumCount] | None = None,
        ema_decay: float | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss or LabeledLossSettings().labeled_loss
        self.average = None if ema_decay is None else EMA(model, ema_decay)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Average the loss over all valid pixels of the batch's only stream."""
        (part,) = batch.values()
        target = part["label"]
        total, count = self.loss(self.model(part["image"]), target)
        return StepOutput({"supervised": LossTerm(total, count)}, {"pixels_used": count / target.numel()})

    def after_step(self, progress: Progress) -> None:
        """Update the average, where there is one."""
        if self.average is not None:
            self.average.update(self.model)

    def predictors(self) -> dict[str, Network]:
        """The average where there is one, and the network."""
        if self.average is None:
            return {"model": self.model}
        return {"average": cast(Network, self.average.teacher), "model": self.model}
