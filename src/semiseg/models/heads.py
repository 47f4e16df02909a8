"""Auxiliary heads: maps that a method needs beside logits, made of the decoder's features or of a backbone's map."""

from typing import Any, Protocol

from torch import Tensor, nn


class Head(Protocol):
    """What ``SegModel.attach`` takes; an ``nn.Module``."""

    in_channels: int

    def config(self) -> dict[str, Any]:
        """Return the arguments that build it again, and its class as ``_target_``; plain values."""
        ...

    def __call__(self, features: Tensor) -> Tensor:
        """Map ``(N, in_channels, h, w)`` to ``(N, out_channels, h, w)``."""
        ...


class Projector(nn.Module):
    """Two 1x1 convs with a ReLU between and no batch norm (CAC, arXiv 2106.14133; its ``models/model.py``).

    Its result is not normalized; CAC compares it after L2 normalization over channels. Weights and biases
    start as PyTorch's default.

    Args:
        in_channels: channels of the map that it reads.
        hidden: channels between.
        out_channels: channels of the result.

    Raises:
        ValueError: a number of channels below 1.
    """

    def __init__(self, in_channels: int = 256, hidden: int = 256, out_channels: int = 128) -> None:
        super().__init__()
        _check(in_channels, hidden, out_channels)
        self.in_channels, self.hidden, self.out_channels = in_channels, hidden, out_channels
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, out_channels, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, in_channels, h, w)`` to ``(N, out_channels, h, w)``."""
        result: Tensor = self.layers(features)
        return result

    def config(self) -> dict[str, Any]:
        """Return the arguments that build it again, and its class as ``_target_``."""
        return _config(self, self.in_channels, self.hidden, self.out_channels)


class RepresentationHead(nn.Module):
    """A 3x3 conv without bias, batch norm, ReLU and a 1x1 conv; the original has 150 channels.

    MohammadDehghan/DMTC, ``representation`` in ``models/segmentation/deeplab.py``.

    Its result is not normalized. Weights and biases start as PyTorch's default.

    Args:
        in_channels: channels of the map that it reads, 2048 with DeepLabV2 on ResNet-101.
        hidden: channels between.
        out_channels: channels of the result.

    Raises:
        ValueError: a number of channels below 1.
    """

    def __init__(self, in_channels: int, hidden: int = 256, out_channels: int = 150) -> None:
        super().__init__()
        _check(in_channels, hidden, out_channels)
        self.in_channels, self.hidden, self.out_channels = in_channels, hidden, out_channels
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, out_channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, in_channels, h, w)`` to ``(N, out_channels, h, w)``."""
        result: Tensor = self.layers(features)
        return result

    def config(self) -> dict[str, Any]:
        """Return the arguments that build it again, and its class as ``_target_``."""
        return _config(self, self.in_channels, self.hidden, self.out_channels)


def _config(head: nn.Module, in_channels: int, hidden: int, out_channels: int) -> dict[str, Any]:
    kind = type(head)
    return {
        "_target_": f"{kind.__module__}.{kind.__qualname__}",
        "in_channels": in_channels,
        "hidden": hidden,
        "out_channels": out_channels,
    }


def _check(*channels: int) -> None:
    if min(channels) < 1:
        raise ValueError(f"channels {channels}: give numbers of at least 1")
