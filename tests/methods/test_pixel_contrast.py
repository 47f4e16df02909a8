"""The pixel contrast equals its plain, slow form, and draws its pixels as it says."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.losses import pixel_contrast
from semiseg.losses.pixel_contrast import PixelSample, contrast_pixels, draw_pixels, negative_classes
from semiseg.losses.upsampled import Upsampled

Size = tuple[int, int]
SIZES: list[tuple[Size, Size]] = [
    ((5, 6), (33, 41)),
    ((5, 6), (5, 6)),
    ((4, 9), (2, 3)),
    ((1, 4), (9, 8)),
    ((3, 1), (7, 1)),
    ((1, 1), (4, 4)),
]


def problem(
    cells: Size = (5, 6), size: Size = (17, 21), classes: int = 5, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Noise; class 1 is absent, class 2 is sure of itself, and every fifth pixel is ignored."""
    generator = torch.Generator().manual_seed(seed)
    representation = torch.randn(2, 7, *cells, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (2, *size), generator=generator)
    labels[labels == 1] = 0
    probabilities = (3 * torch.randn(2, classes, *size, generator=generator)).softmax(1)
    probabilities[:, 2] = torch.where(labels == 2, 0.95, probabilities[:, 2])
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    return representation, labels, probabilities


def draw(representation: Tensor, labels: Tensor, probabilities: Tensor, **numbers: int) -> PixelSample:
    upsampled = Upsampled(representation, (labels.shape[1], labels.shape[2]))
    q, n = numbers.get("queries", 16), numbers.get("negatives", 32)
    return draw_pixels(upsampled, labels, probabilities, q, n, 0.5, 0.9, torch.Generator().manual_seed(1))


def slow(representation: Tensor, labels: Tensor, sample: PixelSample, temperature: float) -> Tensor:
    """The formula on the upsampled map, pixel by pixel."""
    pixels = F.interpolate(representation, size=labels.shape[1:], mode="bilinear", align_corners=True)
    pixels = pixels.permute(0, 2, 3, 1).flatten(0, 2)
    present = [label for label in labels.unique().tolist() if label != 255]
    total = pixels.new_zeros(())
    for row, label in enumerate(present):
        if not sample.counted[row]:
            continue
        prototype = pixels[labels.flatten() == label].mean(0).detach()
        for query, others in zip(sample.queries[row], sample.negatives[row], strict=True):
            keys = torch.cat([prototype.unsqueeze(0), pixels[others].detach()])
            similarity = torch.cosine_similarity(pixels[query].unsqueeze(0), keys, dim=1) / temperature
            total = total - similarity.log_softmax(0)[0] / len(sample.queries[row])
    return total / len(present)


@pytest.mark.parametrize(("cells", "size"), SIZES)
def test_an_upsampled_map_is_known_without_being_made(cells: Size, size: Size) -> None:
    representation, labels, _ = problem(cells, size)
    upsampled = Upsampled(representation, size)
    made = F.interpolate(representation, size=size, mode="bilinear", align_corners=True)
    made = made.permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(upsampled.at(torch.arange(len(made))), made)
    torch.testing.assert_close(upsampled.squared_lengths(), made.square().sum(1))
    groups = labels.masked_fill(labels == 255, 5)
    expected = torch.stack([made[groups.flatten() == group].sum(0) for group in range(5)])
    torch.testing.assert_close(upsampled.sums(groups, 5), expected)


@pytest.mark.parametrize(("cells", "size"), SIZES[:4])
@pytest.mark.parametrize("temperature", [0.5, 0.05])
def test_value_and_gradient_equal_the_slow_form(cells: Size, size: Size, temperature: float) -> None:
    representation, labels, probabilities = problem(cells, size)
    representation.requires_grad_()
    sample = draw(representation, labels, probabilities)
    fast = contrast_pixels(Upsampled(representation, size), sample, temperature) / sample.present
    expected = slow(representation, labels, sample, temperature)
    torch.testing.assert_close(fast, expected, rtol=1e-9, atol=0)
    (gradient,) = torch.autograd.grad(fast, representation)
    (wanted,) = torch.autograd.grad(expected, representation)
    assert wanted.abs().max() > 0
    torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-9 * wanted.abs().max().item())


