"""Position tables of plain vision transformers at another grid of patches than the one that they were learned for."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

PositionResize = Literal["scale_offset", "antialiased"]

OFFSET = 0.1
"""What DINOv2 adds to a number of patches before it divides by that of the table, against rounding."""


def resized_positions(
    table: Tensor, grid: tuple[int, int], native: tuple[int, int], prefix: int, rule: PositionResize
) -> Tensor:
    """Return a table ``(1, prefix + rows * columns, D)`` for a grid of patches; the entries of ``prefix`` stay.

    Both rules are bicubic and compute in float32. At the native grid the table is what it was.

    Args:
        table: learned table ``(1, prefix + native rows * columns, D)``.
        grid: rows and columns of the wanted grid.
        native: rows and columns of the learned one.
        prefix: number of entries at the front that belong to no patch.
        rule: "scale_offset" takes the factors (rows + 0.1) / native rows and (columns + 0.1) / native columns for the
            coordinates too and has no antialiasing (DINOv2, ``interpolate_pos_encoding`` of
            ``models/vision_transformer.py``); "antialiased" takes the exact size and antialiasing (timm,
            ``resample_abs_pos_embed``; DINOv2 with registers).
    """
    exporting = torch.compiler.is_exporting()
    if not exporting and tuple(grid) == tuple(native):
        return table
    exact = table.float()
    patches = exact[:, prefix:].reshape(1, *native, -1).permute(0, 3, 1, 2)
    if exporting:
        patches = _by_products(patches, grid, native, rule)
    elif rule == "scale_offset":
        factors = [(new + OFFSET) / old for new, old in zip(grid, native, strict=True)]
        patches = F.interpolate(patches, scale_factor=factors, mode="bicubic")
    else:
        patches = F.interpolate(patches, size=list(grid), mode="bicubic", antialias=True)
    patches = patches.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], table.shape[-1])
    return torch.cat([exact[:, :prefix], patches], 1).to(table.dtype)


def _by_products(
    patches: Tensor, grid: tuple[int, int], native: tuple[int, int], rule: PositionResize
) -> Tensor:
    """Resize by two matrix products, which ONNX has for every size; its own resizing rounds sizes otherwise."""
    # Sizes may be open while a program is traced, so that they are computed with and never decided by.
    counts = [torch.ones(side, device=patches.device).sum() for side in grid]
    same = torch.stack([count == side for count, side in zip(counts, native, strict=True)]).all()
    axes = []
    for side, count, old in zip(grid, counts, native, strict=True):
        places = torch.arange(side, device=patches.device, dtype=torch.float32) + 0.5
        if rule == "scale_offset":
            ratio = torch.where(same, torch.ones_like(count), old / (count + OFFSET))
            axes.append(_interpolating(places * ratio - 0.5, old))
        else:
            axes.append(_averaging(places * (old / count), old / count, old))
    return axes[0] @ patches @ axes[1].T


def _interpolating(centers: Tensor, old: int) -> Tensor:
    """Weights ``(new, old)`` of the bicubic kernel with a = -0.75, whose taps stop at the border."""
    first = centers.floor()
    offsets = torch.arange(-1, 3, device=centers.device, dtype=centers.dtype)
    weights = _cubic(offsets - (centers - first)[:, None], -0.75)
    taps = (first[:, None] + offsets).clamp(0, old - 1)
    columns = torch.arange(old, device=centers.device, dtype=centers.dtype)
    return ((taps[..., None] == columns) * weights[..., None]).sum(1)


def _averaging(centers: Tensor, ratio: Tensor, old: int) -> Tensor:
    """Weights ``(new, old)`` of the bicubic kernel with a = -0.5, as wide as a new pixel where that is larger."""
    columns = torch.arange(old, device=centers.device, dtype=centers.dtype) + 0.5
    weights = _cubic((columns - centers[:, None]) / ratio.clamp_min(1), -0.5)
    return weights / weights.sum(1, keepdim=True)


def _cubic(distance: Tensor, a: float) -> Tensor:
    x = distance.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
