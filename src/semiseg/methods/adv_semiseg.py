"""AdvSemiSeg (arXiv 1802.07934): a discriminator tells which predictions can be trusted, and the network deceives it.

"Published code" is that of the authors, github.com/hfslyc/AdvSemiSeg, ``train.py`` where no other file is named.
"""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.contracts.feeding import View
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
from semiseg.data.stretched import StretchedTo
from semiseg.data.views import Weak
from semiseg.declare import Ge, Le, record
from semiseg.distributed import over_ranks
from semiseg.errors import UserError
from semiseg.losses import adversarial_loss, confident_cross_entropy
from semiseg.methods.discriminated import DiscriminatedLearner, DiscriminatorSettings, discriminator_terms
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.models.discriminators import MapDiscriminator, with_fixed_weights
from semiseg.pseudo import one_hot


@record
class AdvSemiSeg(DiscriminatorSettings):
    """Adversarial learning, L = L_sup + labeled_weight * L_adv,l + unlabeled_weight * L_adv,u + semi_weight * L_semi.

    The defaults correct the published code, which has ``adversarial_without_pixels=dropped real_crops=stretched``.
    """

    labeled_weight: Annotated[float, Ge(0)] = 0.01
    """Weight of the adversarial loss of labeled images: published 0.01; the default of the published code is 0.1."""
    unlabeled_weight: Annotated[float, Ge(0)] = 0.001
    """Weight of the adversarial loss of unlabeled images, from the first iteration on. Published 0.001."""
    semi_weight: Annotated[float, Ge(0)] = 0.1
    """Weight of the self-training loss. Published 0.1."""
    threshold: Annotated[float, Ge(0), Le(1)] = 0.2
    """Smallest confidence of the discriminator with which a pixel's prediction is learned. Published 0.2."""
    semi_from: Annotated[float, Ge(0), Le(1)] = 0.25
    """Share of the iterations after which self-training begins. Published: 5,000 of 20,000."""
    adversarial_without_pixels: Literal["dropped", "kept"] = "kept"
    """Adversarial loss of unlabeled images in steps of self-training where no pixel is confident: "dropped", as
    published, or "kept" (the default)."""
    real_crops: Literal["stretched", "padded"] = "padded"
    """True label maps smaller than the crop: "stretched" to it for the discriminator, as published, or "padded" like
    labeled images, with label 255, which does not count (the default)."""
    smallest_crop: ClassVar[int] = MapDiscriminator.smallest

    def run(self, lab: Lab) -> Network:
        """Train the network and its discriminator together, and return the network."""
        learner = AdvSemiSegLearner(lab.network("model"), self, self.labeled_loss(lab))
        streams = self.streams(lab, lab.augment.weak, self.real_view(lab))
        return lab.fit("train", learner, streams).selected

    def real_view(self, lab: Lab) -> View:
        """Return the view of the true label maps of the discriminator.

        Raises:
            UserError: label maps are to be stretched, but windows are cut from images before they are resized.
        """
        if self.real_crops == "padded":
            return lab.augment.weak
        geometry = lab.augment.geometry
        if geometry.window == "source":
            raise UserError(
                "stretches whole label maps, but this augment cuts a window before it resizes (window=source, as "
                "augment=cutmix_seg does); take real_crops=padded or another augment.",
                key="method.real_crops",
                value=self.real_crops,
            )
        height, width = geometry.size
        return Weak(replace(geometry, resize=StretchedTo(height, width, geometry.resize)))


class AdvSemiSegLearner(DiscriminatedLearner):
    """One step of AdvSemiSeg on the streams "labeled", "unlabeled" and, for true label maps, "labeled_2".

    The unlabeled batch passes through the network first, as published, which matters for running statistics.

    Args:
        model: network to train.
        method: settings.
        loss: loss of labeled pixels.
    """

    def __init__(self, model: Network, method: AdvSemiSeg, loss: LabeledLoss) -> None:
        discriminator = MapDiscriminator(model.num_classes, method.discriminator_channels)
        super().__init__(model, method, loss, discriminator)
        self.method = method

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute L_seg (eq. (2)), and the loss L_D of the discriminator (eq. (1))."""
        method, known = self.method, batch["labeled"]
        guessed = self.model(batch["unlabeled"]["image"])
        unlabeled = guessed.softmax(1)
        losses, scalars = self._unlabeled(guessed, unlabeled, progress)
        logits = self.model(known["image"])
        probabilities, valid = logits.softmax(1), known["label"] != IGNORE_INDEX
        supervised: SumCount = self.loss(logits, known["label"])
        # eq. (4): L_adv of labeled images
        deceived: SumCount = adversarial_loss(self._judged(probabilities), True, valid, reduction="sum_count")
        losses |= {
            "supervised": LossTerm(*supervised),
            "adversarial_labeled": LossTerm(*deceived, method.labeled_weight),
        }
        real = known if method.real_labels == "same" else batch["labeled_2"]
        losses |= self._discriminator(probabilities, valid, unlabeled, real)
        return StepOutput(losses, scalars)

    def _unlabeled(
        self, logits: Tensor, probabilities: Tensor, progress: Progress
    ) -> tuple[dict[str, LossTerm], dict[str, Tensor]]:
        """Return the adversarial and the self-training loss of unlabeled images, and statistics."""
        method = self.method
        judged = self._judged(probabilities)
        # eq. (4): all positions, padding too, as published
        total, count = adversarial_loss(judged, True, reduction="sum_count")
        confidence = judged.detach().sigmoid()
        keep = confidence >= method.threshold
        scalars = {"discriminator_confidence": confidence.mean(), "unlabeled_used": keep.double().mean()}
        begun = progress.iteration >= method.semi_from * progress.total
        if begun and method.adversarial_without_pixels == "dropped":
            # Published code: the backward pass of both losses is in the branch with pixels.
            total = torch.where(over_ranks(keep.sum()[None]).any(), total, 0.0)
        losses = {"adversarial_unlabeled": LossTerm(total, count, method.unlabeled_weight)}
        if begun:
            # eq. (5): the mean runs over confident pixels; labels are those of the same pass
            learned: SumCount = confident_cross_entropy(
                logits,
                logits.detach().max(1).indices,
                keep,
                torch.ones_like(keep),
                "confident",
                reduction="sum_count",
            )
            losses["semi"] = LossTerm(*learned, method.semi_weight)
        return losses, scalars

    def _discriminator(
        self, labeled: Tensor, valid: Tensor, unlabeled: Tensor, real: StreamBatch
    ) -> dict[str, LossTerm]:
        """Return both halves of the loss of the discriminator."""
        # eq. (1): predictions and true maps have a divisor each; of padding, that of unlabeled images alone counts
        predicted = torch.cat([labeled.detach(), unlabeled.detach()])
        counted = torch.cat([valid, torch.ones_like(unlabeled[:, 0], dtype=torch.bool)])
        fake: SumCount = adversarial_loss(
            self.discriminator(predicted), False, counted, reduction="sum_count"
        )
        maps = one_hot(real["label"], self.model.num_classes).to(predicted.dtype)
        known = real["label"] != IGNORE_INDEX
        true: SumCount = adversarial_loss(self.discriminator(maps), True, known, reduction="sum_count")
        return discriminator_terms(fake, true)

    def _judged(self, probabilities: Tensor) -> Tensor:
        """Return the discriminator's logits, of which no gradient reaches its own weights."""
        judged = with_fixed_weights(self.discriminator, probabilities)
        assert isinstance(judged, Tensor)
        return judged
