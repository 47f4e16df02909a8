"""Predicting a large picture in tiles that overlap and pass smoothly into each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semiseg.contracts.dataset import Array, Pixels
from semiseg.contracts.training import Network
from semiseg.data.window import Window
from semiseg.errors import UserError
from semiseg.tasks.inference import predict, to_batch

if TYPE_CHECKING:
    from semiseg.settings import EvaluatorSettings

Span = tuple[int, int]


@dataclass(frozen=True)
class Tiling:
    """Way to cut pictures into tiles.

    Args:
        side: largest height and width of a tile in pixels.
        overlap: pixels that neighbors share at least; a quarter of the side at most.
        above: number of pixels above which a picture is cut.

    Raises:
        UserError: a side below 8 pixels, or an overlap that is negative or more than a quarter of the side.
    """

    side: int = 1536
    overlap: int = 256
    above: int = 16_000_000

    def __post_init__(self) -> None:
        if self.side < 8 or not 0 <= self.overlap <= self.side // 4:
            raise UserError(
                f"tiles of {self.side} pixels that overlap by {self.overlap}: expected 8 pixels or more, and an "
                "overlap of a quarter of them at most."
            )

    def cuts(self, height: int, width: int) -> bool:
        """Whether a picture is cut."""
        return height * width > self.above and max(height, width) > self.side

    def spans(self, length: int) -> list[Span]:
        """Return start and end of the tiles along an axis: as few as possible, all of one size."""
        if length <= self.side:
            return [(0, length)]
        count = math.ceil((length - self.overlap) / (self.side - self.overlap))
        size = math.ceil((length + (count - 1) * self.overlap) / count)
        starts = [index * (length - size) // (count - 1) for index in range(count)]
        return [(start, start + size) for start in starts]


def predict_tiled(
    network: Network,
    image: Pixels,
    settings: EvaluatorSettings,
    tiling: Tiling,
    device: torch.device,
    precision: str = "fp32",
    between: Callable[[], None] = lambda: None,
) -> tuple[Array, NDArray[np.float32]]:
    """Predict a picture in memory tile by tile; see ``predicted_rows``.

    Args:
        network: network on ``device``.
        image: picture ``(H, W, C)``, in ordinary memory.
        settings: settings by which each tile is predicted.
        tiling: size of the tiles.
        device: device of the network.
        precision: ``trainer.precision`` of the run.
        between: function that is called before each tile and may raise to stop.

    Returns:
        Label ``(H, W) uint8`` and confidence ``(H, W) float32``.
    """

    def maps(window: Window) -> Tensor:
        between()
        tile = image[window.top : window.bottom, window.left : window.right]
        return predict(network, to_batch([tile], device), settings, precision)[0]

    height, width = image.shape[:2]
    label, confidence = np.empty((height, width), np.uint8), np.empty((height, width), np.float32)
    row = 0
    for labels, confidences in predicted_rows(maps, (height, width), tiling, device):
        label[row : row + len(labels)] = labels
        confidence[row : row + len(labels)] = confidences
        row += len(labels)
    return label, confidence


def predicted_rows(
    maps: Callable[[Window], Tensor], size: tuple[int, int], tiling: Tiling, device: torch.device
) -> Iterator[tuple[Array, NDArray[np.float32]]]:
    """Predict a picture tile by tile; the network's maps never cover more than a row of overlaps.

    Each tile is predicted as a picture of its own. Where tiles overlap their probabilities are averaged, by
    weights that go from one to the other in the middle half of the overlap, so that pixels at the border of a
    tile, of which the network sees one side only, do not count.

    Args:
        maps: function that returns the probabilities ``(K, h, w)`` of a window of the picture, on ``device``.
        size: height and width of the picture.
        tiling: size of the tiles.
        device: device of the network.

    Yields:
        Label ``(n, W) uint8`` and confidence ``(n, W) float32`` of the next rows, when all tiles that begin in the
        first of them have been predicted.
    """
    rows, columns = tiling.spans(size[0]), tiling.spans(size[1])
    down, across = _weights(rows, device), _weights(columns, device)
    above: Tensor | None = None
    for row, (top, bottom) in enumerate(rows):
        lower = _next_start(rows, row)
        windows = [Window(top, left, bottom, right) for left, right in columns]
        weights = [down[row][:, None] * each for each in across]
        label, confidence, above = _row(maps, windows, weights, lower, above)
        yield label, confidence


@torch.inference_mode()
def _row(
    maps: Callable[[Window], Tensor],
    windows: list[Window],
    weights: list[Tensor],
    lower: int,
    above: Tensor | None,
) -> tuple[Array, NDArray[np.float32], Tensor]:
    """Predict the tiles of a row down to ``lower``; return the weighted maps below it too."""
    top, width = windows[0].top, windows[-1].right
    columns = [(window.left, window.right) for window in windows]
    label, confidence = np.empty((lower - top, width), np.uint8), np.empty((lower - top, width), np.float32)
    before: Tensor | None = None
    below: list[Tensor] = []
    for column, (left, _) in enumerate(columns):
        tile = maps(windows[column]) * weights[column]
        if before is not None:
            tile[..., : before.shape[-1]] += before
        inner = _next_start(columns, column)
        # A copy: a view would keep the maps of the whole tile in memory.
        before = tile[..., inner - left :].clone()
        done = tile[..., : inner - left]
        if above is not None:
            done[:, : above.shape[1]] += above[..., left:inner]
        below.append(done[:, lower - top :].clone())
        best = done[:, : lower - top].max(0)
        label[:, left:inner] = best.indices.to(torch.uint8).cpu().numpy()
        confidence[:, left:inner] = best.values.cpu().numpy()
    return label, confidence, torch.cat(below, dim=-1)


def _next_start(spans: list[Span], index: int) -> int:
    """Return the start of the next tile; for the last one its end."""
    return spans[index + 1][0] if index + 1 < len(spans) else spans[index][1]


def _weights(spans: list[Span], device: torch.device) -> list[Tensor]:
    """Return the weight of each tile at each of its pixels along an axis; they add up to 1 everywhere."""
    weights = [torch.ones(end - start, device=device) for start, end in spans]
    for (first, (_, end)), (second, (start, _)) in pairwise(enumerate(spans)):
        shared = end - start
        place = (torch.arange(shared, device=device) + 0.5) / max(shared, 1)
        rising = (2 * place - 0.5).clamp(0, 1)
        weights[second][:shared] = rising
        # Counted from the front, since [-0:] would be the whole tile where nothing is shared.
        weights[first][len(weights[first]) - shared :] = 1 - rising
    return weights
