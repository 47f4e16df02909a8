"""DeepLabV3+ in the form of ST++."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.declare import Ge, Len, Lt, Mark, checked
from semiseg.errors import UserError
from semiseg.models.segmodel import Decoder, Stage

RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}


Rates = Annotated[Sequence[int], Len(1), Ge(1), Mark(expected="dilations of at least 1, such as [6,12,18],")]
Channels = Annotated[int, Ge(1)]
Dropout = Annotated[float, Ge(0), Lt(1)]


class DeepLabV3Plus(Decoder):
    """Atrous spatial pyramid on the last map, refined by c1 (Chen et al., arXiv 1802.02611, section 3.1).

    In the form of ST++: LiheYoung/ST-PlusPlus, ``model/semseg/deeplabv3plus.py``.

    Returns ``(N, channels, h, w)`` at the size of c1, the map of stride 4. The pyramid: a 1x1 conv, one dilated
    3x3 conv for each rate, and the global mean, each with batch norm and ReLU; concatenated, projected, channel
    dropout. It is resized (``align_corners=True``) and concatenated behind a reduced c1; then two 3x3 convs and
    dropout.

    Args:
        stages: stages of the backbone; the stride of the last one chooses the default rates.
        rates: dilations of the pyramid; ``None`` takes 12, 24, 36 at output stride 8 (the original), half of them
            at 16, a quarter at 32.
        channels: channels of each branch and of the result.
        low_channels: channels that c1 is reduced to.
        aspp_dropout: probability of dropping a whole channel of the pyramid.
        dropout: probability of dropping an element of the result.
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
        dropout: Dropout = 0.1,
        name: str = "",
    ) -> None:
        super().__init__(stages, name)
        low, high = stages[self.needed[0]].channels, stages[-1].channels
        self.out_channels = channels
        self.branches = atrous_branches(high, channels, pyramid_rates(rates, stages[-1].stride))
        self.pool = pooled_branch(high, channels)
        self.project = nn.Sequential(
            conv_bn_relu((len(self.branches) + 1) * channels, channels), nn.Dropout2d(aspp_dropout)
        )
        self.reduce = conv_bn_relu(low, low_channels)
        self.fuse = nn.Sequential(
            conv_bn_relu(low_channels + channels, channels, 3),
            conv_bn_relu(channels, channels, 3),
            nn.Dropout(dropout),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the feature map ``(N, channels, h, w)`` at the size of the map of stride 4."""
        low, high = maps[self.needed[0]], maps[-1]
        # Published code: DeepLabV3Plus.base_forward in model/semseg/deeplabv3plus.py.
        context = self.project(pyramid_maps(self.branches, self.pool, high))
        context = F.interpolate(context, low.shape[-2:], mode="bilinear", align_corners=True)
        result: Tensor = self.fuse(torch.cat([self.reduce(low), context], 1))
        return result


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Return conv without bias, batch norm and ReLU that keep the map's size."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def atrous_branches(inputs: int, channels: int, rates: Sequence[int]) -> nn.ModuleList:
    """Return the pyramid's convs with batch norm and ReLU: 1x1, and a dilated 3x3 for each rate."""
    # Built in this order, on which the weights that a seed draws depend.
    return nn.ModuleList(
        [conv_bn_relu(inputs, channels), *(conv_bn_relu(inputs, channels, 3, rate) for rate in rates)]
    )


def pooled_branch(inputs: int, channels: int) -> nn.Sequential:
    """Return the pyramid's branch of the global mean, ``(N, channels, 1, 1)``."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn_relu(inputs, channels))


def pyramid_maps(branches: Iterable[nn.Module], pool: nn.Module, high: Tensor) -> Tensor:
    """Return the maps of all branches, concatenated over channels; the global mean comes last, the same everywhere."""
    pooled = pool(high).expand(-1, -1, *high.shape[-2:])
    return torch.cat([*(branch(high) for branch in branches), pooled], 1)


def pyramid_rates(
    rates: Sequence[int] | None, output_stride: int, usual: Mapping[int, tuple[int, ...]] = RATES
) -> tuple[int, ...]:
    """Return the given dilation rates, or the usual ones of an output stride.

    Raises:
        UserError: a rate below 1, or none given for an unusual stride.
    """
    if rates is not None:
        return tuple(rates)
    if output_stride not in usual:
        raise UserError(
            f"there are usual dilations for output strides {', '.join(map(str, usual))}, not for {output_stride}. "
            "Give them, for example model.rates=[6,12,18].",
            key="rates",
            value=None,
        )
    return usual[output_stride]
