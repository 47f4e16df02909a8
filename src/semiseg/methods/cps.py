"""Cross pseudo supervision (CPS, arXiv 2106.01226): two networks teach each other, with or without CutMix."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from semiseg.config.schema import TrainerConfig
from semiseg.data.epochs import Unlabeled, separate
from semiseg.data.splits import Split
from semiseg.errors import UserError
from semiseg.losses import SumCount, cross_entropy, cross_pseudo_loss
from semiseg.methods.base import Batch, Learner, LossTerm, Progress, StepOutput
from semiseg.methods.supervised import LabeledLoss
from semiseg.models.grouped_norm import group_batch_norm
from semiseg.models.segmodel import SegModel
from semiseg.pseudo import box_masks
from semiseg.seeding import derive_seed

if TYPE_CHECKING:
    from semiseg.engine.lab import Lab

TeacherMode = Literal["train", "eval"]
_STATISTICS_STRIDE = 4


class CPSLearner(Learner):
    """One step of CPS on the streams "labeled" and "unlabeled", with CutMix also "unlabeled_2".

    Every stream goes through each network by itself, as published, so that batch norm never mixes streams. The
    order in which a network's running statistics see them is labeled, unlabeled; with CutMix first, second,
    mixed, labeled. ``merge`` makes one pass of each two, under a batch norm that keeps them apart.

    Args:
        branch_1: the network that is evaluated.
        branch_2: its partner, with other initial weights.
        cutmix: learn from mixtures of two unlabeled images, else from the images themselves.
        weight: lambda, the weight of the unlabeled term; no ramp-up.
        labeled_in_cps: count labeled images in the unlabeled term too.
        gradient_scale: factor of the whole loss.
        loss: the loss of labeled pixels.
        teacher_mode: batch-norm and dropout mode of the passes that label CutMix images.
        merge: take two streams of equal size through a network at once; converts its batch norms.
        better: let both networks be evaluated, and the better one be kept.
    """

    def __init__(
        self,
        branch_1: SegModel,
        branch_2: SegModel,
        *,
        cutmix: bool,
        weight: float,
        labeled_in_cps: bool,
        gradient_scale: float = 1.0,
        loss: LabeledLoss | None = None,
        teacher_mode: TeacherMode = "train",
        merge: bool = False,
        better: bool = False,
    ) -> None:
        super().__init__()
        self.branch_1 = branch_1
        self.branch_2 = branch_2
        if merge:
            group_batch_norm(branch_1, 2)
            group_batch_norm(branch_2, 2)
        self.cutmix = cutmix
        self.weight = weight
        self.labeled_in_cps = labeled_in_cps
        self.gradient_scale = gradient_scale
        self.loss = loss or LabeledLoss()
        self.teacher_mode = teacher_mode
        self.merge = merge
        self.better = better

    def predictors(self) -> dict[str, SegModel]:
        """Both networks; the first is the published choice."""
        return {"branch_1": self.branch_1, "branch_2": self.branch_2}

    def contenders(self) -> dict[str, SegModel]:
        """The first network, or both."""
        return self.predictors() if self.better else super().contenders()

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute L = L_sup,1 + L_sup,2 + weight * L_cps."""
        labeled, cps, scalars = self._cutmix_step(batch, progress) if self.cutmix else self._plain_step(batch)
        if self.labeled_in_cps:
            cps = _join(cps, cross_pseudo_loss(*labeled, reduction="sum_count"))
        target = batch["labeled"]["label"]
        losses = {
            f"supervised_{branch}": LossTerm(*self.loss(logits, target), self.gradient_scale)
            for branch, logits in enumerate(labeled, start=1)
        }
        losses["cps"] = LossTerm(*cps, self.gradient_scale * self.weight)
        return StepOutput(losses, scalars)

    def _plain_step(self, batch: Batch) -> tuple[list[Tensor], SumCount, dict[str, Tensor]]:
        labeled, unlabeled = [], []
        for branch in (self.branch_1, self.branch_2):
            known, unknown = self._pass(branch, batch["labeled"]["image"], batch["unlabeled"]["image"])
            labeled.append(known)
            unlabeled.append(unknown)
        cps = cross_pseudo_loss(*unlabeled, reduction="sum_count")
        return labeled, cps, _statistics(*(_thin(logits) for logits in unlabeled))

    def _cutmix_step(
        self, batch: Batch, progress: Progress
    ) -> tuple[list[Tensor], SumCount, dict[str, Tensor]]:
        first, second = batch["unlabeled"]["image"], batch["unlabeled_2"]["image"]
        mask = _masks(first, progress)
        labels, teachers = [], []
        for branch in (self.branch_1, self.branch_2):
            with torch.no_grad(), self._teaching(branch):
                logits, logits_2 = self._pass(branch, first, second)
            # The label of mixed logits is the mixture of the labels: every pixel comes from one image.
            labels.append(torch.where(mask[:, 0], logits_2.max(1).indices, logits.max(1).indices))
            teachers.append(torch.where(_thin(mask), _thin(logits_2), _thin(logits)))
        mixed = torch.where(mask, second, first)
        known = batch["labeled"]["image"]
        if self.merge:
            both = [self._pass(branch, mixed, known) for branch in (self.branch_1, self.branch_2)]
            students, labeled = ([pair[index] for pair in both] for index in (0, 1))
        else:
            students = [branch(mixed) for branch in (self.branch_1, self.branch_2)]
            labeled = [branch(known) for branch in (self.branch_1, self.branch_2)]
        total_1, count = cross_entropy(students[0], labels[1], reduction="sum_count")
        total_2, _ = cross_entropy(students[1], labels[0], reduction="sum_count")
        return labeled, (total_1 + total_2, count), _statistics(*teachers)

    def _pass(self, branch: SegModel, one: Tensor, other: Tensor) -> list[Tensor]:
        """Logits of two batches of images, whose statistics stay apart."""
        if not self.merge:
            return [branch(one), branch(other)]
        return list(branch(torch.cat([one, other])).chunk(2))

    @contextmanager
    def _teaching(self, branch: SegModel) -> Iterator[None]:
        training = branch.training
        branch.train(training and self.teacher_mode == "train")
        try:
            yield
        finally:
            branch.train(training)


