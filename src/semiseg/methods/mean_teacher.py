"""Mean Teacher (arXiv 1703.01780) for segmentation: a student is consistent with the average of its own past weights.

"Published code" is the form that CPS compares itself with, charlesCXK/TorchSemiSeg (its MeanTeacher experiment on VOC),
unless another is named.
"""

from typing import Annotated, ClassVar, Literal

from torch import Tensor

from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Batch, LossTerm, Network, Progress, StepOutput, SumCount
from semiseg.data.epochs import Unlabeled, separate
from semiseg.data.views import Weak
from semiseg.declare import Gt, record
from semiseg.losses import consistency_loss
from semiseg.methods.averaged_teacher import AveragedTeacherLearner, AveragedTeacherSettings
from semiseg.methods.confidence import Guess
from semiseg.methods.labeled_loss import LabeledLoss


@record
class MeanTeacher(AveragedTeacherSettings):
    """Mean Teacher, L = L_sup + weight * L_cons.

    The defaults are today's practice. The published form: ``distance=mse_mean weight=100 threshold=0 student_view=weak
    labeled_in_consistency=true padding=counted ema_decay=0.99 ema_first=constant ema_buffers=own
    ema_when=before_step teacher_mode=train report=student gradient_scale=0.25``.
    """

    labeled_in_consistency: bool = False
    """Whether the weak views of labeled images count in the consistency loss too, as published."""
    padding: Literal["counted", "masked"] = "masked"
    """Padding in the consistency loss: "counted" as published, or "masked", left out of sum and mean (the default)."""
    ema_when: Literal["before_step", "after_step"] = "after_step"
    """Time of the EMA: between the labeled and the unlabeled pass, "before_step" as published, or "after_step" as in
    Mean Teacher's own code (the default: the teacher is never a step behind)."""
    gradient_scale: Annotated[float, Gt(0)] = 1.0
    """Factor of the whole loss. 1/W repeats the published code on W GPUs (0.25), which divides gradients by W once too
    often; under SGD that equals lr / W with weight_decay * W."""

    needs_unlabeled: ClassVar[bool] = True

    def run(self, lab: Lab) -> Network:
        """Train a student and return its teacher, or it."""
        network = lab.network("model", probe_rounds=self.probe_rounds)
        learner = MeanTeacherLearner(network, self, self.labeled_loss(lab))
        view = Weak(lab.augment.geometry, valid=True) if self.labeled_in_consistency else lab.augment.weak
        known, held_out = self.held_out(lab.split.labeled)
        size = lab.trainer.batch_size
        streams = separate(
            known,
            view,
            {"unlabeled": Unlabeled(lab.split.unlabeled, self.unlabeled_view(lab))},
            batch_size=size,
            unlabeled_batch_size=lab.trainer.unlabeled_batch_size,
            budget=lab.budget,
        )
        streams = self.gated(streams, held_out, lab.augment.weak, size)
        return lab.fit("train", learner, streams).selected


class MeanTeacherLearner(AveragedTeacherLearner):
    """One step of Mean Teacher on the streams "labeled" and "unlabeled".

    Each stream goes through each network by itself, as published, so that batch norm never mixes streams.

    Args:
        model: student to train.
        method: settings.
        loss: loss of labeled pixels.
    """

    def __init__(self, model: Network, method: MeanTeacher, loss: LabeledLoss) -> None:
        super().__init__(model, method, loss)
        self.method = method
        # Not in checkpoints: the step after a resume is one that no update has been made in.
        self._followed: int | None = None

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute L = L_sup + weight * L_cons."""
        method, known, own = self.method, batch["labeled"], batch["unlabeled"]
        self.labeler.follow(batch, self.teach)
        logits = self.model(known["image"])
        taught = self.teach(known["image"]) if method.labeled_in_consistency else None
        if method.ema_when == "before_step":
            self._follow_once(progress)
        teacher = self.teach(own["image"])
        guess: Guess = self.labeler(teacher, own["valid"])
        loss = self.consistency(self.model(self.seen(batch, "unlabeled")), teacher, guess)
        if taught is not None:
            found = self.labeler(taught, known["valid"], learn=False)
            loss = loss.plus(self.consistency(logits, taught, found))
        scale = method.gradient_scale
        supervised: SumCount = self.loss(logits, known["label"])
        losses = {
            "supervised": LossTerm(*supervised, scale),
            "consistency": self.term(loss, progress, scale),
        }
        return StepOutput(losses, guess.statistics())

    def after_step(self, progress: Progress) -> None:
        """Update the teacher, unless that was done before the step."""
        if self.method.ema_when == "after_step":
            super().after_step(progress)

    def consistency(self, logits: Tensor, teacher: Tensor, guess: Guess) -> SumCount:
        """Return L_cons of one stream; the confidence of ``batch_mean`` is that of the stream."""
        method, masked = self.method, self.method.padding == "masked"
        total, count = consistency_loss(
            logits,
            teacher,
            guess.keep,
            guess.valid if masked else None,
            method.distance,
            method.confidence,
            "valid" if masked else "all",
            reduction="sum_count",
        )
        return SumCount(total, count)

    def _follow_once(self, progress: Progress) -> None:
        """Update the teacher in the first of the passes that accumulate one step."""
        if self._followed != progress.iteration:
            self.average.update(self.model)
            self._followed = progress.iteration
