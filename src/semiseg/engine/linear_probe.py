"""A linear classifier of a network's own features, fitted to the labeled images without training."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.contracts.dataset import Array
from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Network
from semiseg.declare import Ge, Gt, Le, Len, Mark, record
from semiseg.engine.probe_choice import Folds, choose
from semiseg.errors import UserError
from semiseg.models.discriminant import ABSENT_LOGIT
from semiseg.seeding import derive_seed
from semiseg.settings import EvaluatorSettings


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


def require_linear(network: Network, key: str) -> None:
    """Refuse a network whose classifier does not read maps of the backbone.

    Args:
        network: network to be fitted.
        key: key that asks for it, for the message.

    Raises:
        UserError: it does not.
    """
    if network.linear_channels and isinstance(network.classifier, nn.Conv2d):
        return
    raise UserError(
        f"{key} fits a linear classifier to maps of the backbone, and the decoder {type(network.decoder).__name__} "
        "passes none on. Choose model=light or model=linear.",
        key="model",
        value=type(network.decoder).__name__,
    )


def fit_probe(lab: Lab, network: Network, settings: ProbeSettings, resample: str | None = None) -> None:
    """Set the classifier of a network, in place, to the linear discriminant of its labeled images.

    What the classifier reads beside maps of the backbone gets the weight 0.

    Args:
        lab: lab with the images and the evaluator.
        network: network with ``linear_channels``; see ``require_linear``.
        settings: settings of the discriminant.
        resample: name of a random draw that weighs the images, for networks that must differ from each other;
            ``None`` weighs all equally.

    Raises:
        UserError: no pixel is labeled.
    """
    folds = _sums(lab, network, settings, resample)
    if folds is None:
        count = len(lab.split.labeled)
        raise UserError(f"A probe cannot be fitted: no pixel of the {count} labeled images has a label.")
    chosen = choose(folds, settings.shrinkage, settings.temperature)
    found, width = folds.total.solve(chosen.shrinkage), network.linear_channels
    bias = torch.where(folds.total.present, found.bias / chosen.temperature, ABSENT_LOGIT)
    classifier = network.classifier
    assert isinstance(classifier, nn.Conv2d)
    assert classifier.bias is not None
    with torch.no_grad():
        classifier.weight.zero_()
        classifier.weight[:, :width, 0, 0] = (found.weight / chosen.temperature).to(classifier.weight)
        classifier.bias.copy_(bias.to(classifier.bias))


def _sums(lab: Lab, network: Network, settings: ProbeSettings, resample: str | None) -> Folds | None:
    """Read the labeled images; ``None`` where none of their pixels is labeled."""
    ids, width = lab.split.labeled, network.linear_channels
    weights = _image_weights(len(ids), lab.seed, resample)

    def read(network: Network, image: Tensor) -> list[Tensor]:
        views = _views(image, lab.evaluator, settings.scales, network.size_multiple)
        return [network.features(view)[0, :width] for view in views]

    folds: Folds | None = None
    align = bool(getattr(network, "align_corners", True))
    for number, (image_id, maps) in enumerate(lab.predict(network, ids, read)):
        mask = lab.dataset.mask(image_id)
        assert mask is not None  # a labeled image has one
        for features in maps:
            labels = labels_at(mask, features.shape[-2:], align).flatten().to(features.device)
            counted = labels < network.num_classes  # 255 is no class
            pixels = features.flatten(1).T[counted]
            if len(pixels):
                folds = folds or Folds(network.num_classes, pixels.mean(0), len(ids))
                folds.add(number, pixels, labels[counted], weights[number])
    return folds


def labels_at(mask: Array, size: tuple[int, int] | torch.Size, align_corners: bool) -> Tensor:
    """Return the labels of a mask ``(H, W)`` at the centers of a grid ``(h, w)``, ``int64``.

    Args:
        mask: label map.
        size: height and width of the grid.
        align_corners: whether the grid's corners lie on the corner pixels, as its logits are resized.
    """
    rows, columns = (
        _positions(count, side, align_corners) for count, side in zip(size, mask.shape, strict=True)
    )
    return torch.from_numpy(mask[np.ix_(rows, columns)].astype(np.int64))


def _positions(count: int, side: int, align_corners: bool) -> Array:
    if align_corners:
        places = np.arange(count) * ((side - 1) / max(count - 1, 1)) + 0.5
    else:
        places = (np.arange(count) + 0.5) * (side / count)
    return np.minimum(places.astype(np.int64), side - 1)


def _views(
    image: Tensor, settings: EvaluatorSettings, scales: Sequence[float], multiple: int
) -> Iterator[Tensor]:
    """Yield an image ``(1, C, H, W)`` around each size that it is evaluated at, in sides that the network takes."""
    given = image.float()
    if settings.resize_to is not None:
        given = F.interpolate(given, tuple(settings.resize_to), mode="bilinear", align_corners=False)
    for scale in (first * second for first in settings.scales for second in scales):
        size = [max(int(side * scale) // multiple, 1) * multiple for side in given.shape[-2:]]
        unchanged = size == list(given.shape[-2:])
        yield given if unchanged else F.interpolate(given, size, mode="bilinear", align_corners=True)


def _image_weights(count: int, seed: int, resample: str | None) -> list[float]:
    """Return the weight of each image: 1, or drawn with the mean 1 (the Bayesian bootstrap, Rubin 1981).

    No weight is 0, so that each class stays.
    """
    if resample is None:
        return [1.0] * count
    generator = np.random.default_rng(derive_seed(seed, "resample", resample))
    drawn = generator.exponential(size=count)
    return [max(float(weight), 1e-3) for weight in drawn * (count / math.fsum(drawn))]
