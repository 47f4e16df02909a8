"""s4GAN (arXiv 1908.05724): a discriminator of whole images chooses those whose predictions are learned.

"Published code" is that of the authors, github.com/sud0301/semisup-semseg, ``train_s4GAN.py`` where no other file is
named. The second branch of the paper, MLMT, which classifies images, is not here.
"""

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

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
from semiseg.data.views import Weak
from semiseg.declare import Ge, Le, record
from semiseg.distributed import over_ranks
from semiseg.errors import UserError
from semiseg.losses import adversarial_loss, feature_matching, selected_cross_entropy
from semiseg.methods.discriminated import DiscriminatedLearner, DiscriminatorSettings, discriminator_terms
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.models.discriminators import ImageDiscriminator, with_fixed_weights
from semiseg.pseudo import channel_masks, one_hot, own_rows, torch_generator
from semiseg.settings import TrainerSettings


@record
class S4GAN(DiscriminatorSettings):
    """s4GAN, L = L_ce + matching_weight * L_fm + self_weight * L_st.

    The defaults correct the published code, which has ``real_range=labeled_batch padding=counted
    score_dropout=train``.
    """

    matching_weight: Annotated[float, Ge(0)] = 0.1
    """Weight of feature matching. Published 0.1."""
    self_weight: Annotated[float, Ge(0)] = 1.0
    """Weight of self-training. Published 1."""
    threshold: Annotated[float, Ge(0), Le(1)] = 0.6
    """Score of the discriminator above which the prediction of an image is learned. Published: VOC 0.6, Cityscapes
    0.7."""
    real_range: Literal["labeled_batch", "own", "per_image"] = "own"
    """Range by which images are scaled to 0 and 1 for the discriminator: that of the "labeled_batch" for the images of
    true label maps, as published, which another batch is divided by; the "own" range of each batch (the default); or
    that of each image, "per_image", predictions too."""
    score_dropout: Literal["train", "eval"] = "eval"
    """Dropout of the discriminator in the scores that choose images: on, "train" as published, which makes them random;
    or off, "eval" (the default), at one more pass of the discriminator."""
    padding: Literal["counted", "masked"] = "masked"
    """Padding of chosen images in the self-training loss: "counted" as published, or "masked" (the default)."""
    discriminator_dropout: bool = True
    """Whether half of the channels behind the first three convs of the discriminator are dropped, as published."""

    smallest_crop: ClassVar[int] = ImageDiscriminator.smallest

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Return the numbers of labeled and unlabeled images, which pass through the network separately.

        Raises:
            UserError: the batch is to be accumulated, or crops are smaller than the discriminator needs.
        """
        if trainer.accumulate > 1:
            raise UserError(
                "feature matching compares means over a whole batch, which parts of it don't add up to; expected 1.",
                key="trainer.accumulate",
                value=trainer.accumulate,
            )
        return super().batch_sizes(trainer)

    def run(self, lab: Lab) -> Network:
        """Train the network and its discriminator together, and return the network."""
        learner = S4GANLearner(lab.network("model"), self, self.labeled_loss(lab))
        view = lab.augment.weak
        guessed = Weak(lab.augment.geometry, valid=True) if self.padding == "masked" else view
        return lab.fit("train", learner, self.streams(lab, guessed, view)).selected


class S4GANLearner(DiscriminatedLearner):
    """One step of s4GAN on the streams "labeled", "unlabeled" and, for true label maps, "labeled_2".

    The labeled batch passes through the network first, as published.

    Args:
        model: network to train.
        method: settings.
        loss: loss of labeled pixels.
    """

    discriminator: ImageDiscriminator

    def __init__(self, model: Network, method: S4GAN, loss: LabeledLoss) -> None:
        channels = model.num_classes + model.channels
        discriminator = ImageDiscriminator(channels, method.discriminator_channels)
        super().__init__(model, method, loss, discriminator)
        self.method = method

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute the losses of the network and of the discriminator."""
        method, known, own = self.method, batch["labeled"], batch["unlabeled"]
        supervised: SumCount = self.loss(self.model(known["image"]), known["label"])
        logits = self.model(own["image"])
        fake = self._predicted(logits, own["image"])
        real = self._true(known if method.real_labels == "same" else batch["labeled_2"], known["image"])
        score, matched = self._matched(real, fake, progress)
        chosen = score > method.threshold
        losses = {
            "supervised": LossTerm(*supervised),
            # A mean over the batch, not a sum over its images: count 1.
            "matching": LossTerm(matched, torch.ones_like(matched), method.matching_weight),
        }
        if progress.iteration > 0:
            # L_st: predictions of chosen images as labels; none in the first step, as published
            valid = own["valid"] if method.padding == "masked" else None
            learned: SumCount = selected_cross_entropy(logits, chosen, valid, reduction="sum_count")
            losses["self"] = LossTerm(*learned, method.self_weight)
        losses |= self._discriminator(real, fake.detach(), progress)
        statistics = {"discriminator_score": score.mean(), "unlabeled_used": chosen.double().mean()}
        return StepOutput(losses, statistics)

    def _matched(self, real: Tensor, fake: Tensor, progress: Progress) -> tuple[Tensor, Tensor]:
        """Return the scores of predictions ``(N,)``, and L_fm, which trains the network through the predictions alone.

        Args:
            real: true label maps and their images, ``(N, K + C, H, W)``: K classes, then C channels.
            fake: predictions and theirs, likewise.
            progress: pass that dropout is drawn for.
        """
        found = with_fixed_weights(self.discriminator, fake, self._masks(fake, progress, "matched_fake"))
        with torch.no_grad():
            _, expected = self.discriminator(real, self._masks(real, progress, "matched_real"))
            scores = found[0] if self.method.score_dropout == "train" else self.discriminator(fake)[0]
            score = scores.detach().sigmoid()
        return score, feature_matching(_batch_mean(expected), _batch_mean(found[1]))

    def _discriminator(self, real: Tensor, fake: Tensor, progress: Progress) -> dict[str, LossTerm]:
        """Return both halves of the loss of the discriminator, under dropout of their own."""
        judged, _ = self.discriminator(fake, self._masks(fake, progress, "learned_fake"))
        true, _ = self.discriminator(real, self._masks(real, progress, "learned_real"))
        predicted: SumCount = adversarial_loss(judged, False, reduction="sum_count")
        known: SumCount = adversarial_loss(true, True, reduction="sum_count")
        return discriminator_terms(predicted, known)

    def _predicted(self, logits: Tensor, images: Tensor) -> Tensor:
        """Return the discriminator's input of predictions: probabilities, then the image, ``(N, K + C, H, W)``.

        Args:
            logits: ``(N, K, H, W)``, floating point.
            images: ``(N, C, H, W)``, as the streams give them.
        """
        shown = self.model.normalize(images).to(logits.dtype)
        rule = "per_image" if self.method.real_range == "per_image" else "own"
        return torch.cat([logits.softmax(1), rescaled(shown, rule)], 1)

    def _true(self, part: StreamBatch, labeled: Tensor) -> Tensor:
        """Return the discriminator's input of true label maps; pixels of label 255 are of no class.

        Args:
            part: true label maps ``(N, H, W) int64`` and their images ``(N, C, H, W)``.
            labeled: images of the labeled batch ``(N, C, H, W)``, for ``real_range=labeled_batch``.

        Returns:
            Classes, then the image, ``(N, K + C, H, W)``.
        """
        shown, rule = self.model.normalize(part["image"]), self.method.real_range
        other = self.model.normalize(labeled) if rule == "labeled_batch" else None
        maps = one_hot(part["label"], self.model.num_classes).to(shown.dtype)
        return torch.cat([maps, rescaled(shown, rule, other)], 1)

    def _masks(self, images: Tensor, progress: Progress, name: str) -> Tensor | None:
        """Draw the dropout of one pass of the discriminator."""
        if not self.method.discriminator_dropout:
            return None
        # Drawn for all ranks and cut: the masks of an image must not depend on how many processes share the batch.
        total, rows = own_rows(progress, len(images))
        generator = torch_generator(progress, name, images.device)
        return channel_masks(generator, total, sum(self.discriminator.dropped))[rows]


