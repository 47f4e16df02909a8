"""Failures of the machine are explained, others are passed on."""

from pathlib import Path

import pytest
import torch
from torch import nn

from semiseg.data.loading import LoadingError
from semiseg.engine.failures import explained
from semiseg.errors import RunFailed

LOADING = LoadingError("out of memory in a process that loads batches")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(28, "No space left on device"), "semiseg train run_dir=runs/a"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "trainer.accumulate"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "trainer.crop_size"),
        (MemoryError(), "trainer.crop_size"),
        (torch.AcceleratorError("CUDA error: out of memory"), "trainer.crop_size"),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), "CUDA_LAUNCH_BLOCKING=1"),
    ],
)
def test_failures_of_the_machine_come_with_advice(error: Exception, advice: str) -> None:
    with pytest.raises(RunFailed, match=advice) as found, explained(Path("runs/a")):
        raise error
    assert found.value.__cause__ is error


def test_batch_norm_of_a_single_value_is_explained() -> None:
    with pytest.raises(RunFailed, match=r"at least 2 images"), explained(Path("runs/a")):
        nn.BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file"), ValueError("bug"), KeyError("bug"), LOADING]
)
def test_all_else_is_passed_on(error: Exception) -> None:
    with pytest.raises(type(error)) as found, explained(Path("runs/a")):
        raise error
    assert found.value is error