def _masks(images: Tensor, progress: Progress) -> Tensor:
    """CutMix masks for a batch of images, on their device without waiting for it."""
    height, width = images.shape[-2:]
    generator = np.random.default_rng(derive_seed(progress.seed, "cutmix"))
    masks = box_masks(generator, len(images), (height, width))
    if images.device.type == "cuda":
        masks = masks.pin_memory()
    return masks.to(images.device, non_blocking=True)


def _join(one: SumCount, other: SumCount) -> SumCount:
    return one[0] + other[0], one[1] + other[1]


def _thin(maps: Tensor) -> Tensor:
    """Every fourth pixel in both directions: enough for statistics, at a sixteenth of their cost."""
    return maps.detach()[..., ::_STATISTICS_STRIDE, ::_STATISTICS_STRIDE]


def _statistics(logits_1: Tensor, logits_2: Tensor) -> dict[str, Tensor]:
    """Scalars to log about the unlabeled pixels, from the logits of both networks."""
    confidence_1, labels_1 = logits_1.float().softmax(1).max(1)
    confidence_2, labels_2 = logits_2.float().softmax(1).max(1)
    return {
        "unlabeled_used": torch.ones_like(confidence_1[0, 0, 0]),
        "unlabeled_confidence": (confidence_1.mean() + confidence_2.mean()) / 2,
        "branch_agreement": (labels_1 == labels_2).float().mean(),
    }


