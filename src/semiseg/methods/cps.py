"""Cross pseudo supervision (CPS, arXiv 2106.01226): two networks teach each other, with or without CutMix.

"Published code" below is that of the authors, github.com/charlesCXK/TorchSemiSeg, in ``exp.voc/voc8.res50v3+.CPS``
and ``exp.voc/voc8.res50v3+.CPS+CutMix``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from semiseg.contracts.dataset import Split
from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Batch, Learner, LossTerm, Network, Progress, StepOutput, SumCount
from semiseg.data.epochs import Unlabeled, separate
from semiseg.declare import Ge, Gt, record
from semiseg.errors import UserError
from semiseg.losses import cross_entropy, cross_pseudo_loss
from semiseg.methods.labeled_loss import LabeledLoss, LabeledLossSettings
from semiseg.models.grouped_norm import group_batch_norm
from semiseg.pseudo import step_masks
from semiseg.settings import Other, TrainerSettings

STATISTICS_STRIDE = 4
"""Stride of the pixels that logged statistics look at, in both directions: a sixteenth of the cost."""


@record
class CPS(LabeledLossSettings):
    """Cross pseudo supervision.

    The defaults are the paper's method; the behavior of the published code that deviates from it is in switches:
    ``same_image=True``, ``reshuffle_unlabeled=False``, ``nominal_lengths=True`` and ``gradient_scale=1/W``
    (W = 4 GPUs on VOC, 8 on Cityscapes), all on in a run that repeats published numbers.
    """

    cutmix: bool = True
    """Whether to learn from CutMix mixtures of two unlabeled images."""
    weight: Annotated[float, Ge(0)] = 1.0
    """Weight lambda of the unlabeled term. Published: VOC 1.5, with CutMix 1; Cityscapes 6, with CutMix 5."""
    labeled_in_cps: bool | None = None
    """Whether labeled images count in the unlabeled term; ``null`` counts them without CutMix only, as published."""
    gradient_scale: Annotated[float, Gt(0)] = 1.0
    """Factor of the whole loss. 1/W repeats the published code on W GPUs, which divides gradients by W once too often;
    under SGD that equals lr / W with weight_decay * W."""
    same_image: bool = False
    """Whether two augmentations of one image are mixed, as in the published code, whose two samplers have one seed."""
    reshuffle_unlabeled: bool = True
    """Whether unlabeled images come in a new order each epoch; in the published code they do not."""
    nominal_lengths: bool = False
    """Whether labeled images are counted as total // ratio, as in the published code, one off the length of its lists;
    matters for the iterations of an epoch alone."""
    merge: bool = False
    """Whether two streams of equal size go through a network at once, with own statistics: equal losses and running
    statistics, other draws of dropout. Saves time where a pass is small (0.85 of it with two crops of 160 pixels)."""
    report: Literal["first", "better"] = "first"
    """Network that is kept and reported: the "first", as published, or the one that is "better" on the validation
    images, at twice the time of evaluations."""
    teacher_mode: Literal["train", "eval"] = "train"
    """Mode of the networks while they label CutMix images: "train" as published updates running statistics too, "eval"
    uses them, without dropout."""
    partner: Other = None
    """Second network, where it has another structure or another optimizer; ``null`` takes that of the run, as
    published."""

    needs_unlabeled: ClassVar[bool] = True

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Return the numbers of labeled and unlabeled images, which pass through the networks separately.

        Raises:
            UserError: with ``merge`` their numbers differ.
        """
        if self.merge and trainer.batch_size != trainer.unlabeled_batch_size:
            raise UserError(
                f"method.merge=true: needs equal trainer.batch_size={trainer.batch_size} and "
                f"trainer.unlabeled_batch_size={trainer.unlabeled_batch_size}."
            )
        return {
            "trainer.batch_size": trainer.batch_size,
            "trainer.unlabeled_batch_size": trainer.unlabeled_batch_size,
        }

    def check_split(self, split: Split) -> None:
        """Require validation images where the better network is asked for.

        Raises:
            UserError: there are none.
        """
        if self.report == "better" and not split.val:
            raise UserError(
                "the dataset has no validation images to find the better network on. Choose "
                "method.report=first.",
                key="method.report",
                value="better",
            )

    def run(self, lab: Lab) -> Network:
        """Train both networks together and return the first, or the better one."""
        learner = CPSLearner(lab.network("branch_1"), self._second(lab), self, self.labeled_loss(lab))
        ids, view = lab.split.unlabeled, lab.augment.weak
        unlabeled = {"unlabeled": Unlabeled(ids, view)}
        if self.cutmix:
            unlabeled["unlabeled_2"] = Unlabeled(ids, view, "unlabeled" if self.same_image else None)
        streams = separate(
            lab.split.labeled,
            view,
            unlabeled,
            batch_size=lab.trainer.batch_size,
            unlabeled_batch_size=lab.trainer.unlabeled_batch_size,
            budget=lab.budget,
            reshuffle_unlabeled=self.reshuffle_unlabeled,
            nominal_lengths=self.nominal_lengths,
        )
        return lab.fit("train", learner, streams).selected

    def _second(self, lab: Lab) -> Network:
        # The networks teach each other only as long as they differ.
        if self.partner is None:
            return lab.network("branch_2", differs_from="branch_1")
        return lab.network("branch_2", differs_from="branch_1", role="partner")


