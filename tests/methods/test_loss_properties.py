"""What every loss promises beside its value."""

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from semiseg.errors import UserError
from semiseg.losses import (
    class_weighted,
    cross_entropy,
    cross_pseudo_loss,
    dice_loss,
    focal_loss,
    ohem_cross_entropy,
)
from semiseg.methods.corrmatch import CorrMatch
from semiseg.methods.dmt import DMT
from semiseg.methods.fixmatch import FixMatch
from semiseg.methods.labeled_loss import LabeledLoss, LabeledLossSettings
from semiseg.methods.mean_teacher import MeanTeacher
from semiseg.methods.stpp import SelfTraining

Loss = Callable[..., Any]


def problem(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 5, 6, 7, generator=generator, dtype=dtype)
    target = torch.randint(0, 5, (2, 6, 7), generator=generator)
    target[:, :2] = 255
    return logits, target


def mined(logits: torch.Tensor, target: torch.Tensor, **options: Any) -> Any:
    return ohem_cross_entropy(logits, target, min_kept=20, **options)


LABELED: list[Loss] = [cross_entropy, mined, ohem_cross_entropy, focal_loss]


@pytest.mark.parametrize("loss", LABELED)
def test_sum_over_count_is_the_mean(loss: Loss) -> None:
    total, count = loss(*problem(), reduction="sum_count")
    assert torch.isclose(total / count, loss(*problem()))
    assert not count.is_floating_point()


@pytest.mark.parametrize("loss", LABELED)
def test_gradients_are_those_of_the_value(loss: Loss) -> None:
    logits, target = problem()
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


def test_the_gradient_of_cross_pseudo_labels_flows_through_the_students_alone() -> None:
    (first, _), (second, _) = problem(seed=1), problem(seed=2)
    first.requires_grad_()
    second.requires_grad_()
    assert torch.autograd.gradcheck(cross_pseudo_loss, (first, second))
    expected = F.cross_entropy(first, second.argmax(1)) + F.cross_entropy(second, first.argmax(1))
    assert torch.isclose(cross_pseudo_loss(first, second), expected)
    total, count = cross_pseudo_loss(first, second, reduction="sum_count")
    assert count == 2 * 6 * 7
    assert torch.isclose(total / count, expected)


@pytest.mark.parametrize("loss", LABELED)
@pytest.mark.parametrize("reduction", ["mean", "sum_count"])
def test_nothing_valid_is_zero_with_zero_gradient(loss: Loss, reduction: str) -> None:
    logits, target = problem()
    logits.requires_grad_()
    result = loss(logits, torch.full_like(target, 255), reduction=reduction)
    value = result if reduction == "mean" else result[0]
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("loss", [*LABELED, "cross_pseudo_loss"])
def test_bfloat16_logits_are_computed_in_float32(loss: Loss | str) -> None:
    logits, target = problem(torch.float32)
    half = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        if isinstance(loss, str):
            found, expected = cross_pseudo_loss(half, -half), cross_pseudo_loss(half.float(), -half.float())
        else:
            found, expected = loss(half, target), loss(half.float(), target)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("loss", [*LABELED, "cross_pseudo_loss"])
def test_losses_compile_into_one_graph(loss: Loss | str) -> None:
    logits, target = problem()
    arguments = (logits.clone().requires_grad_(), target)
    function: Loss = cross_pseudo_loss if isinstance(loss, str) else loss
    if isinstance(loss, str):
        arguments = (logits.clone().requires_grad_(), logits.roll(1, 1))
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    compiled(*arguments).backward()
    gradient = arguments[0].grad.clone()
    arguments[0].grad = None
    function(*arguments).backward()
    assert torch.equal(gradient, arguments[0].grad)


def test_losses_never_wait_for_the_device(wait_counter: Any) -> None:
    logits, target = problem()
    logits.requires_grad_()
    with wait_counter:
        total = cross_pseudo_loss(logits, logits.roll(1, 1))
        for loss in LABELED:
            total = total + loss(logits, target)
        total.backward()
    assert wait_counter.seen == []


