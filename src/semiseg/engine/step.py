"""One optimizer step: forward, backward, accumulation, and the running means of what it returned."""

import dataclasses
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from semiseg.contracts.training import Batch, Learner, LossTerm, Progress, StepOutput, divisor
from semiseg.engine.compute import Readback
from semiseg.engine.loss_check import LossCheck, without_gradient
from semiseg.models.precision import autotuned
from semiseg.models.strides import safe_convolutions
from semiseg.seeding import derive_seed, seed_everything

CPU = torch.device("cpu")


def to_device(batch: Batch, device: torch.device, memory_format: torch.memory_format) -> Batch:
    """Move all tensors of a batch; image tensors get the memory format, ``label`` becomes int64.

    A GPU copies beside its kernels: what it has been given before goes on meanwhile.
    """
    if device.type != "cuda":
        return _moved(batch, device, memory_format)
    stream, work = _copy_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(stream):
        batch = _moved(batch, device, memory_format)
    work.wait_stream(stream)
    for value in (value for part in batch.values() for value in part.values() if isinstance(value, Tensor)):
        # Its memory belongs to the other stream, which must not get it back while kernels of this one read it.
        value.record_stream(work)
    return batch


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _moved(batch: Batch, device: torch.device, memory_format: torch.memory_format) -> Batch:
    def move(key: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        # From pinned memory the copy runs while the host goes on.
        value = value.to(device, non_blocking=True)
        if key == "label":
            # Here and not in the worker: losses need int64, but one byte a pixel is enough to travel.
            return value.long()
        return value.contiguous(memory_format=memory_format) if _is_image(value) else value

    return {name: {key: move(key, value) for key, value in part.items()} for name, part in batch.items()}


def count_images(batch: Batch) -> int:
    """Number of images of a batch, all views counted."""
    return sum(
        len(value)
        for part in batch.values()
        for value in part.values()
        if isinstance(value, Tensor) and _is_image(value)
    )


def _is_image(value: Tensor) -> bool:
    """Whether a tensor of a batch holds images: 8-bit, or float32 for bands of other types."""
    return value.ndim == 4 and value.dtype in (torch.uint8, torch.float32)


def micro_batches(batch: Batch, parts: int) -> list[Batch]:
    """Cut every stream of a batch into ``parts`` pieces along its first dimension, as equal as can be.

    A short batch, with fewer images of a stream than ``parts``, is cut into that many pieces only.
    """
    counts = {name: len(part["id"]) for name, part in batch.items()}
    parts = min(parts, *counts.values())
    return [
        {
            name: {
                key: value[index * counts[name] // parts : (index + 1) * counts[name] // parts]
                for key, value in part.items()
            }
            for name, part in batch.items()
        }
        for index in range(parts)
    ]


@dataclasses.dataclass(frozen=True)
class Watch:
    """What is done with the losses of a step between its forward and its backward pass.

    Args:
        read: function that starts to read a tensor.
        checked: function that gets the check of the losses, which is late on a GPU; by default it is waited for.
        scaled: function of a loss that is differentiated in its place.
    """

    read: Callable[[Tensor], Readback] = Readback
    checked: Callable[[LossCheck], None] = LossCheck.require_finite
    scaled: Callable[[Tensor], Tensor] = lambda loss: loss


AT_ONCE = Watch()
"""Waits for the losses before the backward pass."""


def forward_backward(
    learner: Learner, batch: Batch, progress: Progress, parts: int, autocast: Any, watch: Watch = AT_ONCE
) -> StepOutput:
    """Compute the losses of a batch and leave their gradients in ``.grad``.

    With one part there is one backward pass. With more, each loss term is differentiated by itself, so that
    its mean runs over the valid pixels of the whole batch exactly as without accumulation; only batch norm
    sees the smaller batches.

    Raises:
        LossNotFinite: a loss is not finite; no gradient has been written. Only if ``watch`` waits for the losses.
    """
    device = next((parameter.device for parameter in learner.parameters()), CPU)
    # Networks do so themselves; this covers what a method adds to them, such as heads and discriminators.
    with safe_convolutions(device), autotuned(device):
        if parts > 1:
            return _accumulate(learner, batch, progress, parts, autocast, watch)
        with autocast():
            output: StepOutput = learner(batch, progress)
        # Before the backward pass, which a GPU is still busy with when the losses have been read.
        watch.checked(LossCheck(progress.iteration, [output], [batch], watch.read))
        watch.scaled(output.total).backward()  # type: ignore[no-untyped-call]
        return output


def _accumulate(
    learner: Learner, batch: Batch, progress: Progress, parts: int, autocast: Any, watch: Watch
) -> StepOutput:
    params = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    gradients: dict[str, list[Tensor]] = {}
    outputs: list[StepOutput] = []
    pieces = micro_batches(batch, parts)
    for index, piece in enumerate(pieces):
        # Each piece draws its own dropout and cuts; one seed for all would repeat them.
        seed = derive_seed(progress.seed, "micro", index)
        seed_everything(seed)
        with autocast():
            output: StepOutput = learner(piece, dataclasses.replace(progress, seed=seed))
        names = list(output.losses)
        for name in names:
            buffers = gradients.setdefault(name, [torch.zeros_like(parameter) for parameter in params])
            # Of the sum, not the mean: how many valid pixels the batch has is known after its last piece.
            loss = watch.scaled(output.losses[name].sum)
            _add_gradient(buffers, loss, params, retain=name != names[-1])
        outputs.append(without_gradient(output))
    watch.checked(LossCheck(progress.iteration, outputs, pieces, watch.read))
    whole = _merged(outputs)
    totals = None
    for name, buffers in gradients.items():
        # In place: accumulation is there to save memory.
        torch._foreach_mul_(buffers, _factor(whole.losses[name]))
        if totals is None:
            totals = buffers
        else:
            torch._foreach_add_(totals, buffers)
    for parameter, total in zip(params, totals or (), strict=True):
        parameter.grad = total if parameter.grad is None else parameter.grad + total
    return whole


def _factor(term: LossTerm) -> Tensor:
    """Return weight / count in the precision of the sum; a count of pixels alone would be divided by in float32."""
    count = divisor(term.count)
    return term.weight / count.to(torch.promote_types(count.dtype, term.sum.dtype))


def _add_gradient(buffers: list[Tensor], loss: Tensor, params: list[nn.Parameter], retain: bool) -> None:
    found = torch.autograd.grad(loss, params, retain_graph=retain, allow_unused=True)
    pairs = [pair for pair in zip(buffers, found, strict=True) if pair[1] is not None]
    if pairs:
        # One kernel for many parameters.
        torch._foreach_add_([buffer for buffer, _ in pairs], [gradient for _, gradient in pairs])


def _merged(outputs: Sequence[StepOutput]) -> StepOutput:
    """Return the result of a batch of those of its pieces: sums of sums and counts, means of scalars."""
    losses: dict[str, LossTerm] = {}
    scalars: dict[str, Tensor] = {}
    for output in outputs:
        for name, term in output.losses.items():
            before = losses.get(name)
            total, count = term.sum, term.count
            if before is not None:
                total, count = total + before.sum, count + before.count
            losses[name] = LossTerm(total, count, term.weight)
        for name, value in output.scalars.items():
            scalars[name] = scalars.get(name, torch.zeros_like(value)) + value / len(outputs)
    return StepOutput(losses, scalars)


class Meter:
    """Means over a log interval, kept on the device until they are read.

    Args:
        device: device of the values, whose memory is reported.
    """

    def __init__(self, device: torch.device = CPU) -> None:
        self.device = device
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self.images = 0
        self.seconds = 0.0
        self.waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the time inside as training."""
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start

    def add(self, output: StepOutput, images: int) -> None:
        """Add what one step returned."""
        values: dict[str, Tensor] = {"loss": output.total.detach()}
        values |= {f"loss_{name}": term.mean.detach() for name, term in output.losses.items()}
        values |= {name: value.detach() for name, value in output.scalars.items()}
        # Summed on the device: reading a value would make every step wait for the one before.
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.float()
        self.steps += 1
        self.images += images

    def read(self) -> dict[str, float]:
        """Return ``train/`` and ``time/`` values of the interval."""
        # What a GPU has been given belongs to the interval, so that waiting for it does.
        with self.working():
            values = {f"train/{name}": float(value) / self.steps for name, value in self.sums.items()}
        if self.seconds > 0:
            values["time/images_per_s"] = self.images / self.seconds
            values["time/data_wait"] = self.waited / self.seconds
        values["time/memory_gib"] = peak_memory(self.device) / 2**30
        return values

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"steps": self.steps, "sums": {name: value.cpu() for name, value in self.sums.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; times start anew."""
        self.steps = state["steps"]
        self.sums = {name: value.to(self.device) for name, value in state["sums"].items()}


def peak_memory(device: torch.device) -> int:
    """Peak bytes in use since the run began: of a CUDA device, else resident memory of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # macOS counts bytes, Linux kibibytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak_memory(device: torch.device) -> None:
    """Let ``peak_memory`` of a CUDA device count from this moment."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
