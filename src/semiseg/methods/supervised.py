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
from semiseg.methods.labeled_loss import FirstFit, LabeledLoss, LabeledLossSettings
from semiseg.models.grouped_norm import group_batch_norm
from semiseg.settings import TrainerSettings

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
        learner = SupervisedLearner(network, self.labeled_loss(lab), self.ema_decay)
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
        self.loss = loss or LabeledLoss(LabeledLossSettings())
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
