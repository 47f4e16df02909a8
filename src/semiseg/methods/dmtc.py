"""DMTC (MohammadDehghan/DMTC): DMT whose networks also learn a representation of every pixel by contrast.

Comments give the names of the published code; its loss is that of ReCo (arXiv 2104.04465).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from semiseg.contracts.recipe import Lab, ReusedFit
from semiseg.contracts.training import LossTerm, Network, Progress
from semiseg.declare import Gt, Le, record
from semiseg.losses import pixel_contrast
from semiseg.methods.dmt import DMT, Kind, MutualLearner
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.models.heads import RepresentationHead
from semiseg.pseudo import torch_generator
from semiseg.seeding import derive_seed, seed_everything
from semiseg.settings import Count

HEAD = "representation"
"""Name of the head in ``Network.heads``."""


@record
class PixelContrast:
    """Contrast between pixels: the fits that use it, and the pixels that it compares."""

    baseline: bool = True
    """Whether the baselines use the contrast, as intended by the shipped command."""
    phases: bool = False
    """Whether the phases use the contrast; published as an option, used by no shipped command."""
    baseline_weight: Annotated[float, Gt(0)] = 1.0
    """Factor of the contrast in the baselines; ``baseline=false`` turns it off."""
    phase_weight: Annotated[float, Gt(0)] = 0.1
    """Factor of the contrast in the phases; ``phases=false`` turns it off."""
    channels: Count = 150
    """Channels of the representation."""
    num_queries: Count = 256
    """Number of pixels of each class that are pulled to its mean, in each step."""
    num_negatives: Count = 512
    """Number of pixels of other classes that each query is pushed from."""
    temperature: Annotated[float, Gt(0)] = 0.5
    """Divisor of the cosine similarities."""
    strong_threshold: Annotated[float, Gt(0), Le(1)] = 0.97
    """Probability of its class from which a pixel is not pulled."""
    ignored_as_class_0: bool = False
    """Whether ignored pixels count as class 0, as in the published code by mistake (its mask expects -1 for ignored
    pixels, its labels have 255)."""


@record
class DMTC(DMT):
    """DMT with a second head that learns by contrast; see ``DMT`` for all settings but ``contrast``."""

    contrast: PixelContrast = PixelContrast()
    """Contrast between pixels."""

    METHOD: ClassVar[str] = "dmtc"

    def reused_fits(self) -> list[ReusedFit]:
        """The baselines, where they come from other runs; a supervised fit has learned no representation."""
        return [replace(fit, supervised=False) for fit in super().reused_fits()]

    def network(self, lab: Lab, tag: str) -> Network:
        """Build the network of a baseline; the weights of its head depend on the seed of the run and the partner."""
        network = super().network(lab, tag)
        attach(network, derive_seed(lab.seed, tag), self.contrast.channels)
        return network

    def learner(self, network: Network, loss: LabeledLoss, kind: Kind) -> "ContrastLearner":
        """Return the learner of one kind of fit, with the contrast or without."""
        contrast = self.contrast
        on, weight = {
            "baseline": (contrast.baseline, contrast.baseline_weight),
            "phase": (contrast.phases, contrast.phase_weight),
        }[kind]
        return ContrastLearner(network, self, loss, weight if on else 0.0)


class ContrastLearner(MutualLearner):
    """A ``MutualLearner`` whose network learns a representation too.

    The head runs in every step, so that its batch norm follows the features; it is trained where the weight is
    above 0, and frozen otherwise.

    Args:
        model: network with the head "representation".
        method: settings.
        loss: loss of labeled pixels, where no other images are learned.
        weight: factor of the contrast in this fit.
    """

    def __init__(self, model: Network, method: DMTC, loss: LabeledLoss, weight: float) -> None:
        super().__init__(model, method, loss)
        self.contrast = method.contrast
        self.weight = weight
        model.heads[HEAD].requires_grad_(weight > 0)

    def further_losses(
        self, features: Tensor, logits: Tensor, labels: Tensor, progress: Progress
    ) -> Mapping[str, LossTerm]:
        """Return the term ``contrast``; nothing where the head is not trained."""
        head = self.model.heads[HEAD]
        if not self.weight:
            with torch.no_grad():
                head(features)
            return {}
        contrast = self.contrast
        # published code: utils/module_list.py, contrastive_loss()
        total, count = pixel_contrast(
            head(features),
            labels,
            logits.detach().softmax(1),
            contrast.num_queries,
            contrast.num_negatives,
            contrast.temperature,
            contrast.strong_threshold,
            torch_generator(progress, "contrast", labels.device),
            ignored_as_class_0=contrast.ignored_as_class_0,
            reduction="sum_count",
        )
        return {"contrast": LossTerm(total, count, self.weight)}


def attach(network: Network, seed: int, channels: int) -> None:
    """Add the head to a network, with weights that depend on the seed alone."""
    seed_everything(derive_seed(seed, HEAD))
    network.attach(HEAD, RepresentationHead(network.feature_channels, out_channels=channels))