class CPSLearner(Learner):
    """One step of CPS on the streams "labeled" and "unlabeled", with CutMix also "unlabeled_2".

    Every stream goes through each network by itself, as published, so that batch norm never mixes streams. The
    order in which a network's running statistics see them is labeled, unlabeled; with CutMix first, second,
    mixed, labeled. ``merge`` makes one pass of each two, under a batch norm that keeps them separate.

    Args:
        branch_1: network that is evaluated.
        branch_2: other network, with other initial weights.
        method: settings; with ``merge`` the batch norms of both networks are converted.
        loss: loss of labeled pixels.
    """

    def __init__(self, branch_1: Network, branch_2: Network, method: CPS, loss: LabeledLoss) -> None:
        super().__init__()
        self.branch_1 = branch_1
        self.branch_2 = branch_2
        self.method = method
        self.loss = loss
        if method.merge:
            group_batch_norm(branch_1, 2)
            group_batch_norm(branch_2, 2)

    def predictors(self) -> dict[str, Network]:
        """Both networks; the first is the published choice."""
        return {"branch_1": self.branch_1, "branch_2": self.branch_2}

    def candidates(self) -> dict[str, Network]:
        """The first network, or both."""
        return self.predictors() if self.method.report == "better" else super().candidates()

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute L = L_sup,1 + L_sup,2 + weight * L_cps."""
        method, target = self.method, batch["labeled"]["label"]
        labeled, cps, scalars = (
            self._cutmix_step(batch, progress) if method.cutmix else self._plain_step(batch)
        )
        if method.labeled_in_cps or (method.labeled_in_cps is None and not method.cutmix):
            cps = cps.plus(cross_pseudo_loss(*labeled, reduction="sum_count"))
        # Published code: train.py divides all losses by the number of GPUs before DDP averages the gradients.
        losses = {}
        for branch, logits in enumerate(labeled, start=1):
            supervised: SumCount = self.loss(logits, target)
            losses[f"supervised_{branch}"] = LossTerm(*supervised, method.gradient_scale)
        losses["cps"] = LossTerm(*cps, method.gradient_scale * method.weight)
        return StepOutput(losses, scalars)

    def _plain_step(self, batch: Batch) -> tuple[list[Tensor], SumCount, dict[str, Tensor]]:
        """Return the logits of the labeled images, L_cps of the unlabeled ones, and statistics."""
        labeled, unlabeled = [], []
        for branch in (self.branch_1, self.branch_2):
            known, unknown = self._pass(branch, batch["labeled"]["image"], batch["unlabeled"]["image"])
            labeled.append(known)
            unlabeled.append(unknown)
        # CE(p_1, argmax p_2) + CE(p_2, argmax p_1). Published code: CPS, train.py
        cps = cross_pseudo_loss(*unlabeled, reduction="sum_count")
        return labeled, cps, _statistics(*(_thin(logits) for logits in unlabeled))

    def _cutmix_step(
        self, batch: Batch, progress: Progress
    ) -> tuple[list[Tensor], SumCount, dict[str, Tensor]]:
        """Return the logits of the labeled images, L_cps of the mixed ones, and statistics."""
        first, second = batch["unlabeled"]["image"], batch["unlabeled_2"]["image"]
        mask = step_masks(first, progress)  # published code: CPS+CutMix, mask_gen.py, BoxMaskGenerator
        labels, teachers = [], []
        for branch in (self.branch_1, self.branch_2):
            with torch.no_grad(), self._teaching(branch):
                logits, logits_2 = self._pass(branch, first, second)
            # The label of mixed logits is the mixture of the labels: every pixel comes from one image.
            labels.append(torch.where(mask[:, 0], logits_2.max(1).indices, logits.max(1).indices))
            teachers.append(torch.where(_thin(mask), _thin(logits_2), _thin(logits)))
        mixed = torch.where(mask, second, first)
        known = batch["labeled"]["image"]
        if self.method.merge:
            both = [self._pass(branch, mixed, known) for branch in (self.branch_1, self.branch_2)]
            students, labeled = ([pair[index] for pair in both] for index in (0, 1))
        else:
            students = [branch(mixed) for branch in (self.branch_1, self.branch_2)]
            labeled = [branch(known) for branch in (self.branch_1, self.branch_2)]
        # CE(p_1(mixed), labels_2) + CE(p_2(mixed), labels_1). Published code: CPS+CutMix, train.py
        total_1, count = cross_entropy(students[0], labels[1], reduction="sum_count")
        total_2, _ = cross_entropy(students[1], labels[0], reduction="sum_count")
        return labeled, SumCount(total_1 + total_2, count), _statistics(*teachers)

    def _pass(self, branch: Network, one: Tensor, other: Tensor) -> list[Tensor]:
        """Return the logits of two batches of images, which batch norm keeps separate."""
        if not self.method.merge:
            return [branch(one), branch(other)]
        return list(branch(torch.cat([one, other])).chunk(2))

    @contextmanager
    def _teaching(self, branch: Network) -> Iterator[None]:
        """Let a network label in its teaching mode."""
        training = branch.training
        branch.train(training and self.method.teacher_mode == "train")
        try:
            yield
        finally:
            branch.train(training)


def _thin(maps: Tensor) -> Tensor:
    """Return the pixels that logged statistics are computed on, without gradient."""
    return maps.detach()[..., ::STATISTICS_STRIDE, ::STATISTICS_STRIDE]


def _statistics(logits_1: Tensor, logits_2: Tensor) -> dict[str, Tensor]:
    """Scalars to log about the unlabeled pixels, from the logits of both networks."""
    confidence_1, labels_1 = logits_1.float().softmax(1).max(1)
    confidence_2, labels_2 = logits_2.float().softmax(1).max(1)
    return {
        "unlabeled_used": torch.ones_like(confidence_1[0, 0, 0]),
        "unlabeled_confidence": (confidence_1.mean() + confidence_2.mean()) / 2,
        "branch_agreement": (labels_1 == labels_2).float().mean(),
    }
