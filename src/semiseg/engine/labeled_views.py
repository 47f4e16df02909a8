"""Labeled images at the sizes and in the windows that networks are evaluated on, and labels on a network's grid."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.dataset import Array
from semiseg.contracts.training import Network
from semiseg.settings import EvaluatorSettings

UNLABELED = 255


def labeled_views(
    image: Tensor, mask: Array, settings: EvaluatorSettings, scales: Sequence[float], network: Network
) -> Iterator[tuple[Tensor, Array]]:
    """Yield an image around each size that it is evaluated at, with the labels of each view.

    Whole images are resized to sides that the network takes. Windows lie side by side; the last one of an axis is
    moved inside, and an image that is smaller is padded with the network's mean color and labels of 255.

    Args:
        image: ``(1, C, H, W)``.
        mask: label map of the image, of any size.
        settings: sizes and windows of the evaluation.
        scales: further factors of its sizes.
        network: network that the views are for.
    """
    multiple, given = network.size_multiple, image.float()
    if settings.resize_to is not None:
        given = F.interpolate(given, tuple(settings.resize_to), mode="bilinear", align_corners=False)
    for scale in (first * second for first in settings.scales for second in scales):
        sides = [max(int(side * scale), 1) for side in given.shape[-2:]]
        if settings.mode == "slide":
            window = -(-settings.window // multiple) * multiple
            yield from _windows(_resized(given, sides), mask, window, network)
        else:
            yield _resized(given, [max(side // multiple, 1) * multiple for side in sides]), mask


def labels_at(mask: Array, size: Sequence[int], align_corners: bool) -> Tensor:
    """Return the labels of a mask ``(H, W)`` at the positions of a grid ``(h, w)``, ``int64``.

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
    # A single position stands for the whole side.
    if align_corners and count > 1:
        places = np.arange(count) * ((side - 1) / (count - 1)) + 0.5
    else:
        places = (np.arange(count) + 0.5) * (side / count)
    return np.minimum(places.astype(np.int64), side - 1)


def _resized(image: Tensor, size: Sequence[int]) -> Tensor:
    if list(image.shape[-2:]) == list(size):
        return image
    return F.interpolate(image, list(size), mode="bilinear", align_corners=True)


def _windows(image: Tensor, mask: Array, window: int, network: Network) -> Iterator[tuple[Tensor, Array]]:
    height, width = image.shape[-2:]
    labels = labels_at(mask, (height, width), align_corners=True)
    bottom, right = max(window - height, 0), max(window - width, 0)
    if bottom or right:
        padded = network.mean_color.to(image.dtype).expand(1, -1, height + bottom, width + right).clone()
        padded[..., :height, :width] = image
        image = padded
        labels = F.pad(labels, (0, right, 0, bottom), value=UNLABELED)
    for top in _starts(image.shape[-2], window):
        for left in _starts(image.shape[-1], window):
            rows, columns = slice(top, top + window), slice(left, left + window)
            yield image[..., rows, columns], labels[rows, columns].numpy()


def _starts(side: int, window: int) -> list[int]:
    return [min(start, side - window) for start in range(0, side, window)]
