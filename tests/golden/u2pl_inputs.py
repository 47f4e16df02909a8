"""The inputs and the draws with which numbers of U2PL were recorded."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semiseg.losses.bank_contrast import Draw

PRIME = 1000003


def grid(*shape: int) -> list[Tensor]:
    return list(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij"))


def logits(n: int, k: int, h: int, w: int, phase: float, amplitude: float = 4.0) -> Tensor:
    n_, k_, y, x = grid(n, k, h, w)
    wave = torch.sin(0.8 * (k_ + 1) * (1 + 0.03 * y) + 0.21 * x - 0.13 * y + 1.7 * n_ + phase)
    return amplitude * wave + 0.4 * torch.cos(0.5 * k_ * x + 0.9 * y)


def labels(n: int, h: int, w: int, k: int, s: int) -> Tensor:
    n_, y, x = (values.long() for values in grid(n, h, w))
    value = (3 * y + 2 * x + 7 * n_ + s + x * y // 9) % (k + 1)
    return torch.where(value == k, 255, value)


def images(n: int, h: int, w: int, s: int) -> Tensor:
    n_, c, y, x = grid(n, 3, h, w)
    return torch.sin(0.11 * y + 0.07 * x * (1 + 0.3 * c) + 0.5 * c + 1.7 * n_ + s)


def noise(count: int, salt: int) -> NDArray[np.float64]:
    k = np.arange(count, dtype=np.int64)
    value = ((k * k) % PRIME * 322171 + 888157 * k + 4099 * salt + 77) % PRIME
    return (2 * value - (PRIME - 1)) / float(PRIME - 1)


def fill(network: nn.Module) -> None:
    """Fill convolutions and batch norms by their shapes alone."""

    def put(target: Tensor, values: NDArray[np.float64]) -> None:
        target.data.copy_(torch.from_numpy(values).view_as(target))

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            o, i, h, w = module.weight.shape
            put(module.weight, noise(o * i * h * w, o + 3 * i + 11 * h) * np.sqrt(6 / (i * h * w)))
            if module.bias is not None:
                put(module.bias, 0.05 * noise(o, 5))
        elif isinstance(module, nn.BatchNorm2d):
            count = module.num_features
            put(module.weight, 1 + 0.25 * noise(count, 1))
            put(module.bias, 0.2 * noise(count, 2))
            assert module.running_mean is not None
            assert module.running_var is not None
            put(module.running_mean, 0.1 * noise(count, 3))
            put(module.running_var, 3 + noise(count, 4))


def replayed() -> Draw:
    """Recorded draws of one call of the loss: ascending classes, each with its anchors and then its negatives."""
    call = iter((0, 1))

    def draw(bounds: Tensor, number: int) -> Tensor:
        offset = next(call)
        calls = 2 * ((bounds > 0).cumsum(0) - 1) + offset
        drawn = 31 * torch.arange(number) + 17 * calls[:, None] + 5
        return drawn % bounds.clamp_min(1)[:, None]

    return draw


def sha(values: Tensor) -> str:
    return hashlib.sha1(values.to(torch.uint8).contiguous().numpy().tobytes()).hexdigest()[:16]
