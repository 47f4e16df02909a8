"""DMTC's pixel contrast against numbers recorded from its published code."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from semiseg.losses import pixel_contrast
from semiseg.losses.pixel_contrast import contrast_pixels, draw_pixels, negative_classes
from semiseg.losses.upsampled import Upsampled

pytestmark = pytest.mark.golden("DMTC contrast")

LABELS = torch.tensor([[[0, 0, 1, 1], [0, 1, 1, 0]]])
ORTHOGONAL = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
HALF_RIGHT = torch.tensor([[1.0, 0.0], [math.sqrt(0.5), math.sqrt(0.5)]])


def two_classes(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """A representation that is constant over each class, and even probabilities of three classes."""
    return vectors[LABELS].permute(0, 3, 1, 2).contiguous(), torch.full((1, 3, 2, 4), 1 / 3)


def waves(*shape: int) -> Tensor:
    return torch.arange(math.prod(shape), dtype=torch.float64).view(shape)


def random_problem() -> tuple[Tensor, Tensor, Tensor]:
    representation = (0.13 * waves(2, 5, 6, 7)).sin()
    b, y, x = torch.meshgrid(torch.arange(2), torch.arange(6), torch.arange(7), indexing="ij")
    return representation, (b + y // 2 + x // 3) % 3, (3 * (0.21 * waves(2, 3, 6, 7)).cos()).softmax(1)


@pytest.mark.parametrize(
    ("vectors", "negatives", "expected"),
    [
        (ORTHOGONAL, 512, math.log(1 + 512 * math.exp(-2))),
        (ORTHOGONAL, 512, 4.25265),
        (ORTHOGONAL, 256, 3.57363),
        (HALF_RIGHT, 512, 5.65604),
    ],
)
def test_constant_classes(vectors: Tensor, negatives: int, expected: float) -> None:
    representation, probabilities = two_classes(vectors)
    found = pixel_contrast(representation, LABELS, probabilities, 256, negatives, 0.5, 0.97)
    assert found.item() == pytest.approx(expected, abs=5e-6)


def test_a_class_without_unsure_pixels_adds_nothing_but_divides() -> None:
    representation, probabilities = two_classes(ORTHOGONAL)
    probabilities[:, 0] = torch.where(LABELS == 0, 0.99, probabilities[:, 0])
    found = pixel_contrast(representation, LABELS, probabilities, 256, 512, 0.5, 0.97)
    assert found.item() == pytest.approx(2.12633, abs=5e-6)


@pytest.mark.parametrize(("ignored_as_class_0", "expected"), [(True, 4.25265), (False, 0.0)])
def test_ignored_pixels(ignored_as_class_0: bool, expected: float) -> None:
    representation, probabilities = two_classes(ORTHOGONAL)
    labels = LABELS.masked_fill(LABELS == 0, 255)
    found = pixel_contrast(
        representation, labels, probabilities, 256, 512, 0.5, 0.97, ignored_as_class_0=ignored_as_class_0
    )
    assert found.item() == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize("label", [0, 2])
def test_a_single_class_is_exactly_zero(label: int) -> None:
    representation, probabilities = two_classes(HALF_RIGHT)
    assert pixel_contrast(representation, torch.full_like(LABELS, label), probabilities) == 0


def test_queries_are_the_unsure_pixels() -> None:
    representation, labels, probabilities = random_problem()
    upsampled = Upsampled(representation, (6, 7))
    generator = torch.Generator().manual_seed(0)
    sample = draw_pixels(upsampled, labels, probabilities, 2000, 1, 0.5, 0.9, generator)
    assert [len(row.unique()) for row in sample.queries] == [27, 19, 26]
    assert labels.flatten().bincount().tolist() == [28, 28, 28]
    for label, row in enumerate(sample.queries):
        assert (labels.flatten()[row] == label).all()
        assert (probabilities[:, label].flatten()[row] < 0.9).all()


def test_sure_pixels_have_no_gradient() -> None:
    representation, labels, probabilities = random_problem()
    representation.requires_grad_()
    generator = torch.Generator().manual_seed(0)
    pixel_contrast(representation, labels, probabilities, 2000, 8, 0.5, 0.9, generator).backward()
    assert representation.grad is not None
    assert int((representation.grad.abs().sum(1) > 0).sum()) == 72


CLASSES = torch.tensor([[0, 0.216060, 0.783940], [0.337690, 0, 0.662310], [0.649119, 0.350881, 0]])


def test_negatives_come_from_similar_classes() -> None:
    representation, labels, probabilities = random_problem()
    upsampled = Upsampled(representation, (6, 7))
    prototypes = upsampled.sums(labels, 3) / 28
    expected = negative_classes(prototypes, torch.ones(3, dtype=torch.bool), 0.5)
    torch.testing.assert_close(expected.float(), CLASSES, rtol=0, atol=1e-6)
    generator = torch.Generator().manual_seed(0)
    sample = draw_pixels(upsampled, labels, probabilities, 64, 8192, 0.5, 0.9, generator)
    drawn = labels.flatten()[sample.negatives].flatten(1)
    found = torch.stack([row.bincount(minlength=3) / row.numel() for row in drawn])
    torch.testing.assert_close(found, CLASSES, rtol=0, atol=4e-3)  # 6 standard deviations


def test_mean_over_seeds() -> None:
    problem = random_problem()

    def loss(seed: int) -> Tensor:
        return pixel_contrast(*problem, 64, 64, 0.5, 0.9, torch.Generator().manual_seed(seed))

    found = torch.stack([loss(seed) for seed in range(400)])
    # Recorded: 4.195 with a standard error of 0.013, a standard deviation of 0.103.
    error = math.hypot(0.013, found.std().item() / 20)
    assert found.mean().item() == pytest.approx(4.195, abs=3 * error)
    assert found.std().item() == pytest.approx(0.103, rel=0.3)


def test_the_published_draws() -> None:
    representation, labels, probabilities = random_problem()
    representation.requires_grad_()
    upsampled = Upsampled(representation, (6, 7))
    sample = draw_pixels(upsampled, labels, probabilities, 8, 16, 0.5, 0.9)
    of_class = [(labels.flatten() == label).nonzero().squeeze(1) for label in range(3)]
    own = probabilities.gather(1, labels.unsqueeze(1)).flatten()
    likely = negative_classes(sample.prototypes, torch.ones(3, dtype=torch.bool), 0.5)

    torch.manual_seed(0)
    random = np.random.RandomState(0)
    queries, negatives = [], []
    for label, pixels in enumerate(of_class):
        unsure = pixels[own[pixels] < 0.9]
        queries.append(unsure[torch.randint(len(unsure), size=(8,))])
        others = [(label + 1) % 3, (label + 2) % 3]
        which = torch.multinomial(likely[label, others], 8 * 16, replacement=True).view(8, 16)
        pool = torch.cat([of_class[other] for other in others])
        for row in which:
            counts = [int((row == part).sum()) for part in range(2)]
            index = [random.randint(28 * part, 28 * (part + 1), counts[part]) for part in range(2)]
            negatives.append(pool[np.concatenate(index)])
    sample = sample._replace(
        queries=torch.stack(queries), negatives=torch.stack(negatives).view_as(sample.negatives)
    )

    loss = contrast_pixels(upsampled, sample, 0.5) / 3
    loss.backward()
    assert loss.item() == pytest.approx(2.8432171, abs=1e-6)
    assert representation.grad is not None
    assert representation.grad.abs().sum().item() == pytest.approx(1.8905683, rel=1e-6)
