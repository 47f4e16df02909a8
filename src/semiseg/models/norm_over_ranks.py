"""Batch norm whose statistics are taken over all ranks: in plain operations, and in torch's fused ones for CUDA."""

from typing import Any

import torch
from torch import Tensor

from semiseg.distributed import add_over_ranks, gathered

FUSED_DEVICES = frozenset({"cuda"})
"""Types of devices that have torch's fused operations."""


def plain_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalize each group by its statistics over all ranks, whose parts may differ in size.

    Args:
        x: maps ``(N, C, H, W)``.
        weight: factors ``(C,)``, or None.
        bias: summands ``(C,)``, or None.
        groups: number of equal, contiguous parts.
        eps: what is added to the variance.

    Returns:
        The normalized ``x``, mean and biased variance ``(groups, C)`` in at least float32, and the number of values
        that each of them is taken over.
    """
    result: tuple[Tensor, Tensor, Tensor, Tensor] = _Plain.apply(x, weight, bias, groups, eps)
    return result


def fused_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    momentum: float,
    running: list[tuple[Tensor | None, Tensor | None]],
) -> Tensor:
    """Do the same in torch's fused operations, which update the running statistics too; the host never waits.

    ``torch.nn.SyncBatchNorm`` runs the same operations, but looks for ranks without images by a boolean mask, for
    which the host waits in every layer.

    Args:
        x: maps ``(N, C, H, W)`` on a device of ``FUSED_DEVICES``.
        weight: factors ``(C,)``, or None.
        bias: summands ``(C,)``, or None.
        eps: what is added to the variance.
        momentum: weight of the new value in the running statistics.
        running: running mean and variance ``(C,)`` to update for each group, or None twice.

    Returns:
        The normalized ``x``.
    """
    result: Tensor = _Fused.apply(x, weight, bias, eps, momentum, running)
    return result


class _Plain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float
    ) -> tuple[Tensor, ...]:
        values = _split(x, groups)
        channels = x.shape[1]
        own = values.new_full((groups, 1), values[0, :, 0].numel())
        var, mean = torch.var_mean(values, (1, 3, 4), correction=0)
        # One message for all three: each exchange between ranks costs a wait.
        stacked = gathered(torch.cat([mean, var, own], 1))
        means, variances, counts = stacked[..., :channels], stacked[..., channels:-1], stacked[..., -1:]
        count = counts.sum(0)
        mean = (means * counts).sum(0) / count
        var = ((variances + (means - mean).square()) * counts).sum(0) / count
        scale = torch.rsqrt(var + eps)
        ctx.save_for_backward(x, weight, mean, scale, count)
        result = (values - _over(mean)) * _over(scale)
        if weight is not None and bias is not None:
            result = result * _over(weight) + _over(bias)
        size = count[0, 0]
        ctx.mark_non_differentiable(mean, var, size)
        return _joined(result, x), mean, var, size

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        normal = (_split(x, len(mean)) - _over(mean)) * _over(scale)
        grad = _split(gradient, len(mean))
        sums = torch.stack([grad.sum((1, 3, 4)), (grad * normal).sum((1, 3, 4))])
        grad_weight, grad_bias = None, None
        if weight is not None:
            grad_bias, grad_weight = sums.sum(1).to(weight.dtype)
            scale = scale * weight
        # After the gradients of weight and bias were taken, which stay those of this rank.
        add_over_ranks(sums)
        shift, slope = sums / count
        result = (grad - _over(shift) - normal * _over(slope)) * _over(scale)
        return _joined(result, x), grad_weight, grad_bias, None, None


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        momentum: float,
        running: list[tuple[Tensor | None, Tensor | None]],
    ) -> Tensor:
        x = x.contiguous(memory_format=_layout(x))
        parts, channels = x.chunk(len(running)), x.shape[1]
        # The host knows how many values this rank has; the numbers of the others stay on the device.
        found = [torch.batch_norm_stats(part, eps) for part in parts]
        own = found[0][0].new_full((1,), parts[0].numel() // channels)
        message = torch.cat([each for mean, scale in found for each in (mean, scale)] + [own])
        stacked = gathered(message)
        counts = stacked[:, -1]
        normalized, joint = [], []
        for part, (mean_buffer, var_buffer), pair in zip(
            parts, running, torch.split(stacked[:, :-1], 2 * channels, 1), strict=True
        ):
            means, scales = torch.split(pair, channels, 1)
            # Of its first argument it reads the dtype, which that of the counts has to be.
            mean, scale = torch.batch_norm_gather_stats_with_counts(
                message, means, scales, mean_buffer, var_buffer, momentum, eps, counts
            )
            normalized.append(torch.batch_norm_elemt(part, weight, bias, mean, scale, eps))
            joint += [mean, scale]
        ctx.save_for_backward(x, weight, counts.to(torch.int32), *joint)
        return _one(normalized)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, counts, *joint = ctx.saved_tensors
        means, scales = joint[::2], joint[1::2]
        gradient = gradient.contiguous(memory_format=_layout(x))
        parts = list(zip(gradient.chunk(len(means)), x.chunk(len(means)), means, scales, strict=True))
        affine = weight is not None
        found = [torch.batch_norm_backward_reduce(*part, weight, True, affine, affine) for part in parts]
        sums = torch.cat([each for shift, slope, *_ in found for each in (shift, slope)])
        # The gradients of weight and bias stay those of this rank.
        add_over_ranks(sums)
        joint_sums = torch.split(sums, len(means[0]))
        result = _one(
            [
                torch.batch_norm_backward_elemt(*part, weight, shift, slope, counts)
                for part, shift, slope in zip(parts, joint_sums[::2], joint_sums[1::2], strict=True)
            ]
        )
        grad_weight = _total([each[2] for each in found]) if affine else None
        grad_bias = _total([each[3] for each in found]) if affine else None
        return result, grad_weight, grad_bias, None, None, None


def _split(x: Tensor, groups: int) -> Tensor:
    """View ``(N, C, H, W)`` as ``(groups, N / groups, C, H, W)``, at least float32."""
    return x.view(groups, -1, *x.shape[1:]).to(torch.promote_types(x.dtype, torch.float32))


def _over(values: Tensor) -> Tensor:
    """Let ``(groups, C)`` or ``(C,)`` broadcast over ``(groups, N / groups, C, H, W)``."""
    return values[..., None, :, None, None]


def _joined(values: Tensor, like: Tensor) -> Tensor:
    """Return the inverse of ``_split`` in memory of its own: activations may change it in place, but no view."""
    result = torch.empty_like(like)
    result.view(values.shape).copy_(values)
    return result


def _layout(x: Tensor) -> torch.memory_format:
    """The layout that the fused operations take ``x`` in."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _one(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _total(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
