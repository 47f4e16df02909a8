"""A decoder of few operations, for few labels and for CPUs: joined maps, and a small branch of separable convs."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from semiseg.declare import Ge, Lt, checked
from semiseg.models.linear import joined, joined_channels
from semiseg.models.segmodel import Decoder, Stage

DAMPING = 10.0
"""Divisor of the joined maps. An optimizer such as Adam moves all weights by about the same step, so that a classifier
of these maps learns ten times more slowly than the branch, and a fitted one is not overrun."""


class Light(Decoder):
    """The last maps joined at the size of the first of them, and a small branch of convs on them beside.

    Returns ``(N, D + channels, h, w)``: the D channels of the joined maps by ``DAMPING``, and those of the branch,
    which is a norm, a 1x1 conv, a depthwise 3x3 conv and a 1x1 conv. The classifier is one 1x1 conv on both, whose
    weights for the branch begin at 0: it begins as a linear classifier of the backbone's maps, which may be a fitted
    one (``init_head=probe``). A network of our own; on EfficientNet-Lite0 it takes a
    sixtieth of the operations of DeepLabV3+ with 256 channels.

    Args:
        stages: stages of the backbone.
        levels: number of maps that are joined, counted from the last; 3 begin at stride 8 of a pyramid.
        channels: channels of the branch.
        dropout: probability of dropping a value of the branch's result.
        name: name of the option in the config; a message names the decoder by it.

    Raises:
        UserError: more maps than the backbone has, or a value out of range.
    """

    @checked
    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        levels: Annotated[int, Ge(1)] = 3,
        channels: Annotated[int, Ge(1)] = 128,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.1,
        name: str = "",
    ) -> None:
        super().__init__(stages, name)
        self.levels = levels
        self.linear_channels = width = joined_channels(stages, levels)
        self.out_channels = width + channels
        self.branch = nn.Sequential(
            nn.BatchNorm2d(width, affine=False),  # maps of different stages differ in scale
            nn.Conv2d(width, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the feature map ``(N, D + channels, h, w)`` at the size of the first of the last maps."""
        features = joined(maps[-self.levels :])
        return torch.cat([features / DAMPING, self.branch(features)], 1)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Return a 1x1 conv whose weights for the branch are 0."""
        classifier = nn.Conv2d(self.out_channels, num_classes, 1)
        nn.init.zeros_(classifier.weight[:, self.linear_channels :])
        return classifier
