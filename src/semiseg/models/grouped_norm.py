"""Batch norm over groups of a batch: the statistics of separate passes, in one pass."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from semiseg.distributed import ranks
from semiseg.errors import UserError
from semiseg.models.norm_over_ranks import FUSED_DEVICES, fused_norm, plain_norm

Running = Literal["every", "first"]


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose training statistics are those of equal, contiguous groups of the batch.

    Maps ``(N, C, H, W)`` to the same shape and dtype; statistics are at least float32. In evaluation mode, and
    with one group, it is plain batch norm. It shares parameters and buffers with the layer that it replaces,
    under the same names, and does what that layer does after the normalization.

    Args:
        norm: layer to replace.
        groups: number of groups, see ``group_batch_norm``.
        running: groups that update the running statistics, see ``group_batch_norm``.
        sync: whether statistics are taken over all ranks, see ``group_batch_norm``.
    """

    def __init__(self, norm: nn.BatchNorm2d, groups: int, running: Running, sync: bool) -> None:
        super().__init__(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta"
        )
        self.groups = groups
        self.running = running
        self.sync = sync
        # The same tensors, not copies: optimizers and averages may hold those of the layer already.
        for name, parameter in norm.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        for name, child in norm.named_children():
            self.add_module(name, child)
        self.training = norm.training

    def forward(self, input: Tensor) -> Tensor:
        """Normalize ``(N, C, H, W)``.

        Raises:
            UserError: N is not a multiple of the groups, in training mode.
        """
        result = self._normalize(input)
        for child in self.children():
            result = child(result)
        return result

    def extra_repr(self) -> str:
        """Add the groups to what ``print`` shows."""
        plain = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{plain}, groups={self.groups}, running={self.running}, sync={self.sync}"

    def _normalize(self, input: Tensor) -> Tensor:
        several = self.sync and ranks() > 1
        if not self.training or (self.groups == 1 and not several):
            return super().forward(input)
        if len(input) % self.groups:
            raise UserError(
                f"A batch of {len(input)} images can't be cut into {self.groups} equal groups for batch norm. "
                "Give batch sizes that are multiples of the number of groups."
            )
        if several:
            return self._normalize_over_ranks(input)
        parts = []
        for index, part in enumerate(input.chunk(self.groups)):
            if index == 0 or self.running == "every":
                parts.append(super().forward(part))
            else:
                # Without running statistics torch normalizes the same way and updates nothing.
                parts.append(F.batch_norm(part, None, None, self.weight, self.bias, True, 0.0, self.eps))
        return torch.cat(parts)

    def _normalize_over_ranks(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        updates = self.groups if self.running == "every" else 1
        if input.device.type in FUSED_DEVICES and self.momentum is not None:
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(updates)
            running = [(self.running_mean, self.running_var)] * updates
            running += [(None, None)] * (self.groups - updates)
            return fused_norm(input, self.weight, self.bias, self.eps, self.momentum, running)
        result, mean, var, count = plain_norm(input, self.weight, self.bias, self.groups, self.eps)
        if self.track_running_stats:
            # As torch does: biased in the normalization, unbiased in the running variance.
            unbiased = var * (count / (count - 1))
            for index in range(updates):
                self._update_running(mean[index], unbiased[index])
        return result

    def _update_running(self, mean: Tensor, var: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        factor = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.mul_(1 - factor).add_(factor * mean)
        self.running_var.mul_(1 - factor).add_(factor * var)


def group_batch_norm(
    module: nn.Module, groups: int, running: Running = "every", *, sync: bool = False
) -> nn.Module:
    """Let a network treat a batch as several passes would: each of ``groups`` parts with its own statistics.

    Replaces every ``BatchNorm2d`` and every ``BatchNormAct2d`` of timm in place; parameters, buffers and names in
    the state dict stay. Outputs and running statistics then equal those of separate passes over the parts, bit
    for bit, and gradients up to the order of their sums. Layers converted before get the new settings.

    Args:
        module: network to convert.
        groups: number of equal, contiguous parts of every training batch; 1 is plain batch norm.
        running: parts that update the running statistics: "every" part in turn, as separate passes do, or the
            "first" alone, as ``torch.nn.DataParallel`` keeps those of its first device (ST++).
        sync: whether the statistics of each part are taken over all ranks too, where ``torch.distributed`` is
            initialized with several. As in ``torch.nn.SyncBatchNorm``, parameters get the gradient of their own rank.

    Returns:
        The network; another object only where it is itself a batch norm.

    Raises:
        UserError: an argument out of range, or a layer that mixes the images of a batch in another way.
    """
    if groups < 1:
        raise UserError(f"groups={groups}: give the number of parts of a batch, 1 or more.")
    if running not in get_args(Running):
        raise UserError(f"running={running}: choose one of {', '.join(get_args(Running))}.")
    if isinstance(module, GroupedBatchNorm2d):
        module.groups, module.running, module.sync = groups, running, sync
        return module
    if isinstance(module, _BatchNorm):
        return GroupedBatchNorm2d(_convertible(module), groups, running, sync)
    for name, child in module.named_children():
        replacement = group_batch_norm(child, groups, running, sync=sync)
        if replacement is not child:
            module.add_module(name, replacement)
    return module


def _convertible(norm: _BatchNorm) -> nn.BatchNorm2d:
    """Refuse batch norms of other libraries, which may do more than normalize."""
    kind = type(norm)
    from_timm = kind.__name__ == "BatchNormAct2d" and kind.__module__.startswith("timm.")
    if isinstance(norm, nn.BatchNorm2d) and (kind is nn.BatchNorm2d or from_timm):
        return norm
    raise UserError(
        f"The network has a layer {kind.__module__}.{kind.__name__}; batch norm in groups is made for "
        "torch.nn.BatchNorm2d and timm's BatchNormAct2d. Take a backbone that has these."
    )
