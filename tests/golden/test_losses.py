"""Losses and masks against numbers recorded from the published CPS code (float64)."""

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from semiseg.losses import cross_entropy, cross_pseudo_loss, ohem_cross_entropy
from semiseg.pseudo import box_masks


def waves(batch: int, classes: int, height: int, width: int, phase: float) -> torch.Tensor:
    """Synthetic logits of all CPS checks."""
    b, c, y, x = torch.meshgrid(
        *(torch.arange(n, dtype=torch.float64) for n in (batch, classes, height, width)), indexing="ij"
    )
    return 6 * torch.sin(0.37 * (c + 1) * (1 + 0.01 * y) + 0.11 * y - 0.07 * x + 1.3 * b + phase)


def hard_example_problem() -> tuple[torch.Tensor, torch.Tensor]:
    logits = 6 * waves(2, 19, 32, 32, 0)
    b, y, x = torch.meshgrid(torch.arange(2), torch.arange(32), torch.arange(32), indexing="ij")
    target = (3 * y + 5 * x + 7 * b) % 19
    target = torch.where((x + 2 * y + b) % 3 != 0, logits.argmax(1), target)
    return logits, target.masked_fill((x * y) % 11 == 0, 255)


@pytest.mark.golden("CPS hard pixels")
def test_cross_entropy_of_the_mining_problem() -> None:
    logits, target = hard_example_problem()
    total, count = cross_entropy(logits, target, reduction="sum_count")
    assert count == 1682
    assert (total / count).item() == pytest.approx(12.258111225, abs=1e-8)


@pytest.mark.golden("CPS hard pixels")
@pytest.mark.parametrize(
    ("min_kept", "mean", "kept"),
    [
        (10, 18.069089766, 1136),
        (500, 18.069089766, 1136),
        (1000, 18.069089766, 1136),
        (1500, 13.737025808, 1500),
        (5000, 12.258111225, 1682),
    ],
)
def test_hard_example_mining(min_kept: int, mean: float, kept: int) -> None:
    logits, target = hard_example_problem()
    _, count = ohem_cross_entropy(logits, target, min_kept=min_kept, reduction="sum_count")
    assert count == kept
    assert ohem_cross_entropy(logits, target, min_kept=min_kept).item() == pytest.approx(mean, abs=1e-8)


@pytest.mark.golden("CPS loss")
def test_cross_pseudo_loss_over_labeled_and_unlabeled_pixels() -> None:
    first = {"labeled": waves(2, 21, 16, 16, 2.1), "unlabeled": waves(2, 21, 16, 16, 0)}
    second = {"labeled": waves(2, 21, 16, 16, -1.4), "unlabeled": waves(2, 21, 16, 16, 0.9)}
    joined = cross_pseudo_loss(torch.cat([*first.values()]), torch.cat([*second.values()]))
    assert joined.item() == pytest.approx(16.374317190, abs=1e-8)
    unlabeled = cross_pseudo_loss(first["unlabeled"], second["unlabeled"])
    assert unlabeled.item() == pytest.approx(7.187168736, abs=1e-8)


@pytest.mark.golden("CPS boxes")
@pytest.mark.parametrize(
    ("seed", "n", "size", "ones", "md5"),
    [
        (0, 2, (16, 16), [80, 54], "4fa848ccbe5e31deab194a8bfda215fa"),
        (0, 2, (512, 512), [84733, 52109], "b5bdca5113539a925485fec93dd8c964"),
        (7, 1, (800, 800), [205941], "76a1d3bf278aeaa34d1613806e3f549e"),
    ],
)
def test_box_masks(seed: int, n: int, size: tuple[int, int], ones: list[int], md5: str) -> None:
    masks = box_masks(np.random.RandomState(seed), n, size)
    assert masks.sum(dim=(1, 2, 3)).tolist() == ones
    assert hashlib.md5(masks.to(torch.uint8).numpy().tobytes()).hexdigest() == md5


@pytest.mark.golden("CPS loss with CutMix")
def test_cross_pseudo_loss_of_mixed_images() -> None:
    mask = box_masks(np.random.RandomState(0), 2, (16, 16))

    def teacher(phase_0: float, phase_1: float) -> torch.Tensor:
        return torch.where(mask, waves(2, 21, 16, 16, phase_1), waves(2, 21, 16, 16, phase_0)).argmax(1)

    labels_1, labels_2 = teacher(0, 0.9), teacher(2.1, -1.4)
    student_1, student_2 = waves(2, 21, 16, 16, 0.4), waves(2, 21, 16, 16, 1.7)
    total = cross_entropy(student_1, labels_2) + cross_entropy(student_2, labels_1)
    assert total.item() == pytest.approx(14.812874530, abs=1e-8)
    assert torch.isclose(total, F.cross_entropy(student_1, labels_2) + F.cross_entropy(student_2, labels_1))
