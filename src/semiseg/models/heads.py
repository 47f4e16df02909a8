"""Auxiliary heads: maps that a method needs in addition to logits, made of features or of a backbone's map."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Head(Protocol):
    """A head as ``SegModel.attach`` takes it; an ``nn.Module``."""

    in_channels: int

    def config(self) -> dict[str, Any]:
        """Return the arguments that build it again, and its class as ``_target_``; plain values."""
        ...

    def __call__(self, features: Tensor) -> Tensor:
        """Map ``(N, in_channels, h, w)`` to ``(N, out_channels, h, w)``."""
        ...


class ConvHead(nn.Module):
    """Convs in ``layers``, with the arguments that build them again.

    Args:
        in_channels: channels of the map that it reads.
        hidden: channels between the convs.
        out_channels: channels of the result.
        layers: layers that have these channels.
    """

    def __init__(self, in_channels: int, hidden: int, out_channels: int, *layers: nn.Module) -> None:
        super().__init__()
        self.in_channels, self.hidden, self.out_channels = in_channels, hidden, out_channels
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, in_channels, h, w)`` to ``(N, out_channels, h, w)``."""
        result: Tensor = self.layers(features)
        return result

    def config(self) -> dict[str, Any]:
        """Return the arguments that build it again, and its class as ``_target_``."""
        kind = type(self)
        return {
            "_target_": f"{kind.__module__}.{kind.__qualname__}",
            "in_channels": self.in_channels,
            "hidden": self.hidden,
            "out_channels": self.out_channels,
        }


class Projector(ConvHead):
    """Two 1x1 convs with a ReLU between and no batch norm (CAC, arXiv 2106.14133; its ``models/model.py``).

    Its result is not normalized; CAC compares it after L2 normalization over channels. Weights and biases
    start as PyTorch's default.

    Args:
        in_channels: channels of the map that it reads.
        hidden: channels between the convs.
        out_channels: channels of the result.

    Raises:
        ValueError: a number of channels below 1.
    """

    def __init__(self, in_channels: int = 256, hidden: int = 256, out_channels: int = 128) -> None:
        _check(in_channels, hidden, out_channels)
        first, last = nn.Conv2d(in_channels, hidden, 1), nn.Conv2d(hidden, out_channels, 1)
        super().__init__(in_channels, hidden, out_channels, first, nn.ReLU(inplace=True), last)


class RepresentationHead(ConvHead):
    """A 3x3 conv without bias, batch norm, ReLU and a 1x1 conv; the original has 150 channels.

    MohammadDehghan/DMTC, ``representation`` in ``models/segmentation/deeplab.py``.

    Its result is not normalized. Weights and biases start as PyTorch's default.

    Args:
        in_channels: channels of the map that it reads, 2048 with DeepLabV2 on ResNet-101.
        hidden: channels between the convs.
        out_channels: channels of the result.

    Raises:
        ValueError: a number of channels below 1.
    """

    def __init__(self, in_channels: int, hidden: int = 256, out_channels: int = 150) -> None:
        _check(in_channels, hidden, out_channels)
        layers = (
            nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, out_channels, 1),
        )
        super().__init__(in_channels, hidden, out_channels, *layers)


class ConvStack(ConvHead):
    """3x3 convs with bias, batch norm, ReLU and channel dropout, and a 1x1 conv.

    With two 3x3 convs the classifier and the representation head of U2PL (Haochen-Wang409/U2PL,
    ``u2pl/models/decoder.py``), with one its auxiliary head (``u2pl/models/base.py``). Its result is not normalized.
    Weights and biases start as PyTorch's default.

    Args:
        in_channels: channels of the map that it reads.
        hidden: channels between the convs.
        out_channels: channels of the result.
        convs: number of 3x3 convs.
        dropout: probability of dropping a whole channel after each of them.

    Raises:
        ValueError: a number of channels or convs below 1.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int = 256,
        out_channels: int = 256,
        convs: int = 2,
        dropout: float = 0.1,
    ) -> None:
        _check(in_channels, hidden, out_channels)
        if convs < 1:
            raise ValueError(f"convs {convs}: give a number of at least 1")
        layers: list[nn.Module] = []
        for number in range(convs):
            layers += [
                nn.Conv2d(hidden if number else in_channels, hidden, 3, padding=1),
                nn.BatchNorm2d(hidden),
                nn.ReLU(inplace=True),
                nn.Dropout2d(dropout),
            ]
        super().__init__(in_channels, hidden, out_channels, *layers, nn.Conv2d(hidden, out_channels, 1))
        self.convs, self.dropout = convs, dropout

    def config(self) -> dict[str, Any]:
        """Return the arguments that build it again, and its class as ``_target_``."""
        return {**super().config(), "convs": self.convs, "dropout": self.dropout}


class CorrelationHead(nn.Module):
    """The two features of each position whose products correlate positions (CorrMatch, arXiv 2306.04300).

    A 3x3 conv with bias, batch norm, ReLU and channel dropout; then two 1x1 convs with bias, whose results are
    concatenated. Weights and biases start as PyTorch's default.

    Args:
        in_channels: channels of the map that it reads.
        features: channels of each of the two results; the published code has one for each class.
        hidden: channels between the convs.
        dropout: probability of the channel dropout.

    Raises:
        ValueError: a number of channels below 1.
    """

    def __init__(self, in_channels: int, features: int, hidden: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        _check(in_channels, features, hidden)
        self.in_channels, self.features, self.hidden, self.dropout = in_channels, features, hidden, dropout
        self.proj = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 3, padding=1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
        )
        self.conv1, self.conv2 = nn.Conv2d(hidden, features, 1), nn.Conv2d(hidden, features, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, in_channels, h, w)`` to ``(N, 2 * features, h, w)``."""
        hidden = self.proj(features)
        return torch.cat([self.conv1(hidden), self.conv2(hidden)], 1)

    def config(self) -> dict[str, Any]:
        """Return the arguments that build it again, and its class as ``_target_``."""
        return {
            "_target_": f"{__name__}.{type(self).__name__}",
            "in_channels": self.in_channels,
            "features": self.features,
            "hidden": self.hidden,
            "dropout": self.dropout,
        }


def _check(*channels: int) -> None:
    if min(channels) < 1:
        raise ValueError(f"channels {channels}: give numbers of at least 1")
