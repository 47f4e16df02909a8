"""Narrow strided 1x1 convolutions, which oneDNN differentiates out of bounds on a CPU, computed another way."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

BLOCK = 16
"""Number of input channels from which no CPU is affected: one vector of AVX-512; with AVX2 it is 8."""


def safe_convolutions(device: torch.device) -> AbstractContextManager[Any]:
    """Keep convolutions inside from writing past oneDNN's workspace when they are differentiated.

    With images in channels-last, oneDNN's gradient by the weights of a 1x1 convolution whose stride is not 1 writes
    past its workspace where there are fewer input channels than a vector of the CPU holds: less than 8 with AVX2,
    less than 16 with AVX-512. The heap is damaged, and the process may die or go on. Inside, such a convolution takes
    every second pixel (or third, as the stride says) first and then has stride 1, which is the same result.

    This covers all calls of ``torch.nn.functional.conv2d``: layers of any library, functions, compiled networks.
    All other convolutions are left as they are. On other devices, and where gradients are off, nothing is done.

    Args:
        device: device of the convolutions.
    """
    return _SafeConvolutions() if device.type == "cpu" and torch.is_grad_enabled() else nullcontext()


class _SafeConvolutions(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.conv2d:
            return _conv2d(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    down, right = _pair(stride)
    narrow = groups == 1 and weight.shape[1] < BLOCK and tuple(weight.shape[2:]) == (1, 1)
    if narrow and (down, right) != (1, 1) and (padding == "valid" or _pair(padding) == (0, 0)):
        input, stride = input[..., ::down, ::right], 1
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _pair(value: Any) -> tuple[Any, Any]:
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values[0], values[-1]
