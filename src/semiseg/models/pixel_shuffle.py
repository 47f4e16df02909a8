"""Decoders of pixel shuffles (CCT, arXiv 2003.09005): one as a classifier, and many that are evaluated as one."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Stage1x1 = tuple[Tensor, Tensor]
"""Weights ``(D, 4 K, K)`` and biases ``(D, 4 K, 1)`` of one enlargement by two of D decoders."""


class PixelShuffleClassifier(nn.Module):
    """A 1x1 conv without bias, then stages of a 1x1 conv, ReLU and a pixel shuffle that doubles the sides.

    In the form of CCT (yassouali/CCT, ``models/decoders.py``): its last stage ends in ReLU too, so that no logit is
    negative. The first conv starts Kaiming-normal, the others so that the four pixels of a cell are equal but for the
    biases, which keep PyTorch's default.

    Args:
        in_channels: channels of the map.
        num_classes: number of classes K.
        stages: number of stages; the logits are ``2 ** stages`` times as large as the map.
    """

    def __init__(self, in_channels: int, num_classes: int, stages: int = 3) -> None:
        super().__init__()
        self.stages = stages
        self.first = nn.Conv2d(in_channels, num_classes, 1, bias=False)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        layers: list[nn.Module] = []
        for _ in range(stages):
            conv = nn.Conv2d(num_classes, 4 * num_classes, 1)
            with torch.no_grad():
                conv.weight.copy_(_equal_cells(num_classes)[..., None, None])
            layers += [conv, nn.ReLU(inplace=True), nn.PixelShuffle(2)]
        self.enlarge = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, in_channels, h, w)`` to logits ``(N, K, 2 ** stages * h, 2 ** stages * w)``."""
        logits: Tensor = self.enlarge(self.first(features))
        return logits


class ShuffleDecoders(nn.Module):
    """A head of D decoders like ``PixelShuffleClassifier``, each with its own weights, as a few large products.

    No decoder mixes positions of the map. So the positions may stay in any order: each stage is one batched product,
    and no map is ever shuffled, only what is compared with the logits, once for all decoders (``cell_order``).

    Args:
        in_channels: channels C of the map.
        num_classes: number of classes K.
        decoders: number of decoders D.
        stages: number of stages; 0 leaves linear decoders.

    Raises:
        ValueError: a number of channels or decoders below 1.
    """

    def __init__(self, in_channels: int, num_classes: int, decoders: int, stages: int) -> None:
        super().__init__()
        if min(in_channels, num_classes, decoders) < 1:
            raise ValueError(f"{in_channels} channels, {num_classes} classes, {decoders} decoders: below 1")
        self.in_channels, self.num_classes = in_channels, num_classes
        self.decoders, self.stages = decoders, stages
        self.first = nn.Parameter(
            torch.randn(decoders, num_classes, in_channels) * math.sqrt(2 / in_channels)
        )
        bound = 1 / math.sqrt(num_classes)
        self.weights = nn.ParameterList(
            torch.stack([_equal_cells(num_classes) for _ in range(decoders)]) for _ in range(stages)
        )
        # One axis, by which optimizers know a bias.
        self.biases = nn.ParameterList(
            torch.empty(decoders * 4 * num_classes).uniform_(-bound, bound) for _ in range(stages)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, C, h, w)`` to the logits of all decoders, ``(D, N, K, 2 ** stages * h, 2 ** stages * w)``."""
        count, _, height, width = features.shape
        positions = features.permute(0, 2, 3, 1).flatten(0, 2)
        logits = enlarged_maps(self.first @ positions.mT, self.stage_parameters())
        # The inverse of ``cell_order``.
        steps = range(2 * self.stages)
        cells = logits.view(self.decoders, self.num_classes, *(2 for _ in steps), count, height, width)
        batch, down, across = (2 + 2 * self.stages + axis for axis in range(3))
        rows, columns = (
            [2 + 2 * (self.stages - 1 - step) + axis for step in range(self.stages)] for axis in (0, 1)
        )
        ordered = cells.permute(0, batch, 1, down, *rows, across, *columns)
        side = 2**self.stages
        return ordered.reshape(self.decoders, count, self.num_classes, side * height, side * width)

    def stage_parameters(self, chosen: slice = slice(None)) -> list[Stage1x1]:
        """Return weights and biases of the stages of some decoders."""
        rows = 4 * self.num_classes
        return [
            (weight[chosen], bias.view(self.decoders, rows, 1)[chosen])
            for weight, bias in zip(self.weights, self.biases, strict=True)
        ]

    def config(self) -> dict[str, Any]:
        """Return the arguments that build it again, and its class as ``_target_``."""
        return {
            "_target_": f"{__name__}.{type(self).__name__}",
            "in_channels": self.in_channels,
            "num_classes": self.num_classes,
            "decoders": self.decoders,
            "stages": self.stages,
        }


def enlarged_maps(maps: Tensor, stages: Sequence[Stage1x1]) -> Tensor:
    """Return the logits ``(D, K, 4 ** len(stages) * P)`` of D decoders, for maps ``(D, K, P)`` of P positions.

    The logits are in the order of ``cell_order``.
    """
    for weight, bias in stages:
        # Channel 4 k + s is class k at subpixel s, so that the new positions are there without a copy.
        maps = torch.baddbmm(bias, weight, maps).relu_()
        maps = maps.view(len(weight), weight.shape[2], -1)
    return maps


def cell_order(values: Tensor, stages: int) -> Tensor:
    """Return ``(K, M)``: the pixels of ``(N, K, H, W)`` in the order of the logits of ``enlarged_maps``.

    Args:
        values: maps whose sides are multiples of ``2 ** stages``.
        stages: number of stages.
    """
    count, channels, height, width = values.shape
    side = 2**stages
    parts = [2] * stages
    cells = values.reshape(count, channels, height // side, *parts, width // side, *parts)
    rows = [3 + step for step in range(stages)]
    columns = [4 + stages + step for step in range(stages)]
    inner = [axis for pair in zip(reversed(rows), reversed(columns), strict=True) for axis in pair]
    return cells.permute(1, *inner, 0, 2, 3 + stages).reshape(channels, -1)


def _equal_cells(num_classes: int) -> Tensor:
    """Draw weights ``(4 K, K)`` whose rows are equal in groups of four, Kaiming-normal otherwise."""
    drawn = torch.randn(num_classes, num_classes) * math.sqrt(2 / num_classes)
    return drawn.repeat_interleave(4, 0)