def test_blocks_of_queries_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    representation, labels, probabilities = problem()
    sample = draw(representation, labels, probabilities)
    upsampled = Upsampled(representation, (17, 21))
    whole = contrast_pixels(upsampled, sample, 0.5)
    module = import_module("semiseg.losses.pixel_contrast")
    monkeypatch.setattr(module, "BLOCK_ENTRIES", 7 * 60)
    assert torch.isclose(contrast_pixels(upsampled, sample, 0.5), whole, rtol=1e-12)


def test_every_pixel_is_drawn_alike() -> None:
    representation, labels, probabilities = problem()
    sample = draw(representation, labels, probabilities, queries=3000, negatives=40)
    own = probabilities.gather(1, labels.masked_fill(labels == 255, 0).unsqueeze(1)).flatten()
    flat = labels.flatten()
    assert sample.present == 4
    assert sample.counted.tolist() == [True, False, True, True]
    for row, label in enumerate([0, 2, 3, 4]):
        if label == 2:
            continue
        unsure = (flat == label) & (own < 0.9)
        assert set(sample.queries[row].tolist()) == set(unsure.nonzero().flatten().tolist())
        drawn = sample.negatives[row].flatten()
        assert not (flat[drawn] == label).any()
        assert not (flat[drawn] == 255).any()
        for other in {0, 2, 3, 4} - {label}:
            pixels = (flat == other).nonzero().flatten()
            counts = drawn.bincount(minlength=flat.numel())[pixels].double()
            chi_square = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
            freedom = len(pixels) - 1
            assert chi_square < freedom + 5 * (2 * freedom) ** 0.5
        assert not (sample.queries[row].unsqueeze(1) == sample.negatives[row]).any()


def test_other_classes_are_drawn_by_the_similarity_of_their_means() -> None:
    prototypes = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    present = torch.tensor([True, True, True, False])
    found = negative_classes(prototypes, present, 0.5)
    similar = torch.tensor([2 * 0.5**0.5, 0.0]).softmax(0)
    torch.testing.assert_close(found[0], torch.tensor([0.0, similar[1], similar[0], 0.0]))
    assert negative_classes(prototypes, torch.tensor([True, False, False, False]), 0.5)[0].sum() == 0


def test_gradient_flows_through_the_queries_alone() -> None:
    representation, labels, _ = problem((6, 6), (6, 6))
    representation.requires_grad_()
    probabilities = torch.zeros(2, 5, 6, 6, requires_grad=True)
    sample = draw(representation, labels, probabilities, queries=3)
    contrast_pixels(Upsampled(representation, (6, 6)), sample, 0.5).backward()
    assert representation.grad is not None
    touched = representation.grad.abs().sum(1).flatten().nonzero().flatten()
    assert set(touched.tolist()) <= set(sample.queries[sample.counted].flatten().tolist())
    pixel_contrast(representation, labels, probabilities).backward()
    assert probabilities.grad is None


@pytest.mark.parametrize("label", [255, 3])
@pytest.mark.parametrize("reduction", ["mean", "sum_count"])
def test_less_than_two_classes_give_zero_with_zero_gradient(label: int, reduction: Any) -> None:
    representation, labels, probabilities = problem()
    representation.requires_grad_()
    result = pixel_contrast(
        representation, torch.full_like(labels, label), probabilities, reduction=reduction
    )
    value = result if isinstance(result, Tensor) else result[0]
    value.backward()
    assert value == 0
    assert torch.equal(representation.grad, torch.zeros_like(representation))
    assert isinstance(result, Tensor) or result[1] == 0


