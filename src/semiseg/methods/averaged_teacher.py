"""What Mean Teacher and CutMix-Seg share: a student that is consistent with its EMA, and which of both is reported."""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from torch import Tensor

from semiseg.contracts.dataset import Split
from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Batch, LossTerm, Network, Progress
from semiseg.data.views import Weak, WeakStrong
from semiseg.declare import Ge, Le, record
from semiseg.engine.ema import EMA, AveragedLearner, EMASettings, require_validation
from semiseg.errors import UserError
from semiseg.losses import ramp_up
from semiseg.losses.consistency import ConfidenceRule, Distance, Ramp
from semiseg.methods.confidence import ConfidenceSettings, PseudoLabeler
from semiseg.methods.labeled_loss import LabeledLoss, LabeledLossSettings
from semiseg.settings import TrainerSettings

Report = Literal["student", "teacher", "better"]


@record
class AveragedTeacherSettings(ConfidenceSettings, LabeledLossSettings, EMASettings):
    """Settings of methods whose student is consistent with its EMA, for these to inherit."""

    weight: Annotated[float, Ge(0)] = 1.0
    """Weight of the consistency loss. Published: TorchSemiSeg 100 (with ``mse_mean``), Mean Teacher's own code 8,
    CutMix-Seg 1."""
    distance: Distance = "ce_hard"
    """Distance of the student from the teacher: squared differences of probabilities, their sum over classes
    ("mse_sum", CutMix-Seg) or mean ("mse_mean", TorchSemiSeg); "kl"; "ce_hard", cross entropy with the teacher's class
    (today's practice); "bce"; squared differences of "logits" or "smooth_l1" of them."""
    threshold: Annotated[float, Ge(0), Le(1)] = 0.95
    """Probability that the teacher's class needs at least. Published: CutMix-Seg 0.97; Mean Teacher and TorchSemiSeg
    0, which trusts the teacher everywhere."""
    confidence: ConfidenceRule = "pixel"
    """Use of ``threshold``: "batch_mean" multiplies the loss of all pixels by the share of confident ones in the batch,
    as CutMix-Seg does, and so learns unsure pixels too; "pixel" leaves unsure pixels out (the default)."""
    rampup_epochs: Annotated[float, Ge(0)] = 0.0
    """Epochs in which the consistency loss reaches its weight; 0 for full weight from the start."""
    ramp: Ramp = "sigmoid"
    """Shape of that rise: "sigmoid" as in Mean Teacher and CutMix-Seg, or "linear"."""
    teacher_mode: Literal["train", "eval"] = "eval"
    """Mode of the teacher: "train" as published, with the statistics of the batch and dropout; "eval" is the default,
    since the teacher is evaluated and deployed so."""
    student_view: Literal["weak", "strong"] = "strong"
    """View of the unlabeled images that the student sees: the teacher's ("weak"), or the same crop with the color
    changes of ``augment`` ("strong", today's practice)."""
    report: Report = "teacher"
    """Network that is kept and reported: the "student" (TorchSemiSeg), the "teacher" (CutMix-Seg), or the one that is
    "better" on the validation images, at twice the time of evaluations."""

    def conflicts(self) -> Iterator[UserError]:
        """Find values that are wrong together."""
        yield from super().conflicts()
        if self.ema_buffers == "own" and self.teacher_mode == "eval":
            yield UserError(
                "a teacher in evaluation mode never updates statistics of its own. Give method.teacher_mode=train, or "
                "method.ema_buffers=average.",
                key="method.ema_buffers",
                value="own",
            )

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Return the numbers of labeled and unlabeled images, which pass through the networks separately."""
        return {
            "trainer.batch_size": trainer.batch_size,
            "trainer.unlabeled_batch_size": trainer.unlabeled_batch_size,
        }

    def check_split(self, split: Split) -> None:
        """Require validation images where the better network is asked for; raises as ``require_validation`` does."""
        require_validation(self.report, split, "teacher")

    def unlabeled_view(self, lab: Lab) -> Weak | WeakStrong:
        """Return the view of unlabeled images: ``image``, ``valid``, and ``strong_1`` for a student that sees it."""
        parts = lab.augment
        if self.student_view == "weak":
            return Weak(parts.geometry, valid=True)
        return WeakStrong(parts.geometry, parts.photometric, valid=True)


class AveragedTeacherLearner(AveragedLearner):
    """A student and its EMA; methods add their step.

    Args:
        model: student to train.
        settings: settings of the method.
        loss: loss of labeled pixels.
    """

    average: EMA

    def __init__(self, model: Network, settings: AveragedTeacherSettings, loss: LabeledLoss) -> None:
        super().__init__(model, settings.ema(model), settings.report)
        self.labeler = PseudoLabeler(settings, model.num_classes)
        self.settings = settings
        self.loss = loss

    @torch.no_grad()
    def teach(self, images: Tensor) -> Tensor:
        """Return the teacher's logits, in its teaching mode."""
        self.average.teacher.train(self.training and self.settings.teacher_mode == "train")
        logits: Tensor = self.average.teacher(images)
        return logits

    def seen(self, batch: Batch, stream: str) -> Tensor:
        """Return the images of an unlabeled stream that the student sees."""
        images: Tensor = batch[stream]["image" if self.settings.student_view == "weak" else "strong_1"]
        return images

    def term(self, loss: tuple[Tensor, Tensor], progress: Progress, scale: float = 1.0) -> LossTerm:
        """Return the consistency loss with its weight at this epoch."""
        ramp = ramp_up(progress.epoch, self.settings.rampup_epochs, self.settings.ramp)
        return LossTerm(*loss, scale * self.settings.weight * ramp)
