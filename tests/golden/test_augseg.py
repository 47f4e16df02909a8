"""AugSeg against numbers recorded from its published code: confidence of images, unlabeled loss, a training."""

from typing import Any

import numpy as np
import pytest
import torch
import wave_inputs as inputs

from semiseg.contracts.training import Progress
from semiseg.methods.augseg import AugSeg, AugSegLearner
from semiseg.methods.confidence import Guess
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.pseudo import cut_boxes, image_confidence
from semiseg.pseudo.injection import LABELED_BETA, MIXED_BETA


def exactly(value: float, relative: float = 1e-8) -> Any:
    return pytest.approx(value, rel=relative)


@pytest.mark.golden("AugSeg confidence")
def test_confidence_of_two_images() -> None:
    found = image_confidence(inputs.logits(2, 5, 8, 10, 0.4, 3))
    assert found.tolist() == [exactly(0.4248447421), exactly(0.4493897419)]


@pytest.mark.golden("AugSeg loss")
@pytest.mark.parametrize(
    ("threshold", "loss", "gradient", "share"),
    [
        (0.7, 0.3317010363, 0.4901238168, 0.625),
        (0.95, 0.02574820389, None, 0.0875),
        (0.0, 0.5623516121, None, 0.875),  # published with -0.7, which keeps all as well
    ],
)
def test_unlabeled_loss(threshold: float, loss: float, gradient: float | None, share: float) -> None:
    logits = inputs.logits(2, 5, 8, 10, 0.9, 2).requires_grad_()
    confidence, label = inputs.logits(2, 5, 8, 10, 0.6, 4).softmax(1).max(1)
    label[0, :2] = 255
    keep = confidence >= threshold
    guess = Guess(label, confidence, keep, torch.ones_like(keep))
    total, count = AugSeg().guessed_loss(logits, guess)
    assert float((total / count).detach()) == exactly(loss)
    assert float((keep & (label != 255)).double().mean()) == share
    (total / count).backward()  # type: ignore[no-untyped-call]
    if gradient is not None and logits.grad is not None:
        assert float(logits.grad.abs().sum()) == exactly(gradient)


SUPERVISED = {
    False: (9.030682439, 5.610070464, 6.696778981, 3.467673783, 5.231136681, 2.349094316),
    True: (10.27880106, 6.663092169, 7.468613709, 4.412132208, 5.597153427, 2.823662695),
}
UNLABELED = (0.3190091189, 1.476571597, 0.1150736762, 0.5970642073, 0.1797356762, 0.3385832576)
TEACHER = (192.5594173, 192.0281900, 191.8276509, 191.5926108, 191.3708430, 191.1876564)
MEANS = (-0.2856506672, 0.01480376665, -0.03121859692, 0.03327417433, 0.03341252841, 0.09880755293)


@pytest.mark.golden("AugSeg training")
@pytest.mark.parametrize("extra", [False, True])
def test_three_epochs(extra: bool) -> None:
    method = AugSeg(
        threshold=0.6,
        weight=1.5,
        inject=False,
        ema_decay=0.999,
        ema_first_epoch="copy",
        extra_weak_forward=extra,
    )
    learner = AugSegLearner(inputs.tiny(4, 8), method, LabeledLoss(method))
    head = list(learner.model.classifier.parameters())
    groups = [
        {"params": list(learner.model.backbone.parameters()), "lr": 0.01},
        {"params": head, "lr": 0.1},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=0.01)
    valid = torch.ones(2, 17, 17, dtype=torch.bool)
    for step in range(6):
        i = step % 2
        for group, rate in zip(optimizer.param_groups, (0.01, 0.1), strict=True):
            group["lr"] = rate * (1 - step / 6) ** 0.9
        weak = inputs.images(2, 17, 17, 3 * i + 11)
        batch = {
            "labeled": {"image": inputs.images(2, 17, 17, 3 * i), "label": inputs.labels(2, 17, 17, 4, i)},
            "unlabeled": {"image": weak, "strong_1": 1.3 * weak - 0.2, "valid": valid},
        }
        progress = Progress(step, 6, step // 2, 0)
        learner.train()
        output = learner(batch, progress)
        assert float(output.losses["labeled"].mean.detach()) == exactly(SUPERVISED[extra][step])
        if not extra:
            assert 1.5 * float(output.losses["strong"].mean.detach()) == exactly(UNLABELED[step])
        optimizer.zero_grad()
        output.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        learner.after_step(progress)
        if not extra:
            teacher: Any = learner.average.teacher
            assert inputs.l1(list(teacher.parameters())) == exactly(TEACHER[step])
            assert float(teacher.backbone.bn.running_mean.sum()) == exactly(MEANS[step])


def test_boxes_have_one_size_and_no_center_in_the_upper_or_left_eighth() -> None:
    draws = np.random.RandomState(0)
    size = (160, 96)
    shares: dict[tuple[float, float], list[torch.Tensor]] = {LABELED_BETA: [], MIXED_BETA: []}
    for _ in range(2000):
        for beta, found in shares.items():
            top, left, height, width = cut_boxes(draws, 4, size, beta).unbind(1)
            assert (top + height <= 160).all()
            assert (left + width <= 96).all()
            assert (top >= 0).all()
            uncut = (top > 0) & (left > 0) & (top + height < 160) & (left + width < 96)
            assert len(set(height[uncut].tolist())) <= 1
            center = torch.where(top > 0, top + height // 2, 160)
            assert (center >= 20)[height > 0].all()
            found.append((height * width).double().mean() / (160 * 96))
    # The nominal means of 1 - lambda are 0.2 and 0.5; boxes beyond the border lose a part.
    means = {beta: float(torch.stack(found).mean()) for beta, found in shares.items()}
    assert 0.12 < means[LABELED_BETA] < 0.19
    assert 0.28 < means[MIXED_BETA] < 0.45
