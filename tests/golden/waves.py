"""The inputs and the tiny network with which numbers of Mean Teacher, CutMix-Seg and later methods were recorded."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.models.segmodel import Backbone, Decoder, InputConvention, SegModel, Stage

PRIME = 1000003


def grid(*sizes: int) -> list[Tensor]:
    return list(torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in sizes), indexing="ij"))


def logits(b: int, classes: int, h: int, w: int, phase: float, amplitude: float = 4.0) -> Tensor:
    n, k, y, x = grid(b, classes, h, w)
    wave = torch.sin(0.8 * (k + 1) * (1 + 0.03 * y) + 0.21 * x - 0.13 * y + 1.7 * n + phase)
    return amplitude * wave + 0.4 * torch.cos(0.5 * k * x + 0.9 * y)


def labels(b: int, h: int, w: int, classes: int, shift: int) -> Tensor:
    n, y, x = (each.long() for each in grid(b, h, w))
    value = (3 * y + 2 * x + 7 * n + shift + x * y // 9) % (classes + 1)
    return value.masked_fill(value == classes, 255)


def images(b: int, h: int, w: int, shift: float) -> Tensor:
    n, c, y, x = grid(b, 3, h, w)
    return torch.sin(0.11 * y + 0.07 * x * (1 + 0.3 * c) + 0.5 * c + 1.7 * n + shift)


def noise(count: int, salt: int) -> Tensor:
    k = torch.arange(count, dtype=torch.int64)
    value = ((k * k % PRIME) * 322171 + 888157 * k + 4099 * salt + 77) % PRIME
    return (2 * value - (PRIME - 1)).double() / (PRIME - 1)


def fill(model: nn.Module) -> None:
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                out, inputs, h, w = module.weight.shape
                scale = math.sqrt(6 / (inputs * h * w))
                values = noise(module.weight.numel(), out + 3 * inputs + 11 * h) * scale
                module.weight.copy_(values.reshape(module.weight.shape))
                if module.bias is not None:
                    module.bias.copy_(0.05 * noise(out, 5))
            elif isinstance(module, nn.BatchNorm2d):
                count = module.num_features
                module.weight.copy_(1 + 0.25 * noise(count, 1))
                module.bias.copy_(0.2 * noise(count, 2))
                module.running_mean.copy_(0.1 * noise(count, 3))
                module.running_var.copy_(3 + noise(count, 4))


class FrozenNorm(nn.BatchNorm2d):
    """A batch norm that keeps its running statistics, and uses them."""

    def train(self, mode: bool = True) -> "FrozenNorm":
        return super().train(False)


class OneMap(Backbone):
    stages = (Stage(8, 2),)
    # The recorded images are normalized.
    convention = InputConvention("RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm = FrozenNorm(8).requires_grad_(False) if frozen else nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.relu(self.norm(self.conv(x)))]


class Passed(Decoder):
    out_channels = 8

    def forward(self, maps: list[Tensor]) -> Tensor:  # type: ignore[override]
        return maps[0]


def tiny(classes: int, gain: float, frozen: bool = False) -> SegModel:
    """Network in double precision whose classifier is multiplied by ``gain``."""
    model = SegModel(OneMap(frozen), Passed(OneMap.stages), nn.Conv2d(8, classes, 1), classes).double()
    fill(model)
    with torch.no_grad():
        model.classifier.weight.mul_(gain)
    model.train()
    return model


def absolute_sum(model: nn.Module) -> float:
    return sum(float(each.detach().abs().sum()) for each in model.parameters())


def square_sum(model: nn.Module) -> float:
    return sum(float(each.detach().square().sum()) for each in model.parameters())
