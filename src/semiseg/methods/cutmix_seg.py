"""CutMix-Seg (French et al., arXiv 1906.01916): Mean Teacher whose student sees mixtures of two unlabeled images.

"Published code" is Britefury/cutmix-semisup-seg, ``train_seg_semisup_mask_mt.py``.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Batch, LossTerm, Network, Progress, StepOutput, SumCount
from semiseg.data.epochs import Unlabeled, separate
from semiseg.declare import Ge, Le, Len, Lt, Mark, record
from semiseg.engine.ema import First
from semiseg.errors import UserError
from semiseg.losses import consistency_loss
from semiseg.losses.consistency import Distance
from semiseg.methods.averaged_teacher import AveragedTeacherLearner, AveragedTeacherSettings
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.pseudo import mixed, step_masks
from semiseg.pseudo.cutmix import BoxPlace

Share = Annotated[float, Ge(0), Le(1)]
Shares = Annotated[Sequence[Share], Len(2, 2), Mark(expected="two shares of the crop's area,")]


@record
class CutMixSeg(AveragedTeacherSettings):
    """CutMix-Seg, L = L_sup + weight * L_cons.

    The published form: ``confidence=batch_mean teacher_mode=train`` and ``unlabeled=all``, with Adam and frozen batch
    norm; its first paper has ``student_view=weak``.
    """

    distance: Distance = "mse_sum"
    threshold: Share = 0.97
    ema_decay: Annotated[float, Ge(0), Lt(1)] = 0.99
    ema_first: First = "constant"
    mode: Literal["mix", "zero"] = "mix"
    """What the student sees: "mix", a second image inside of the boxes (CutMix), or "zero", the mean color outside of
    them (CutOut)."""
    boxes: Annotated[int, Ge(1)] = 1
    """Number of boxes of a mask, which toggle what they cover."""
    box_area: Shares | None = None
    """Smallest and largest share of the crop that the boxes cover together; ``null`` takes those published: 0.5 with
    "mix", 0 to 1 with "zero"."""
    box_place: BoxPlace = "inside"
    """Place of the boxes: "inside" of the crop; "outside", centered anywhere, where the published code loses most boxes
    that reach beyond the top or the left; or "outside_clipped", which keeps their visible part."""
    iterations_per_epoch: Annotated[int, Ge(1)] | None = None
    """Fixed length of an epoch, published 1000; ``null`` takes one pass over the longer list."""

    needs_unlabeled: ClassVar[bool] = True

    def conflicts(self) -> Iterator[UserError]:
        """Find values that are wrong together."""
        yield from super().conflicts()
        if self.box_area is not None and self.box_area[0] > self.box_area[1]:
            yield UserError("give the smaller share first.", key="method.box_area", value=list(self.box_area))

    @property
    def area(self) -> tuple[float, float]:
        """Smallest and largest share of the crop that the boxes cover."""
        if self.box_area is None:
            return (0.5, 0.5) if self.mode == "mix" else (0.0, 1.0)
        return self.box_area[0], self.box_area[1]

    def run(self, lab: Lab) -> Network:
        """Train a student and return its teacher, or it."""
        network = lab.network("model", probe_rounds=self.probe_rounds)
        learner = CutMixSegLearner(network, self, self.labeled_loss(lab))
        ids, view = lab.split.unlabeled, self.unlabeled_view(lab)
        known, held_out = self.held_out(lab.split.labeled)
        size = lab.trainer.batch_size
        names = ("unlabeled", "unlabeled_2") if self.mode == "mix" else ("unlabeled",)
        streams = separate(
            known,
            lab.augment.weak,
            {name: Unlabeled(ids, view) for name in names},
            batch_size=size,
            unlabeled_batch_size=lab.trainer.unlabeled_batch_size,
            budget=lab.budget,
            iterations_per_epoch=self.iterations_per_epoch,
        )
        streams = self.gated(streams, held_out, lab.augment.weak, size)
        return lab.fit("train", learner, streams).selected


class CutMixSegLearner(AveragedTeacherLearner):
    """One step of CutMix-Seg on the streams "labeled" and "unlabeled", with ``mode=mix`` also "unlabeled_2".

    Args:
        model: student to train.
        method: settings.
        loss: loss of labeled pixels.
    """

    def __init__(self, model: Network, method: CutMixSeg, loss: LabeledLoss) -> None:
        super().__init__(model, method, loss)
        self.method = method

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute L = L_sup + weight * L_cons."""
        method, known, own = self.method, batch["labeled"], batch["unlabeled"]
        self.labeler.follow(batch, self.teach)
        mask = self.masks(own["image"], progress)
        # Published code: the supervised pass comes first, which running statistics see.
        logits = self.model(known["image"])
        teacher, seen, valid = self.teach(own["image"]), self.seen(batch, "unlabeled"), own["valid"]
        if method.mode == "mix":
            other = batch["unlabeled_2"]
            teacher = mixed(teacher, self.teach(other["image"]), mask)
            seen = mixed(seen, self.seen(batch, "unlabeled_2"), mask)
            valid = mixed(valid, other["valid"], mask)
        guess = self.labeler(teacher, valid)
        if method.mode == "zero":
            blank = self.model.mean_color
            seen, valid = torch.where(mask[:, None], seen.to(blank.dtype), blank), valid & mask
        loss = SumCount(
            *consistency_loss(
                self.model(seen),
                teacher,
                guess.keep,
                valid,
                method.distance,
                method.confidence,
                reduction="sum_count",
            )
        )
        losses = {
            "supervised": LossTerm(*self.loss(logits, known["label"])),
            "consistency": self.term(loss, progress),
        }
        return StepOutput(losses, guess.statistics())

    def masks(self, images: Tensor, progress: Progress) -> Tensor:
        """Draw where the boxes lie, ``(N, H, W) bool``, for a batch of images, without waiting for their device."""
        method = self.method
        return step_masks(images, progress, method.boxes, method.area, method.box_place)[:, 0]
