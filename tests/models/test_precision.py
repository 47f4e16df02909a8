"""What each precision sets in the process, and which networks are in float64."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from semiseg.models.precision import as_stored, autocast, autotuned, numerics, set_numerics

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    set_numerics("fp32", deterministic=False)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16", "fp64"])
def test_one_precision_alone_rounds_products_of_float32(precision: str) -> None:
    set_numerics(precision, deterministic=False)
    assert numerics()["tf32_products"] is numerics()["tf32_convolutions"] is (precision == "tf32")
    assert numerics()["cublas_workspace"] is None


def test_deterministic_runs_fix_the_work_space_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    set_numerics("fp32", deterministic=True)
    assert (numerics()["deterministic"], numerics()["cublas_workspace"]) == (True, ":4096:8")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    set_numerics("fp32", deterministic=True)
    assert numerics()["cublas_workspace"] == ":16:8"


@pytest.mark.parametrize(
    ("device", "deterministic", "tried"), [(GPU, False, True), (GPU, True, False), (CPU, False, False)]
)
def test_algorithms_are_tried_inside_of_training_steps_on_a_gpu(
    device: torch.device, deterministic: bool, tried: bool
) -> None:
    set_numerics("fp32", deterministic=deterministic)
    assert not torch.backends.cudnn.benchmark
    with autotuned(device):
        assert torch.backends.cudnn.benchmark is tried
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("fp32", torch.float32),
        ("tf32", torch.float32),
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
        ("fp64", torch.float32),
    ],
)
def test_autocast_computes_in_the_lower_precisions_alone(precision: str, dtype: torch.dtype) -> None:
    with autocast(CPU, precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_a_network_becomes_double_where_all_stored_numbers_are() -> None:
    mixed = {"weight": torch.ones(1, dtype=torch.float64), "bias": torch.ones(1)}
    for state, dtype in [
        ({"weight": mixed["weight"], "count": torch.ones(1, dtype=torch.int64)}, torch.float64)
    ] + [(each, torch.float32) for each in (mixed, {})]:
        network = nn.Linear(1, 1)
        as_stored(network, state)
        assert network.weight.dtype == dtype
