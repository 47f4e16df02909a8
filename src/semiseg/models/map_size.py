"""Resizing and layout of feature maps inside of networks."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

HALVES = (torch.bfloat16, torch.float16)


def resized(features: Tensor, size: Sequence[int], align_corners: bool = True) -> Tensor:
    """Resize a feature map ``(N, C, h, w)`` bilinearly to ``(N, C, *size)``.

    The dtype stays under CUDA's autocast, which would return float32, and make all maps float32 that are
    concatenated with it; gradients are summed in float32. Logits need its precision and are resized elsewhere.
    """
    halved = features.is_cuda and features.dtype in HALVES
    # The deterministic resize of CUDA is one of plain operations, chosen inside of interpolate.
    if halved and torch.is_autocast_enabled("cuda") and not torch.are_deterministic_algorithms_enabled():
        result: Tensor = _HalfResize.apply(features, tuple(size), align_corners)
        return result
    return F.interpolate(features, tuple(size), mode="bilinear", align_corners=align_corners)


def in_layout_of(other: Tensor, x: Tensor) -> Tensor:
    """Return ``x (N, C, h, w)`` in channels-last where another map of the network is, except on the CPU.

    Maps of one position, and those expanded from them, have no layout of their own: what is resized of them or
    concatenated with them, would get the default one.
    """
    # On the CPU it would only choose other convolutions, and change the last bits of every prediction.
    if other.device.type == "cpu":
        return x
    last = other.is_contiguous(memory_format=torch.channels_last) and not other.is_contiguous()
    return x.contiguous(memory_format=torch.channels_last) if last else x


class _HalfResize(torch.autograd.Function):
    """A resize whose result has the dtype of its input, and whose gradient is summed in float32."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
        ctx.shape, ctx.dtype, ctx.settings = features.shape, features.dtype, (size, align_corners)
        with torch.autocast("cuda", enabled=False):
            return F.interpolate(features, size, mode="bilinear", align_corners=align_corners)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        size, align_corners = ctx.settings
        # Many pixels add to one, which 8 bits of mantissa would not hold.
        summed = torch.ops.aten.upsample_bilinear2d_backward(
            gradient.float(), size, ctx.shape, align_corners, None, None
        )
        return summed.to(ctx.dtype), None, None
