"""What the dynamic mutual loss promises: the formula, its gradient, and no wait for the device."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from semiseg.losses import cross_entropy, dynamic_mutual_loss

CASES = [
    ((4, 3, 5, 7), 2.0, 0.5, "dmt"),
    ((2, 21, 3, 4), 5.0, 5.0, "dmt"),
    ((3, 2, 1, 9), 0.0, 3.0, "dmt"),
    ((3, 4, 6, 2), 3.0, 0.0, "dmt"),
    ((4, 6, 5, 5), 5.0, 2.0, "flip"),
    ((5, 3, 4, 4), 1.0, 0.0, "flip"),
    ((4, 5, 3, 6), 5.0, 5.0, "naive"),
    ((2, 7, 5, 3), 0.7, 2.3, "naive"),
    ((3, 4, 3, 3), 0.0, 0.0, "flip"),
]


def problem(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Logits, target, confidence and which images are pseudo-labeled; about a third of the pixels is ignored."""
    generator = torch.Generator().manual_seed(seed)
    n, classes, height, width = shape
    logits = 2 * torch.randn(*shape, generator=generator, dtype=dtype)
    target = torch.randint(0, classes, (n, height, width), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.3] = 255
    confidence = torch.rand(n, height, width, generator=generator, dtype=dtype)
    return logits, target, confidence, torch.arange(n) % 3 != 2


def transcription(
    logits: Tensor,
    target: Tensor,
    confidence: Tensor,
    is_pseudo: Tensor,
    agree: float,
    disagree: float,
    variant: str,
) -> dict[str, Any]:
    """The formula pixel by pixel, with every probability written out."""
    total: Any = 0.0
    weights, plain, disagreements, wins, valid = 0.0, 0.0, 0, 0, 0
    for n, y, x in torch.cartesian_prod(*(torch.arange(size) for size in target.shape)).tolist():
        label = int(target[n, y, x])
        if label == 255:
            continue
        valid += 1
        terms = (logits[n, :, y, x] - logits[n, :, y, x].max()).exp()
        p = terms / terms.sum()
        best = int(p.argmax())
        won = best != label and p[best].item() > confidence[n, y, x].item()
        weight = 1.0
        if is_pseudo[n]:
            disagreements += best != label
            wins += won
            if agree or disagree:
                weight = p[label].item() ** (agree if best == label else disagree)
                if won and variant == "dmt":
                    weight = 0.0
                if won and variant == "flip":
                    label, weight = best, (1 - confidence[n, y, x].item()) ** disagree
        loss = -torch.log(p[label])
        total = total + weight * loss
        weights += weight
        plain += loss.item()
    return {
        "loss": total / valid,
        "count": valid,
        "statistics": (disagreements, wins, weights / valid, plain / valid),
    }