def test_no_unsure_pixel_gives_zero_with_zero_gradient() -> None:
    representation, labels, probabilities = problem()
    representation.requires_grad_()
    value = pixel_contrast(representation, labels, probabilities, strong_threshold=0.0)
    value.backward()
    assert value == 0
    assert torch.equal(representation.grad, torch.zeros_like(representation))


def test_zero_vectors_have_finite_losses_and_gradients() -> None:
    representation, labels, probabilities = problem()
    representation = torch.zeros_like(representation).requires_grad_()
    value = pixel_contrast(representation, labels, probabilities, 8, 16)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(representation.grad).all()


def test_ignored_pixels_can_be_counted_as_class_0() -> None:
    representation, labels, probabilities = problem()

    def loss(target: Tensor, **options: Any) -> Tensor:
        seeded = torch.Generator().manual_seed(3)
        return pixel_contrast(representation, target, probabilities, 16, 32, generator=seeded, **options)

    assert torch.equal(loss(labels, ignored_as_class_0=True), loss(labels.masked_fill(labels == 255, 0)))
    assert not torch.equal(loss(labels, ignored_as_class_0=True), loss(labels))
    assert torch.equal(loss(labels.masked_fill(labels == 255, -1), ignore_index=-1), loss(labels))


def test_sum_over_count_is_the_mean() -> None:
    arguments = problem()
    total, count = pixel_contrast(
        *arguments, 16, 32, generator=torch.Generator().manual_seed(3), reduction="sum_count"
    )
    assert count == 4
    assert not count.is_floating_point()
    mean = pixel_contrast(*arguments, 16, 32, generator=torch.Generator().manual_seed(3))
    assert torch.isclose(total / count, mean)


def test_equal_seeds_give_equal_losses_whatever_was_drawn_before() -> None:
    arguments = problem()
    losses = []
    for _ in range(2):
        torch.rand(3)
        losses.append(pixel_contrast(*arguments, 16, 32, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(*losses)


def test_autocast_does_not_reach_it() -> None:
    representation, labels, probabilities = problem()
    half = representation.bfloat16()
    results = []
    for values, enabled in ((half, True), (half.float(), False)):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            seeded = torch.Generator().manual_seed(3)
            results.append(pixel_contrast(values, labels, probabilities, 16, 32, generator=seeded))
    assert results[0].dtype == torch.float32
    assert torch.equal(*results)


def test_it_compiles_into_one_graph() -> None:
    representation, labels, probabilities = problem()
    representation.requires_grad_()
    compiled = torch.compile(pixel_contrast, fullgraph=True, backend="eager")

    def mean(function: Callable[..., Tensor]) -> float:
        torch.manual_seed(0)
        losses = [function(representation, labels, probabilities, 64, 64) for _ in range(30)]
        return torch.stack(losses).mean().item()

    # The graph draws for absent classes too: other numbers of the same distribution.
    assert mean(compiled) == pytest.approx(mean(pixel_contrast), abs=0.02)


def test_the_part_without_draws_compiles_to_the_same_value() -> None:
    representation, labels, probabilities = problem()
    sample = draw(representation, labels, probabilities)

    def loss(values: Tensor, drawn: PixelSample) -> Tensor:
        return contrast_pixels(Upsampled(values, (17, 21)), drawn, 0.5)

    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    assert torch.isclose(compiled(representation, sample), loss(representation, sample), rtol=1e-12)


def test_a_cpu_reads_which_classes_are_present_and_nothing_else(wait_counter: Any) -> None:
    representation, labels, probabilities = problem()
    representation.requires_grad_()
    with wait_counter:
        pixel_contrast(representation, labels, probabilities, 16, 32).backward()
    assert wait_counter.seen == ["nonzero"]


def test_nothing_is_read_from_another_device() -> None:
    representation, labels, probabilities = (part.to("meta") for part in problem())
    upsampled = Upsampled(representation.requires_grad_(), (17, 21))
    sample = draw_pixels(upsampled, labels, probabilities, 8, 16, 0.5, 0.9)
    assert sample.negatives.shape == (5, 8, 16)
    contrast_pixels(upsampled, sample, 0.5).backward()
