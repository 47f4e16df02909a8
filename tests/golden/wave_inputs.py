"""Inputs and weights with which numbers of Mean Teacher, CutMix-Seg, U2PL, CorrMatch and AugSeg were recorded."""

import hashlib
import math

import torch
from torch import Tensor, nn

PRIME = 1_000_003


def grid(*shape: int) -> tuple[Tensor, ...]:
    axes = (torch.arange(n, dtype=torch.float64) for n in shape)
    return tuple(torch.meshgrid(*axes, indexing="ij"))


def logits(n: int, classes: int, h: int, w: int, phase: float, amplitude: float = 4) -> Tensor:
    i, k, y, x = grid(n, classes, h, w)
    wave = torch.sin(0.8 * (k + 1) * (1 + 0.03 * y) + 0.21 * x - 0.13 * y + 1.7 * i + phase)
    return amplitude * wave + 0.4 * torch.cos(0.5 * k * x + 0.9 * y)


def labels(n: int, h: int, w: int, classes: int, shift: int) -> Tensor:
    i, y, x = (axis.long() for axis in grid(n, h, w))
    value = (3 * y + 2 * x + 7 * i + shift + x * y // 9) % (classes + 1)
    return value.masked_fill(value == classes, 255)


def images(n: int, h: int, w: int, shift: float) -> Tensor:
    i, c, y, x = grid(n, 3, h, w)
    return torch.sin(0.11 * y + 0.07 * x * (1 + 0.3 * c) + 0.5 * c + 1.7 * i + shift)


def draws(call: int, below: int, count: int) -> Tensor:
    """What replaces uniform draws of integers."""
    return (31 * torch.arange(count) + 17 * call + 5) % below


def noise(count: int, salt: int) -> Tensor:
    k = torch.arange(count)
    value = ((k * k % PRIME) * 322_171 + 888_157 * k + 4_099 * salt + 77) % PRIME
    return (2 * value - (PRIME - 1)).double() / (PRIME - 1)


def fill(network: nn.Module) -> None:
    """Fill convolutions and batch norms by their shapes alone, and switch dropout off."""
    with torch.no_grad():
        for module in network.double().modules():
            if isinstance(module, nn.Conv2d):
                o, i, h, w = module.weight.shape
                values = noise(module.weight.numel(), o + 3 * i + 11 * h) * math.sqrt(6 / (i * h * w))
                module.weight.copy_(values.view_as(module.weight))
                if module.bias is not None:
                    module.bias.copy_(0.05 * noise(o, 5))
            elif isinstance(module, nn.BatchNorm2d):
                count = module.num_features
                module.weight.copy_(1 + 0.25 * noise(count, 1))
                module.bias.copy_(0.2 * noise(count, 2))
                module.running_mean.copy_(0.1 * noise(count, 3))
                module.running_var.copy_(3 + noise(count, 4))
            elif isinstance(module, nn.Dropout | nn.Dropout2d):
                module.p = 0.0


def statistics(values: Tensor) -> tuple[float, float, float]:
    """Mean, standard deviation, sum of absolute values."""
    return values.mean().item(), values.std().item(), values.abs().sum().item()


def digest(values: Tensor) -> str:
    return hashlib.sha1(values.to(torch.uint8).contiguous().numpy().tobytes()).hexdigest()[:16]
