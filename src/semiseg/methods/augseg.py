"""AugSeg: an EMA teacher, strong changes of intensity, and labeled pixels in unsure images (arXiv 2212.04976).

"Published code" is ZhenZHAO/AugSeg: ``train_semi.py``, ``augs_ALIA.py`` and ``loss_helper.py``.
"""

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX, Split
from semiseg.contracts.feeding import BatchSource
from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import (
    Batch,
    LossTerm,
    Network,
    Progress,
    StepOutput,
    StreamBatch,
    SumCount,
)
from semiseg.data.epochs import Unlabeled, separate
from semiseg.data.paired_lists import ListRule, paired
from semiseg.data.views import WeakStrong
from semiseg.declare import Ge, record
from semiseg.engine.ema import EMA, AveragedLearner, EMASettings, require_validation
from semiseg.errors import UserError
from semiseg.losses import confident_cross_entropy
from semiseg.methods.confidence import ConfidenceSettings, Guess, PseudoLabeler
from semiseg.methods.labeled_loss import LabeledLoss, LabeledLossSettings
from semiseg.pseudo import Injection, box_maps, draw_injection, image_confidence, mixed
from semiseg.settings import TrainerSettings


@record
class AugSeg(ConfidenceSettings, LabeledLossSettings, EMASettings):
    """AugSeg, L = L_x + weight * L_u, with the strong view of ``augment=augseg``.

    The published code has ``ema_first_epoch=copy pad_in_loss=counted pairing=frozen``, and on VOC ``ema_decay=0.999``;
    for Cityscapes, where all pseudo-labels are learned, ``threshold=0``.
    """

    weight: Annotated[float, Ge(0)] = 1.0
    """Weight of the unlabeled loss. Published: 1; the shipped file for Cityscapes with ResNet-50 has 2."""
    inject: bool = True
    """Whether boxes of labeled images, more for images that the teacher is unsure of, and of other unlabeled images are
    mixed into the strong views, as published; false learns them as they are."""
    ema_first_epoch: Literal["copy", "warm_up"] = "warm_up"
    """Teacher of the first epoch: a "copy" of the student, as published, or the EMA "warm_up" of ``ema_first`` from the
    start (the default: an epoch may be all of a short training)."""
    pad_in_loss: Literal["counted", "masked"] = "masked"
    """Padding of unlabeled images: "counted" learns its pseudo-labels, as published; "masked" ignores it like label 255
    of injected pixels (the default). The divisor of the unlabeled loss is the number of all pixels in both cases."""
    extra_weak_forward: bool = False
    """Whether weak views pass through the student with the others, for the statistics of its batch norm alone: in the
    published settings for 92 labels of VOC, though not in their log."""
    report: Literal["ema", "student", "better"] = "ema"
    """Network that is kept and reported: the "ema" (most published numbers), the "student", or the one that is "better"
    on the validation images (one published number), at twice the time of evaluations."""
    pairing: Literal["frozen", "independent"] = "independent"
    """Order of labeled and unlabeled images: "frozen" lets each labeled entry meet the same unlabeled image in every
    epoch, as the published code does; "independent" is the default."""
    list_rule: ListRule = "sampled_once"
    """Labeled list of ``pairing=frozen``, as long as the unlabeled one: see ``method=fixmatch``. Published:
    "sampled_once"."""

    needs_unlabeled: ClassVar[bool] = True

    def check_split(self, split: Split) -> None:
        """Require validation images where the better network is asked for; raises as ``require_validation`` does."""
        require_validation(self.report, split, "ema")

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Return the numbers of labeled and unlabeled images.

        Raises:
            UserError: they differ with frozen pairs.
        """
        sizes = {
            "trainer.batch_size": trainer.batch_size,
            "trainer.unlabeled_batch_size": trainer.unlabeled_batch_size,
        }
        if self.pairing == "frozen" and len(set(sizes.values())) > 1:
            raise UserError(f"needs equal {' and '.join(sizes)}.", key="method.pairing", value="frozen")
        return sizes

    def run(self, lab: Lab) -> Network:
        """Train one network and return its EMA, or it."""
        network = lab.network("model", probe_rounds=self.probe_rounds)
        learner = AugSegLearner(network, self, self.labeled_loss(lab))
        return lab.fit("train", learner, self.streams(lab)).selected

    def streams(self, lab: Lab) -> BatchSource:
        """Return the batches: ``labeled`` and ``unlabeled`` with ``image``, ``strong_1`` and ``valid``."""
        parts, trainer, split = lab.augment, lab.trainer, lab.split
        view = WeakStrong(parts.geometry, parts.photometric, valid=True)
        unlabeled = {"unlabeled": Unlabeled(split.unlabeled, view)}
        size, budget = trainer.batch_size, lab.budget
        known, held_out = self.held_out(split.labeled)
        if self.pairing == "frozen":
            streams = paired(
                known,
                parts.weak,
                unlabeled,
                batch_size=size,
                budget=budget,
                rule=self.list_rule,
                seed=lab.seed,
            )
        else:
            streams = separate(
                known,
                parts.weak,
                unlabeled,
                batch_size=size,
                unlabeled_batch_size=trainer.unlabeled_batch_size,
                budget=budget,
            )
        return self.gated(streams, held_out, parts.weak, size)

    def guessed_loss(self, logits: Tensor, guess: Guess) -> SumCount:
        """Return L_u: the sum over confident pixels, divided by the number of all, see ``pad_in_loss``."""
        everywhere = torch.ones_like(guess.valid)
        keep = guess.keep & guess.valid & (guess.label != IGNORE_INDEX)
        # Published code: loss_helper.py, compute_unsupervised_loss_by_threshold.
        return confident_cross_entropy(logits, guess.label, keep, everywhere, reduction="sum_count")


class AugSegLearner(AveragedLearner):
    """One step of AugSeg on the streams "labeled" and "unlabeled".

    Args:
        model: network to train.
        method: settings.
        loss: loss of labeled pixels.
    """

    average: EMA

    def __init__(self, model: Network, method: AugSeg, loss: LabeledLoss) -> None:
        super().__init__(model, method.ema(model), method.report)
        self.labeler = PseudoLabeler(method, model.num_classes)
        self.method = method
        self.loss = loss

    def after_step(self, progress: Progress) -> None:
        """Update the EMA."""
        copied = self.method.ema_first_epoch == "copy" and progress.epoch == 0
        self.average.update(self.model, copied=copied)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute L = L_x + weight * L_u."""
        method, known, own = self.method, batch["labeled"], batch["unlabeled"]
        self.labeler.follow(batch, self._answer)
        guess, sure = self._label(own)
        strong, target, injected = own["strong_1"], guess, torch.zeros_like(guess.keep)
        if method.inject:
            drawn = self.injection(progress, strong)
            strong, target, injected = inject(strong, guess, known, drawn, sure)
        streams = [known["image"], *([own["image"]] if method.extra_weak_forward else []), strong]
        logits = self.model(torch.cat(streams))
        losses = {
            "labeled": LossTerm(*self.loss(logits[: len(known["image"])], known["label"])),
            "strong": LossTerm(*method.guessed_loss(logits[-len(strong) :], target), method.weight),
        }
        scalars = {"image_confidence": sure.mean(), "injected": injected.double().mean()}
        return StepOutput(losses, guess.statistics() | scalars)

    @torch.no_grad()
    def _label(self, own: StreamBatch) -> tuple[Guess, Tensor]:
        """Return the teacher's pseudo-labels of the weak views, and its confidence in each image."""
        logits = self._answer(own["image"])
        valid = own["valid"]
        # Pseudo-labels of padding count with "counted".
        learned = torch.ones_like(valid) if self.method.pad_in_loss == "counted" else valid
        return self.labeler(logits, learned), image_confidence(logits)

    @torch.no_grad()
    def _answer(self, images: Tensor) -> Tensor:
        """Return the teacher's logits of weak views."""
        self.average.teacher.eval()
        logits: Tensor = self.average.teacher(images)
        return logits

    def injection(self, progress: Progress, images: Tensor) -> Injection:
        """Draw the partners and boxes of a batch of unlabeled images."""
        height, width = images.shape[-2:]
        return draw_injection(progress, len(images), (height, width), images.device)


