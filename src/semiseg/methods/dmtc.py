"""What DMTC adds to DMT: a representation of every pixel, learned by contrast (MohammadDehghan/DMTC)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from semiseg.contracts.training import LossTerm, Network, Progress
from semiseg.errors import UserError
from semiseg.losses import pixel_contrast
from semiseg.models.heads import RepresentationHead
from semiseg.pseudo import torch_generator
from semiseg.seeding import derive_seed, seed_everything

HEAD = "representation"
"""Name of the head in ``Network.heads``."""


@dataclass(frozen=True)
class ContrastLoss:
    """The contrast of one fit.

    The head runs in every step, so that its batch norm follows the features; it is trained where the weight is
    above 0, and frozen otherwise.

    Args:
        settings: of the loss.
        weight: factor of the loss.
    """

    settings: "PixelContrast"
    weight: float

    def prepare(self, model: Network) -> None:
        """Freeze the head or let it learn; to be called before the optimizer is made."""
        model.heads[HEAD].requires_grad_(self.weight > 0)

    def __call__(
        self, model: Network, features: Tensor, logits: Tensor, labels: Tensor, progress: Progress
    ) -> dict[str, LossTerm]:
        """Compute the loss of a batch.

        Args:
            model: the network, with the head.
            features: ``(N, D, h, w)``, the decoder's of the batch.
            logits: ``(N, C, H, W)``, of these features.
            labels: ``(N, H, W) int64``, true or guessed, or 255.
            progress: seed of the draws.

        Returns:
            The term ``contrast``; nothing where the head is not trained.
        """
        if not self.weight:
            with torch.no_grad():
                model.heads[HEAD](features)
            return {}
        settings = self.settings
        generator = torch_generator(progress, "contrast", labels.device)
        total, count = pixel_contrast(
            model.heads[HEAD](features),
            labels,
            logits.detach().softmax(1),
            settings.num_queries,
            settings.num_negatives,
            settings.temperature,
            settings.strong_threshold,
            generator,
            ignored_as_class_0=settings.ignored_as_class_0,
            reduction="sum_count",
        )
        return {"contrast": LossTerm(total, count, self.weight)}


@dataclass(frozen=True)
class PixelContrast:
    """Turns DMT into DMTC: a head beside the classifier, and where its contrast is part of the loss.

    Args:
        baseline: train the baselines with it, as the shipped command means to.
        phases: train the phases with it; published as a possibility, used by no shipped command.
        baseline_weight: factor beside the cross entropy of the baselines.
        phase_weight: factor beside the mutual loss of the phases.
        channels: of the representation.
        num_queries: pixels of each class that are pulled to its mean, in each step.
        num_negatives: pixels of other classes that each of them is pushed from.
        temperature: divisor of the cosine similarities.
        strong_threshold: pixels whose class has at least this probability are not pulled.
        ignored_as_class_0: take ignored pixels for class 0, as the published code does by mistake (its mask
            expects -1 for ignored pixels, its labels have 255).

    Raises:
        UserError: a value out of range.
    """

    baseline: bool = True
    phases: bool = False
    baseline_weight: float = 1.0
    phase_weight: float = 0.1
    channels: int = 150
    num_queries: int = 256
    num_negatives: int = 512
    temperature: float = 0.5
    strong_threshold: float = 0.97
    ignored_as_class_0: bool = False

    def __post_init__(self) -> None:
        for key in ("channels", "num_queries", "num_negatives"):
            if getattr(self, key) < 1:
                raise UserError(f"method.contrast.{key}={getattr(self, key)}: give a number of at least 1.")
        for key, switch in (("baseline_weight", "baseline"), ("phase_weight", "phases")):
            if not 0 < getattr(self, key) < float("inf"):
                raise UserError(
                    f"method.contrast.{key}={getattr(self, key)}: give a factor above 0; "
                    f"method.contrast.{switch}=false turns it off."
                )
        if not 0 < self.temperature < float("inf"):
            raise UserError(
                "give a number above 0, published is 0.5.",
                key="method.contrast.temperature",
                value=self.temperature,
            )
        if not 0 < self.strong_threshold <= 1:
            raise UserError(
                "give a probability above 0, at most 1, published is 0.97.",
                key="method.contrast.strong_threshold",
                value=self.strong_threshold,
            )

    def attach(self, model: Network, seed: int) -> None:
        """Give a network the head, with weights that depend on the seed alone."""
        seed_everything(derive_seed(seed, HEAD))
        model.attach(HEAD, RepresentationHead(model.feature_channels, out_channels=self.channels))

    def of_baselines(self) -> ContrastLoss:
        """Return what the baselines learn beside their labels."""
        return ContrastLoss(self, self.baseline_weight if self.baseline else 0.0)

    def of_phases(self) -> ContrastLoss:
        """Return what the phases learn beside their labels."""
        return ContrastLoss(self, self.phase_weight if self.phases else 0.0)