@pytest.mark.parametrize("min_kept", [0, 1, 7, 30, 56, 57, 500])
@pytest.mark.parametrize("threshold", [0.05, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_mining_equals_sorting_the_probabilities(min_kept: int, threshold: float, seed: int) -> None:
    logits, target = problem(seed=seed)
    valid = target != 255
    truth = logits.softmax(1).gather(1, target.masked_fill(~valid, 0)[:, None])[:, 0]
    probabilities = truth.masked_fill(~valid, 1.0)
    if min_kept > valid.sum():
        keep = valid
    else:
        bound = probabilities.flatten().sort().values[min_kept - 1] if min_kept else torch.tensor(0.0)
        keep = valid & (probabilities <= max(threshold, bound.item()))
    expected = -truth[keep].log().sum() / max(int(keep.sum()), 1)
    total, count = ohem_cross_entropy(logits, target, threshold, min_kept, reduction="sum_count")
    assert count == keep.sum()
    assert torch.isclose(total / count.clamp_min(1), expected)


def test_mining_keeps_the_published_share_by_default() -> None:
    logits = torch.linspace(5, 9, 64).view(1, 1, 8, 8)
    logits = torch.cat([logits, torch.zeros_like(logits)], 1)
    _, count = ohem_cross_entropy(logits, torch.zeros(1, 8, 8, dtype=torch.long), reduction="sum_count")
    assert count == 5


@pytest.mark.slow
def test_losses_and_labels_work_where_there_is_no_hydra() -> None:
    program = """
import sys
sys.modules.update(hydra=None, omegaconf=None)
import torch
from semiseg.losses import dynamic_mutual_loss, directional_contrast, pixel_contrast
from semiseg.pseudo import PseudoLabels, box_masks, class_balanced_thresholds, label_image, stability_score
label, confidence = label_image(torch.ones(3, 4, 4) / 3)
print(class_balanced_thresholds([(label.numpy(), confidence.numpy())], 3, 1.0, stride=2).tolist())
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("[0.333")


def test_focal_loss_without_exponent_is_cross_entropy_and_lowers_easy_pixels() -> None:
    logits, target = problem()
    assert torch.isclose(focal_loss(logits, target, gamma=0.0), cross_entropy(logits, target))
    probability = logits.softmax(1).gather(1, target.clamp_max(4)[:, None])[:, 0]
    valid = target != 255
    expected = ((1 - probability) ** 2 * -probability.log())[valid].mean()
    assert torch.isclose(focal_loss(logits, target), expected)
    sure = torch.zeros(1, 2, 1, 1, dtype=torch.float64)
    sure[:, 0] = 800.0
    sure.requires_grad_()
    focal_loss(sure, torch.zeros(1, 1, 1, dtype=torch.int64)).backward()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


def test_weights_of_classes_are_those_of_torch() -> None:
    logits, target = problem()
    weights = [0.5, 2.0, 1.0, 0.0, 4.0]
    expected = F.cross_entropy(logits, target, torch.tensor(weights).double(), ignore_index=255)
    assert torch.isclose(class_weighted(logits, target, weights), expected)
    # A common factor changes nothing, however small.
    assert torch.isclose(class_weighted(logits, target, [1e-9 * weight for weight in weights]), expected)
    # A batch of one class with a small weight: the weights sum up to less than one pixel.
    only = torch.where(target == 255, 255, 1)
    rare = [1.0, 1e-4, 1.0, 1.0, 1.0]
    expected = F.cross_entropy(logits, only, torch.tensor(rare).double(), ignore_index=255)
    assert torch.isclose(class_weighted(logits, only, rare), expected)
    assert torch.autograd.gradcheck(lambda x: class_weighted(x, target, weights), logits.requires_grad_())


def test_dice_is_zero_for_a_sure_and_right_prediction_and_leaves_out_absent_classes() -> None:
    _, target = problem()
    truth = F.one_hot(target.clamp_max(4), 5).permute(0, 3, 1, 2).double()
    assert float(dice_loss(100 * truth, target)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(-100 * truth, target)) > 0.9
    two = torch.tensor([[[0, 1]]])
    logits = torch.tensor([0.3, -0.2, 5.0]).double()[None, :, None, None].repeat(1, 1, 1, 2)
    p = logits.softmax(1)
    expected = 1 - sum(2 * p[0, c, 0, c] / ((p[0, c] ** 2).sum() + 1) for c in (0, 1)) / 2
    assert torch.isclose(dice_loss(logits, two), expected)
    logits, target = problem()
    assert torch.autograd.gradcheck(lambda x: dice_loss(x, target), logits.requires_grad_())
    nothing = torch.full_like(target, 255)
    assert float(dice_loss(logits, nothing).detach()) == 0


def test_label_smoothing_mixes_in_the_mean_over_the_classes() -> None:
    logits, target = problem()
    valid = target != 255
    even = -logits.log_softmax(1).mean(1)[valid].mean()
    expected = 0.9 * cross_entropy(logits, target) + 0.1 * even
    assert torch.isclose(cross_entropy(logits, target, label_smoothing=0.1), expected)
    total, count = cross_entropy(logits, target, label_smoothing=0.1, reduction="sum_count")
    assert count == valid.sum()
    assert torch.isclose(total / count, expected)


def test_logit_adjustment_adds_the_scaled_log_of_the_shares(make_lab: Loss) -> None:
    """Menon et al. 2021, eq. (10): log(1 + sum over other classes of (share of it / own)^tau * e^(f_other - f_own))."""
    lab, (logits, target) = make_lab(labeled=2, unlabeled=0), problem()
    lab.info, lab.class_shares = SimpleNamespace(num_classes=5), np.array([0.6, 0.25, 0.1, 0.04, 0.01])
    loss = LabeledLossSettings(logit_adjustment=1.5, dice_weight=0.5).labeled_loss(lab)
    ratios = (lab.class_shares[None, :] / lab.class_shares[:, None]) ** 1.5
    total = 0.0
    for image, row, column in (target != 255).nonzero().tolist():
        true, scores = int(target[image, row, column]), logits[image, :, row, column].numpy()
        others = [
            ratios[true, each] * np.exp(scores[each] - scores[true]) for each in range(5) if each != true
        ]
        total += np.log1p(sum(others))
    found, valid = loss(logits, target), int((target != 255).sum())
    assert int(found.counted) == valid
    # Dice is of the logits as they are.
    assert float(found.mean) == pytest.approx(
        total / valid + 0.5 * float(dice_loss(logits, target)), rel=1e-6
    )
    assert torch.autograd.gradcheck(lambda x: loss(x, target).total, logits.requires_grad_())
    half = loss(logits.detach().bfloat16(), target)
    assert half.total.dtype == torch.float32
    assert float(half.mean) == pytest.approx(float(found.mean.detach()), rel=0.02)
    smoothed = LabeledLossSettings(logit_adjustment=1.5, label_smoothing=0.1).labeled_loss(lab)(
        logits, target
    )
    adjusted = logits + 1.5 * torch.from_numpy(lab.class_shares).log()[:, None, None]
    torch.testing.assert_close(smoothed.mean, cross_entropy(adjusted, target, label_smoothing=0.1))


def test_logit_adjustment_is_no_part_of_a_state_and_never_waits(make_lab: Loss, wait_counter: Any) -> None:
    lab = make_lab(labeled=2, unlabeled=0)
    lab.class_shares = np.full(4, 0.25)
    loss = LabeledLossSettings(logit_adjustment=1).labeled_loss(lab)
    assert loss.state_dict() == {}
    assert loss.to("meta").adjustment.device.type == "meta"
    loss = LabeledLossSettings(logit_adjustment=1).labeled_loss(lab)
    logits, target = torch.randn(2, 4, 3, 3, requires_grad=True), torch.zeros(2, 3, 3, dtype=torch.int64)
    with wait_counter:
        loss(logits, target).mean.backward()
    assert wait_counter.seen == []


@pytest.mark.parametrize("name", ["label_smoothing", "logit_adjustment"])
@pytest.mark.parametrize("other", [{"loss": "focal"}, {"loss": "ohem"}, {"class_weights": [1.0] * 5}])
@pytest.mark.parametrize("kind", [LabeledLossSettings, FixMatch, MeanTeacher, SelfTraining, DMT, CorrMatch])
def test_changes_of_plain_cross_entropy_stand_alone(kind: Loss, other: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match=name):
        kind(**{name: 0.1}, **other)


def test_label_smoothing_is_that_of_the_loss() -> None:
    smoothed = LabeledLoss(LabeledLossSettings(label_smoothing=0.1))(*problem())
    assert torch.isclose(smoothed.total / smoothed.counted, cross_entropy(*problem(), label_smoothing=0.1))


@pytest.mark.parametrize("weights", [[1.0] * 3, [0.0] * 4])
def test_class_weights_are_one_for_each_class(weights: list[float], make_lab: Loss) -> None:
    with pytest.raises(UserError, match="4 classes"):
        LabeledLossSettings(class_weights=weights).labeled_loss(make_lab(labeled=2, unlabeled=0))
    with pytest.raises(UserError, match="class_weights"):
        LabeledLossSettings(class_weights=[1.0] * 4, loss="focal")