class CPS:
    """Cross pseudo supervision.

    The defaults are the paper's method; the behavior of the published code that deviates from it is in switches:
    ``same_image=True``, ``reshuffle_unlabeled=False``, ``nominal_lengths=True`` and ``gradient_scale=1/W``
    (W = 4 GPUs on VOC, 8 on Cityscapes), all on in a run that repeats published numbers.

    Args:
        cutmix: learn from CutMix mixtures of two unlabeled images.
        weight: lambda of the unlabeled term. Published: VOC 1.5, with CutMix 1; Cityscapes 6, with CutMix 5.
        labeled_in_cps: count labeled images in the unlabeled term; None as published: without CutMix only.
        gradient_scale: factor of the whole loss. The published code divides gradients by the number W of
            GPUs once too often; 1/W repeats that, and equals lr / W with weight_decay * W under SGD.
        same_image: mix two augmentations of the same image, as the published code does by an equal seed of
            both samplers; False mixes two images, as the paper says.
        reshuffle_unlabeled: draw a new order of unlabeled images each epoch; the published code does not.
        nominal_lengths: take total // ratio for the number of labeled images, as the published code does,
            which is one off the length of its lists; matters for the iterations of an epoch alone.
        merge: take labeled and unlabeled images, of equal number, through a network at once. Losses and
            running statistics equal those of separate passes, in float64 bit for bit; dropout draws
            otherwise. It pays where a pass is small: with two crops a stream on ResNet-50, a step on a CPU
            took 0.85 of the time at 160 pixels and 1.02 at 320.
        report: the network that is kept and reported: "first" as published, or "better", the one of both that
            an evaluation on the validation images finds better, at twice the time of evaluations. The mean
            of both is no choice: what a run reports is one network, which every tool can load.
        teacher_mode: mode of the networks while they label CutMix images; "train" as published, then these
            passes update the running statistics too; "eval" uses running statistics and no dropout.
        loss: "ce", or "ohem" as published for Cityscapes; the unlabeled term is cross entropy always.
        ohem_threshold: probability of the true class above which OHEM leaves a pixel out.
        ohem_min_kept: pixels of a batch that OHEM keeps at least; None: 5/64 of them, the published share.
        name: name of the option in the config.

    Raises:
        UserError: an unknown choice or a factor out of range.
    """

    needs_unlabeled: ClassVar[bool] = True

    def __init__(
        self,
        *,
        cutmix: bool = True,
        weight: float = 1.0,
        labeled_in_cps: bool | None = None,
        gradient_scale: float = 1.0,
        same_image: bool = False,
        reshuffle_unlabeled: bool = True,
        nominal_lengths: bool = False,
        merge: bool = False,
        report: Literal["first", "better"] = "first",
        teacher_mode: TeacherMode = "train",
        loss: Literal["ce", "ohem"] = "ce",
        ohem_threshold: float = 0.7,
        ohem_min_kept: int | None = None,
        name: str = "cps",
    ) -> None:
        if weight < 0:
            raise UserError(f"method.weight={weight}: give 0 or more, for example 1.5.")
        if gradient_scale <= 0:
            raise UserError(
                f"method.gradient_scale={gradient_scale}: give a factor above 0, for example 0.25."
            )
        if teacher_mode not in ("train", "eval"):
            raise UserError(f"method.teacher_mode={teacher_mode}: choose train or eval.")
        if report not in ("first", "better"):
            raise UserError(f"method.report={report}: choose first or better.")
        self.cutmix = cutmix
        self.weight = weight
        self.labeled_in_cps = not cutmix if labeled_in_cps is None else labeled_in_cps
        self.gradient_scale = gradient_scale
        self.same_image = same_image
        self.reshuffle_unlabeled = reshuffle_unlabeled
        self.nominal_lengths = nominal_lengths
        self.merge = merge
        self.report = report
        self.teacher_mode: TeacherMode = teacher_mode
        self.loss = LabeledLoss(loss, ohem_threshold, ohem_min_kept)
        self.name = name

    def batch_sizes(self, trainer: TrainerConfig) -> dict[str, int]:
        """Labeled and unlabeled images, which pass through the networks apart.

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
                "method.report=better: the dataset has no validation images to find the better network on. "
                "Choose method.report=first."
            )

    def run(self, lab: "Lab") -> SegModel:
        """Train both networks together and return the first, or the better one."""
        learner = CPSLearner(
            lab.network("branch_1"),
            lab.network("branch_2"),
            cutmix=self.cutmix,
            weight=self.weight,
            labeled_in_cps=self.labeled_in_cps,
            gradient_scale=self.gradient_scale,
            loss=self.loss,
            teacher_mode=self.teacher_mode,
            merge=self.merge,
            better=self.report == "better",
        )
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
