"""PSPNet: the pyramid pooling network, in the forms of ST++ and CAC."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.errors import UserError
from semiseg.models.deeplabv3plus import check_channels, check_probabilities, conv_bn_relu


class PSPNet(nn.Module):
    """Means of c4 over grids of regions, joined behind c4 (PSPNet, arXiv 1612.01105; ST++ section 4.3).

    Maps c1..c4 to ``(N, channels, h, w)`` at c4's size. The means of each grid go through a 1x1 conv, batch
    norm and ReLU, and are resized to c4; then a 3x3 conv and dropout. No auxiliary loss. The original of
    ST++ stands on a plain stem with output stride 8; that of CAC on a deep stem, and it has
    ``align_corners=False``.

    Args:
        in_channels: channels of c1..c4; only those of c4 matter.
        output_stride: not used; c4 may have any.
        pools: sides of the grids.
        pool_channels: of each grid's branch.
        channels: of the result.
        dropout: probability of dropping an element of the result.
        align_corners: of the resize from grids to c4; True in ST++, False in CAC.
        name: name of the option in the config; not used by the network.

    Raises:
        UserError: a value out of range.
    """

    smallest_batch: ClassVar[int] = 2
    """Images of a training batch that batch norm over the global mean needs."""

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        output_stride: int,
        pools: Sequence[int] = (1, 2, 3, 6),
        pool_channels: int = 512,
        channels: int = 512,
        dropout: float = 0.1,
        align_corners: bool = True,
        name: str = "",
    ) -> None:
        super().__init__()
        check_channels(pool_channels=pool_channels, channels=channels)
        check_probabilities(dropout=dropout)
        if not pools or min(pools) < 1:
            raise UserError(f"model.pools={list(pools)}: give sides of at least 1, for example [1, 2, 3, 6].")
        high = in_channels[-1]
        self.name = name
        self.out_channels = channels
        self.align_corners = align_corners
        self.pools = tuple(pools)
        self.branches = nn.ModuleList(conv_bn_relu(high, pool_channels) for _ in self.pools)
        self.fuse = nn.Sequential(
            conv_bn_relu(high + len(self.pools) * pool_channels, channels, 3), nn.Dropout(dropout)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the feature map ``(N, channels, h, w)`` at c4's size."""
        high = features[-1]
        maps = [high]
        for branch, means in zip(self.branches, region_means(high, self.pools), strict=True):
            maps.append(
                F.interpolate(
                    branch(means), high.shape[-2:], mode="bilinear", align_corners=self.align_corners
                )
            )
        result: Tensor = self.fuse(torch.cat(maps, 1))
        return result

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Return the 1x1 conv that follows, with PyTorch's default initialization."""
        return nn.Conv2d(self.out_channels, num_classes, 1)


def region_means(x: Tensor, pools: Sequence[int]) -> list[Tensor]:
    """Return the means of ``x`` over grids of regions, those of adaptive average pooling.

    One product of ``x`` with a 0-1 matrix gives all of them. Unlike that of adaptive pooling its gradient is
    deterministic on CUDA, and ``torch.export`` keeps the regions right for maps of another size; other
    exporters freeze them at the size of the example, as they do with adaptive pooling, and the exported
    network is then wrong at any other.

    Args:
        x: ``(N, C, h, w)``.
        pools: sides of the grids.

    Returns:
        For each side k ``(N, C, k, k)``.
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
