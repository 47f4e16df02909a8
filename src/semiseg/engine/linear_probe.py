"""A linear classifier of a network's own features, fitted to the labeled images without training."""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Network
from semiseg.declare import Ge, Gt, Le, Len, Mark, record
from semiseg.engine.labeled_views import labeled_views, labels_at
from semiseg.engine.probe_choice import Folds, choose
from semiseg.engine.self_training import UnlabeledPixels, read_ids
from semiseg.errors import UserError
from semiseg.models.discriminant import ABSENT_LOGIT
from semiseg.seeding import derive_seed


@record
class ProbeSettings:
    """Settings of a linear discriminant of features."""

    scales: Annotated[Sequence[Annotated[float, Gt(0)]], Len(1)] = (0.75, 1.0, 1.25)
    """Factors of the size that images are evaluated at, at which the labeled images are read."""
    shrinkage: Annotated[Annotated[float, Ge(0), Le(1)] | None, Mark(expected="a share or null")] = None
    """Share by which the covariances between channels are reduced, since few labeled pixels measure them badly;
    ``null`` chooses it by cross-validation over the labeled images."""
    temperature: Annotated[Annotated[float, Gt(0)] | None, Mark(expected="a number above 0 or null")] = None
    """Divisor of the logits, which changes no label: a discriminant of few images is far too sure of itself; ``null``
    calibrates it by the same cross-validation."""
    rounds: Annotated[int, Ge(0)] = 0
    """Rounds of self-training: the discriminant labels pixels of the unlabeled images, and is solved again with the
    most confident ones. 0 uses labeled images alone."""
    threshold: Annotated[float, Ge(0), Le(1)] = 0.8
    """Probability, by the logits that ``temperature`` has divided, from which a round keeps a pixel."""


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


class ProbeFit:
    """The linear discriminant of labeled images, for the classifier of a network.

    Images are read around the sizes, and in the windows, that they are evaluated at.

    Args:
        lab: lab with the images, and the sizes that they are read at.
        network: network with ``linear_channels``; see ``require_linear``.
        settings: settings of the discriminant.
        resample: name of a random draw that weighs the images, for networks that must differ from each other;
            ``None`` weighs all equally.
    """

    def __init__(
        self, lab: Lab, network: Network, settings: ProbeSettings, resample: str | None = None
    ) -> None:
        self.lab = lab
        self.network = network
        self.settings = settings
        self.resample = resample
        self.folds: Folds | None = None
        self.unlabeled: UnlabeledPixels | None = None

    def gather(self) -> None:
        """Read the images; all the work on an image is part of its prediction, so that a plan times it."""
        self._gather_labeled()
        if self.settings.rounds:
            self._gather_unlabeled()

    def _gather_unlabeled(self) -> None:
        lab, width = self.lab, self.network.linear_channels
        ids = read_ids(lab.split.never_labeled)
        pixels = self.unlabeled = UnlabeledPixels(len(ids))

        def read(network: Network, image: Tensor) -> None:
            # Labels of 0 tell pixels of the image from padding.
            inside = np.zeros(image.shape[-2:], np.uint8)
            views = list(labeled_views(image, inside, lab.evaluator, (1.0,), network))
            for view, part in views:
                features = network.features(view)[0, :width]
                real = labels_at(part, features.shape[-2:], True).flatten() == 0
                pixels.add(features.flatten(1).T[real.to(features.device)], len(views))

        for _ in lab.predict(self.network, ids, read):
            pass

    def _gather_labeled(self) -> None:
        lab, ids = self.lab, self.lab.split.labeled
        width, align = self.network.linear_channels, bool(getattr(self.network, "align_corners", True))
        # In the order of ``predict``.
        coming = enumerate(zip(ids, _image_weights(len(ids), lab.seed, self.resample), strict=True))

        def read(network: Network, image: Tensor) -> None:
            number, (image_id, weight) = next(coming)
            mask = lab.dataset.mask(image_id)
            assert mask is not None  # a labeled image has one
            views = list(labeled_views(image, mask, lab.evaluator, self.settings.scales, network))
            for view, part in views:
                features = network.features(view)[0, :width]
                labels = labels_at(part, features.shape[-2:], align).to(features.device)
                self._add(number, features.flatten(1).T, labels.flatten(), weight, len(views))

        for _ in lab.predict(self.network, ids, read):
            pass

    def _add(self, number: int, features: Tensor, labels: Tensor, weight: float, views: int) -> None:
        counted = labels < self.network.num_classes  # 255 is no class
        features, labels = features[counted], labels[counted]
        if not len(labels):
            return
        if self.folds is None:
            images = len(self.lab.split.labeled)
            self.folds = Folds(self.network.num_classes, features.mean(0), images)
        self.folds.add(number, features, labels, weight, views)

    def finish(self) -> None:
        """Set the classifier in place; what it reads beside maps of the backbone gets the weight 0.

        Raises:
            UserError: no pixel is labeled.
        """
        if self.folds is None:
            count = len(self.lab.split.labeled)
            raise UserError(f"A probe cannot be fitted: no pixel of the {count} labeled images has a label.")
        shrinkage, temperature = choose(self.folds, self.settings.shrinkage, self.settings.temperature)
        whole, width = self.folds.total, self.network.linear_channels
        found = whole.solve(shrinkage)
        if self.unlabeled is not None:
            rounds, threshold = self.settings.rounds, self.settings.threshold
            found = self.unlabeled.train(whole, found, temperature, rounds, threshold)
        bias = torch.where(whole.present.cpu(), found.bias / temperature, ABSENT_LOGIT)
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
