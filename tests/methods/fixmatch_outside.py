"""FixMatch for segmentation as a user writes it: one file outside of the package, which imports only its parts.

The network labels the plain crop of an unlabeled image and learns that label, where it is sure, on a strengthened copy
of the crop, after CutMix with the neighbor in the batch. The mean runs over all pixels that are no padding.
"""

from typing import ClassVar

import torch
from torch import Tensor

from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Batch, Learner, LossTerm, Network, Progress, StepOutput
from semiseg.data.epochs import Unlabeled, separate
from semiseg.data.views import WeakStrong
from semiseg.losses import cross_entropy
from semiseg.pseudo import box_masks, confident_labels, own_rows, step_generator


class FixMatchLearner(Learner):
    """One network that teaches itself.

    Args:
        model: the network.
        threshold: probability that a pixel's label needs to be learned.
    """

    def __init__(self, model: Network, threshold: float) -> None:
        super().__init__()
        self.model = model
        self.threshold = threshold

    def predictors(self) -> dict[str, Network]:
        """The network."""
        return {"model": self.model}

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute L = L_labeled + L_strong."""
        known, other = batch["labeled"], batch["unlabeled"]
        with torch.no_grad():
            guessed = confident_labels(self.model(other["image"]), self.threshold)
        mask = boxes(other["image"], progress)
        strong, target, valid = (mixed(each, mask) for each in (other["strong_1"], guessed, other["valid"]))
        target = torch.where(valid, target, 255)
        total, count = cross_entropy(self.model(strong), target, reduction="sum_count")
        labeled = cross_entropy(self.model(known["image"]), known["label"], reduction="sum_count")
        losses = {"labeled": LossTerm(*labeled), "strong": LossTerm(total, valid.sum())}
        return StepOutput(losses, {"unlabeled_used": count / valid.sum().clamp_min(1)})


def boxes(images: Tensor, progress: Progress) -> Tensor:
    """Return one box for each image, ``(N, 1, H, W) bool``, however many processes share the batch."""
    total, rows = own_rows(progress, len(images))
    size = (images.shape[-2], images.shape[-1])
    return box_masks(step_generator(progress, "cutmix"), total, size, boxes=1)[rows].to(images.device)


def mixed(values: Tensor, mask: Tensor) -> Tensor:
    """Take what lies in the boxes from the batch in reversed order; images ``(N, 3, H, W)`` or maps ``(N, H, W)``."""
    return torch.where(mask if values.ndim == 4 else mask[:, 0], values.flip(0), values)


class FixMatch:
    """FixMatch with CutMix.

    Args:
        threshold: probability that a pixel's label needs to be learned.
        name: name of the option in the config.
    """

    needs_unlabeled: ClassVar[bool] = True

    def __init__(self, *, threshold: float = 0.95, name: str = "fixmatch") -> None:
        self.threshold = threshold
        self.name = name

    def run(self, lab: Lab) -> Network:
        """Train one network and return it."""
        parts, trainer = lab.augment, lab.trainer
        views = WeakStrong(parts.geometry, parts.photometric, valid=True)
        streams = separate(
            lab.split.labeled,
            parts.weak,
            {"unlabeled": Unlabeled(lab.split.unlabeled, views)},
            batch_size=trainer.batch_size,
            unlabeled_batch_size=trainer.unlabeled_batch_size,
            budget=lab.budget,
        )
        return lab.fit("train", FixMatchLearner(lab.network("model"), self.threshold), streams).selected
