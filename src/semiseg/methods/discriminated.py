"""Settings and learner of methods whose network deceives a discriminator of true label maps and predictions."""

from typing import Annotated, ClassVar, Literal

from torch import nn

from semiseg.contracts.feeding import View
from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Further, Learner, LossTerm, Network, SumCount
from semiseg.data.epochs import Unlabeled, separate, with_labeled
from semiseg.data.streams import Streams
from semiseg.declare import Ge, Gt, record
from semiseg.engine.optim import Adam
from semiseg.methods.labeled_loss import LabeledLoss, LabeledLossSettings
from semiseg.models.discriminators import require_crop
from semiseg.settings import TrainerSettings


@record
class DiscriminatorSettings(LabeledLossSettings):
    """Settings of a discriminator and of the true label maps that it sees."""

    real_labels: Literal["third", "same"] = "third"
    """True label maps of the discriminator: those of a "third" stream of labeled images, as published, or the "same" as
    those of the labeled batch."""
    discriminator_lr: Annotated[float, Gt(0)] = 1e-4
    """Learning rate of the discriminator's Adam, betas 0.9 and 0.99, under the schedule of the run. Published: 1e-4;
    s4GAN on Cityscapes 1e-5."""
    discriminator_channels: Annotated[int, Ge(1)] = 64
    """Channels behind the first conv of the discriminator, which three more double. Published 64."""

    needs_unlabeled: ClassVar[bool] = True
    smallest_crop: ClassVar[int]
    """Pixels a side that the discriminator needs."""

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Return the numbers of labeled and unlabeled images, which pass through the network separately.

        Raises:
            UserError: crops are smaller than the discriminator needs.
        """
        require_crop(trainer, self.smallest_crop)
        return {
            "trainer.batch_size": trainer.batch_size,
            "trainer.unlabeled_batch_size": trainer.unlabeled_batch_size,
        }

    def streams(self, lab: Lab, unlabeled: View, real: View) -> Streams:
        """Return the streams "labeled", "unlabeled" and, for true label maps of their own, "labeled_2".

        Args:
            lab: lab with split, lengths and views.
            unlabeled: view of unlabeled images.
            real: view of the true label maps of the discriminator.
        """
        trainer = lab.trainer
        streams = separate(
            lab.split.labeled,
            lab.augment.weak,
            {"unlabeled": Unlabeled(lab.split.unlabeled, unlabeled)},
            batch_size=trainer.batch_size,
            unlabeled_batch_size=trainer.unlabeled_batch_size,
            budget=lab.budget,
        )
        return with_labeled(streams, lab.split.labeled, real) if self.real_labels == "third" else streams


class DiscriminatedLearner(Learner):
    """A network and its discriminator, trained in the same step by optimizers of their own.

    Both optimizers step after all losses, so that every loss is one of the old weights of both; what must not train
    the discriminator sees its weights detached, and the discriminator sees detached predictions.

    Args:
        model: network to train.
        method: settings.
        loss: loss of labeled pixels.
        discriminator: its discriminator.
    """

    def __init__(
        self, model: Network, method: DiscriminatorSettings, loss: LabeledLoss, discriminator: nn.Module
    ) -> None:
        super().__init__()
        self.model, self.loss, self.discriminator = model, loss, discriminator
        self._optimizer = Adam(lr=method.discriminator_lr, beta1=0.9, beta2=0.99)

    def predictors(self) -> dict[str, Network]:
        """The network; the discriminator is of no use after training."""
        return {"model": self.model}

    def further(self) -> dict[str, Further]:
        """The discriminator, with an Adam of its own."""
        return {"discriminator": Further(self.discriminator, self._optimizer)}


def discriminator_terms(fake: SumCount, real: SumCount) -> dict[str, LossTerm]:
    """Return the two halves of the loss of a discriminator, that of predictions and that of true label maps."""
    return {"discriminator_fake": LossTerm(*fake, 0.5), "discriminator_real": LossTerm(*real, 0.5)}
