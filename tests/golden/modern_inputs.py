"""The inputs with which numbers of Mean Teacher, CutMix-Seg, U2PL, CorrMatch, AugSeg and PrevMatch were recorded."""

import torch
from torch import Tensor


def _grid(*shape: int) -> list[Tensor]:
    return list(torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in shape), indexing="ij"))


def waves(n: int, classes: int, h: int, w: int, phase: float, amplitude: float = 4) -> Tensor:
    """Logits ``(n, classes, h, w)``."""
    i, k, y, x = _grid(n, classes, h, w)
    first = torch.sin(0.8 * (k + 1) * (1 + 0.03 * y) + 0.21 * x - 0.13 * y + 1.7 * i + phase)
    return amplitude * first + 0.4 * torch.cos(0.5 * k * x + 0.9 * y)


def targets(n: int, h: int, w: int, classes: int, shift: int) -> Tensor:
    """Labels ``(n, h, w) int64`` with pixels of 255."""
    i, y, x = (each.long() for each in _grid(n, h, w))
    value = (3 * y + 2 * x + 7 * i + shift + x * y // 9) % (classes + 1)
    return torch.where(value == classes, 255, value)
