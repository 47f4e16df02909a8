"""The waves, fillings and small network with which numbers of CorrMatch and AugSeg were recorded."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.models.segmodel import Backbone, Decoder, InputConvention, SegModel, Stage

PRIME = 1000003
PLAIN = InputConvention("RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""The recorded images are normalized."""


def grid(*shape: int) -> tuple[Tensor, ...]:
    return torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in shape), indexing="ij")


def logits(n: int, classes: int, h: int, w: int, phase: float, amplitude: float = 4) -> Tensor:
    b, k, y, x = grid(n, classes, h, w)
    wave = torch.sin(0.8 * (k + 1) * (1 + 0.03 * y) + 0.21 * x - 0.13 * y + 1.7 * b + phase)
    return amplitude * wave + 0.4 * torch.cos(0.5 * k * x + 0.9 * y)


def labels(n: int, h: int, w: int, classes: int, start: int) -> Tensor:
    b, y, x = grid(n, h, w)
    value = (3 * y + 2 * x + 7 * b + start + (x * y / 9).floor()) % (classes + 1)
    return torch.where(value == classes, 255, value).long()


def images(n: int, h: int, w: int, start: float) -> Tensor:
    b, c, y, x = grid(n, 3, h, w)
    return torch.sin(0.11 * y + 0.07 * x * (1 + 0.3 * c) + 0.5 * c + 1.7 * b + start)


def noise(count: int, salt: int) -> Tensor:
    k = np.arange(count, dtype=np.int64)
    value = ((k * k % PRIME) * 322171 + 888157 * k + 4099 * salt + 77) % PRIME
    return torch.from_numpy((2 * value - (PRIME - 1)) / (PRIME - 1))


def draws(call: int, limit: int, count: int) -> Tensor:
    """What replaces uniform integers below a limit."""
    return (31 * torch.arange(count) + 17 * call + 5) % limit


@torch.no_grad()
def fill(network: nn.Module) -> None:
    """Fill convolutions and batch norms by their shapes alone."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            o, i, h, w = module.weight.shape
            drawn = noise(o * i * h * w, o + 3 * i + 11 * h) * (6 / (i * h * w)) ** 0.5
            module.weight.copy_(drawn.view_as(module.weight))
            if module.bias is not None:
                module.bias.copy_(0.05 * noise(o, 5))
        elif isinstance(module, nn.BatchNorm2d):
            count = module.num_features
            module.weight.copy_(1 + 0.25 * noise(count, 1))
            module.bias.copy_(0.2 * noise(count, 2))
            _set(module.running_mean, 0.1 * noise(count, 3))
            _set(module.running_var, 3 + noise(count, 4))


def _set(buffer: Any, values: Tensor) -> None:
    buffer.copy_(values)


def digest(values: Tensor) -> str:
    return hashlib.sha1(values.to(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def l1(tensors: Iterator[nn.Parameter] | Sequence[Tensor]) -> float:
    return sum(float(each.detach().abs().sum()) for each in tensors)


def moments(values: Tensor) -> list[float]:
    """Mean, unbiased standard deviation and sum of absolute values."""
    values = values.detach()
    return [float(each) for each in (values.mean(), values.std(), values.abs().sum())]


class Strided(Backbone):
    stages = (Stage(8, 2),)
    convention = PLAIN

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.relu(self.bn(self.conv(x)))]


class Only(Decoder):
    out_channels = 8

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return maps[0]


def tiny(classes: int, gain: float = 1.0) -> SegModel:
    decoder = Only(Strided.stages)
    model = SegModel(Strided(), decoder, decoder.make_classifier(classes), classes).double()
    fill(model)
    with torch.no_grad():
        model.classifier.weight.mul_(gain)
    return model