@pytest.mark.parametrize(("shape", "agree", "disagree", "variant"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_are_those_of_the_formula(
    shape: tuple[int, ...], agree: float, disagree: float, variant: Any, seed: int
) -> None:
    logits, target, confidence, is_pseudo = problem(shape, seed)
    logits.requires_grad_()
    arguments = (logits, target, confidence, is_pseudo, agree, disagree, variant)
    expected = transcription(*arguments)
    (gradient,) = torch.autograd.grad(expected["loss"], logits)
    found, statistics = dynamic_mutual_loss(*arguments)
    (found_gradient,) = torch.autograd.grad(found, logits)
    torch.testing.assert_close(found, expected["loss"], rtol=1e-6, atol=0)
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-6, atol=1e-15)
    assert [float(value) for value in statistics] == pytest.approx(expected["statistics"], rel=1e-6)
    (total, count), _ = dynamic_mutual_loss(*arguments, reduction="sum_count")
    assert count == expected["count"]
    torch.testing.assert_close(total / count, found)


def test_equal_confidence_lets_the_labeler_win() -> None:
    logits = torch.randn(2, 3, 4, 4)
    confidence, own = logits.softmax(1).max(1)
    target, everything = (own + 1) % 3, torch.ones(2, dtype=torch.bool)
    _, at_a_tie = dynamic_mutual_loss(logits, target, confidence, everything, 1, 1)
    assert (int(at_a_tie.disagreements), int(at_a_tie.wins)) == (32, 0)
    below = torch.nextafter(confidence, torch.zeros(()))
    loss, beyond = dynamic_mutual_loss(logits, target, below, everything, 1, 1)
    assert int(beyond.wins) == 32
    assert loss == beyond.mean_weight == 0


def test_weights_carry_no_gradient() -> None:
    logits, target, confidence, is_pseudo = problem((3, 4, 4, 4), 5)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(
        dynamic_mutual_loss(logits, target, confidence, is_pseudo, 5, 5)[0], logits
    )
    detached = logits.detach()
    rows = [gradient[n, :, y, x] for n, y, x in (target != 255).nonzero().tolist()]
    for row, (n, y, x) in zip(rows, (target != 255).nonzero().tolist(), strict=True):
        direction = detached[n, :, y, x].softmax(0)
        direction[target[n, y, x]] -= 1
        assert torch.linalg.matrix_rank(torch.stack([row, direction]), tol=1e-9) <= 1


def test_labeled_images_alone_are_plain_cross_entropy() -> None:
    logits, target, confidence, _ = problem((3, 4, 4, 4), 6)
    loss, statistics = dynamic_mutual_loss(logits, target, confidence, torch.zeros(3, dtype=torch.bool), 5, 5)
    assert torch.equal(loss, cross_entropy(logits, target))
    assert statistics.disagreements == statistics.wins == 0


@pytest.mark.parametrize("variant", ["dmt", "flip", "naive"])
@pytest.mark.parametrize("reduction", ["mean", "sum_count"])
def test_nothing_valid_is_zero_with_zero_gradient(variant: Any, reduction: Any) -> None:
    logits, target, confidence, is_pseudo = problem((3, 4, 4, 4), 7)
    logits.requires_grad_()
    nothing = torch.full_like(target, 255)
    result, statistics = dynamic_mutual_loss(
        logits, nothing, confidence, is_pseudo, 5, 5, variant, reduction=reduction
    )
    value = result if reduction == "mean" else result[0]
    value.backward()
    assert value == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    assert [float(each) for each in statistics] == [0, 0, 0, 0]


def test_other_ignore_index() -> None:
    logits, target, confidence, is_pseudo = problem((3, 4, 4, 4), 8)
    moved = target.masked_fill(target == 255, -1)
    first = dynamic_mutual_loss(logits, target, confidence, is_pseudo, 3, 1)[0]
    assert torch.equal(
        first, dynamic_mutual_loss(logits, moved, confidence, is_pseudo, 3, 1, ignore_index=-1)[0]
    )


def test_extreme_logits_stay_finite() -> None:
    logits, target, confidence, is_pseudo = problem((3, 4, 4, 4), 9, torch.float32)
    logits = (1e4 * logits).requires_grad_()
    loss = dynamic_mutual_loss(logits, target, confidence, is_pseudo, 5, 0.5)[0]
    loss.backward()
    assert math.isfinite(loss.item())
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("variant", ["dmt", "flip", "naive"])
def test_bfloat16_logits_are_computed_in_float32(variant: Any) -> None:
    logits, target, confidence, is_pseudo = problem((3, 4, 4, 4), 10, torch.float32)
    half = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = dynamic_mutual_loss(half, target, confidence, is_pseudo, 5, 5, variant)
    expected, _ = dynamic_mutual_loss(half.float(), target, confidence, is_pseudo, 5, 5, variant)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("variant", ["dmt", "flip", "naive"])
def test_it_compiles_into_one_graph(variant: Any) -> None:
    logits, target, confidence, is_pseudo = problem((3, 4, 4, 4), 11)
    logits.requires_grad_()
    arguments = (logits, target, confidence, is_pseudo, 5.0, 2.0, variant)
    compiled = torch.compile(dynamic_mutual_loss, fullgraph=True, backend="eager")
    (gradient,) = torch.autograd.grad(compiled(*arguments)[0], logits)
    (expected,) = torch.autograd.grad(dynamic_mutual_loss(*arguments)[0], logits)
    assert torch.equal(gradient, expected)


def test_it_never_waits_for_the_device(wait_counter: Any) -> None:
    logits, target, confidence, is_pseudo = problem((3, 4, 4, 4), 12)
    logits.requires_grad_()
    with wait_counter:
        for variant in ("dmt", "flip", "naive"):
            dynamic_mutual_loss(logits, target, confidence, is_pseudo, 5, 5, variant)[0].backward()
    assert wait_counter.seen == []


@pytest.mark.parametrize("wrong", [{"variant": "soft"}, {"gamma_agree": -1.0}, {"gamma_disagree": -0.5}])
def test_bad_arguments_are_refused(wrong: dict[str, Any]) -> None:
    arguments = {"gamma_agree": 5.0, "gamma_disagree": 5.0} | wrong
    with pytest.raises(ValueError, match="expected"):
        dynamic_mutual_loss(*problem((3, 4, 4, 4), 0), **arguments)
