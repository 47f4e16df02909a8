"""Mean Teacher against numbers recorded from its published codes: losses, ramps, averages, five training steps."""

import itertools
from typing import Any

import pytest
import torch
from averaged_networks import absolute_sum, square_sum, tiny
from torch import nn
from wave_inputs import images, labels, logits

from semiseg.contracts.training import Progress
from semiseg.engine.ema import EMA
from semiseg.engine.schedule import Cosine, Poly
from semiseg.losses import consistency_loss, ramp_up
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.mean_teacher import MeanTeacher, MeanTeacherLearner

PUBLISHED = MeanTeacher(
    distance="mse_mean",
    weight=100.0,
    threshold=0.0,
    student_view="weak",
    labeled_in_consistency=True,
    padding="counted",
    ema_decay=0.99,
    ema_first="constant",
    ema_buffers="own",
    ema_when="before_step",
    teacher_mode="train",
    report="student",
)


@pytest.mark.golden("Mean Teacher losses")
@pytest.mark.parametrize(
    ("distance", "part", "expected", "slope"),
    [
        ("mse_mean", "mean", 0.03834050349, 0.06353641656),
        ("mse_mean", "total", 3.680688335, 6.099495989),
        ("kl", "total", 34.36283862, 54.94850331),
    ],
)
def test_losses(distance: Any, part: str, expected: float, slope: float) -> None:
    student = logits(2, 5, 6, 8, 0.3, 3).requires_grad_()
    found = consistency_loss(student, logits(2, 5, 6, 8, 0.9, 3), distance=distance, reduction="sum_count")
    value = getattr(found, part)
    value.backward()
    assert value.item() == pytest.approx(expected, rel=1e-8)
    assert student.grad is not None
    assert student.grad.abs().sum().item() == pytest.approx(slope, rel=1e-8)


@pytest.mark.golden("Mean Teacher ramps")
def test_ramps() -> None:
    rising = [ramp_up(epoch, 10) for epoch in (0, 1, 5, 10, 12)]
    assert rising == pytest.approx([0.006737946999, 0.01742237464, 0.2865047969, 1, 1], rel=1e-9)
    assert ramp_up(0, 0) == ramp_up(0, 0, "linear") == 1
    assert [ramp_up(epoch, 10, "linear") for epoch in (0, 3, 10, 12)] == [0, 0.3, 1, 1]
    falling = [Cosine().factor(step, 10) for step in (3, 7)]
    assert falling == pytest.approx([0.7938926261, 0.2061073739], rel=1e-9)


@pytest.mark.golden("Mean Teacher averages")
def test_average_of_mean_teacher() -> None:
    student = tiny(3, 1.0)
    average = EMA(student, 0.999, first="half", buffers="own")
    with torch.no_grad():
        for each in average.teacher.parameters():
            each.fill_(2.0)
    sums, squares = [], []
    for _ in range(4):
        shift(student, 0.1)
        average.update(student)
        sums.append(absolute_sum(average.teacher))
        squares.append(square_sum(average.teacher))
    assert sums == pytest.approx([271.6842210, 198.2122947, 167.9513315, 155.1289791], rel=1e-8)
    assert squares == pytest.approx([292.7829936, 165.5464153, 126.4448972, 112.6813957], rel=1e-8)


def shift(model: nn.Module, by: float) -> None:
    with torch.no_grad():
        for each in model.parameters():
            each.add_(by)


@pytest.mark.golden("Mean Teacher steps")
def test_five_steps() -> None:
    learner = MeanTeacherLearner(tiny(4, 6.0), PUBLISHED, LabeledLoss(PUBLISHED))
    model: Any = learner.model
    decayed = [model.backbone.conv.weight, model.classifier.weight]
    others = [model.backbone.norm.weight, model.backbone.norm.bias, model.classifier.bias]
    groups = [{"params": decayed, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    found = []
    for step in range(5):
        rate = 0.01 * Poly().factor(step, 5)
        for group in optimizer.param_groups:
            group["lr"] = rate
        valid = torch.ones(2, 13, 17, dtype=torch.bool)
        known = {"image": images(2, 13, 17, 3 * step), "label": labels(2, 13, 17, 4, step), "valid": valid}
        own = {"image": images(2, 13, 17, 3 * step + 20), "valid": valid}
        progress = Progress(step, 5, 0, step)
        learner.train()
        optimizer.zero_grad()
        output = learner({"labeled": known, "unlabeled": own}, progress)
        output.total.backward()
        optimizer.step()
        learner.after_step(progress)
        terms = output.losses
        found.append(
            [
                terms["supervised"].mean.item(),
                terms["consistency"].weight * terms["consistency"].mean.item(),
                rate,
                absolute_sum(learner.average.teacher),
            ]
        )
    expected = [
        [5.822131703, 0, 0.01, 160.3382292],
        [4.901015288, 1.821336060, 0.008180521461, 160.3374130],
        [4.947046544, 1.942684690, 0.006314458675, 160.3356044],
        [4.899744846, 3.012420893, 0.004383832906, 160.3331837],
        [4.221717200, 2.339741233, 0.002349237886, 160.3302665],
    ]
    flat = list(itertools.chain(*found))
    assert flat == pytest.approx(list(itertools.chain(*expected)), rel=1e-8, abs=1e-12)
    assert absolute_sum(model) == pytest.approx(160.2230214, rel=1e-8)
    assert square_sum(model) == pytest.approx(373.4383352, rel=1e-8)
    teacher: Any = learner.average.teacher
    norms = [model.backbone.norm, teacher.backbone.norm]
    assert [norm.running_mean.sum().item() for norm in norms] == pytest.approx(
        [-0.126621171, -0.05671870947], rel=1e-8
    )
    assert [norm.running_var.sum().item() for norm in norms] == pytest.approx(
        [12.54768164, 11.82170014], rel=1e-8
    )
    assert [norm.num_batches_tracked.item() for norm in norms] == [10, 10]
    model.eval()
    with torch.no_grad():
        result = model(images(1, 13, 17, 50))
    measured = [result.mean().item(), result.std().item(), result.abs().sum().item()]
    assert measured == pytest.approx([-0.3813331633, 1.440829739, 1091.750575], rel=1e-8)
    assert next(iter(learner.predictors().values())) is model
