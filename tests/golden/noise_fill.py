"""Inputs and weights with which the numbers of UniMatch were recorded: noise by whole numbers, in double precision."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from semiseg.models.segmodel import SegModel

PRIME = 999983


def noise(count: int, salt: int) -> Tensor:
    k = np.arange(count, dtype=np.int64)
    v = (31337 * (k * k % PRIME) + k % PRIME * ((17 + 104729 * salt) % PRIME) + 101 * salt + 7) % PRIME
    return torch.from_numpy((2 * v - (PRIME - 1)) / (PRIME - 1))


def images(count: int, height: int, width: int, phase: int) -> Tensor:
    n, c, y, x = np.ogrid[:count, :3, :height, :width]
    t = 2 * y + 3 * x + 4 * c + 5 * n + phase
    wave = torch.from_numpy(2 * np.abs(t % 26 - 13) / 13 - 1)
    return wave + 0.25 * noise(wave.numel(), 2000 + phase).reshape(wave.shape)


def labels(count: int, height: int, width: int, classes: int, phase: int) -> Tensor:
    n, y, x = np.ogrid[:count, :height, :width]
    value = (3 * y + 2 * x + 4 * n + y * x // 9 + phase) % (classes + 1)
    return torch.from_numpy(np.where(value == classes, 255, value))


def complementary_masks(count: int, channels: int, step: int) -> Tensor:
    """The masks of both strong views, ``(2 count, channels)``; the images that stay whole have 1."""
    first = 2.0 * (noise(count * channels, 900 + 10 * step) > 0).reshape(count, channels).double()
    second = 2 - first
    for image in {(step + 3 * j) % count for j in range(count // 2)}:
        first[image] = second[image] = 1
    return torch.cat([first, second])


@torch.no_grad()
def fill(model: SegModel) -> SegModel:
    """Fill convs, linear layers, norms, layer scales, tokens and positions by their shapes alone."""
    model.double()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            _fill_weight(module)
        elif isinstance(module, nn.BatchNorm2d):
            count = module.num_features
            module.running_mean.copy_(0.1 * noise(count, 3))
            module.running_var.copy_(2 + noise(count, 4))
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.weight.copy_(1 + 0.2 * noise(module.weight.numel(), 1))
            module.bias.copy_(0.1 * noise(module.bias.numel(), 2))
    salts = {"pos_embed": (0.5, 7), "cls_token": (0.5, 8), "reg_token": (0.5, 9)}
    for name, parameter in model.named_parameters():
        last = name.rsplit(".", 1)[-1]
        if last == "gamma":
            parameter.copy_(0.4 + 0.2 * noise(parameter.numel(), 6))
        elif last in salts:
            size, salt = salts[last]
            parameter.copy_(size * noise(parameter.numel(), salt).reshape(parameter.shape))
    return model


def _fill_weight(module: nn.Conv2d | nn.Linear | nn.ConvTranspose2d) -> None:
    shape = module.weight.shape
    fan = shape[0] if isinstance(module, nn.ConvTranspose2d) else module.weight.numel() // shape[0]
    salt = 3 * shape[0] + 5 * shape[1] + 7 * (shape[2] if len(shape) == 4 else 1)
    values = noise(module.weight.numel(), salt) * math.sqrt(6 / fan)
    module.weight.copy_(values.reshape(shape))
    if module.bias is not None:
        module.bias.copy_(0.05 * noise(module.bias.numel(), 5))
