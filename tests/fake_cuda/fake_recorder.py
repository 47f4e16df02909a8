"""What a piece of work would do to a GPU, found by watching the operations of fake tensors: nothing is computed."""

import sys
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import semiseg

PACKAGE = str(Path(semiseg.__file__).parent)
BLOCK = 512
"""Bytes that torch rounds every allocation up to."""

COUNTED_ON_HOST = (
    "nonzero",
    "masked_select",
    "unique",
    "bincount",
    "repeat_interleave.Tensor",
    "histc",
    "equal",
)
"""Operations whose result has a size or value that the host must wait for."""

FREE = ("empty", "new_empty", "detach", "alias", "lift", "_unsafe_view", "is_pinned", "device")
"""Operations that start no kernel, beside views."""


ARRAYS = {
    each: torch.empty(0, dtype=each).numpy().dtype
    for each in (torch.uint8, torch.bool, torch.int64, torch.float32, torch.float64)
}


@dataclass
class Work:
    """What was seen during one piece of work.

    Args:
        syncs: number of times that the host waits for the device, by what it waits for and where.
        copies: number of blocking copies to the device, by place; the host waits for them too.
        layouts: number of convolutions whose input is not channels-last, by place.
        kernels: operations on the device.
        peak: largest bytes of tensors on the device.
    """

    syncs: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    layouts: Counter[str] = field(default_factory=Counter)
    kernels: int = 0
    peak: int = 0


class Recorder(TorchDispatchMode):
    """Watches all operations inside of a ``FakeTensorMode``, and answers those that ask for values."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Work()
        self._live = 0
        self._known: dict[int, int] = {}

    @contextmanager
    def recording(self) -> Iterator[Work]:
        """Give what happens inside."""
        self.work = work = Work(peak=self._live)
        yield work
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # Under inference mode, operations that are made of others arrive whole.
        if func.namespace == "aten" and _made_of_others(func.name()):
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        name = func.__name__
        given = [*tensors(args), *tensors(kwargs.values())]
        result = self._answer(name, args, given)
        if result is NotImplemented:
            self._note(name, args, kwargs)
            result = func(*args, **kwargs)
        made = list(tensors((result,)))
        on_device = [each for each in (*given, *made) if each.device.type == "cuda"]
        for each in on_device:
            self._hold(each)
        if on_device and not func.is_view and not name.startswith(FREE):
            self.work.kernels += 1
        return result

    def _answer(self, name: str, args: Any, given: list[Tensor]) -> Any:
        """Answer what depends on values, which fake tensors lack; ``NotImplemented`` for all else."""
        first = given[0] if given else None
        on_device = first is not None and first.device.type == "cuda"
        if name == "_local_scalar_dense.default" and first is not None:
            if on_device:
                self.work.syncs[f"item at {place()}"] += 1
            return 1.0 if first.is_floating_point() else first.dtype == torch.bool or 1
        if name.startswith(("_pin_memory", "is_pinned")):
            return True if name.startswith("is_pinned") else first
        if on_device and first is not None and name.startswith(COUNTED_ON_HOST):
            self.work.syncs[f"{name.split('.')[0]} at {place()}"] += 1
            if name.startswith("nonzero"):
                return first.new_empty((first.numel(), first.dim()), dtype=torch.int64)
            if name.startswith("masked_select"):
                return first.new_empty(first.numel())
            if name.startswith("equal"):
                return True
        if name.startswith("index") and any(_is_mask(each) for each in given[1:]):
            if on_device:
                self.work.syncs[f"boolean index at {place()}"] += 1
            if name == "index.Tensor" and len(args[1]) == 1:
                assert first is not None
                return first.new_empty((given[1].numel(), *first.shape[given[1].dim() :]))
        return NotImplemented

    def _note(self, name: str, args: Any, kwargs: Any) -> None:
        if name == "convolution.default" and _lost_layout(args[0]):
            self.work.layouts[place()] += 1
        if name not in ("_to_copy.default", "copy_.default"):
            return
        if name == "_to_copy.default":
            source, target = args[0], torch.device(kwargs.get("device") or args[0].device)
            free = kwargs.get("non_blocking", False)
        else:
            source, target = args[1], args[0].device
            free = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        if source.device.type == target.type or free:
            return
        # Counted apart, since evaluation and labeling make one for their images.
        counts = self.work.syncs if source.device.type == "cuda" else self.work.copies
        counts[f"copy at {place()}"] += 1

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._known[key] = size
        self._live += size
        self.work.peak = max(self.work.peak, self._live)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self._live -= self._known.pop(key, 0)


class HostValues(TorchFunctionMode):
    """Counts tensors that are made on the device of values of the host, which no operation shows.

    Args:
        recorder: recorder that counts them as copies.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in MAKERS and result.device.type == "cuda" and not isinstance(args[-1], Tensor):
            self.recorder.work.copies[f"values at {place()}"] += 1
        return result


MAKERS = {torch.tensor, torch.as_tensor, Tensor.new_tensor}


def tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Give the tensors among arguments or results, those in lists included."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)


@cache
def _made_of_others(name: str) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"))


def place() -> str:
    """Name the innermost function of the package that is running; "backward" where autograd runs."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(PACKAGE):
            return f"{path[len(PACKAGE) + 1 :]} {frame.f_code.co_qualname.replace('.<locals>', '')}"
        frame = frame.f_back  # type: ignore[assignment]
    return "backward"


def _is_mask(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.bool, torch.uint8) and tensor.dim() > 0


def _lost_layout(images: Tensor) -> bool:
    """Whether a convolution gets maps in another layout; where both layouts are one, none is lost."""
    if images.dim() != 4 or images.shape[1] == 1 or images.shape[2] * images.shape[3] == 1:
        return False
    return not images.is_contiguous(memory_format=torch.channels_last)


def make_fakes_usable() -> None:
    """Let fake tensors be copied as others are, and those of the host become arrays of zeros, as counts are read."""

    def numpy(self: FakeTensor, **_: Any) -> Any:
        if self.device.type != "cpu":
            raise TypeError(f"a tensor on {self.device} has no array")
        return np.zeros(tuple(self.shape), ARRAYS[self.dtype])

    def copied(self: FakeTensor, memo: dict[int, Any]) -> Tensor:
        return memo.setdefault(id(self), self.detach().clone().requires_grad_(self.requires_grad))

    def tolist(self: FakeTensor) -> Any:
        # All values at once, as from a real tensor; that of fake ones asks for each.
        values = self.cpu().numpy()
        # The answer of a question is yes, as that of one that is asked by ``item``.
        return (np.ones_like(values) if values.dtype == np.bool_ else values).tolist()

    for name, function in {"numpy": numpy, "tolist": tolist, "__deepcopy__": copied}.items():
        setattr(FakeTensor, name, function)
