"""PSPNet: the pyramid pooling network, in the forms of ST++ and CAC."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from semiseg.declare import Ge, Len, Mark, checked
from semiseg.models.deeplabv3plus import Channels, Dropout, conv_bn_relu
from semiseg.models.map_size import in_layout_of, resized
from semiseg.models.pixel_shuffle import PixelShuffleClassifier
from semiseg.models.segmodel import Decoder, Stage

Classifier = Literal["conv", "pixel_shuffle"]


class PSPNet(Decoder):
    """Means of the last map over grids of regions, concatenated behind it (Zhao et al., arXiv 1612.01105, section 3.2).

    In the forms of ST++ (LiheYoung/ST-PlusPlus, ``model/semseg/pspnet.py``) and of CAC
    (dvlab-research/Context-Aware-Consistency, ``models/encoder.py``). Returns ``(N, channels, h, w)`` at the size
    of the last map, c4. The means of each grid go through a 1x1 conv, batch norm and ReLU, and are resized to
    c4; then a 3x3 conv and dropout. No auxiliary loss. The original of ST++ has a plain stem and output stride 8;
    that of CAC has a deep stem and ``align_corners=False``; that of CCT too, without dropout.

    Args:
        stages: stages of the backbone; only the last one matters, of any stride.
        pools: sides of the grids.
        pool_channels: channels of each grid's branch.
        channels: channels of the result.
        dropout: probability of dropping an element of the result.
        align_corners: way of the resize from grids to c4; ``True`` in ST++, ``False`` in CAC and CCT.
        classifier: what makes logits of the result: a 1x1 "conv", or "pixel_shuffle", with logits 8 times as large as
            c4 and never negative (CCT).
        name: name of the option in the config; a message names the decoder by it.

    Raises:
        UserError: a value is out of range.
    """

    smallest_batch: ClassVar[int] = 2
    """Images of a training batch that batch norm over the global mean needs."""

    @checked
    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        pools: Annotated[
            Sequence[int], Len(1), Ge(1), Mark(expected="sides of at least 1, such as [1,2,3,6]")
        ] = (1, 2, 3, 6),
        pool_channels: Channels = 512,
        channels: Channels = 512,
        dropout: Dropout = 0.1,
        align_corners: bool = True,
        classifier: Classifier = "conv",
        name: str = "",
    ) -> None:
        super().__init__(stages, name)
        high = stages[-1].channels
        self.classifier = classifier
        self.out_channels = channels
        self.align_corners = align_corners
        self.pools = tuple(pools)
        self.branches = nn.ModuleList(conv_bn_relu(high, pool_channels) for _ in self.pools)
        self.fuse = nn.Sequential(
            conv_bn_relu(high + len(self.pools) * pool_channels, channels, 3), nn.Dropout(dropout)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the feature map ``(N, channels, h, w)`` at the size of the last map."""
        # Published code: PyramidPooling in model/semseg/pspnet.py, _PSPModule.forward in models/encoder.py.
        high = maps[-1]
        joined = [high]
        for branch, means in zip(self.branches, region_means(high, self.pools), strict=True):
            grid = branch(in_layout_of(high, means))
            joined.append(in_layout_of(high, resized(grid, high.shape[-2:], self.align_corners)))
        result: Tensor = self.fuse(torch.cat(joined, 1))
        return result

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Return the module that maps this feature map to logits."""
        if self.classifier == "pixel_shuffle":
            return PixelShuffleClassifier(self.out_channels, num_classes)
        return super().make_classifier(num_classes)


def region_means(x: Tensor, pools: Sequence[int]) -> list[Tensor]:
    """Return the means of ``x`` over grids of regions, equal to adaptive average pooling.

    One product of ``x`` with a 0-1 matrix gives all of them. Unlike adaptive pooling, its gradient is
    deterministic on CUDA, and ``torch.export`` keeps the regions right for maps of another size; other
    exporters freeze them at the size of the example, as they do with adaptive pooling, and the exported
    network is then wrong at any other.

    Args:
        x: map ``(N, C, h, w)``.
        pools: sides of the grids.

    Returns:
        Means ``(N, C, k, k)`` for each side k.
    """
    height, width = x.shape[-2:]
    members = torch.cat(
        [
            (_members(k, height, x)[:, None, :, None] & _members(k, width, x)[None, :, None, :]).reshape(
                k * k, height * width
            )
            for k in pools
        ]
    )
    sums = x.flatten(2) @ members.to(x.dtype).T
    counts = members.sum(1).to(torch.promote_types(x.dtype, torch.float32))  # 8 bits can't hold a count
    means = (sums / counts).to(x.dtype)
    grids = torch.split(means, [k * k for k in pools], 2)
    return [grid.reshape(*grid.shape[:2], k, k) for grid, k in zip(grids, pools, strict=True)]


def _members(count: int, length: int, x: Tensor) -> Tensor:
    """Return ``(count, length)`` bool: part i reaches from floor(i L / count) to ceil((i + 1) L / count)."""
    part = torch.arange(count, device=x.device)[:, None]
    position = torch.arange(length, device=x.device)
    start = torch.div(part * length, count, rounding_mode="floor")
    end = torch.div((part + 1) * length + count - 1, count, rounding_mode="floor")
    return (position >= start) & (position < end)
