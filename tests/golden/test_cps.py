"""CPS against numbers recorded from its published code: loss blocks, schedule, and the gradient scale."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semiseg.contracts.training import Progress
from semiseg.engine.schedule import Poly
from semiseg.methods import cps
from semiseg.methods.cps import CPS, CPSLearner
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.pseudo import box_masks

LABELED, FIRST, SECOND, MIXED = 1, 2, 3, 0
PROGRESS = Progress(iteration=0, total=1, epoch=0, seed=0)


class Waves(nn.Module):
    """Answers an image of one value with the synthetic logits of a phase; images of two values are MIXED."""

    def __init__(self, phases: dict[int, float]) -> None:
        super().__init__()
        self.phases = phases

    def forward(self, images: Tensor) -> Tensor:
        value = int(images.max()) if images.min() == images.max() else MIXED
        b, c, y, x = torch.meshgrid(
            *(torch.arange(n, dtype=torch.float64) for n in (2, 21, 16, 16)), indexing="ij"
        )
        logits = 6 * torch.sin(
            0.37 * (c + 1) * (1 + 0.01 * y) + 0.11 * y - 0.07 * x + 1.3 * b + self.phases[value]
        )
        return logits.requires_grad_()


def batch(**values: int) -> dict[str, Any]:
    parts: dict[str, Any] = {
        name: {"image": torch.full((2, 3, 16, 16), value, dtype=torch.uint8)}
        for name, value in values.items()
    }
    parts["labeled"]["label"] = torch.full((2, 16, 16), 255)
    return parts


@pytest.mark.golden("CPS loss")
@pytest.mark.parametrize(("labeled_too", "expected"), [(True, 16.374317190), (False, 7.187168736)])
def test_loss_without_cutmix(labeled_too: bool, expected: float) -> None:
    branches: list[Any] = [Waves({LABELED: 2.1, FIRST: 0.0}), Waves({LABELED: -1.4, FIRST: 0.9})]
    method = CPS(cutmix=False, weight=1.5, labeled_in_cps=labeled_too)
    learner = CPSLearner(*branches, method, LabeledLoss(method))
    output = learner(batch(labeled=LABELED, unlabeled=FIRST), PROGRESS)
    assert output.losses["cps"].mean.item() == pytest.approx(expected, abs=1e-8)
    assert output.total.item() == pytest.approx(1.5 * expected, abs=1e-8)


@pytest.mark.golden("CPS loss with CutMix")
def test_loss_with_cutmix(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = box_masks(np.random.RandomState(0), 2, (16, 16))
    monkeypatch.setattr(cps, "step_masks", lambda images, progress: recorded)
    branches: list[Any] = [
        Waves({LABELED: 0.0, FIRST: 0.0, SECOND: 0.9, MIXED: 0.4}),
        Waves({LABELED: 0.0, FIRST: 2.1, SECOND: -1.4, MIXED: 1.7}),
    ]
    method = CPS(weight=5.0)
    learner = CPSLearner(*branches, method, LabeledLoss(method))
    output = learner(batch(labeled=LABELED, unlabeled=FIRST, unlabeled_2=SECOND), PROGRESS)
    assert output.losses["cps"].mean.item() == pytest.approx(14.812874530, abs=1e-8)
    assert output.total.item() == pytest.approx(5 * 14.812874530, abs=1e-7)


@pytest.mark.golden("CPS and CAC schedules")
@pytest.mark.parametrize(
    ("lr", "step", "total", "expected"),
    [
        (0.01, 1, 39338, 0.009999771213294),
        (0.01, 39337, 39338, 7.322661e-7),
        (0.02, 1, 44525, 0.019999595732281),
    ],
)
def test_schedule(lr: float, step: int, total: int, expected: float) -> None:
    assert lr * Poly().factor(step, total) == pytest.approx(expected, rel=1e-7)
