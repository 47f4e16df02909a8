"""U2PL: reliable pseudo-labels are learned, and unreliable pixels are negatives (arXiv 2203.03884).

"Published code" is Haochen-Wang409/U2PL, ``train_semi.py`` where no other file is named.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.contracts.feeding import BatchSource
from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import (
    Batch,
    Learner,
    LossTerm,
    Network,
    Progress,
    StepOutput,
    StreamBatch,
    SumCount,
)
from semiseg.data.epochs import Unlabeled, separate
from semiseg.data.paired_lists import paired
from semiseg.data.views import Weak
from semiseg.declare import Ge, Gt, Lt, record
from semiseg.distributed import over_ranks
from semiseg.engine.ema import Buffers, EMASettings
from semiseg.errors import UserError
from semiseg.losses import ClassBank, bank_contrast, reliable_cross_entropy
from semiseg.losses.bank_contrast import BankContrastSettings, Draw, uniform_draw
from semiseg.methods.labeled_loss import LabeledLoss, LabeledLossSettings
from semiseg.models.head_outputs import LOGITS, Outputs, enlarged, head_outputs
from semiseg.models.heads import ConvStack
from semiseg.pseudo import class_pixels, entropy, half_masks, half_mixture, torch_generator
from semiseg.pseudo.class_pixels import ClassPixelSettings
from semiseg.pseudo.entropy import EntropySettings
from semiseg.pseudo.halves import HalfMixSettings
from semiseg.settings import TrainerSettings

REPRESENTATION, AUXILIARY = "representation", "auxiliary"
"""Names of the heads in ``Network.heads``."""


@record
class U2PL(
    LabeledLossSettings,
    EMASettings,
    HalfMixSettings,
    EntropySettings,
    ClassPixelSettings,
    BankContrastSettings,
):
    """U2PL, L = L_sup + weight * L_u + contrast_weight * gradient_scale * L_c.

    The defaults correct the published code, which has ``onehot=first_image anchor_class=position
    negatives=own_label gradient_scale=1/W`` (W = 4 GPUs on VOC, 8 on Cityscapes) ``warmup_decay=true
    teacher_init=random padding=learned pairing=frozen``.
    """

    weight: Annotated[float, Ge(0)] = 1.0
    """Weight of L_u, the cross entropy with reliable pseudo-labels. Published: 1."""
    contrast_weight: Annotated[float, Ge(0)] = 1.0
    """Weight of L_c, the contrast. Published: 1; with 0 there is no representation head."""
    gradient_scale: Annotated[float, Gt(0)] = 1.0
    """Factor of L_c alone. 1/W repeats the published code on W GPUs, which divides its gradient by W once too often."""
    warmup_epochs: Annotated[int, Ge(0)] = 1
    """Number of first epochs with labeled images alone. Published: VOC 1, Cityscapes 0."""
    warmup_decay: bool = False
    """Whether weight decay shrinks the representation head in these epochs, which do not train it, as published; with
    ``trainer.accumulate`` it always does."""
    teacher_init: Literal["random", "student"] = "student"
    """Weights of the teacher in these epochs, when it only gathers running statistics: "random" ones and heads of its
    own, as published, or the first ones of the "student" (the default: statistics of features that it will have)."""
    ema_decay: Annotated[float, Ge(0), Lt(1)] = 0.99
    """Share that the EMA teacher keeps at each step. Published: 0.99."""
    ema_buffers: Buffers = "own"
    """Running statistics of the teacher: "own" keeps those of its passes in training mode, as published; "average",
    "average_truncate" and "copy" follow the student's, see ``method=unimatch_v2``."""
    padding: Literal["learned", "ignored"] = "ignored"
    """Padding of unlabeled images: "learned" with the teacher's label, as published, or "ignored" (the default)."""
    auxiliary_weight: Annotated[float, Ge(0)] = 0.0
    """Weight of a second classifier on the last but one map of the backbone. Published: Cityscapes 0.4; 0 for none."""
    pairing: Literal["frozen", "independent"] = "independent"
    """Labeled and unlabeled images: "frozen" pairs that meet in every epoch, as published, or "independent" orders."""

    needs_unlabeled: ClassVar[bool] = True

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Return the numbers of labeled and unlabeled images.

        Raises:
            UserError: they differ with frozen pairs.
        """
        known, others = trainer.batch_size, trainer.unlabeled_batch_size
        sizes = {"trainer.batch_size": known, "trainer.unlabeled_batch_size": others}
        if self.pairing == "frozen" and known != others:
            given = " and ".join(f"{key}={size}" for key, size in sizes.items())
            raise UserError(f"method.pairing=frozen needs equal {given}.")
        return sizes

    def run(self, lab: Lab) -> Network:
        """Train a student and its teacher, and return the teacher."""
        model, streams = self.network(lab, "model"), self.streams(lab)
        teacher = self.network(lab, "teacher") if self.teacher_init == "random" else None
        epochs = streams.iterations / max(streams.iterations_per_epoch, 1)
        learner = U2PLLearner(model, self, self.labeled_loss(lab), epochs, teacher)
        return lab.fit("train", learner, streams).selected

    def network(self, lab: Lab, tag: str) -> Network:
        """Build a network with its heads."""
        model = lab.network(tag)
        if self.contrast_weight:
            model.attach(REPRESENTATION, ConvStack(model.feature_channels, self.channels, self.channels))
        if self.auxiliary_weight:
            stages = cast(Sequence[Any], model.backbone.stages)
            number = max(len(stages) - 1, 1)
            head = ConvStack(stages[number - 1].channels, 256, model.num_classes, convs=1)
            model.attach(AUXILIARY, head, f"c{number}")
        return model

    def streams(self, lab: Lab) -> BatchSource:
        """Return the batches: streams ``labeled`` and ``unlabeled``, both of weak views."""
        known, weak, size, budget = lab.split.labeled, lab.augment.weak, lab.trainer.batch_size, lab.budget
        unlabeled = {"unlabeled": Unlabeled(lab.split.unlabeled, Weak(lab.augment.geometry, valid=True))}
        if self.pairing == "frozen":
            pairs = partial(paired, rule="sampled_once", seed=lab.seed)  # u2pl/dataset/pascal_voc.py
        else:
            pairs = partial(separate, unlabeled_batch_size=lab.trainer.unlabeled_batch_size)
        return pairs(known, weak, unlabeled, batch_size=size, budget=budget)


class U2PLLearner(Learner):
    """One step of U2PL on the streams "labeled" and "unlabeled".

    Percentiles, means of classes and N / n are those of the images that pass through the networks together: of each
    part by itself with ``trainer.accumulate``, as published on each GPU.

    Args:
        model: student, with the heads that the settings ask for.
        method: settings.
        loss: loss of labeled pixels.
        epochs: number of epochs of the fit, over which percents fall.
        teacher: network that the teacher begins as; ``None`` takes the student.

    Raises:
        UserError: the ranks suit more classes than there are.
    """

    def __init__(
        self,
        model: Network,
        method: U2PL,
        loss: LabeledLoss,
        epochs: float,
        teacher: Network | None = None,
    ) -> None:
        super().__init__()
        self.model, self.method, self.loss, self.epochs = model, method, loss, epochs
        self.average = method.ema(model if teacher is None else teacher)
        self.bank = method.bank(model.num_classes) if method.contrast_weight else None
        if self.bank is not None:
            method.check_ranks(model.num_classes)

    @property
    def teacher(self) -> Network:
        """The EMA of the student."""
        return cast(Network, self.average.teacher)

    def predictors(self) -> dict[str, Network]:
        """The teacher and the student; the latter first in the labeled epochs, as published."""
        both = {"average": self.teacher, "model": self.model}
        return both if int(self.average.updates) else dict(reversed(both.items()))

    def after_step(self, progress: Progress) -> None:
        """Update the teacher; in the first epoch with unlabeled images it is the student, while its decay grows."""
        if progress.epoch >= self.method.warmup_epochs:
            self._copy_student(progress)
            self.average.update(self.model)

    def _copy_student(self, progress: Progress) -> None:
        # Published code shares the tensors of both networks in this epoch.
        if progress.epoch == self.method.warmup_epochs:
            with torch.no_grad():
                torch._foreach_copy_(list(self.teacher.parameters()), list(self.model.parameters()))

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute L = L_sup + weight * L_u + contrast_weight * gradient_scale * L_c."""
        method, known, target = self.method, batch["labeled"], batch["labeled"]["label"]
        if progress.epoch < method.warmup_epochs:
            return self._warmup_step(known)
        self._copy_student(progress)
        image, label, confidence = self.guess(batch["unlabeled"], progress)
        images, count = torch.cat([known["image"], image]), len(target)
        student = head_outputs(self.model, images)
        with torch.no_grad():
            # In training mode, unlike for the labels: published, and what its own running statistics come from.
            teacher = head_outputs(self.teacher, images)
            amount = entropy(enlarged(teacher[LOGITS][count:], label).softmax(1))
            share = max(1 - progress.epoch / self.epochs, 0.0)
            low, high, unreliable = method.reliability(amount, label, share)
        losses = self._labeled_losses(student, target)
        logits = enlarged(student[LOGITS][count:], label)
        unlabeled = reliable_cross_entropy(logits, label, unreliable, reduction="sum_count")
        losses["unlabeled"] = LossTerm(*unlabeled, method.weight)
        scalars = {"unlabeled_used": unlabeled.counted / label.numel(), "unlabeled_confidence": confidence}
        if self.bank is not None:
            losses["contrast"] = self._contrast(student, teacher, target, (label, low, high), progress)
            scalars["bank_fill"] = self.bank.filled.sum() / len(self.bank.features)
        return StepOutput(losses, scalars)

    @torch.no_grad()
    def guess(self, own: StreamBatch, progress: Progress) -> tuple[Tensor, Tensor, Tensor]:
        """Label unlabeled images by the teacher in evaluation mode, then mix; return images, labels, confidence."""
        image, method, training = own["image"], self.method, self.teacher.training
        self.teacher.eval()
        confidence, label = self.teacher(image).softmax(1).max(1)
        self.teacher.train(training)
        if method.padding == "ignored":
            label = label.masked_fill(~own["valid"], IGNORE_INDEX)
        inside = half_masks(label, self.model.num_classes, method, progress)
        if inside is not None:
            image, label = half_mixture(image, label, inside, method.mix, self.model.convention)
        return image, label, confidence.mean()

    def draws(self, progress: Progress, device: torch.device) -> Draw:
        """Return the source of the anchors and negatives of a pass."""
        return uniform_draw(torch_generator(progress, "contrast", device))

    def _warmup_step(self, known: StreamBatch) -> StepOutput:
        """Learn from labeled images; the teacher sees them too, for its running statistics."""
        student = head_outputs(self.model, known["image"])
        with torch.no_grad():
            head_outputs(self.teacher, known["image"])
        losses = self._labeled_losses(student, known["label"])
        if self.method.warmup_decay and self.bank is not None:
            # A gradient of zero, on which weight decay acts; without one the optimizer leaves the head alone.
            total = (0 * student[REPRESENTATION].float()).sum()
            losses["contrast"] = LossTerm(total, torch.ones_like(total.detach()))
        return StepOutput(losses)

    def _labeled_losses(self, student: Outputs, target: Tensor) -> dict[str, LossTerm]:
        """Return L_sup, of the classifier and of the auxiliary one."""
        found = {}
        terms = [("supervised", LOGITS, 1.0), ("auxiliary", AUXILIARY, self.method.auxiliary_weight)]
        for name, output, weight in terms:
            if output in student:
                logits = enlarged(student[output][: len(target)], target)
                loss: SumCount = self.loss(logits, target)
                found[name] = LossTerm(*loss, weight)
        return found

    def _contrast(
        self, student: Outputs, teacher: Outputs, known: Tensor, guessed: Sequence[Tensor], progress: Progress
    ) -> LossTerm:
        """Return L_c of true labels, and of pseudo-labels with low and high entropy; fill the memory first."""
        method, bank, logits = self.method, cast(ClassBank, self.bank), teacher[LOGITS]
        certain = known != IGNORE_INDEX
        pairs = zip((known, certain, certain), guessed, strict=True)
        whole = torch.stack([torch.cat(pair).float() for pair in pairs], 1)
        label, low, high = F.interpolate(whole, logits.shape[-2:]).unbind(1)
        own, anchors, negatives = class_pixels(
            label.long(), low > 0, high > 0, logits.softmax(1), len(known), method
        )
        maps = student[REPRESENTATION], teacher[REPRESENTATION]
        features, keys = (each.permute(0, 2, 3, 1).flatten(0, 2) for each in maps)
        bank.append(over_ranks(keys), over_ranks(negatives.T).T)
        draw = self.draws(progress, keys.device)
        loss = bank_contrast(features, keys, own, anchors, bank, draw, method, reduction="sum_count")
        return LossTerm(*loss, method.contrast_weight * method.gradient_scale)
