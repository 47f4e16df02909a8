"""What the methods of the FixMatch family share: weak and strong views, a labeling network, CutMix partners, losses."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from semiseg.contracts.dataset import Split
from semiseg.contracts.feeding import BatchSource
from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Batch, LossTerm, Network, Progress, StepOutput, StreamBatch, SumCount
from semiseg.data.epochs import Unlabeled, separate
from semiseg.data.mix_box import MixBox
from semiseg.data.paired_lists import ListRule, paired
from semiseg.data.views import WeakStrong
from semiseg.declare import Ge, Gt, Le, Len, Lt, Mark, record
from semiseg.engine.ema import AveragedLearner, EMASettings, require_validation
from semiseg.errors import UserError
from semiseg.losses import confident_cross_entropy
from semiseg.methods.confidence import ConfidenceSettings, Guess, PseudoLabeler
from semiseg.methods.labeled_loss import LabeledLoss, LabeledLossSettings
from semiseg.pseudo import box_maps, mixed, reversed_within
from semiseg.settings import TrainerSettings

Partner = Literal["same_images", "reversed", "independent"]
Share = Annotated[float, Gt(0), Le(1)]
Teacher = Literal["student_train", "student_eval", "ema"]


@record
class WeakStrongSettings(ConfidenceSettings, LabeledLossSettings, EMASettings):
    """Settings of methods that learn the label of a weak view on strong views, for these to inherit."""

    weight: Annotated[float, Ge(0)] = 1.0
    """Weight of the unlabeled loss beside the labeled one; their sum is halved, as published."""
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the fit that begins it with labeled images alone, so that the first pseudo-labels are those
    of a network that has learned something; 0 as published."""
    teacher: Teacher = "ema"
    """Network that labels weak views: the student in the same training pass as the labeled images ("student_train",
    UniMatch V1), the student in evaluation mode, or its "ema" in evaluation mode (UniMatch V2)."""
    report: Literal["student", "ema", "better"] = "ema"
    """Network that is kept and reported with ``teacher=ema``: the "student" (the published checkpoint), the "ema" (the
    published numbers), or the one that is "better" on the validation images, at twice the time of evaluations."""
    partner: Partner = "reversed"
    """Image that CutMix takes the boxes from: "same_images", the same images in another draw of all views (UniMatch V1,
    which labels them in a pass of their own); the batch in "reversed" order (UniMatch V2; nothing to label twice, so it
    is the default); or "independent" images in another draw."""
    box_probability: Annotated[float, Ge(0), Le(1)] = 0.5
    """Probability that a strong view gets a CutMix box."""
    box_area: Annotated[Sequence[Share], Len(2, 2), Mark(expected="two shares of the crop's area,")] = (
        0.02,
        0.4,
    )
    """Smallest and largest share of the crop that a CutMix box covers."""
    pairing: Literal["frozen", "independent"] = "independent"
    """Order of labeled and unlabeled images: "frozen" lets each labeled entry meet the same unlabeled image in every
    epoch, as the published code's two samplers of one seed do; "independent" orders both by themselves (the default:
    the pairs have no purpose)."""
    list_rule: ListRule = "in_order"
    """Labeled list of ``pairing=frozen``, as long as the unlabeled one: repeated and cut "in_order" (UniMatch,
    PrevMatch), "shuffled_once" (CorrMatch) or "sampled_once" from the repeated list (U2PL, AugSeg)."""
    divisor: Literal["valid", "confident"] = "valid"
    """Number that the sum of the unlabeled losses is divided by: pixels that are no padding ("valid", as published), or
    the "confident" ones among them."""
    empty_valid: Literal["nan", "zero"] = "zero"
    """Unlabeled loss of a batch that is padding alone: "nan" as published, which ends a run; "zero" is the default."""
    groups: Annotated[int, Ge(1)] = 1
    """Equal parts of a batch whose losses are averaged by themselves before their mean is taken, and within which
    partners are reversed: the number of GPUs repeats the published code, whose losses are means on each GPU."""

    def conflicts(self) -> Iterator[UserError]:
        """Find values that are wrong together."""
        yield from super().conflicts()
        if self.box_area[0] > self.box_area[1]:
            yield UserError("give the smaller share first.", key="method.box_area", value=list(self.box_area))

    def check_split(self, split: Split) -> None:
        """Require validation images where the better network is asked for; raises as ``require_validation`` does."""
        require_validation(self.report, split, "ema")

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Return the numbers of labeled and unlabeled images.

        Raises:
            UserError: they differ with frozen pairs, can't be cut into the groups, or leave an image alone where its
                partner is of the same batch.
        """
        sizes = {
            "trainer.batch_size": trainer.batch_size,
            "trainer.unlabeled_batch_size": trainer.unlabeled_batch_size,
        }
        if self.pairing == "frozen" and trainer.batch_size != trainer.unlabeled_batch_size:
            raise UserError(
                f"method.pairing=frozen needs equal trainer.batch_size={trainer.batch_size} and "
                f"trainer.unlabeled_batch_size={trainer.unlabeled_batch_size}."
            )
        parts = self.groups * trainer.accumulate
        wrong = [f"{key}={size}" for key, size in sizes.items() if size % parts]
        if self.groups > 1 and wrong:
            raise UserError(
                f"{' and '.join(wrong)} can't be cut into {self.groups} groups in each of the {trainer.accumulate} "
                "parts of a batch (trainer.accumulate). Give multiples of their product.",
                key="method.groups",
                value=self.groups,
            )
        at_once = trainer.unlabeled_batch_size // parts
        if self.partner == "reversed" and self.box_probability > 0 and at_once < 2:
            raise UserError(
                "a single image at once is its own partner, so that CutMix does nothing. Give "
                f"trainer.unlabeled_batch_size={2 * parts} or more, or method.partner=independent.",
                key="trainer.unlabeled_batch_size",
                value=trainer.unlabeled_batch_size,
            )
        return sizes

    def streams(self, lab: Lab, strong: int) -> BatchSource:
        """Return the batches: ``labeled``, ``unlabeled`` with ``strong`` strong views, ``partner``, ``held_out``.

        Args:
            lab: lab with images, views and lengths.
            strong: number of strong views.
        """
        parts, trainer, ids = lab.augment, lab.trainer, lab.split.unlabeled
        known, held_out = self.held_out(lab.split.labeled)
        box = MixBox(self.box_probability, (self.box_area[0], self.box_area[1]))
        view = WeakStrong(parts.geometry, parts.photometric, k=strong, valid=True, box=box)
        unlabeled = {"unlabeled": Unlabeled(ids, view)}
        if self.partner != "reversed":
            order = "unlabeled" if self.partner == "same_images" else None
            unlabeled["partner"] = Unlabeled(ids, view, order)
        if self.pairing == "frozen":
            streams = paired(
                known,
                parts.weak,
                unlabeled,
                batch_size=trainer.batch_size,
                budget=lab.budget,
                rule=self.list_rule,
                seed=lab.seed,
                groups=self.groups,
            )
        else:
            streams = separate(
                known,
                parts.weak,
                unlabeled,
                batch_size=trainer.batch_size,
                unlabeled_batch_size=trainer.unlabeled_batch_size,
                budget=lab.budget,
            )
        return self.gated(streams, held_out, parts.weak, trainer.batch_size)

    def mixed_view(self, view: int, own: StreamBatch, partner: StreamBatch | None) -> Tensor:
        """Apply CutMix to a strong view.

        Args:
            view: number of the strong view, from 1.
            own: stream "unlabeled", with ``strong_k`` and ``box_k``.
            partner: stream "partner"; ``None`` takes the batch in reversed order.
        """
        image = own[f"strong_{view}"]
        other = reversed_within(image, self.groups) if partner is None else partner[f"strong_{view}"]
        return mixed(image, other, box_maps(own[f"box_{view}"], image.shape[-2:]))

    def mixed_guess(self, view: int, own: StreamBatch, guess: Guess, partner_guess: Guess | None) -> Guess:
        """Return the pseudo-labels that a mixed strong view learns.

        Args:
            view: number of the strong view, from 1.
            own: stream "unlabeled", with ``box_k``.
            guess: pseudo-labels of its weak view.
            partner_guess: pseudo-labels of the partner's weak view; ``None`` takes the batch in reversed order.
        """
        other = guess.reversed(self.groups) if partner_guess is None else partner_guess
        return guess.mixed(other, box_maps(own[f"box_{view}"], guess.label.shape[-2:]))

    def guessed_loss(self, logits: Tensor, guess: Guess) -> SumCount:
        """Return the cross entropy with confident pseudo-labels, see ``divisor``, ``empty_valid`` and ``groups``."""
        return self.by_group(self._confident, logits, guess.label, guess.keep, guess.valid)

    def _confident(self, logits: Tensor, label: Tensor, keep: Tensor, valid: Tensor) -> SumCount:
        total, count = confident_cross_entropy(
            logits, label, keep, valid, self.divisor, reduction="sum_count"
        )
        return SumCount(total * (count / count) if self.empty_valid == "nan" else total, count)

    def by_group(self, loss: Callable[..., SumCount], *tensors: Tensor) -> SumCount:
        """Return the mean of a loss of tensors ``(N, ...)``, or the mean of those of the groups."""
        if self.groups == 1:
            return loss(*tensors)
        parts = zip(*(each.chunk(self.groups) for each in tensors), strict=True)
        means = torch.stack([loss(*part).mean for part in parts])
        return SumCount(means.sum(), torch.full((), len(means), device=means.device))


class LabelingLearner(AveragedLearner):
    """A network and what labels for it; methods add their step.

    Args:
        model: network to train.
        method: settings.
        loss: loss of labeled pixels.
    """

    def __init__(self, model: Network, method: WeakStrongSettings, loss: LabeledLoss) -> None:
        super().__init__(model, method.ema(model) if method.teacher == "ema" else None, method.report)
        self.weak_strong = method
        self.loss = loss
        self.labeler = PseudoLabeler(method, model.num_classes)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute the losses of a step, those of labeled images alone in the warm-up."""
        if progress.iteration >= int(self.weak_strong.warmup * progress.total):
            return self.full_step(batch, progress)
        known = batch["labeled"]
        loss = self.known_loss(self.model(known["image"]), known["label"])
        return StepOutput({"labeled": LossTerm(*loss, 0.5)})

    def full_step(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute the losses of labeled and unlabeled images."""
        raise NotImplementedError

    def known_loss(self, logits: Tensor, target: Tensor) -> SumCount:
        """Return L_x of labeled images, see ``groups``."""
        return self.weak_strong.by_group(self.loss, logits, target)

    def observe(self, batch: Batch) -> None:
        """Note what thresholds and alignment need of labeled images; methods call it at the beginning of a step."""
        self.labeler.follow(batch, self.answer)

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """Return the logits of the EMA or the student for weak views, in evaluation mode."""
        teacher = self.model if self.average is None else self.average.teacher
        training = teacher.training
        teacher.eval()
        logits: Tensor = teacher(images)
        teacher.train(training)
        return logits

    def label(self, images: Tensor, valid: Tensor, learn: bool = True) -> Guess:
        """Label weak views by the EMA or the student, in evaluation mode."""
        guess: Guess = self.labeler(self.answer(images), valid, learn)
        return guess

    def label_partner(self, batch: Batch) -> Guess | None:
        """Label the stream "partner"; ``None`` where partners are images of the same batch."""
        # Published code of UniMatch: unimatch.py labels the partners first, by the student in evaluation mode.
        partner = batch.get("partner")
        return None if partner is None else self.label(partner["image"], partner["valid"], learn=False)


def split_pass(model: Network, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of two batches that share a pass, and its statistics of batch norm."""
    logits = model(torch.cat([first, second]))
    return logits[: len(first)], logits[len(first) :]
