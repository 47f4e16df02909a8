"""DeepLabV3+ in the form of CPS."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.models.deeplabv3plus import check_channels, conv_bn_relu, pyramid_rates


class DeepLabV3PlusCPS(nn.Module):
    """Atrous spatial pyramid with one joint batch norm and an added image branch (CPS, spec A1).

    Maps c1..c4 to ``(N, channels, h, w)`` at c1's size. The pyramid's convs (1x1 and one 3x3 a rate) share
    a batch norm over their concatenation; the global mean's branch is added, not concatenated; activations
    there are leaky (slope 0.01). No dropout. The original runs on ResNet with deep stem, output stride 16
    and multi-grid (1, 2, 4).

    Conv weights start Kaiming-normal (fan-in, ReLU gain), also the classifier's; its bias keeps PyTorch's
    default.

    Args:
        in_channels: channels of c1..c4.
        output_stride: stride of c4; only chooses the default rates.
        rates: dilations of the pyramid; None: 6, 12, 18 at output stride 16 (the original), twice that at
            8, half at 32.
        channels: of each branch and of the result.
        low_channels: that c1 is reduced to.
        name: name of the option in the config; not used by the network.

    Raises:
        UserError: no default rates for this output stride, or a value out of range.
    """

    smallest_batch: ClassVar[int] = 2
    """Images of a training batch that batch norm over the global mean needs."""

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        output_stride: int,
        rates: Sequence[int] | None = None,
        channels: int = 256,
        low_channels: int = 48,
        name: str = "",
    ) -> None:
        super().__init__()
        check_channels(channels=channels, low_channels=low_channels)
        low, high = in_channels[0], in_channels[-1]
        self.name = name
        self.out_channels = channels
        self.branches = nn.ModuleList([nn.Conv2d(high, channels, 1, bias=False)])
        for rate in pyramid_rates(rates, output_stride):
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
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the feature map ``(N, channels, h, w)`` at c1's size."""
        low, high = features[0], features[-1]
        context = self.project(torch.cat([branch(high) for branch in self.branches], 1)) + self.pool(high)
        context = F.interpolate(self.activate(context), low.shape[-2:], mode="bilinear", align_corners=True)
        result: Tensor = self.fuse(torch.cat([context, self.reduce(low)], 1))
        return result

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Return the 1x1 conv that follows."""
        classifier = nn.Conv2d(self.out_channels, num_classes, 1)
        nn.init.kaiming_normal_(classifier.weight, nonlinearity="relu")
        return classifier
