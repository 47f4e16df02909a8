"""Device of a run: how networks lie on it, the numbers it computes with, and what the host reads back from it."""

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from semiseg.models import precision as numbers

Module = TypeVar("Module", bound=nn.Module)


class Readback:
    """A tensor on its way to the host; the host goes on with other work until it asks for the values.

    Args:
        values: tensor of any shape; what is computed of it later does not change the reading.
    """

    def __init__(self, values: Tensor) -> None:
        self._arrived = None
        if not values.is_cuda:
            self._values = values.detach().cpu()
        else:
            # Into pinned memory: into any other the copy would wait for all that the device has been given.
            pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values = pinned.copy_(values.detach(), non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record(torch.cuda.current_stream(values.device))

    @property
    def late(self) -> bool:
        """Whether the values have to be waited for."""
        return self._arrived is not None

    def values(self) -> Tensor:
        """Return the values on the host, which waits for what was computed before them and no longer."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values


@dataclass(frozen=True)
class Compute:
    """Device of a run, and the numbers that it computes with.

    Args:
        device: device of the networks.
        precision: "fp32", "tf32", "bf16" or "fp16" for autocast, or "fp64" for networks in float64.
        memory_format: layout of networks and images.
    """

    device: torch.device
    precision: str = "fp32"
    memory_format: torch.memory_format = torch.contiguous_format

    def place(self, module: Module) -> Module:
        """Move a module onto the device, in the memory format and its type of numbers, and return it."""
        dtype = torch.float64 if self.precision == "fp64" else None
        return module.to(device=self.device, dtype=dtype, memory_format=self.memory_format)  # type: ignore[call-overload, no-any-return]

    def autocast(self) -> torch.autocast:
        """The precision of a training step's forward pass."""
        return numbers.autocast(self.device, self.precision)

    def scaler(self, *, sums: bool = False) -> torch.amp.GradScaler:
        """Return the scale of the losses of a fit, which changes nothing but for "fp16".

        Gradients below 6e-8 are zero in float16, so that losses are multiplied by as much as gradients allow. Too large
        a scale is halved, and the weights stay as they are in that step.

        Args:
            sums: whether sums over pixels are differentiated instead of means, as accumulation does.
        """
        first = 1.0 if sums else 2.0**16
        return torch.amp.GradScaler(self.device.type, init_scale=first, enabled=self.precision == "fp16")

    def reading(self, values: Tensor) -> Readback:
        """Start to read a tensor."""
        return Readback(values)
