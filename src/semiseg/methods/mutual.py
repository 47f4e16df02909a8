"""One step of dynamic mutual training (DMT, arXiv 2004.08514), and the labels that it learns from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import torch
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.contracts.training import (
    Batch,
    Learner,
    LossTerm,
    Network,
    Progress,
    StepOutput,
    StoredLabels,
    StreamBatch,
)
from semiseg.errors import UserError
from semiseg.losses import dynamic_mutual_loss
from semiseg.methods.supervised import LabeledLoss
from semiseg.pseudo import class_balanced_thresholds, confident_labels, label_image
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.inference import predict

if TYPE_CHECKING:
    from semiseg.losses.mutual import Variant as Weighting

Variant = Literal["dmt", "flip", "naive", "online"]


class ExtraLoss(Protocol):
    """What a network learns in a fit beside its labels."""

    def prepare(self, model: Network) -> None:
        """Freeze and unfreeze; called before the optimizer is made."""
        ...

    def __call__(
        self, model: Network, features: Tensor, logits: Tensor, labels: Tensor, progress: Progress
    ) -> Mapping[str, LossTerm]:
        """Return further terms for ``(N, D, h, w)`` features, their logits and labels ``(N, H, W) int64``."""
        ...


class Contrast(Protocol):
    """A head beside the classifier, and what it learns."""

    def attach(self, model: Network, seed: int) -> None:
        """Give a network the head."""
        ...

    def of_baselines(self) -> ExtraLoss:
        """Return what the baselines learn."""
        ...

    def of_phases(self) -> ExtraLoss:
        """Return what the phases learn."""
        ...


@dataclass(frozen=True)
class MutualLoss:
    """How pseudo-labeled pixels are weighted; see ``dynamic_mutual_loss``.

    Args:
        gamma_agree: exponent where network and labeler agree.
        gamma_disagree: exponent where they do not.
        variant: "dmt", "flip" or "naive"; "online" labels unlabeled images in the very step.
        threshold: "online" learns a pixel where its own probability is above this.
    """

    gamma_agree: float = 5.0
    gamma_disagree: float = 5.0
    variant: Variant = "dmt"
    threshold: float = 0.9

    def __post_init__(self) -> None:
        for key in ("gamma_agree", "gamma_disagree"):
            if not 0 <= getattr(self, key) < float("inf"):
                raise UserError(
                    "give 0 or more; published is 5, or 3.", key=f"method.{key}", value=getattr(self, key)
                )
        if self.variant not in get_args(Variant):
            raise UserError(
                f"choose {', '.join(get_args(Variant))}.", key="method.variant", value=self.variant
            )
        if not 0 <= self.threshold < 1:
            raise UserError(
                "give a probability below 1, such as 0.9.", key="method.threshold", value=self.threshold
            )

    @property
    def weighting(self) -> "tuple[float, float, Weighting]":
        """Exponents and variant of ``dynamic_mutual_loss``; labels of the very step are plain targets."""
        if self.variant == "online":
            return 0.0, 0.0, "dmt"
        return self.gamma_agree, self.gamma_disagree, self.variant


class MutualLearner(Learner):
    """One network on labeled images and on others that it has labels for.

    The streams are "labeled" and perhaps "pseudo" (with stored labels and their confidence) or "unlabeled" (the
    network labels them itself, in the very step). All images go through the network together, as published, the
    labeled ones last.

    Args:
        model: the network that is trained.
        loss: the weights of pseudo-labeled pixels.
        extra: what is learned beside.
        labeled_loss: the loss where there are labeled images alone; None: cross entropy.
    """

    def __init__(
        self,
        model: Network,
        loss: MutualLoss | None = None,
        extra: ExtraLoss | None = None,
        labeled_loss: LabeledLoss | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss or MutualLoss()
        self.labeled_loss = labeled_loss or LabeledLoss()
        self.extra = extra
        if extra is not None:
            extra.prepare(model)

    def predictors(self) -> dict[str, Network]:
        """The network."""
        return {"model": self.model}

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Average the weighted cross entropy over all valid pixels of the batch."""
        labeled = batch["labeled"]
        others = batch.get("pseudo", batch.get("unlabeled"))
        images = labeled["image"] if others is None else torch.cat([others["image"], labeled["image"]])
        features = self.model.features(images)
        logits = self.model.classify(features, images.shape[-2:])
        target = labeled["label"]
        if others is None:
            total, count = self.labeled_loss(logits, target)
            output = StepOutput(
                {"supervised": LossTerm(total, count)}, {"pixels_used": count / target.numel()}
            )
        else:
            output, target = self._mutual(others, logits, target)
        if self.extra is None:
            return output
        further = self.extra(self.model, features, logits, target, progress)
        return StepOutput({**output.losses, **further}, output.scalars)

    def _mutual(self, others: StreamBatch, logits: Tensor, known: Tensor) -> tuple[StepOutput, Tensor]:
        """Return the loss of guessed and known labels, and all of these labels."""
        count_others = len(others["id"])
        guessed, confidence = self._guessed(others, logits[:count_others])
        target = torch.cat([guessed, known])
        confidence = torch.cat([confidence, torch.ones_like(known, dtype=torch.float32)])
        is_pseudo = torch.arange(len(target), device=target.device) < count_others
        (total, count), statistics = dynamic_mutual_loss(
            logits, target, confidence, is_pseudo, *self.loss.weighting, reduction="sum_count"
        )
        used = (guessed != IGNORE_INDEX).sum()
        scalars = {
            "pseudo_used": used / guessed.numel(),
            "disagreement": statistics.disagreements / used.clamp_min(1),
            "disagreement_won": statistics.wins / statistics.disagreements.clamp_min(1),
            "weight": statistics.mean_weight,
            "cross_entropy": statistics.cross_entropy,
        }
        return StepOutput({"mutual": LossTerm(total, count)}, scalars), target

    def _guessed(self, others: StreamBatch, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels and confidence of the images without true labels."""
        if "label" in others:
            return others["label"], others["confidence"]
        labels = confident_labels(logits.detach(), self.loss.threshold)
        return labels, torch.ones_like(labels, dtype=torch.float32)


class ClassBalanced:
    """Label images as they are evaluated, and keep the same share of every predicted class.

    Args:
        ratio: the share, at most 1.
        settings: how the network is applied to an image.
        precision: of the passes; probabilities are float32.
    """

    def __init__(self, ratio: float, settings: EvaluatorSettings, precision: str = "fp32") -> None:
        self.ratio = ratio
        self.settings = settings
        self.precision = precision

    def __call__(self, network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
        """Label one image ``(1, 3, H, W) uint8``; returns label and confidence of every pixel."""
        return label_image(predict(network, images, self.settings, self.precision)[0])

    def thresholds(self, labels: StoredLabels, num_classes: int) -> Sequence[float]:
        """Return the smallest confidence of each class, found on every 16th pixel of each image."""
        pairs = ((label, confidence) for label, confidence in map(labels.read, labels.ids))
        found = class_balanced_thresholds(pairs, num_classes, self.ratio)  # type: ignore[arg-type]
        return [float(value) for value in found]
