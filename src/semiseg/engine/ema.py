"""Exponential moving average of a network."""

import copy

import torch
from torch import nn


class EMA(nn.Module):
    """A teacher whose parameters follow a student: ``teacher = decay * teacher + (1 - decay) * student``.

    Args:
        student: network to follow; the teacher begins as its copy and is never trained.
        decay: share that the teacher keeps; during the first steps ``1 - 1 / (updates + 1)`` where that is
            less, so that the random start is forgotten.
        average_buffers: whether floating-point buffers (running statistics) are averaged too; ``False`` copies them.
    """

    updates: torch.Tensor

    def __init__(self, student: nn.Module, decay: float = 0.99, average_buffers: bool = False) -> None:
        super().__init__()
        # Frozen weights never differ: the teacher holds those of the student itself.
        frozen = {id(each): each for each in student.parameters() if not each.requires_grad}
        self.teacher = copy.deepcopy(student, frozen).requires_grad_(False)
        self.decay = decay
        self.average_buffers = average_buffers
        # A buffer, so that checkpoints hold it; its copy on the host spares every step a wait for the device.
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._count: int | None = None

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move the teacher towards the student."""
        if self._count is None:
            self._count = int(self.updates)
        self._count += 1
        self.updates += 1
        weight = 1 - min(self.decay, 1 - 1 / (self._count + 1))
        # One kernel for all parameters: hundreds of small ones would take longer than the sums.
        torch._foreach_lerp_(list(self.teacher.parameters()), list(student.parameters()), weight)
        for kept, current in zip(self.teacher.buffers(), student.buffers(), strict=True):
            if self.average_buffers and kept.is_floating_point():
                kept.lerp_(current, weight)
            else:
                kept.copy_(current)
