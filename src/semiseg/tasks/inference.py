"""From images of one size to class probabilities: padding, sliding windows, scales and mirroring."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.contracts.dataset import Pixels
from semiseg.contracts.training import Network
from semiseg.data.collate import image_tensor
from semiseg.errors import UserError
from semiseg.models.precision import LOWER, autocast
from semiseg.models.segmodel import require_multiple

if TYPE_CHECKING:
    from semiseg.settings import EvaluatorSettings


EXACT_DENOMINATOR = 1024
"""Largest denominator, a power of 2, of scales whose sizes are computed in whole numbers, as exact as in floats."""


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and restore the mode of each of its modules at the end."""
    # Each by itself: a method may keep some modules of a training network in evaluation mode.
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def to_batch(images: Sequence[Pixels], device: torch.device) -> Tensor:
    """Return images of one size, ``(H, W, C)``, as ``(N, C, H, W)``, uint8 or float32, on a device."""
    return image_tensor(images).to(device)


def predict(network: Network, images: Tensor, settings: EvaluatorSettings, precision: str = "fp32") -> Tensor:
    """Return class probabilities ``(N, K, H, W)`` of ``(N, C, H, W)`` images, RGB 0-255 (uint8 or float) or bands.

    ``settings.resize_to`` comes first, and the probabilities return to the size of the given images at the end.
    With several views these are the mean of the views' probabilities (labeling of ST++): each view is resized
    (sides rounded down, 1 pixel at least), its logits go through softmax at its own size, mirrored maps are
    turned back, and only then the maps are resized to the image; every resize is bilinear with aligned corners.
    Windows that overlap share the softmax of their mean logits, or the mean of their softmax. The network may be in
    training mode; no gradient is recorded and no random number drawn.

    Args:
        network: network on the device of the images.
        images: images of one size.
        settings: settings of size, whole images or windows, padding, scales and mirroring.
        precision: ``trainer.precision``; the result is float32, or float64 where the network is.

    Raises:
        UserError: a reflecting padding wider than the image.
    """
    with torch.inference_mode(), evaluating(network):
        return _mean_of_views(network, images, settings, precision)


def predict_labels(
    network: Network, images: Tensor, settings: EvaluatorSettings, precision: str = "fp32"
) -> Tensor:
    """Return the most probable class of every pixel, ``(N, H, W) int64``; arguments as ``predict``.

    A single view is decided by its logits, which windows add up as published (CPS), so that no softmax
    rounds two of them to a tie; with ``settings.window_sum="probabilities"`` by the sum of its windows' softmax
    (UniMatch).
    """
    if _has_views(images, settings):
        scores = predict(network, images, settings, precision)
    else:
        with torch.inference_mode(), evaluating(network):
            scores, _ = _logits(network, resized(images, settings), settings, precision)
    # Several times faster than argmax on (N, K, H, W) on a CPU.
    return scores.max(1).indices


def predict_with_confidence(
    network: Network, images: Tensor, settings: EvaluatorSettings, precision: str = "fp32"
) -> tuple[Tensor, Tensor]:
    """Return the labels of ``predict_labels`` and their probabilities, ``(N, H, W)`` int64 and float32.

    The network sees every view once; arguments as ``predict``.
    """
    with torch.inference_mode(), evaluating(network):
        labels, maps = labels_and_probabilities(network, images, settings, precision)
        return labels, _at_labels(maps, labels)


def seen_size(height: int, width: int, settings: EvaluatorSettings, size_multiple: int) -> tuple[int, int]:
    """Return a size that images share which a network may see in one batch, whatever their own sizes.

    It is that at which the network sees an image whole, and for several windows or views the image's own.
    """
    if settings.flip or list(settings.scales) != [1.0]:
        return height, width
    if settings.mode == "slide":
        side = settings.window
        return (side, side) if _is_one_window(height, width, settings) else (height, width)
    if settings.fit == "resize":
        rows, columns = _fitted(height, width, settings, size_multiple)
        return rows, columns
    left, right, top, bottom = _margins(height, width, settings, size_multiple)
    return height + top + bottom, width + left + right


