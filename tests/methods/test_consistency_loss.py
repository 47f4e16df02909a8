"""Distances of a student from its teacher beyond their golden numbers."""

import math
from typing import Any, get_args

import pytest
import torch

from semiseg.losses import consistency_loss, pixel_distance, ramp_up
from semiseg.losses.consistency import Distance

DISTANCES = get_args(Distance)


def problem(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of a student and a teacher, and the pixels that the teacher is sure of."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = 2 * torch.randn(2, 2, 5, 6, 7, generator=generator, dtype=dtype)
    return student, teacher, teacher.softmax(1).max(1).values > 0.6


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_are_those_of_the_value_and_reach_the_student_alone(distance: Any) -> None:
    student, teacher, keep = problem()
    student.requires_grad_()
    teacher.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: consistency_loss(x, teacher, keep, None, distance, "pixel"), student
    )
    consistency_loss(student, teacher, distance=distance).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("distance", DISTANCES)
def test_equal_predictions(distance: Any) -> None:
    student, _, _ = problem()
    found = consistency_loss(student, student + 0.7, distance=distance).item()
    if distance in ("mse_sum", "mse_mean", "kl"):
        assert found == pytest.approx(0, abs=1e-12)
    elif distance == "logits":
        assert found == pytest.approx(5 * 0.49 / math.sqrt(5))
    elif distance == "smooth_l1":
        assert found == pytest.approx(5 * 0.245 / math.sqrt(5))
    else:
        assert found > 0


def test_parts_of_the_mean() -> None:
    student, teacher, keep = problem()
    valid = torch.ones(2, 6, 7)
    valid[:, 0], valid[0, 1] = 0, 0.5
    distance = pixel_distance(student, teacher, "kl")
    for rule, factor in (("pixel", keep.double()), ("batch_mean", keep.double().mean())):
        for divisor, count in (("all", 84), ("valid", 70 - 3.5)):
            arguments: Any = (student, teacher, keep, valid, "kl", rule, divisor)
            found = consistency_loss(*arguments, reduction="sum_count")
            assert found.counted == count
            assert found.total.item() == pytest.approx((distance * factor * valid).sum().item())
            assert consistency_loss(*arguments).item() == pytest.approx(found.total.item() / count)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("divisor", ["all", "valid"])
def test_nothing_valid_is_zero_with_zero_gradient(distance: Any, divisor: Any) -> None:
    student, teacher, keep = problem()
    student.requires_grad_()
    loss = consistency_loss(student, teacher, keep, torch.zeros(2, 6, 7), distance, "pixel", divisor)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("distance", DISTANCES)
def test_bfloat16_logits_are_computed_in_float32(distance: Any) -> None:
    student, teacher, _ = problem(torch.float32)
    half, guide = student.bfloat16(), teacher.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = consistency_loss(half, guide, distance=distance)
        expected = consistency_loss(half.float(), guide.float(), distance=distance)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("distance", DISTANCES)
def test_extreme_logits_stay_finite(distance: Any) -> None:
    student = torch.tensor([200.0, -200.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    loss = consistency_loss(student, -student, distance=distance)
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("distance", DISTANCES)
def test_losses_compile_into_one_graph_and_never_wait(distance: Any, wait_counter: Any) -> None:
    student, teacher, keep = problem()
    student.requires_grad_()
    compiled: Any = torch.compile(consistency_loss, fullgraph=True, backend="eager")
    compiled(student, teacher, keep, keep, distance, "batch_mean", "valid").backward()
    assert student.grad is not None
    gradient, student.grad = student.grad.clone(), None
    with wait_counter:
        consistency_loss(student, teacher, keep, keep, distance, "batch_mean", "valid").backward()
    assert torch.equal(gradient, student.grad)
    assert wait_counter.seen == []


def test_ramps_rise_to_one() -> None:
    for ramp in ("sigmoid", "linear"):
        values = [ramp_up(epoch / 4, 3.5, ramp) for epoch in range(20)]  # type: ignore[arg-type]
        assert values == sorted(values)
        assert values[0] < 0.01
        assert values[14:] == [1] * 6
        assert values[13] < 1
