"""DeepLabV2: the sum of dilated convs on the last map of the backbone."""

from collections.abc import Sequence
from typing import Annotated, Literal

from torch import Tensor, nn

from semiseg.declare import Ge, checked
from semiseg.errors import UserError
from semiseg.models.deeplabv3plus import Rates, pyramid_rates
from semiseg.models.segmodel import Decoder, Stage

Init = Literal["default", "normal"]
USUAL_RATES = {8: (6, 12, 18, 24), 16: (3, 6, 9, 12), 32: (2, 3, 4, 6)}


class DeepLabV2(Decoder):
    """No decoder: the last map goes into a classifier that sums dilated 3x3 convs (arXiv 1606.00915, section 3.2).

    In the forms of DMT and DMTC, which have one network (MohammadDehghan/DMTC, ``models/segmentation/deeplab.py``,
    ``ASPP_V2``), and of ST++ (LiheYoung/ST-PlusPlus, ``model/semseg/deeplabv2.py``). The originals use
    ResNet-101 with output stride 8. The published DMT and DMTC return after the second of their four convs
    (``branches=2``); ST++ sums all four and draws their weights from N(0, 0.01^2) (``branches=4 init=normal``).
    Both then load weights trained on COCO.

    Args:
        stages: stages of the backbone; only the last one matters, and its stride chooses the default rates.
        branches: number of the convs that are summed, from the first; the others exist and stay frozen, so
            that a state dict fits either way.
        init: initial weights of the convs, "default" as PyTorch draws them or "normal"; biases are PyTorch's.
        rates: dilations, one for each conv; ``None`` takes 6, 12, 18, 24 at output stride 8 (the original), half of
            them at 16, about a quarter at 32.
        name: name of the option in the config; a message names the decoder by it.

    Raises:
        UserError: no default rates for this output stride, or a value out of range.
    """

    @checked
    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        branches: Annotated[int, Ge(1)] = 2,
        init: Init = "default",
        rates: Rates | None = None,
        name: str = "",
    ) -> None:
        super().__init__(stages, name)
        self.rates = pyramid_rates(rates, stages[-1].stride, USUAL_RATES)
        if branches > len(self.rates):
            raise UserError(
                f"there are {len(self.rates)} convs, one for each of rates={list(self.rates)}; give how many of "
                "them are summed, for example 2.",
                key="branches",
                value=branches,
            )
        self.branches = branches
        self.init = init
        self.out_channels = stages[-1].channels

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the last map."""
        return maps[-1]

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Return the sum of dilated convs."""
        return DilatedSum(self.out_channels, num_classes, self.rates, self.branches, self.init)


class DilatedSum(nn.Module):
    """Sum of parallel 3x3 convs with bias, each with its own dilation and padding.

    Args:
        in_channels: channels of the map.
        out_channels: channels of the result.
        rates: dilations, one for each conv.
        branches: number of convs that are summed, from the first; the others are frozen.
        init: initial weights of the convs, see ``DeepLabV2``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, rates: Sequence[int], branches: int, init: Init = "default"
    ) -> None:
        super().__init__()
        self.branches = branches
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels, out_channels, 3, padding=rate, dilation=rate) for rate in rates
        )
        if init == "normal":
            for conv in self.convs:
                assert isinstance(conv, nn.Conv2d)
                nn.init.normal_(conv.weight, std=0.01)
        self.convs[branches:].requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, in_channels, h, w)`` to ``(N, out_channels, h, w)``."""
        # Published code: the loop of ASPP_V2.forward, which returns inside of it (branches=2).
        result: Tensor = self.convs[0](features)
        for conv in self.convs[1 : self.branches]:
            result = result + conv(features)
        return result