def predict_groups(
    network: Network,
    groups: Sequence[Tensor],
    settings: EvaluatorSettings,
    precision: str = "fp32",
    *,
    with_confidence: bool = False,
) -> list[tuple[Tensor, Tensor | None]]:
    """Predict groups of images in one batch; return for each what ``predict_labels`` and perhaps the confidence are.

    Args:
        network: network on the device of the images.
        groups: images of one size each, ``(N, C, H, W)``, that share their ``seen_size``; none needs
            ``settings.resize_to``.
        settings: settings as for ``predict``.
        precision: ``trainer.precision`` of the run.
        with_confidence: whether the probability of each label is wanted too.
    """
    counts = [len(group) for group in groups]
    with torch.inference_mode(), evaluating(network):
        if len({group.shape[1:] for group in groups}) == 1:
            images = groups[0] if len(groups) == 1 else torch.cat([*groups])
            if not with_confidence:
                return [
                    (labels, None)
                    for labels in predict_labels(network, images, settings, precision).split_with_sizes(
                        counts
                    )
                ]
            both = predict_with_confidence(network, images, settings, precision)
            return list(zip(*(maps.split_with_sizes(counts) for maps in both), strict=True))
        seen = [_seen_whole(network, resized(group, settings), settings) for group in groups]
        scores = _forward(network, torch.cat([each.images for each in seen if each is not None]), precision)
        results: list[tuple[Tensor, Tensor | None]] = []
        for each, own in zip(seen, scores.split_with_sizes(counts), strict=True):
            assert each is not None  # images of several windows share no size with others
            own = each.restored(own)
            labels = own.max(1).indices
            maps = _probabilities(own, 1.0, settings) if with_confidence else None
            results.append((labels, None if maps is None else _at_labels(maps, labels)))
        return results


def _at_labels(maps: Tensor, labels: Tensor) -> Tensor:
    return maps.gather(1, labels[:, None])[:, 0].float()


def labels_and_probabilities(
    network: Network, images: Tensor, settings: EvaluatorSettings, precision: str = "fp32"
) -> tuple[Tensor, Tensor]:
    """Return the labels of ``predict_labels`` and the probabilities of ``predict``, with the same arguments.

    The network sees every view once, in the mode that it is in, and gradients are recorded where that is on.
    ``torch.export`` can follow this for images whose number and size it leaves open, except for windows.
    """
    if _has_views(images, settings):
        maps = _mean_of_views(network, images, settings, precision)
        return maps.max(1).indices, maps
    summed, hits = _logits(network, resized(images, settings), settings, precision)
    return summed.max(1).indices, _probabilities(summed, hits, settings)


def _mean_of_views(network: Network, images: Tensor, settings: EvaluatorSettings, precision: str) -> Tensor:
    given = images.shape[-2:]
    images = resized(images, settings)
    total = images.new_zeros(())
    for scale in settings.scales:
        size = [_scaled(side, scale) for side in images.shape[-2:]]
        view = images if scale == 1 else _resize(images, size)
        if settings.flip:
            view = torch.cat([view, view.flip(-1)])
        summed, hits = _logits(network, view, settings, precision)
        maps = _probabilities(summed, hits, settings)
        if settings.flip:
            # Not by chunk(), which would make torch.export fix the number of images.
            straight, mirrored = maps[: images.shape[0]], maps[images.shape[0] :]
            maps = straight + mirrored.flip(-1)
        total = total + (maps if scale == 1 else _resize(maps, images.shape[-2:]))
    mean = total / (len(settings.scales) * (1 + settings.flip))
    return mean if settings.resize_to is None else _resize(mean, given)


def _has_views(images: Tensor, settings: EvaluatorSettings) -> bool:
    """Whether a prediction is averaged over views that are resized or mirrored."""
    moved = settings.resize_to is not None and not _equal(images.shape[-2:], settings.resize_to)
    return moved or settings.flip or list(settings.scales) != [1.0]


def _probabilities(summed: Tensor, hits: Tensor | float, settings: EvaluatorSettings) -> Tensor:
    """Return the probabilities of what ``_logits`` has added up."""
    mean = summed / hits
    return mean if _adds_probabilities(settings) else mean.softmax(1)


def _adds_probabilities(settings: EvaluatorSettings) -> bool:
    return settings.mode == "slide" and settings.window_sum == "probabilities"


def window_spans(
    length: int, window: int, stride: float, *, rounding: str = "up", edge: str = "shift"
) -> list[tuple[int, int]]:
    """Return start and end of the windows along one axis.

    Windows start at multiples of the stride. With ``edge="shift"`` the axis has at least ``window`` pixels and the
    last window is moved inward to end with it (CPS; UniMatch V2). With ``edge="shrink"`` there is a window at every
    multiple below the length, and those that reach beyond it are cut off (UniMatch V1).

    Args:
        length: pixels of the axis.
        window: pixels of a window.
        stride: distance of the windows: up to 1 a share of the window, else pixels.
        rounding: rounding of a share to pixels, "up" or "down", but 1 pixel at least.
        edge: "shift" or "shrink".
    """
    if stride > 1:
        step = int(stride)
    else:
        step = math.ceil(window * stride) if rounding == "up" else max(int(window * stride), 1)
    if edge == "shrink":
        return [(start, min(start + window, length)) for start in range(0, length, step)]
    ends = [min(start * step + window, length) for start in range(math.ceil((length - window) / step) + 1)]
    return [(end - window, end) for end in ends]


