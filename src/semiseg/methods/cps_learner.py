"""One training step of CPS: both networks label for each other, with or without CutMix."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from semiseg.contracts.training import Batch, Learner, LossTerm, Network, Progress, StepOutput, SumCount
from semiseg.losses import cross_entropy, cross_pseudo_loss
from semiseg.methods.supervised import LabeledLoss
from semiseg.models.grouped_norm import group_batch_norm
from semiseg.pseudo import box_masks, own_rows, step_generator

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
        branch_1: Network,
        branch_2: Network,
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

    def predictors(self) -> dict[str, Network]:
        """Both networks; the first is the published choice."""
        return {"branch_1": self.branch_1, "branch_2": self.branch_2}

    def candidates(self) -> dict[str, Network]:
        """The first network, or both."""
        return self.predictors() if self.better else super().candidates()

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
        return labeled, SumCount(total_1 + total_2, count), _statistics(*teachers)

    def _pass(self, branch: Network, one: Tensor, other: Tensor) -> list[Tensor]:
        """Logits of two batches of images, whose statistics stay apart."""
        if not self.merge:
            return [branch(one), branch(other)]
        return list(branch(torch.cat([one, other])).chunk(2))

    @contextmanager
    def _teaching(self, branch: Network) -> Iterator[None]:
        training = branch.training
        branch.train(training and self.teacher_mode == "train")
        try:
            yield
        finally:
            branch.train(training)


def _masks(images: Tensor, progress: Progress) -> Tensor:
    """CutMix masks for a batch of images, on their device without waiting for it."""
    height, width = images.shape[-2:]
    total, rows = own_rows(progress, len(images))
    masks = box_masks(step_generator(progress, "cutmix"), total, (height, width))[rows]
    if images.device.type == "cuda":
        masks = masks.pin_memory()
    return masks.to(images.device, non_blocking=True)


def _join(one: SumCount, other: SumCount) -> SumCount:
    return one.plus(other)


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
