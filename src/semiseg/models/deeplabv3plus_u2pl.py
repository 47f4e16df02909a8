"""DeepLabV3+ in the form of U2PL."""

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
    pooled_branch,
    pyramid_maps,
    pyramid_rates,
)
from semiseg.models.heads import ConvStack
from semiseg.models.map_size import resized
from semiseg.models.segmodel import Decoder, Stage


class DeepLabV3PlusU2PL(Decoder):
    """Atrous spatial pyramid and c1, concatenated and then read by a classifier of three convs.

    In the form of U2PL (Wang et al., arXiv 2203.03884): Haochen-Wang409/U2PL, ``u2pl/models/decoder.py``.

    Returns ``(N, low_channels + channels, h, w)`` at the size of c1, the map of stride 4: c1 after a 1x1 conv with
    bias, and the pyramid of ``DeepLabV3Plus``, which is projected by a 3x3 conv, drops channels and begins with the
    global mean. The classifier is a ``ConvStack`` of two 3x3 convs. U2PL attaches a second one as representation head
    (``ConvStack(512, 256, 256)``) and, for Cityscapes, one of a single conv on c3 (``ConvStack(1024, 256, K,
    convs=1)``). The original runs on ResNet with deep stem, output stride 8, multi-grid (1, 2, 4), ``ceil_pool`` and
    ``zero_init``.

    Args:
        stages: stages of the backbone; the stride of the last one chooses the default rates.
        rates: dilations of the pyramid; ``None`` takes 12, 24, 36 at output stride 8 (the original), half of them
            at 16, a quarter at 32.
        channels: channels of each branch and between the convs of the classifier.
        low_channels: channels that c1 has after its conv.
        dropout: probability of dropping a whole channel after the pyramid and after the convs of the classifier.
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
        low_channels: Channels = 256,
        dropout: Dropout = 0.1,
        name: str = "",
    ) -> None:
        super().__init__(stages, name)
        low, high = stages[self.needed[0]].channels, stages[-1].channels
        self.channels, self.dropout = channels, dropout
        self.out_channels = low_channels + channels
        self.reduce = conv_bn_relu(low, low_channels, bias=True)
        self.branches = atrous_branches(high, channels, pyramid_rates(rates, stages[-1].stride))
        self.pool = pooled_branch(high, channels)
        self.project = nn.Sequential(
            conv_bn_relu((len(self.branches) + 1) * channels, channels, 3), nn.Dropout2d(dropout)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the feature map ``(N, low_channels + channels, h, w)`` at the size of the map of stride 4."""
        low, high = maps[self.needed[0]], maps[-1]
        # Published code: dec_deeplabv3_plus.forward up to the classifier.
        context = self.project(pyramid_maps(self.branches, self.pool, high, "first"))
        context = resized(context, low.shape[-2:])
        return torch.cat([self.reduce(low), context], 1)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Return the three convs that follow."""
        return ConvStack(self.out_channels, self.channels, num_classes, dropout=self.dropout)
