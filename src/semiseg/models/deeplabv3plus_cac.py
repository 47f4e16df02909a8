"""DeepLabV3+ in the form of CAC."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from semiseg.declare import checked
from semiseg.models.deeplabv3plus import (
    Channels,
    Dropout,
    Rates,
    atrous_branches,
    conv_bn_relu,
    draw_kaiming,
    pooled_branch,
    pyramid_maps,
    pyramid_rates,
)
from semiseg.models.map_size import resized
from semiseg.models.segmodel import Decoder, Stage


class DeepLabV3PlusCAC(Decoder):
    """Atrous spatial pyramid on the last map, refined by c1, with dropout in three places.

    In the form of CAC (Lai et al., arXiv 2106.14133): dvlab-research/Context-Aware-Consistency,
    ``models/modeling/aspp.py`` and ``decoder.py``; the classifier is in ``models/model.py``.

    Returns ``(N, channels, h, w)`` at the size of c1, the map of stride 4. The pyramid is that of
    ``DeepLabV3Plus``; but dropout drops elements, not channels, also between the last two convs and before the
    classifier, and the pyramid comes before the reduced c1. The original runs on ResNet with plain stem, output
    stride 16 and multi-grid (1, 2, 4).

    Conv weights start Kaiming-normal (fan-in, ReLU gain), also the classifier's; its bias keeps PyTorch's
    default.

    Args:
        stages: stages of the backbone; the stride of the last one chooses the default rates.
        rates: dilations of the pyramid; ``None`` takes 6, 12, 18 at output stride 16 (the original), twice that
            at 8, half at 32.
        channels: channels of each branch and of the result.
        low_channels: channels that c1 is reduced to.
        aspp_dropout: probability of dropping an element of the pyramid.
        dropout: probability of the same between the last two convs.
        classifier_dropout: probability of the same before the classifier.
        name: name of the option in the config; a message names the decoder by it.

    Raises:
        UserError: the backbone has no map of stride 4, there are no default rates for its last one, or a value
            is out of range.
    """

    needs: ClassVar[tuple[int, ...]] = (4,)

    smallest_batch: ClassVar[int] = 2
    """Images of a training batch that batch norm over the global mean needs."""

    @checked
    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        rates: Rates | None = None,
        channels: Channels = 256,
        low_channels: Channels = 48,
        aspp_dropout: Dropout = 0.5,
        dropout: Dropout = 0.5,
        classifier_dropout: Dropout = 0.1,
        name: str = "",
    ) -> None:
        super().__init__(stages, name)
        low, high = stages[self.needed[0]].channels, stages[-1].channels
        self.out_channels = channels
        self.classifier_dropout = classifier_dropout
        self.branches = atrous_branches(high, channels, pyramid_rates(rates, stages[-1].stride))
        self.pool = pooled_branch(high, channels)
        self.project = nn.Sequential(
            conv_bn_relu((len(self.branches) + 1) * channels, channels), nn.Dropout(aspp_dropout)
        )
        self.reduce = conv_bn_relu(low, low_channels)
        self.fuse = nn.Sequential(
            conv_bn_relu(channels + low_channels, channels, 3),
            nn.Dropout(dropout),
            conv_bn_relu(channels, channels, 3),
        )
        # At the end and in this order, on which the weights that a seed draws depend.
        draw_kaiming(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the feature map ``(N, channels, h, w)`` at the size of the map of stride 4."""
        low, high = maps[self.needed[0]], maps[-1]
        # Published code: models/modeling/aspp.py up to the dropout, then Decoder.forward of decoder.py.
        context = self.project(pyramid_maps(self.branches, self.pool, high))
        context = resized(context, low.shape[-2:])
        result: Tensor = self.fuse(torch.cat([context, self.reduce(low)], 1))
        return result

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Return the dropout and the 1x1 conv that follow."""
        conv = nn.Conv2d(self.out_channels, num_classes, 1)
        draw_kaiming(conv)
        return nn.Sequential(nn.Dropout(self.classifier_dropout), conv)
