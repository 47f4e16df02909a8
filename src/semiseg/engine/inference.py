"""From images of one size to class probabilities: padding, sliding windows, scales and mirroring."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.errors import UserError
from semiseg.models.segmodel import InputConvention, SegModel

if TYPE_CHECKING:
    from semiseg.config.schema import EvaluatorConfig


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode and every module of it back into its own mode at the end."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def predict(network: SegModel, images: Tensor, settings: EvaluatorConfig, precision: str = "fp32") -> Tensor:
    """Return class probabilities ``(N, K, H, W)`` of ``(N, 3, H, W)`` RGB images 0-255, uint8 or float.

    ``settings.resize_to`` comes first, and the probabilities return to the size of the given images at the end.
    With several views these are the mean of the views' probabilities (labeling of ST++): each view is resized
    (sides rounded down, 1 pixel at least), its logits go through softmax at its own size, mirrored maps are
    turned back, and only then the maps are resized to the image; every resize is bilinear with aligned corners.
    Windows that overlap share the softmax of their mean logits. The network may be in training mode; no gradient is
    recorded and no random number drawn.

    Args:
        network: on the device of the images.
        images: images of one size.
        settings: size, whole image or windows, padding, scales, mirror.
        precision: "fp32", or "bf16" for autocast; the result is float32 in both cases.

    Raises:
        UserError: a reflecting padding wider than the image.
    """
    given = images.shape[-2:]
    with torch.inference_mode(), evaluating(network):
        images = resized(images, settings)
        total = images.new_zeros(())
        for scale in settings.scales:
            view = _resize(images, [max(1, int(side * scale)) for side in images.shape[-2:]])
            if settings.flip:
                view = torch.cat([view, view.flip(-1)])
            summed, hits = _logits(network, view, settings, precision)
            maps = (summed / hits).softmax(1)
            if settings.flip:
                straight, mirrored = maps.chunk(2)
                maps = straight + mirrored.flip(-1)
            total = total + _resize(maps, images.shape[-2:])
        return _resize(total / (len(settings.scales) * (1 + settings.flip)), given)


def predict_labels(
    network: SegModel, images: Tensor, settings: EvaluatorConfig, precision: str = "fp32"
) -> Tensor:
    """Return the most probable class of every pixel, ``(N, H, W) int64``; arguments as ``predict``.

    A single view is decided by its logits, which windows add up as published (CPS), so that no softmax
    rounds two of them to a tie.
    """
    if _has_views(images, settings):
        scores = predict(network, images, settings, precision)
    else:
        with torch.inference_mode(), evaluating(network):
            scores, _ = _logits(network, resized(images, settings), settings, precision)
    # Several times faster than argmax on (N, K, H, W) on a CPU.
    return scores.max(1).indices


def predict_with_confidence(
    network: SegModel, images: Tensor, settings: EvaluatorConfig, precision: str = "fp32"
) -> tuple[Tensor, Tensor]:
    """Return the labels of ``predict_labels`` and their probabilities, ``(N, H, W)`` int64 and float32.

    The network sees every view once; arguments as ``predict``.
    """
    if _has_views(images, settings):
        confidence, labels = predict(network, images, settings, precision).max(1)
        return labels, confidence
    with torch.inference_mode(), evaluating(network):
        summed, hits = _logits(network, resized(images, settings), settings, precision)
        labels = summed.max(1).indices
        return labels, (summed / hits).softmax(1).gather(1, labels[:, None])[:, 0]


def _has_views(images: Tensor, settings: EvaluatorConfig) -> bool:
    """Whether a prediction is put together from views that are resized or mirrored."""
    moved = settings.resize_to is not None and list(images.shape[-2:]) != list(settings.resize_to)
    return moved or settings.flip or list(settings.scales) != [1.0]


def window_spans(length: int, window: int, stride: float) -> list[tuple[int, int]]:
    """Return start and end of the windows along one axis of at least ``window`` pixels.

    Windows start at multiples of the stride and the last one is shifted inward to end with the image (CPS).

    Args:
        length: pixels of the axis.
        window: pixels of a window.
        stride: up to 1 a share of the window (rounded up to pixels), else pixels.
    """
    step = math.ceil(window * stride) if stride <= 1 else int(stride)
    ends = [min(start * step + window, length) for start in range(math.ceil((length - window) / step) + 1)]
    return [(end - window, end) for end in ends]


def resized(images: Tensor, settings: EvaluatorConfig) -> Tensor:
    """Return images ``(N, 3, H, W)`` as floats at ``settings.resize_to``.

    Bilinear with half-pixel centers and without antialiasing: half a size is the mean of 2x2 pixels (DMT).
    """
    images = images if images.is_floating_point() else images.float()
    if settings.resize_to is None or list(images.shape[-2:]) == list(settings.resize_to):
        return images
    return F.interpolate(images, settings.resize_to, mode="bilinear", align_corners=False)


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    if maps.shape[-2:] == tuple(size):
        return maps
    return F.interpolate(maps, size=list(size), mode="bilinear", align_corners=True)


def _logits(
    network: SegModel, images: Tensor, settings: EvaluatorConfig, precision: str
) -> tuple[Tensor, Tensor | float]:
    """Return the logits of one view at its own size, and by how many windows each pixel was seen."""

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            result: Tensor = network(x)
        return result.float() if result.dtype == torch.bfloat16 else result

    height, width = images.shape[-2:]
    if settings.mode == "whole":
        left, right, top, bottom = _margins(height, width, settings)
        padded = _pad(images, (left, right, top, bottom), settings.pad_value)
        return forward(padded)[..., top : top + height, left : left + width], 1.0

    window = settings.window
    left, right, top, bottom = _centered(height, width, window, window)
    if max(height, width) <= window:
        # One window: zeros after normalization. Below: zeros before it. Both as CPS evaluates.
        padded = _pad_with_mean(images, (left, right, top, bottom), network.convention)
        return forward(padded)[..., top : top + height, left : left + width], 1.0
    padded = F.pad(images, (left, right, top, bottom))
    total: Tensor | None = None
    hits = padded.new_zeros(1, 1, *padded.shape[-2:])
    for y, y_end in window_spans(padded.shape[-2], window, settings.stride):
        for x, x_end in window_spans(padded.shape[-1], window, settings.stride):
            logits = forward(padded[..., y:y_end, x:x_end])
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], *padded.shape[-2:])
            total[..., y:y_end, x:x_end] += logits
            hits[..., y:y_end, x:x_end] += 1
    assert total is not None
    inner = (..., slice(top, top + height), slice(left, left + width))
    return total[inner], hits[inner]


def _margins(height: int, width: int, settings: EvaluatorConfig) -> tuple[int, int, int, int]:
    """Pixels to add left, right, top and bottom of a whole image."""
    to = settings.pad_to
    match settings.pad:
        case "size":
            return 0, max(to - width, 0), 0, max(to - height, 0)
        case "multiple":
            return 0, -width % to, 0, -height % to
        case "center":
            return _centered(height, width, to, to)
        case _:
            return 0, 0, 0, 0


def _centered(height: int, width: int, to_height: int, to_width: int) -> tuple[int, int, int, int]:
    rows, columns = max(to_height - height, 0), max(to_width - width, 0)
    return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2


def _pad(images: Tensor, margins: tuple[int, int, int, int], value: str) -> Tensor:
    if not any(margins):
        return images
    if value != "reflect":
        return F.pad(images, margins)
    height, width = images.shape[-2:]
    if max(margins[:2]) >= width or max(margins[2:]) >= height:
        raise UserError(
            f"evaluator.pad_value=reflect cannot pad an image of {width}x{height} by more than its own size.\n"
            "Use evaluator.pad_value=zero or a smaller evaluator.pad_to."
        )
    return F.pad(images, margins, mode="reflect")


def _pad_with_mean(images: Tensor, margins: tuple[int, int, int, int], convention: InputConvention) -> Tensor:
    """Pad with the color that the network's normalization turns into zero."""
    color = images.new_tensor(convention.mean) * convention.scale
    if convention.order == "BGR":
        color = color.flip(0)
    left, right, top, bottom = margins
    height, width = images.shape[-2:]
    canvas = color.view(1, -1, 1, 1).repeat(len(images), 1, height + top + bottom, width + left + right)
    canvas[..., top : top + height, left : left + width] = images
    return canvas
