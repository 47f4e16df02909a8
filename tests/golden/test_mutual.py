"""The dynamic mutual loss and its variants against numbers recorded from the published DMT code."""

from typing import Any

import pytest
import torch
from torch import Tensor

from semiseg.losses import cross_entropy, dynamic_mutual_loss
from semiseg.pseudo import confident_labels

pytestmark = pytest.mark.golden("DMT losses")

IS_PSEUDO = torch.tensor([True, True, False])


def problem(scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits float32 that record a gradient, target and confidence of two pseudo-labeled and a labeled image."""
    n, c, h, w = torch.meshgrid(*(torch.arange(k, dtype=torch.float64) for k in (3, 5, 4, 6)), indexing="ij")
    x = 1.2 * torch.sin(1 + 0.9 * n + 1.7 * c + 0.6 * h + 0.35 * w * (c + 1))
    n, h, w = n[:, 0], h[:, 0], w[:, 0]
    target = (x.argmax(1) + ((h + 2 * w + n) % 3 == 0)) % 5
    target[(h + w + n) % 7 == 0] = 255
    confidence = 0.2 + 0.6 * torch.cos(0.4 * n + 0.9 * h + 1.3 * w).abs()
    confidence[2] = 1
    return (scale * x).float().requires_grad_(), target, confidence.float()


def test_the_problem_itself() -> None:
    x, target, confidence = problem()
    valid = target != 255
    assert x.double().sum().item() == pytest.approx(-21.112971, abs=1e-5)
    assert (int(valid.sum()), int(valid[:2].sum()), int(target[valid].sum())) == (62, 42, 149)
    assert x.softmax(1).max(1).values.sum().item() == pytest.approx(30.864006, abs=1e-4)
    assert confidence.sum().item() == pytest.approx(52.238143, abs=1e-4)


ROWS = [
    ("dmt", 5, 5, 0.4404579, 0.4336817, 0.3295603, 1.3763879),
    ("dmt", 3, 3, 0.4647511, 0.4660339, 0.3580898, 1.3763879),
    ("dmt", 1, 1, 0.6388872, 0.6779360, 0.5321966, 1.3763879),
    ("dmt", 5, 1, 0.4756699, 0.4622548, 0.3460577, 1.3763879),
    ("dmt", 1, 5, 0.6036753, 0.6493629, 0.5156993, 1.3763879),
    ("dmt", 5, 0, 0.8318790, 0.7232230, 0.4908383, 1.3763879),
    ("dmt", 0, 5, 0.8538936, 0.9754129, 0.7903349, 1.3763879),
    ("dmt", 0, 0, 1.3763880, 1.3551600, 1.0, 1.3763879),
    ("flip", 5, 5, 0.4451669, 0.4401392, 0.3355919, 1.2800193),
    ("flip", 3, 3, 0.4750228, 0.4802759, 0.3717032, 1.2800193),
    ("flip", 1, 1, 0.6618673, 0.7101598, 0.5637111, 1.2800193),
    ("naive", 5, 5, 0.4404582, 0.4336818, 0.3295604, 1.3763879),
]


@pytest.mark.parametrize(("variant", "agree", "disagree", "loss", "gradient", "weight", "plain"), ROWS)
def test_published_values(
    variant: Any, agree: float, disagree: float, loss: float, gradient: float, weight: float, plain: float
) -> None:
    x, target, confidence = problem()
    found, statistics = dynamic_mutual_loss(
        x, target.long(), confidence, IS_PSEUDO, agree, disagree, variant=variant
    )
    found.backward()
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert x.grad.abs().sum().item() == pytest.approx(gradient, abs=1e-6)
    assert statistics.mean_weight.item() == pytest.approx(weight, abs=1e-6)
    assert statistics.cross_entropy.item() == pytest.approx(plain, abs=1e-6)
    assert (int(statistics.disagreements), int(statistics.wins)) == (13, 3)


def test_published_gradient_of_a_pixel() -> None:
    x, target, confidence = problem()
    dynamic_mutual_loss(x, target.long(), confidence, IS_PSEUDO, 1, 1)[0].backward()
    expected = torch.tensor([0.0001312, 0.0007250, -0.0018368, 0.0002969, 0.0006836])
    torch.testing.assert_close(x.grad[1, :, 2, 3], expected, atol=1e-6, rtol=0)
    x.grad = None
    cross_entropy(x, target.long()).backward()
    expected = torch.tensor([0.0010013, 0.0055322, -0.0140153, 0.0022654, 0.0052164])
    torch.testing.assert_close(x.grad[1, :, 2, 3], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("scale", "confident", "loss", "gradient"), [(1, 0, 1.3483207, 1.3209776), (4, 9, 1.6569397, 0.6247433)]
)
def test_labels_of_the_very_step(scale: float, confident: int, loss: float, gradient: float) -> None:
    x, target, _ = problem(scale)
    own = confident_labels(x[:2], 0.9)
    assert int((own != 255).sum()) == confident
    found = cross_entropy(x, torch.cat([own, target[2:].long()]))
    found.backward()
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert x.grad.abs().sum().item() == pytest.approx(gradient, abs=1e-6)