def rescaled(images: Tensor, rule: str, other: Tensor | None = None) -> Tensor:
    """Scale images ``(N, C, H, W)`` to 0 and 1, by one range of all channels.

    Args:
        images: images as the network sees them.
        rule: the range is the "own" one of the batch, that of each image, "per_image", or as published that of
            "labeled_batch", whose width divides the images while their own smallest value is subtracted.
        other: images of the labeled batch, for "labeled_batch".
    """
    if rule == "per_image":
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        return (images - low) / _width(low, high)
    low, high = _range(images)
    # Published code: divides by the range of the labeled batch, whatever the images are.
    width = _width(*_range(other)) if other is not None else _width(low, high)
    return (images - low) / width


def _range(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value of the images of all ranks."""
    return over_ranks(images.amin()[None]).amin(), over_ranks(images.amax()[None]).amax()


def _width(low: Tensor, high: Tensor) -> Tensor:
    """Return the width of a range, 1 where an image has a single value."""
    return torch.where(high > low, high - low, 1.0)


def _batch_mean(features: Tensor) -> Tensor:
    """Return the mean features of the images of all ranks ``(1, C)``, with the gradient of the own ones."""
    mean = features.mean(0, keepdim=True)
    whole = over_ranks(mean.detach()).mean(0, keepdim=True)
    return mean + (whole - mean.detach())
