"""A linear classifier of a network's own features, fitted to the labeled images without training."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from semiseg.contracts.dataset import SegDataset, Split
from semiseg.contracts.recipe import Module, Result
from semiseg.contracts.training import Network
from semiseg.declare import Ge, Gt, Le, record
from semiseg.engine.labeled_views import labeled_views, labels_at
from semiseg.errors import UserError
from semiseg.models.discriminant import ABSENT_LOGIT, ClassMoments
from semiseg.seeding import derive_seed
from semiseg.settings import EvaluatorSettings


@record
class ProbeSettings:
    """Settings of a linear discriminant of features."""

    shrinkage: Annotated[float, Ge(0), Le(1)] = 0.1
    """Share by which the covariances between channels are reduced, since few labeled pixels measure them badly."""
    temperature: Annotated[float, Gt(0)] = 1.0
    """Divisor of the logits. A discriminant of few images is far too sure of itself; labels stay as they are."""


def require_linear(network: Network, key: str) -> None:
    """Refuse a network whose classifier is no 1x1 conv on maps of the backbone.

    Args:
        network: network to be fitted.
        key: key that asks for it, for the message.

    Raises:
        UserError: it is none.
    """
    if network.linear_channels and _is_linear(network.classifier):
        return
    raise UserError(
        f"{key} fits a linear classifier to maps of the backbone, and this decoder passes none on as they are. "
        "Choose light, or linear with norm=none.",
        key="model",
        value=getattr(network.decoder, "name", "") or type(network.decoder).__name__,
    )


def _is_linear(classifier: nn.Module) -> bool:
    if not isinstance(classifier, nn.Conv2d) or classifier.bias is None:
        return False
    return classifier.kernel_size == (1, 1) and classifier.groups == 1


class LabeledImages(Protocol):
    """What a probe is fitted with; a ``Lab`` is one."""

    @property
    def dataset(self) -> SegDataset:
        """Images and masks."""
        ...

    @property
    def split(self) -> Split:
        """Labeled ids."""
        ...

    @property
    def evaluator(self) -> EvaluatorSettings:
        """Sizes and windows of the images."""
        ...

    @property
    def seed(self) -> int:
        """Seed of the run."""
        ...

    def predict(
        self, network: Module, ids: Sequence[str], policy: Callable[[Module, Tensor], Result]
    ) -> Iterator[tuple[str, Result]]:
        """Apply a policy to images one by one, in evaluation mode."""
        ...


class ProbeFit:
    """The linear discriminant of labeled images, for the classifier of a network.

    Images are read at the sizes and in the windows that they are evaluated at.

    Args:
        lab: images, and the sizes that they are read at.
        network: network with ``linear_channels``; see ``require_linear``.
        settings: settings of the discriminant.
        resample: name of a random draw that weighs the images, for networks that must differ from each other;
            ``None`` weighs all equally.
    """

    def __init__(
        self, lab: LabeledImages, network: Network, settings: ProbeSettings, resample: str | None = None
    ) -> None:
        self.lab = lab
        self.network = network
        self.settings = settings
        self.resample = resample
        self.moments = ClassMoments(network.num_classes, network.linear_channels)

    def gather(self) -> None:
        """Read the labeled images; all the work on an image is part of its prediction, so that a plan times it."""
        lab, ids = self.lab, self.lab.split.labeled
        width, align = self.network.linear_channels, bool(getattr(self.network, "align_corners", True))
        # In the order of ``predict``.
        coming = zip(ids, _image_weights(len(ids), lab.seed, self.resample), strict=True)

        def read(network: Network, image: Tensor) -> None:
            image_id, weight = next(coming)
            mask = lab.dataset.mask(image_id)
            assert mask is not None  # a labeled image has one
            for view, part in labeled_views(image, mask, lab.evaluator, network):
                features = network.features(view)[0, :width]
                labels = labels_at(part, features.shape[-2:], align).to(features.device)
                self.moments.add(features.flatten(1).T, labels.flatten(), weight)

        for _ in lab.predict(self.network, ids, read):
            pass

    def finish(self) -> None:
        """Set the classifier in place; what it reads beside maps of the backbone gets the weight 0.

        Raises:
            UserError: no pixel is labeled.
        """
        width, temperature = self.network.linear_channels, self.settings.temperature
        try:
            found = self.moments.solve(self.settings.shrinkage)
        except ValueError as error:
            count = len(self.lab.split.labeled)
            raise UserError(f"A probe cannot be fitted: the {count} labeled images have {error}.") from error
        absent = self.moments.counts.cpu() == 0
        bias = torch.where(absent, ABSENT_LOGIT, found.bias / temperature)
        classifier = self.network.classifier
        assert isinstance(classifier, nn.Conv2d)
        assert classifier.bias is not None
        with torch.no_grad():
            classifier.weight.zero_()
            classifier.weight[:, :width, 0, 0] = (found.weight / temperature).to(classifier.weight)
            classifier.bias.copy_(bias.to(classifier.bias))


def _image_weights(count: int, seed: int, resample: str | None) -> list[float]:
    """Return the weight of each image: 1, or drawn with the mean 1 (the Bayesian bootstrap, Rubin 1981).

    No weight is 0, so that each class stays.
    """
    if resample is None:
        return [1.0] * count
    generator = np.random.default_rng(derive_seed(seed, "resample", resample))
    drawn = generator.exponential(size=count)
    return [max(float(weight), 1e-3) for weight in drawn * (count / math.fsum(drawn))]
