"""DeepLabV3+ in the form of ST++, UniMatch, CorrMatch, AugSeg and CutMix-Seg, and the parts that all forms share."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from semiseg.declare import Ge, Len, Lt, Mark, checked
from semiseg.errors import UserError
from semiseg.models.map_size import in_layout_of, resized
from semiseg.models.segmodel import Decoder, Stage

RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}

Place = Literal["last", "first"]
Rates = Annotated[Sequence[int], Len(1), Ge(1), Mark(expected="dilations of at least 1, such as [6,12,18],")]
Channels = Annotated[int, Ge(1)]
Dropout = Annotated[float, Ge(0), Lt(1)]


class DeepLabV3Plus(Decoder):
    """Atrous spatial pyramid on the last map, refined by c1 (Chen et al., arXiv 1802.02611, section 3.1).

    In the form of ST++: LiheYoung/ST-PlusPlus, ``model/semseg/deeplabv3plus.py``. Other codes differ from it in a few
    settings each, which files of ``conf/model`` hold: LiheYoung/UniMatch and BBBBchan/CorrMatch (no dropout),
    ZhenZHAO/AugSeg (``augseg/models/decoder.py``) and Britefury/cutmix-semisup-seg
    (``architectures/deeplab3plus.py``).

    Returns ``(N, channels, h, w)`` at the size of c1, the map of stride 4. The pyramid: a 1x1 conv, one dilated
    3x3 conv for each rate, and the global mean, each with batch norm and ReLU; concatenated, projected, dropout.
    It is resized and concatenated behind a reduced c1; then two 3x3 convs and dropout.

    Args:
        stages: stages of the backbone; the stride of the last one chooses the default rates.
        rates: dilations of the pyramid; ``None`` takes 12, 24, 36 at output stride 8 (the original), half of them
            at 16, a quarter at 32.
        channels: channels of each branch and of the result.
        low_channels: channels that c1 is reduced to.
        low_bias: whether the conv that reduces c1 has a bias, as in AugSeg.
        pool_place: place of the global mean in the concatenation of the branches, "last", or "first" as in AugSeg.
        aspp_dropout: probability of dropping a channel or an element of the pyramid.
        aspp_drops: what that drops, "channels" as a whole, or "elements" (CutMix-Seg, whose pyramid is torchvision's).
        dropout: probability of dropping an element of the result.
        align_corners: way of all bilinear resizes, that of the logits too; ``False`` in CutMix-Seg.
        init: initial weights of the convs, that of the classifier too: "default" as PyTorch draws them, or "kaiming",
            normal (fan-in, ReLU gain), as in CutMix-Seg; biases are PyTorch's.
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
        low_bias: bool = False,
        pool_place: Place = "last",
        aspp_dropout: Dropout = 0.5,
        aspp_drops: Literal["channels", "elements"] = "channels",
        dropout: Dropout = 0.1,
        align_corners: bool = True,
        init: Literal["default", "kaiming"] = "default",
        name: str = "",
    ) -> None:
        super().__init__(stages, name)
        low, high = stages[self.needed[0]].channels, stages[-1].channels
        self.out_channels = channels
        self.pool_place: Place = pool_place
        self.align_logits = align_corners
        self.init = init
        self.branches = atrous_branches(high, channels, pyramid_rates(rates, stages[-1].stride))
        self.pool = pooled_branch(high, channels)
        drop = nn.Dropout2d(aspp_dropout) if aspp_drops == "channels" else nn.Dropout(aspp_dropout)
        self.project = nn.Sequential(conv_bn_relu((len(self.branches) + 1) * channels, channels), drop)
        self.reduce = conv_bn_relu(low, low_channels, bias=low_bias)
        self.fuse = nn.Sequential(
            conv_bn_relu(low_channels + channels, channels, 3),
            conv_bn_relu(channels, channels, 3),
            nn.Dropout(dropout),
        )
        if init == "kaiming":
            draw_kaiming(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the feature map ``(N, channels, h, w)`` at the size of the map of stride 4."""
        low, high = maps[self.needed[0]], maps[-1]
        # Published code: DeepLabV3Plus.base_forward in model/semseg/deeplabv3plus.py.
        context = self.project(pyramid_maps(self.branches, self.pool, high, self.pool_place))
        context = resized(context, low.shape[-2:], self.align_logits)
        result: Tensor = self.fuse(torch.cat([self.reduce(low), context], 1))
        return result

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Return the 1x1 conv that follows."""
        classifier = nn.Conv2d(self.out_channels, num_classes, 1)
        if self.init == "kaiming":
            draw_kaiming(classifier)
        return classifier


def conv_bn_relu(
    inputs: int, outputs: int, kernel: int = 1, dilation: int = 1, *, bias: bool = False
) -> nn.Sequential:
    """Return conv, batch norm and ReLU that keep the map's size."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def draw_kaiming(module: nn.Module) -> None:
    """Draw Kaiming-normal conv weights (fan-in, ReLU gain), in the order of the modules."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")


def atrous_branches(inputs: int, channels: int, rates: Sequence[int]) -> nn.ModuleList:
    """Return the pyramid's convs with batch norm and ReLU: 1x1, and a dilated 3x3 for each rate."""
    # Built in this order, on which the weights that a seed draws depend.
    return nn.ModuleList(
        [conv_bn_relu(inputs, channels), *(conv_bn_relu(inputs, channels, 3, rate) for rate in rates)]
    )


def pooled_branch(inputs: int, channels: int) -> nn.Sequential:
    """Return the pyramid's branch of the global mean, ``(N, channels, 1, 1)``."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn_relu(inputs, channels))


def pyramid_maps(
    branches: Iterable[nn.Module], pool: nn.Module, high: Tensor, pool_place: Place = "last"
) -> Tensor:
    """Return the maps of all branches, concatenated over channels; that of the global mean is the same everywhere."""
    pooled = in_layout_of(high, pool(high).expand(-1, -1, *high.shape[-2:]))
    maps = [branch(high) for branch in branches]
    return torch.cat([*maps, pooled] if pool_place == "last" else [pooled, *maps], 1)


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