def inject(
    strong: Tensor, guess: Guess, known: StreamBatch, drawn: Injection, sure: Tensor
) -> tuple[Tensor, Guess, Tensor]:
    """Mix labeled pixels into unsure images, and boxes of the results into the strong views.

    Args:
        strong: strong views ``(N, C, H, W)``.
        guess: pseudo-labels of their weak views.
        known: stream "labeled".
        drawn: partners and boxes.
        sure: confidence in each image ``(N,)``.

    Returns:
        Images, what they learn, and which of their pixels are labeled ones, ``(N, H, W) bool``.
    """
    size = strong.shape[-2:]
    chosen = drawn.partner % len(known["label"])
    image, label = known["image"][chosen], known["label"][chosen]
    # True labels are always confident.
    truth = Guess(
        label, torch.ones_like(guess.confidence), torch.ones_like(guess.keep), torch.ones_like(guess.valid)
    )
    labeled = box_maps(drawn.labeled_box, size) & (drawn.chance > sure)[:, None, None]
    donor, donated = mixed(strong, image, labeled), guess.mixed(truth, labeled)
    # Published code: augs_ALIA.py, cut_mix_label_adaptive; injected pixels are seen through the second box alone.
    inside = box_maps(drawn.box, size)
    target = guess.mixed(Guess(*(values[drawn.partner] for values in donated)), inside)
    return mixed(strong, donor[drawn.partner], inside), target, inside & labeled[drawn.partner]
