"""DeepLabV3+ in the form of CPS."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from semiseg.declare import checked
from semiseg.models.deeplabv3plus import Channels, Rates, conv_bn_relu, draw_kaiming, pyramid_rates
from semiseg.models.map_size import resized
from semiseg.models.segmodel import Decoder, Stage


class DeepLabV3PlusCPS(Decoder):
    """Atrous spatial pyramid with one joint batch norm and an added image branch.

    In the form of CPS (Chen et al., arXiv 2106.01226): charlesCXK/TorchSemiSeg,
    ``exp.voc/voc8.res50v3+.CPS+CutMix/network.py``.

    Returns ``(N, channels, h, w)`` at the size of c1, the map of stride 4. The pyramid's convs (1x1 and one 3x3 for
    each rate) share a batch norm over their concatenation; the global mean's branch is added, not concatenated;
    activations of the pyramid are leaky (slope 0.01). No dropout. The original runs on ResNet with deep stem, output
    stride 16 and multi-grid (1, 2, 4).

    Conv weights start Kaiming-normal (fan-in, ReLU gain), also the classifier's; its bias keeps PyTorch's
    default.

    Args:
        stages: stages of the backbone; the stride of the last one chooses the default rates.
        rates: dilations of the pyramid; ``None`` takes 6, 12, 18 at output stride 16 (the original), twice that
            at 8, half at 32.
        channels: channels of each branch and of the result.
        low_channels: channels that c1 is reduced to.
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
        name: str = "",
    ) -> None:
        super().__init__(stages, name)
        low, high = stages[self.needed[0]].channels, stages[-1].channels
        self.out_channels = channels
        self.branches = nn.ModuleList([nn.Conv2d(high, channels, 1, bias=False)])
        for rate in pyramid_rates(rates, stages[-1].stride):
            self.branches.append(nn.Conv2d(high, channels, 3, padding=rate, dilation=rate, bias=False))
        joint = len(self.branches) * channels
        self.project = nn.Sequential(
            nn.BatchNorm2d(joint), nn.LeakyReLU(0.01, inplace=True), nn.Conv2d(joint, channels, 1, bias=False)
        )
        self.pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(high, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Conv2d(channels, channels, 1, bias=False),
        )
        self.activate = nn.Sequential(nn.BatchNorm2d(channels), nn.LeakyReLU(0.01, inplace=True))
        self.reduce = conv_bn_relu(low, low_channels)
        self.fuse = nn.Sequential(
            conv_bn_relu(channels + low_channels, channels, 3), conv_bn_relu(channels, channels, 3)
        )
        draw_kaiming(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the feature map ``(N, channels, h, w)`` at the size of the map of stride 4."""
        low, high = maps[self.needed[0]], maps[-1]
        # Published code: ASPP.forward, whose image branch is added, then Head.forward.
        context = self.project(torch.cat([branch(high) for branch in self.branches], 1)) + self.pool(high)
        context = resized(self.activate(context), low.shape[-2:])
        result: Tensor = self.fuse(torch.cat([context, self.reduce(low)], 1))
        return result

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Return the 1x1 conv that follows."""
        classifier = nn.Conv2d(self.out_channels, num_classes, 1)
        draw_kaiming(classifier)
        return classifier
