"""What ``trainer.precision`` means: the numbers of weights and forward passes, and the switches of the process."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

LOWER = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Type that autocast computes in, by precision."""


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context of forward passes; it does nothing but for "bf16" and "fp16"."""
    return torch.autocast(device.type, LOWER.get(precision, torch.bfloat16), enabled=precision in LOWER)


def set_numerics(precision: str, *, deterministic: bool) -> None:
    """Set how this process multiplies and which algorithms it may use; only a GPU computes otherwise by that.

    Args:
        precision: ``trainer.precision``; convolutions and matrix products of float32 use TF32 with "tf32" alone.
        deterministic: whether algorithms are refused whose result is not the same every time.
    """
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        # cuBLAS reads it when it is first used; a value that the user has set stays.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Both are set: by default convolutions use TF32 and matrix products do not. These are the older names of the
    # switches; after the newer ones (``fp32_precision``) torch.export, which reads the older, raises.
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = False


def numerics() -> dict[str, Any]:
    """Return the switches of this process, for the record of a run."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    return {
        "tf32_products": torch.backends.cuda.matmul.allow_tf32,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "deterministic": deterministic,
        # Without effect otherwise; an earlier run of this process may have set it.
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG") if deterministic else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


@contextmanager
def autotuned(device: torch.device) -> Iterator[None]:
    """Let cuDNN try its algorithms for each new shape inside, and take the fastest.

    It pays where shapes repeat, as the crops of training steps do. Images of evaluation and labeling have many sizes,
    each of which would be tried for anew.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = (
        device.type == "cuda" and not torch.are_deterministic_algorithms_enabled()
    )
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def as_stored(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Turn a network into float64 where the weights that it is to load are; a run in fp64 stored them."""
    numbers = [value for value in state.values() if value.is_floating_point()]
    if numbers and all(value.dtype == torch.float64 for value in numbers):
        model.double()
