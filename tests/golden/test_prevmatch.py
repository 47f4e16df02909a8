"""PrevMatch against numbers that the original program gave: weightings, one step, the ramp and the kept networks."""

from typing import Any

import numpy as np
import pytest
import torch
import unimatch_inputs as given
from torch import Tensor
from wave_inputs import labels as targets
from wave_inputs import logits as waves

from semiseg.contracts.training import Progress
from semiseg.losses import weighted_image_loss
from semiseg.methods.confidence import Guess
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.prevmatch import PrevMatch, PrevMatchLearner, ramp
from semiseg.methods.unimatch import Passes

pytestmark = pytest.mark.golden("PrevMatch")

SIZE = (2, 4, 8, 10)
PUBLISHED: dict[str, Any] = {"teacher": "student_train", "partner": "same_images"}


def near(values: Any, relative: float = 1e-8) -> Any:
    return pytest.approx(values, rel=relative)


def test_ramp() -> None:
    assert [ramp(epoch, 80) for epoch in (0, 1, 39, 40, 41, 79)] == near([0, 0.025, 0.975, 1, 0.975, 0.025])
    assert ramp(0, 1) == 1


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [("pixelratio", 0.2498666696), ("pixelavg_shipped", 0.9634494880), ("pixelavg", 0.4103901493)],
)
def test_weighting_of_images(weighting: Any, expected: float) -> None:
    n, y, x = np.ogrid[:2, :5, :7]
    wanted = torch.from_numpy(0.5 + 0.1 * n + 0.05 * y + 0.02 * x)
    confidence = torch.from_numpy(0.6 + 0.35 * np.sin(0.7 * x + 0.9 * y + n))
    valid = torch.ones(2, 5, 7, dtype=torch.bool)
    valid[0, :, 5:] = False
    # Two classes, of which the first has the wanted cross entropy.
    logits = torch.stack([torch.zeros_like(wanted), torch.log(torch.expm1(wanted))], 1)
    label = torch.zeros(2, 5, 7, dtype=torch.int64)
    found = weighted_image_loss(logits, label, confidence, confidence >= 0.8, valid, weighting)
    assert float(found) == near(expected)


def boxes() -> dict[str, Tensor]:
    return {"box_1": given.box_rows([(1, 2, 4, 5), None]), "box_2": given.box_rows([None, (3, 1, 5, 4)])}


class Prepared(PrevMatchLearner):
    """Takes prepared logits for its passes."""

    prepared: Passes
    earlier: tuple[Guess, Guess | None]

    def passes(self, batch: Any, progress: Progress) -> Passes:
        return self.prepared

    def label_by_previous(self, batch: Any, progress: Progress) -> tuple[Guess, Guess | None]:
        return self.earlier


def learner(epochs: int = 80, **settings: Any) -> Prepared:
    method = PrevMatch(**PUBLISHED, **settings)
    return Prepared(given.tiny(4), method, LabeledLoss(method), epochs)


def step(made: Prepared, epoch: int, with_previous: bool = True) -> tuple[Any, dict[str, Tensor]]:
    x = {
        name: waves(*SIZE, phase, amplitude).requires_grad_()
        for name, phase, amplitude in (
            ("x", 0.1, 3),
            ("w", 0.5, 5),
            ("fp", 0.7, 3),
            ("s1", 0.6, 3),
            ("s2", 0.9, 3),
            ("mix", 1.9, 5),
            ("previous", 0.55, 4),
            ("previous_mix", 2.0, 4),
        )
    }
    valid, partner_valid = torch.ones(2, 2, 8, 10, dtype=torch.bool)
    valid[0, :, 8:] = False
    partner_valid[0, :3] = False
    guess, partner = made.labeler(x["w"], valid), made.labeler(x["mix"], partner_valid)
    made.prepared = Passes(x["x"], x["s1"], x["s2"], x["fp"], guess, partner)
    made.earlier = (
        made.guess_of_previous(x["previous"].detach(), valid),
        made.guess_of_previous(x["previous_mix"].detach(), partner_valid),
    )
    if with_previous:
        made.after_evaluation(True, Progress(0, 1, 0, 0))
    batch = {"labeled": {"label": targets(2, 8, 10, 4, 0)}, "unlabeled": boxes()}
    return made(batch, Progress(0, 1, epoch, 0)), x


def test_step() -> None:
    found, x = step(learner(threshold=0.8, previous_threshold=0.7), epoch=16)  # lambda 0.4
    means = {name: float(term.mean.detach()) for name, term in found.losses.items()}
    assert list(means.values()) == near(
        [2.568167128, 0.2076485416, 0.2529554734, 0.1442625160, 0.2157445916, 0.2657263947, 0.1561160516]
    )
    assert float(found.total.detach()) == near(1.181174874)
    gradients = torch.autograd.grad(found.total, [x["x"], x["fp"], x["s1"], x["s2"]])
    assert [float(each.abs().sum()) for each in gradients] == near(
        [0.6250021562, 0.07419733911, 0.04010439586, 0.05200045373]
    )


def test_step_before_the_first_kept_network() -> None:
    found, _ = step(learner(threshold=0.8, previous_threshold=0.7), epoch=16, with_previous=False)
    assert float(found.total.detach()) == near(1.377724695)


def test_step_with_the_shipped_weighting_of_cityscapes() -> None:
    made = learner(threshold=0, previous_threshold=0, previous_weighting="pixelavg_shipped")
    found, _ = step(made, epoch=36)  # lambda 0.9
    previous = [float(term.mean.detach()) for name, term in found.losses.items() if "previous" in name]
    assert previous == near([1.153965558, 0.7080859659, 0.5079593119])
    assert float(found.total.detach()) == near(1.227005896)


def test_kept_networks_are_the_newest() -> None:
    made = learner(previous=3)
    for number in range(5):
        with torch.no_grad():
            made.model.classifier.bias.fill_(float(number))
        made.after_evaluation(True, Progress(0, 1, number, 0))
    assert [float(each.classifier.bias[0]) for each in made.previous] == [2, 3, 4]
