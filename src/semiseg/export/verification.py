"""Comparison of a written network with the one that it was made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.training import Network
from semiseg.errors import RunFailed
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.inference import predict, predict_labels

TOLERANCE = 1e-3
"""Largest difference of a probability, 0-1, that counts as rounding."""

BEYOND = ((0, 58), (83, 31), (40, 155))
"""Heights and widths of the images that are compared, beyond the smallest side that the network takes."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of a written network with its origin on images of one size.

    Args:
        images: number of images at once.
        height: height in pixels.
        width: width in pixels.
        difference: largest difference of a probability, 0-1.
        labels: share of the pixels with the same label, 0-1; others are ties but for rounding.
    """

    images: int
    height: int
    width: int
    difference: float
    labels: float


def compare_predictions(
    run: Callable[[Tensor], list[Tensor]],
    network: Network,
    settings: EvaluatorSettings,
    smallest: int,
    size: tuple[int, int] | None = None,
) -> list[Agreement]:
    """Compare a written network with its origin at three sizes that have nothing in common, or at its only one.

    Args:
        run: forward pass of the written network; it maps ``(N, H, W, C)`` to label, confidence and probabilities.
        network: its origin, on the CPU.
        settings: settings of the origin's evaluation.
        smallest: side of the smallest image in pixels.
        size: height and width of all images; ``None`` where the written network takes any.

    Raises:
        RunFailed: they differ by more than rounding, or the written one fails.
    """
    sizes = [size, size] if size else [(smallest + rows, smallest + columns) for rows, columns in BEYOND]
    return [
        _agreement(run, network, settings, 1 + number % 2, height, width)
        for number, (height, width) in enumerate(sizes)
    ]


def _agreement(
    run: Callable[[Tensor], list[Tensor]],
    network: Network,
    settings: EvaluatorSettings,
    count: int,
    height: int,
    width: int,
) -> Agreement:
    images = _pictures(network, count, height, width)
    planes = images.permute(0, 3, 1, 2)
    expected = predict(network, planes, settings)
    expected_labels = predict_labels(network, planes, settings)
    where = f"{count} {'image' if count == 1 else 'images'} of {width}x{height} pixels"
    try:
        labels, confidence, maps = run(images)
    except Exception as error:
        raise RunFailed(
            f"The exported network fails at {where}, so nothing was written ({type(error).__name__}: {error})."
        ) from error
    if labels.shape != expected_labels.shape or maps.shape != expected.shape:
        raise RunFailed(
            f"The exported network gives probabilities of shape {tuple(maps.shape)} for {where}, not "
            f"{tuple(expected.shape)}; nothing was written."
        )
    chosen = expected.gather(1, labels[:, None].long())[:, 0]
    found = [maps - expected, confidence - chosen, (expected.amax(1) - chosen)]
    difference = max(float(each.abs().max()) for each in found)
    # Written so that NaN is refused too.
    if not difference <= TOLERANCE:
        raise RunFailed(
            f"The exported network is not the trained one: for {where} its probabilities differ by up to "
            f"{difference:.2g} (rounding explains {TOLERANCE:g}). Nothing was written; try the other --format."
        )
    same = (labels == expected_labels).double().mean()
    return Agreement(count, height, width, difference, float(same))


def _pictures(network: Network, count: int, height: int, width: int) -> Tensor:
    """Return spots of color under noise, ``(N, H, W, C)``, as the network takes them; the same ones every time."""
    generator = torch.Generator().manual_seed(height * 65536 + width)
    spots = torch.rand(count, network.channels, height // 12 + 2, width // 12 + 2, generator=generator)
    smooth = F.interpolate(spots, (height, width), mode="bilinear", align_corners=True)
    noise = torch.randn(count, network.channels, height, width, generator=generator)
    if network.convention.order == "bands":
        mean, std = (torch.tensor(each) for each in (network.convention.mean, network.convention.std))
        return (((smooth + noise / 20) * 4 - 2).permute(0, 2, 3, 1) * std + mean).contiguous()
    noisy = smooth * 255 + 12 * noise
    return noisy.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
