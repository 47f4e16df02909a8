"""Training on labeled images alone: the baseline of every method, and the teacher and student of ST++."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from torch import Tensor

from semiseg.contracts.training import (
    Batch,
    Lab,
    Learner,
    LossTerm,
    Network,
    Progress,
    StepOutput,
    SumCount,
)
from semiseg.data.epochs import labeled
from semiseg.engine.ema import EMA
from semiseg.errors import UserError
from semiseg.losses import cross_entropy, ohem_cross_entropy
from semiseg.models.grouped_norm import group_batch_norm
from semiseg.settings import TrainerSettings


@dataclass(frozen=True)
class LabeledLoss:
    """The loss of labeled pixels.

    Args:
        kind: "ce", cross entropy, or "ohem", cross entropy of the hard pixels alone.
        threshold: "ohem" keeps pixels whose true class has at most this probability.
        min_kept: "ohem" keeps at least so many pixels of a batch; None: 5/64 of them, the published share.

    Raises:
        UserError: another kind, a threshold outside 0-1 or a negative ``min_kept``.
    """

    kind: Literal["ce", "ohem"] = "ce"
    threshold: float = 0.7
    min_kept: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("ce", "ohem"):
            raise UserError("choose ce or ohem.", key="method.loss", value=self.kind)
        if not 0 < self.threshold <= 1:
            raise UserError(
                "give a probability above 0, at most 1.", key="method.ohem_threshold", value=self.threshold
            )
        if self.min_kept is not None and self.min_kept < 0:
            raise UserError(
                "give a number of pixels, or null.", key="method.ohem_min_kept", value=self.min_kept
            )

    def __call__(self, logits: Tensor, target: Tensor) -> SumCount:
        """Return the sum of the losses of ``(N, C, H, W)`` logits and the number of pixels in it."""
        if self.kind == "ohem":
            return ohem_cross_entropy(logits, target, self.threshold, self.min_kept, reduction="sum_count")
        return cross_entropy(logits, target, reduction="sum_count")


@dataclass(frozen=True)
class NormGroups:
    """How many images of a batch share the statistics of batch norm while training.

    The running statistics are those of the first group, as ``DataParallel`` keeps those of its first device.

    Args:
        size: images a group; None: the whole batch.

    Raises:
        UserError: fewer than 2.
    """

    size: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 2:
            raise UserError(
                "give 2 images or more (ST++: 8), or null for all of them.",
                key="method.bn_group_size",
                value=self.size,
            )

    def check(self, batch_size: int, trainer: TrainerSettings, given: str) -> None:
        """Require that the groups of a pass through the network are equal.

        Args:
            batch_size: images a step.
            trainer: says in how many passes.
            given: the keys that the batch size follows from.

        Raises:
            UserError: they are not.
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


class SupervisedLearner(Learner):
    """One network on one stream of images with labels, true ones or pseudo-labels.

    Args:
        model: the network.
        loss: the loss of the valid pixels.
        ema_decay: follow the network with an exponential moving average, which is then what is evaluated and
            reported; None: no average.
    """

    def __init__(
        self, model: Network, loss: LabeledLoss | None = None, ema_decay: float | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss or LabeledLoss()
        self.average = None if ema_decay is None else EMA(model, ema_decay)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Average the loss over all valid pixels of the batch's only stream."""
        (part,) = batch.values()
        target = part["label"]
        total, count = self.loss(self.model(part["image"]), target)
        return StepOutput({"supervised": LossTerm(total, count)}, {"pixels_used": count / target.numel()})

    def after_step(self, progress: Progress) -> None:
        """Move the average, where there is one."""
        if self.average is not None:
            self.average.update(self.model)

    def predictors(self) -> dict[str, Network]:
        """The average where there is one, and the network."""
        if self.average is None:
            return {"model": self.model}
        return {"average": cast(Network, self.average.teacher), "model": self.model}


class Supervised:
    """Train on the labeled images alone.

    Args:
        augment: "weak", or "strong" to add the photometric augmentation and cutout of ``augment``.
        loss: "ce" or "ohem"; the baselines of CPS on Cityscapes use OHEM.
        ohem_threshold: probability of the true class above which OHEM leaves a pixel out.
        ohem_min_kept: pixels of a batch that OHEM keeps at least; None: 5/64 of them.
        double_below: use a list of fewer images twice per epoch (ST++'s baseline: 200); 0: never.
        bn_group_size: see ``NormGroups``; ST++'s baseline: 8 of 16. None: the whole batch.
        ema_decay: report an exponential moving average of the network, for example 0.99; None: the network.
        snapshots: fractions of the training at which the network is kept too, for ST++ to begin with this run:
            ``[0.3333333333333333, 0.6666666666666666, 1.0]``; None: it is not.
        name: name of the option in the config.

    Raises:
        UserError: an unknown choice or a value out of range.
    """

    needs_unlabeled: ClassVar[bool] = False

    def __init__(
        self,
        *,
        augment: Literal["weak", "strong"] = "weak",
        loss: Literal["ce", "ohem"] = "ce",
        ohem_threshold: float = 0.7,
        ohem_min_kept: int | None = None,
        double_below: int = 0,
        bn_group_size: int | None = None,
        ema_decay: float | None = None,
        snapshots: Sequence[float] | None = None,
        name: str = "supervised",
    ) -> None:
        if augment not in ("weak", "strong"):
            raise UserError("choose weak or strong.", key="method.augment", value=augment)
        self.augment = augment
        self.loss = LabeledLoss(loss, ohem_threshold, ohem_min_kept)
        if ema_decay is not None and not 0 <= ema_decay < 1:
            raise UserError(
                "give a share from 0 to below 1, for example 0.99.", key="method.ema_decay", value=ema_decay
            )
        if not all(0 < fraction <= 1 for fraction in snapshots or ()):
            raise UserError(
                "give fractions of the training above 0, at most 1.",
                key="method.snapshots",
                value=list(snapshots or ()),
            )
        self.snapshots = tuple(snapshots or ())
        self.double_below = double_below
        self.groups = NormGroups(bn_group_size)
        self.ema_decay = ema_decay
        self.name = name

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Labeled images.

        Raises:
            UserError: batch norm can't be taken over equal groups of them.
        """
        self.groups.check(trainer.batch_size, trainer, "trainer.batch_size")
        return {"trainer.batch_size": trainer.batch_size}

    def run(self, lab: Lab) -> Network:
        """Train one network and return it."""
        view = lab.augment.strong if self.augment == "strong" else lab.augment.weak
        batch_size = lab.trainer.batch_size
        streams = labeled(lab.split.labeled, view, batch_size, lab.budget, double_below=self.double_below)
        network = self.groups.apply(lab.network("model"), batch_size, lab.trainer)
        learner = SupervisedLearner(network, self.loss, self.ema_decay)
        return lab.fit("train", learner, streams, self.snapshots).selected