def resized(images: Tensor, settings: EvaluatorSettings) -> Tensor:
    """Return images ``(N, C, H, W)`` as floats at ``settings.resize_to``.

    Bilinear with half-pixel centers and without antialiasing: half a size is the mean of 2x2 pixels (DMT).
    """
    images = images if images.is_floating_point() else images.float()
    if settings.resize_to is None or _equal(images.shape[-2:], settings.resize_to):
        return images
    return F.interpolate(images, settings.resize_to, mode="bilinear", align_corners=False)


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    if _equal(maps.shape[-2:], size):
        return maps
    return F.interpolate(maps, size=list(size), mode="bilinear", align_corners=True)


def _scaled(side: int, scale: float) -> int:
    """Return ``int(side * scale)``, but 1 at least, in a way that ``torch.export`` can follow for any side."""
    over, under = float(scale).as_integer_ratio()
    if under <= EXACT_DENOMINATOR:
        return _larger(1, side * over // under)
    return _larger(1, torch.sym_int(side * scale))


def _equal(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two sizes are equal; one that ``torch.export`` leaves open equals none, since it may be any."""
    return all(isinstance(side, int) for side in (*one, *other)) and list(one) == list(other)


def _larger(one: int, other: int) -> int:
    """``max``, without a decision where ``torch.export`` leaves a size open."""
    return cast(int, torch.sym_max(one, other))


class _Whole(NamedTuple):
    """Images as a network sees them whole and once, and how its logits get their size."""

    images: Tensor
    restored: Callable[[Tensor], Tensor]


def _forward(network: Network, images: Tensor, precision: str) -> Tensor:
    with autocast(images.device, precision):
        result: Tensor = network(images)
    # Windows and scales add up many maps, which 8 bits of mantissa would round away.
    return result.float() if result.dtype in LOWER.values() else result


def _logits(
    network: Network, images: Tensor, settings: EvaluatorSettings, precision: str
) -> tuple[Tensor, Tensor | float]:
    """Return the logits of one view at its own size, or their softmax, and by how many windows each pixel was seen."""
    whole = _seen_whole(network, images, settings)
    if whole is not None:
        return whole.restored(_forward(network, whole.images, precision)), 1.0
    return _window_scores(network, images, settings, precision)


def _seen_whole(network: Network, images: Tensor, settings: EvaluatorSettings) -> _Whole | None:
    """Bring images to the size at which the network sees them whole; ``None`` where it sees several windows."""
    height, width = images.shape[-2:]
    if settings.mode == "slide":
        if settings.window_edge == "shift":
            require_multiple("evaluator.window", [settings.window], network.size_multiple)
        if not _is_one_window(height, width, settings):
            return None
        margins = left, _, top, _ = _centered(height, width, settings.window, settings.window)

        def inside(scores: Tensor) -> Tensor:
            scores = scores[..., top : top + height, left : left + width]
            return scores.softmax(1) if _adds_probabilities(settings) else scores

        # One window: zeros after normalization. Several windows: zeros before it. Both as CPS evaluates.
        return _Whole(pad_with_mean(images, margins, network), inside)
    if settings.fit == "resize":
        size = _fitted(height, width, settings, network.size_multiple)
        require_multiple(
            "evaluator.fit_to", [settings.fit_to or network.size_multiple], network.size_multiple
        )
        return _Whole(_resize(images, size), lambda scores: _resize(scores, (height, width)))
    margins = _margins(height, width, settings, network.size_multiple)
    padded = _pad(images, margins, settings.pad_value, network)
    return _Whole(padded, lambda scores: _trimmed(scores, margins))


def _is_one_window(height: int, width: int, settings: EvaluatorSettings) -> bool:
    return settings.window_edge == "shift" and max(height, width) <= settings.window


def _fitted(height: int, width: int, settings: EvaluatorSettings, size_multiple: int) -> tuple[int, int]:
    """Return the size that ``fit="resize"`` brings an image to."""
    multiple = settings.fit_to or size_multiple
    return _nearest(height, multiple), _nearest(width, multiple)


def _window_scores(
    network: Network, images: Tensor, settings: EvaluatorSettings, precision: str
) -> tuple[Tensor, Tensor]:
    """Return the sum over windows of their logits, or of their softmax, and by how many each pixel was seen."""
    height, width = images.shape[-2:]
    window = settings.window
    left = right = top = bottom = 0
    if settings.window_edge == "shift":
        left, right, top, bottom = _centered(height, width, window, window)
    padded = _pad(images, (left, right, top, bottom), "zero", network)
    total: Tensor | None = None
    hits = padded.new_zeros(1, 1, *padded.shape[-2:])
    rows, columns = (
        window_spans(
            side, window, settings.stride, rounding=settings.stride_rounding, edge=settings.window_edge
        )
        for side in padded.shape[-2:]
    )
    for (y, y_end), (x, x_end) in itertools.product(rows, columns):
        # A window that is cut off may have sides that the network does not take.
        margins = (0, -(x_end - x) % network.size_multiple, 0, -(y_end - y) % network.size_multiple)
        seen = _pad(padded[..., y:y_end, x:x_end], margins, "zero", network)
        scores = _trimmed(_forward(network, seen, precision), margins)
        if _adds_probabilities(settings):
            scores = scores.softmax(1)
        if total is None:
            total = scores.new_zeros(*scores.shape[:2], *padded.shape[-2:])
        total[..., y:y_end, x:x_end] += scores
        hits[..., y:y_end, x:x_end] += 1
    assert total is not None
    inner = (..., slice(top, top + height), slice(left, left + width))
    return total[inner], hits[inner]


def _nearest(side: int, multiple: int) -> int:
    """Return the multiple that is nearest to a side, the larger one of two, and never 0."""
    return _larger((2 * side + multiple) // (2 * multiple), 1) * multiple


def _trimmed(maps: Tensor, margins: tuple[int, int, int, int]) -> Tensor:
    """Remove the margins; a slice would make torch.export decide whether it is the whole map."""
    return maps if _equal(margins, (0, 0, 0, 0)) else F.pad(maps, [-margin for margin in margins])


def _margins(
    height: int, width: int, settings: EvaluatorSettings, size_multiple: int
) -> tuple[int, int, int, int]:
    """Pixels to add left, right, top and bottom of a whole image: the settings' and then what the network needs."""
    to = settings.pad_to
    left, right, top, bottom = 0, 0, 0, 0
    match settings.pad:
        case "size":
            right, bottom = _larger(to - width, 0), _larger(to - height, 0)
        case "multiple":
            right, bottom = -width % to, -height % to
        case "center":
            left, right, top, bottom = _centered(height, width, to, to)
    if size_multiple > 1:
        right += -(left + width + right) % size_multiple
        bottom += -(top + height + bottom) % size_multiple
    return left, right, top, bottom


def _centered(height: int, width: int, to_height: int, to_width: int) -> tuple[int, int, int, int]:
    rows, columns = _larger(to_height - height, 0), _larger(to_width - width, 0)
    return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2


def _pad(images: Tensor, margins: tuple[int, int, int, int], value: str, network: Network) -> Tensor:
    """Pad with zeros before normalization or by reflection; bands, whose zero may be far off, with their mean."""
    if _equal(margins, (0, 0, 0, 0)):
        return images
    if value != "reflect" and network.convention.order == "bands":
        inside = F.pad(torch.ones_like(images[:1, :1]), margins)
        return F.pad(images, margins) + network.mean_color.to(images) * (1 - inside)
    if value != "reflect":
        return F.pad(images, margins)
    height, width = images.shape[-2:]
    # Sizes that torch.export leaves open are checked when the exported network runs.
    known = isinstance(height, int) and isinstance(width, int)
    if known and (max(margins[:2]) >= width or max(margins[2:]) >= height):
        raise UserError(
            f"evaluator.pad_value=reflect cannot pad an image of {width}x{height} by more than its own size.\n"
            "Use evaluator.pad_value=zero or a smaller evaluator.pad_to."
        )
    return F.pad(images, margins, mode="reflect")


def pad_with_mean(images: Tensor, margins: tuple[int, int, int, int], network: Network) -> Tensor:
    """Pad with the color that the network's normalization turns into zero."""
    color = network.mean_color.to(images)
    left, right, top, bottom = margins
    height, width = images.shape[-2:]
    canvas: Tensor = color.repeat(len(images), 1, height + top + bottom, width + left + right)
    canvas[..., top : top + height, left : left + width] = images
    return canvas
