"""The divergence of a prediction from a confident target: its value, and what every loss promises."""

from typing import Any

import pytest
import torch
from torch import Tensor

from semiseg.losses import confident_divergence


def problem(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits, target = (3 * torch.randn(2, 5, 6, 7, generator=generator, dtype=dtype) for _ in range(2))
    keep, valid = (torch.rand(2, 6, 7, generator=generator) < 0.6 for _ in range(2))
    return logits, target, keep, valid


@pytest.mark.parametrize("divisor", ["valid", "confident"])
def test_it_is_the_sum_over_confident_pixels_by_the_divisor(divisor: Any) -> None:
    logits, target, keep, valid = problem()
    p, q = target.softmax(1), logits.softmax(1)
    each = (p * (p / q).log()).sum(1)
    used = keep & valid
    total, count = confident_divergence(logits, target, keep, valid, divisor, reduction="sum_count")
    assert torch.isclose(total, each[used].sum())
    assert count == (valid if divisor == "valid" else used).sum()
    assert torch.isclose(confident_divergence(logits, target, keep, valid, divisor), total / count)
    assert confident_divergence(logits, logits, keep, valid, divisor) == 0


def test_gradients_are_those_of_the_value_and_the_target_has_none() -> None:
    logits, target, keep, valid = problem()
    target.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: confident_divergence(x, target, keep, valid), logits.requires_grad_()
    )
    confident_divergence(logits, target, keep, valid).backward()
    assert target.grad is None


def test_nothing_valid_is_zero_with_zero_gradient() -> None:
    logits, target, keep, valid = problem()
    loss = confident_divergence(logits.requires_grad_(), target, keep, torch.zeros_like(valid))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_bfloat16_logits_are_computed_in_float32() -> None:
    logits, target, keep, valid = problem(torch.float32)
    half, wanted = logits.bfloat16(), target.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = confident_divergence(half, wanted, keep, valid)
    assert found.dtype == torch.float32
    assert torch.equal(found, confident_divergence(half.float(), wanted.float(), keep, valid))


def test_it_compiles_into_one_graph_and_never_waits(wait_counter: Any) -> None:
    logits, target, keep, valid = problem()
    compiled = torch.compile(confident_divergence, fullgraph=True, backend="eager")
    assert torch.equal(
        compiled(logits, target, keep, valid), confident_divergence(logits, target, keep, valid)
    )
    with wait_counter:
        confident_divergence(logits.requires_grad_(), target, keep, valid).backward()
    assert wait_counter.seen == []
