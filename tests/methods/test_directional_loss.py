"""The directional contrast against a plain transcription of its formula, and what it promises beside its value."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.errors import UserError
from semiseg.losses import directional_contrast
from semiseg.losses.half_bank import HalfBank

Problem = dict[str, Tensor]


def plain(
    problem: Problem,
    temperature: float = 0.1,
    threshold: float = 0.75,
    normalizer: str = "anchors",
    eps: float = 1e-8,
    max_block: int = 8000,
) -> tuple[Tensor, Tensor]:
    """The formula term by term in float64, both directions apart; everything of size M x N is made."""
    found = []
    bank, bank_labels = problem["bank_features"].detach().double(), problem["bank_labels"]
    for view, other in ((1, 2), (2, 1)):
        anchor, target = problem[f"features_{view}"].double(), problem[f"features_{other}"].double().detach()
        own, theirs = problem[f"confidence_{view}"], problem[f"confidence_{other}"]
        positive = (anchor * target).sum(1, keepdim=True) / temperature
        negative = anchor @ bank.T / temperature
        peak = torch.cat([positive, negative[:, :max_block]], 1).max(1, keepdim=True).values
        keep = problem[f"labels_{view}"][:, None] != bank_labels
        numerator = (positive - peak).exp()[:, 0]
        denominator = numerator + ((negative - peak).exp() * keep).sum(1)
        loss = -(numerator / (denominator + eps) + eps).log()
        weight = (theirs > threshold) & (own < theirs)
        count = weight.sum() if normalizer == "anchors" else len(weight)
        found.append((loss * weight).sum() / (count + 1e-12))
    return found[0], found[1]


def make(
    rows: int = 30,
    entries: int = 50,
    channels: int = 7,
    classes: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def unit(count: int) -> Tensor:
        return F.normalize(torch.randn(count, channels, generator=generator, dtype=torch.float64)).to(dtype)

    def label(count: int) -> Tensor:
        return torch.randint(classes, (count,), generator=generator)

    return {
        "features_1": unit(rows).requires_grad_(),
        "features_2": unit(rows).requires_grad_(),
        "labels_1": label(rows),
        "labels_2": label(rows),
        "confidence_1": torch.rand(rows, generator=generator),
        "confidence_2": torch.rand(rows, generator=generator),
        "bank_features": unit(entries).requires_grad_(),
        "bank_labels": label(entries),
    }


def saturated(seed: int) -> Problem:
    """Opposite views, and a bank of copies of the anchors, most of them of their own class."""
    problem = make(seed=seed, classes=1 + seed % 3)
    with torch.no_grad():
        problem["features_2"].copy_(F.normalize(0.05 * problem["features_2"] - problem["features_1"]))
        copies = torch.cat([problem["features_1"], problem["features_2"]])
        problem["bank_features"].copy_(copies[torch.arange(50) % 60])
    return problem


def leaves(problem: Problem) -> list[Tensor]:
    return [value for value in problem.values() if value.requires_grad]


def gradients(total: Tensor, problem: Problem) -> list[Tensor]:
    """With respect to the features of view 1, of view 2, and the bank."""
    found = torch.autograd.grad(total, leaves(problem), retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(leaf) if part is None else part
        for leaf, part in zip(leaves(problem), found, strict=True)
    ]


def close(found: Tensor, expected: Tensor, rel: float) -> None:
    """Equal up to a share of the largest entry."""
    assert (found - expected).abs().max() <= rel * expected.abs().max().clamp_min(1e-300)


@pytest.mark.parametrize("seed", [0, 3, 7, 11])
@pytest.mark.parametrize("max_block", [1, 13, 8000])
@pytest.mark.parametrize("normalizer", ["anchors", "overlap"])
@pytest.mark.parametrize("hard", [False, True])
def test_values_and_gradients_equal_the_formula(
    seed: int, max_block: int, normalizer: Any, hard: bool
) -> None:
    shape = torch.randint(1, 70, (2,), generator=torch.Generator().manual_seed(seed)).tolist()
    problem = saturated(seed) if hard else make(*shape, channels=2 + seed, classes=1 + seed % 5, seed=seed)
    options = (0.05 + 0.02 * seed, 0.4, normalizer, 1e-8, max_block)
    expected, found = plain(problem, *options), directional_contrast(**problem, **named(options))
    for one, other in zip(found, expected, strict=True):
        close(one, other, 1e-9)
        for part, whole in zip(gradients(one, problem), gradients(other, problem), strict=True):
            close(part, whole, 1e-7)


def named(options: tuple[Any, ...]) -> dict[str, Any]:
    keys = ("temperature", "positive_threshold", "normalizer", "eps", "max_block")
    return dict(zip(keys, options, strict=True))


def test_saturated_rows_reach_both_constants() -> None:
    # One class: nothing but the own term below the line, which is as small as the inner constant.
    # More classes: the share itself is as small as the outer one.
    for seed, less in ((0, False), (1, True)):
        problem = saturated(seed)
        with_both, without = (
            [
                float(part.detach())
                for part in directional_contrast(**problem, positive_threshold=0.0, eps=eps)
            ]
            for eps in (1e-8, 0.0)
        )
        assert all((one < other - 0.1) == less for one, other in zip(with_both, without, strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_single_precision_is_close(seed: int) -> None:
    problem = make(400, 900, 32, 5, seed, torch.float32)
    expected, found = plain(problem), directional_contrast(**problem, max_block=300)
    for one, other in zip(found, plain(problem, max_block=300), strict=True):
        assert one.dtype == torch.float32
        assert float(one.detach()) == pytest.approx(float(other.detach()), rel=1e-5)
        for part, whole in zip(gradients(one, problem), gradients(other, problem), strict=True):
            close(part, whole, 1e-5)
    assert float(found[0].detach()) == pytest.approx(float(expected[0].detach()), rel=1e-4)


def test_many_rows_are_compared_in_tiles() -> None:
    problem = make(3000, 2000, 4, 3, dtype=torch.float32)
    for one, other in zip(directional_contrast(**problem), plain(problem), strict=True):
        assert float(one.detach()) == pytest.approx(float(other.detach()), rel=1e-5)
        for part, whole in zip(gradients(one, problem), gradients(other, problem), strict=True):
            close(part, whole, 1e-5)


def test_the_gradient_reaches_the_less_confident_view_alone() -> None:
    problem = make(rows=4)
    problem["confidence_1"] = torch.tensor([0.3, 0.9, 0.8, 0.5])
    problem["confidence_2"] = torch.tensor([0.9, 0.3, 0.8, 0.7])
    loss_1, loss_2 = directional_contrast(**problem)
    for loss, row, view in ((loss_1, 0, 0), (loss_2, 1, 1)):
        reached = [part.abs().sum(1) > 0 for part in gradients(loss, problem)]
        assert reached[view].tolist() == [index == row for index in range(4)]
        assert not reached[1 - view].any()
        assert not reached[2].any()


def test_equal_confidence_and_the_threshold_itself_do_not_count() -> None:
    problem = make(rows=3)
    problem["confidence_1"] = torch.tensor([0.9, 0.5, 0.5])
    problem["confidence_2"] = torch.tensor([0.9, 0.75, 0.75001])
    (_, count_1), (_, count_2) = directional_contrast(**problem, reduction="sum_count")
    assert (int(count_1), int(count_2)) == (1, 0)


@pytest.mark.parametrize("normalizer", ["anchors", "overlap"])
def test_sum_over_count_is_the_mean(normalizer: Any) -> None:
    problem = make()
    means = directional_contrast(**problem, normalizer=normalizer)
    sums = directional_contrast(**problem, normalizer=normalizer, reduction="sum_count")
    for mean, (total, count) in zip(means, sums, strict=True):
        assert not count.is_floating_point()
        assert torch.isclose(total / count, mean)
    if normalizer == "overlap":
        assert [int(count) for _, count in sums] == [30, 30]


@pytest.mark.parametrize("normalizer", ["anchors", "overlap"])
def test_masks_equal_leaving_out(normalizer: Any) -> None:
    problem = make(20, 24)
    rows, entries = torch.arange(20) % 3 > 0, torch.arange(24) % 4 > 1
    problem["bank_features"].data[~entries] = 7.0  # as far from a unit vector as can be
    kept = {
        key: value[entries if key.startswith("bank") else rows].detach().requires_grad_(value.requires_grad)
        for key, value in problem.items()
    }
    for max_block in (1, 5, 100):
        found = directional_contrast(
            **problem, normalizer=normalizer, max_block=max_block, valid=rows, bank_valid=entries
        )
        # The first block holds fewer entries that exist.
        looked_at = max(int(entries[:max_block].sum()), 1)
        if not entries[:max_block].any():
            continue
        expected = directional_contrast(**kept, normalizer=normalizer, max_block=looked_at)
        for one, other, view in zip(found, expected, (0, 1), strict=True):
            assert torch.isclose(one, other, rtol=1e-10)
            part, whole = gradients(one, problem)[view], gradients(other, kept)[view]
            torch.testing.assert_close(part[rows], whole)
            assert not part[~rows].any()


@pytest.mark.parametrize("reason", ["threshold", "mask", "no rows"])
@pytest.mark.parametrize("normalizer", ["anchors", "overlap"])
def test_nothing_to_learn_is_zero_with_zero_gradient(reason: str, normalizer: Any) -> None:
    problem = make(rows=0 if reason == "no rows" else 9)
    options: dict[str, Any] = {"normalizer": normalizer}
    if reason == "threshold":
        options["positive_threshold"] = 1.0
    if reason == "mask":
        options["valid"] = torch.zeros(9, dtype=torch.bool)
    losses = directional_contrast(**problem, **options)
    assert [float(loss.detach()) for loss in losses] == [0, 0]
    for part in gradients(losses[0] + losses[1], problem):
        assert not part.any()


@pytest.mark.parametrize("empty", ["no entries", "none exists"])
def test_an_empty_bank_gives_no_loss_and_finite_gradients(empty: str) -> None:
    problem = make(entries=0 if empty == "no entries" else 6)
    exists = None if empty == "no entries" else torch.zeros(6, dtype=torch.bool)
    losses = directional_contrast(**problem, bank_valid=exists)
    for loss in losses:
        assert abs(float(loss.detach())) < 1e-7
        assert all((part.abs() < 1e-6).all() for part in gradients(loss, problem))


def test_half_precision_computes_in_single() -> None:
    problem = make(dtype=torch.float32)
    outside = directional_contrast(**problem)
    with torch.autocast("cpu", torch.bfloat16):
        inside = directional_contrast(**problem)
        rounded = {
            key: value.bfloat16() if value.is_floating_point() else value for key, value in problem.items()
        }
        coarse = directional_contrast(**rounded)
    for one, other, rough in zip(outside, inside, coarse, strict=True):
        assert other.dtype == rough.dtype == torch.float32
        assert torch.equal(one, other)
        assert torch.isclose(one, rough, rtol=0.5)


@pytest.mark.parametrize("masked", [False, True])
def test_it_compiles_into_one_graph(masked: bool) -> None:
    problem = make(dtype=torch.float32)
    options: dict[str, Any] = {"max_block": 20}
    if masked:
        options |= {"valid": torch.arange(30) > 3, "bank_valid": torch.arange(50) < 40}
    compiled = torch.compile(directional_contrast, fullgraph=True, backend="eager")
    results = []
    for function in (compiled, directional_contrast):
        one, two = function(**problem, **options)
        results.append([one, two, *gradients(one + 2 * two, problem)])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("masked", [False, True])
def test_it_never_waits_for_the_device(masked: bool, wait_counter: Any) -> None:
    problem = make()
    options: dict[str, Any] = {"max_block": 20}
    if masked:
        options |= {"valid": torch.arange(30) > 3, "bank_valid": torch.arange(50) < 40}
    with wait_counter:
        one, two = directional_contrast(**problem, **options)
        (one + two).backward()
    assert wait_counter.seen == []


@pytest.mark.parametrize(
    "options", [{"normalizer": "pixels"}, {"temperature": 0.0}, {"temperature": -1.0}, {"max_block": 0}]
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        directional_contrast(**make(), **options)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("full", [True, False])
def test_a_bank_in_16_bits_is_close_to_double_precision(temperature: float, full: bool) -> None:
    problem = make(60, 300, 16, 4)
    anchors, targets, bank = (problem[key].detach() for key in ("features_1", "features_2", "bank_features"))
    labels, of_bank = problem["labels_1"], problem["bank_labels"]
    exists = None if full else torch.arange(300) < 130
    keep = (labels[:, None] != of_bank) & (torch.ones(300, dtype=torch.bool) if exists is None else exists)
    query = anchors / temperature
    positive = (query * targets).sum(1)
    energy = query @ bank.T
    allowed = energy[:, :100] if exists is None else energy[:, :100].masked_fill(~exists[:100], -torch.inf)
    expected_peak = torch.maximum(positive, allowed.max(1).values)
    weights = (energy - expected_peak[:, None]).exp() * keep
    singles = (each.float() for each in (query, targets, positive))
    peak, _, total, weighted = HalfBank(bank.float(), of_bank, exists, 4, 100).compare(*singles, labels)
    # float16 holds an energy of 10 to within 2^-7; all others more exactly.
    assert (peak - expected_peak).abs().max() < 2**-7
    scale = (peak - expected_peak).exp()
    assert (total * scale / weights.sum(1) - 1).abs().max() < 0.01
    close(weighted * scale[:, None], weights @ bank, 0.01)
