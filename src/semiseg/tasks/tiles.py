"""Predicting a large picture in tiles that overlap and pass smoothly into each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semiseg.contracts.dataset import Array
from semiseg.contracts.training import Network
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
    image: Array,
    settings: EvaluatorSettings,
    tiling: Tiling,
    device: torch.device,
    precision: str = "fp32",
    between: Callable[[], None] = lambda: None,
) -> tuple[Array, NDArray[np.float32]]:
    """Predict a picture tile by tile; the network's maps never cover more than a row of overlaps.

    Each tile is predicted as a picture of its own. Where tiles overlap their probabilities are averaged, by
    weights that go from one to the other in the middle half of the overlap, so that pixels at the border of a
    tile, of which the network sees one side only, do not count.

    Args:
        network: network on ``device``.
        image: picture ``(H, W, 3) uint8`` RGB, in ordinary memory.
        settings: settings by which each tile is predicted.
        tiling: size of the tiles.
        device: device of the network.
        precision: "fp32", or "bf16" for autocast.
        between: function that is called before each tile and may raise to stop.

    Returns:
        Label ``(H, W) uint8`` and confidence ``(H, W) float32``.
    """
    height, width = image.shape[:2]
    rows, columns = tiling.spans(height), tiling.spans(width)
    label, confidence = np.empty((height, width), np.uint8), np.empty((height, width), np.float32)
    down, across = _weights(rows, device), _weights(columns, device)
    above: Tensor | None = None
    with torch.inference_mode():
        for row, (top, bottom) in enumerate(rows):
            lower = _next_start(rows, row)
            before: Tensor | None = None
            below: list[Tensor] = []
            for column, (left, right) in enumerate(columns):
                between()
                maps = predict(
                    network, to_batch([image[top:bottom, left:right]], device), settings, precision
                )[0]
                maps = maps * (down[row][:, None] * across[column])
                if before is not None:
                    maps[..., : before.shape[-1]] += before
                inner = _next_start(columns, column)
                # A copy: a view would keep the maps of the whole tile in memory.
                before = maps[..., inner - left :].clone()
                done = maps[..., : inner - left]
                if above is not None:
                    done[:, : above.shape[1]] += above[..., left:inner]
                below.append(done[:, lower - top :].clone())
                best = done[:, : lower - top].max(0)
                label[top:lower, left:inner] = best.indices.to(torch.uint8).cpu().numpy()
                confidence[top:lower, left:inner] = best.values.cpu().numpy()
            above = torch.cat(below, dim=-1)
    return label, confidence


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
