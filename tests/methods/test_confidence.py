"""Which pseudo-labels are confident: rules of thresholds, alignment of classes, the gate on held-out labels."""

from typing import Any

import pytest
import torch
from torch import Tensor

from semiseg.errors import UserError
from semiseg.methods.confidence import ConfidenceSettings, PseudoLabeler


def labeler(classes: int = 3, **settings: Any) -> PseudoLabeler:
    return PseudoLabeler(ConfidenceSettings(**settings), classes)


def logits_of(probabilities: Tensor) -> Tensor:
    """Logits ``(1, K, 1, n)`` of probabilities ``(n, K)``."""
    return probabilities.double().log().T[None, :, None]


VALID = torch.ones(1, 1, 4, dtype=torch.bool)


def rows(*values: list[float]) -> Tensor:
    return logits_of(torch.tensor(values))


def test_the_threshold_itself_is_confident() -> None:
    logits = torch.tensor([0.0, 0.0, -1000.0]).double()[None, :, None, None]
    guess = labeler(threshold=0.5)(logits, torch.ones(1, 1, 1, dtype=torch.bool))
    assert guess.keep.all()
    assert guess.label.item() == 0
    assert not labeler(threshold=0.5001)(logits, torch.ones(1, 1, 1, dtype=torch.bool)).keep.any()


def test_adaptive_thresholds_follow_the_mean_confidence_and_the_predicted_classes() -> None:
    made = labeler(threshold_rule="adaptive")
    logits = rows([0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.3, 0.5, 0.2])
    guess = made(logits, VALID)
    mean, classes = 0.65, torch.tensor([0.6, 0.275, 0.125]).double()
    assert torch.allclose(made.thresholds(logits), mean * classes / 0.6, atol=1e-6)
    assert guess.keep.flatten().tolist() == [True, True, False, True]
    made(rows(*[[1.0, 1e-9, 1e-9]] * 4), VALID)
    # The second step counts as much as the first.
    assert float(made.mean_confidence) == pytest.approx((0.65 + 1) / 2, abs=1e-6)


def test_class_balanced_thresholds_keep_an_equal_share_of_each_class() -> None:
    generator = torch.Generator().manual_seed(0)
    confident = 0.5 + 0.5 * torch.rand(20000, generator=generator)
    first = torch.arange(20000) % 5 > 0
    # The second class is rarer and never as sure as the first.
    p = torch.where(first, confident, 0.5 - 0.4 * (confident - 0.5))
    logits = logits_of(torch.stack([p, 1 - p], 1))
    valid = torch.ones(1, 1, 20000, dtype=torch.bool)
    guess = labeler(2, threshold_rule="class_balanced", keep_share=0.6)(logits, valid)
    for number in (0, 1):
        kept = guess.keep[guess.label == number].float().mean()
        assert 0.6 <= float(kept) < 0.62


def test_padding_and_partners_teach_no_thresholds() -> None:
    made = labeler(threshold_rule="class_balanced")
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made(rows(*[[0.9, 0.05, 0.05]] * 4), VALID, learn=False)
    made.eval()
    made(rows(*[[0.9, 0.05, 0.05]] * 4), VALID)
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())
    made.train()
    made(rows(*[[0.9, 0.05, 0.05]] * 4), ~VALID)
    assert float(made.confidences.sum()) == 0


def test_alignment_with_labeled_classes() -> None:
    made = labeler(align="labeled", threshold=0.0)
    made.observe(torch.tensor([[[0, 1, 1, 1, 255]]]))
    assert torch.allclose(made.labeled_classes, torch.tensor([0.25, 0.75, 0.0]))
    guess = made(rows(*[[0.5, 0.4, 0.1]] * 4), VALID)
    # 0.5 * 0.25/0.5 against 0.4 * 0.75/0.4, which sum up to 1.
    assert guess.label.unique().tolist() == [1]
    assert torch.allclose(guess.confidence, torch.tensor(0.75).double())
    made.observe(torch.full((1, 1, 3), 255))
    assert torch.allclose(made.labeled_classes, torch.tensor([0.25, 0.75, 0.0]))


def test_the_gate_asks_for_precision_on_held_out_labels() -> None:
    made = labeler(2, gate_share=0.5, gate_precision=0.9, threshold=0.3)
    confidence = torch.linspace(0.5001, 0.9999, 4000)
    # Predictions of class 0 are right from 0.8, those of class 1 never.
    p = torch.cat([confidence, 1 - confidence])
    truth = torch.cat([(confidence < 0.8).long(), torch.zeros(4000, dtype=torch.int64)])
    made.calibrate(logits_of(torch.stack([p, 1 - p], 1)), truth[None, None])
    found = made.thresholds(torch.zeros(1))
    right = confidence >= found[0]
    assert 0.9 <= float((confidence[right] >= 0.8).float().mean()) < 0.93
    assert float(found[1]) > 1
    guess = made(rows([0.7, 0.3], [0.95, 0.05], [0.01, 0.99], [0.9, 0.1]), VALID)
    assert guess.keep.flatten().tolist() == [False, True, False, True]


def test_the_gate_divides_the_labels() -> None:
    ids = [f"l{number}" for number in range(10)]
    known, held = ConfidenceSettings(gate_share=0.2).held_out(ids)
    assert len(held) == 2
    assert sorted(known + held) == ids
    assert ConfidenceSettings().held_out(ids) == (ids, [])
    with pytest.raises(UserError, match="gate_share"):
        ConfidenceSettings(gate_share=0.2).held_out(["a"])


@pytest.mark.parametrize(
    "settings",
    [
        {"threshold_rule": "adaptive"},
        {"threshold_rule": "class_balanced"},
        {"align": "labeled"},
        {"gate_share": 0.5},
    ],
)
def test_nothing_is_read_back_from_the_device(settings: dict[str, Any], wait_counter: Any) -> None:
    made = labeler(**settings)
    logits, target = rows(*[[0.5, 0.4, 0.1]] * 4), torch.tensor([[[0, 1, 2, 255]]])
    with wait_counter:
        made.observe(target)
        made.calibrate(logits, target) if settings.get("gate_share") else None
        made(logits, VALID)
    assert wait_counter.seen == []


def test_a_class_that_was_never_predicted_keeps_all() -> None:
    made = labeler(threshold_rule="class_balanced", keep_share=0.5)
    made(rows(*[[0.9, 0.05, 0.05]] * 4), VALID)
    partner = made(rows(*[[0.2, 0.7, 0.1]] * 4), VALID, learn=False)
    assert partner.keep.all()


@pytest.mark.parametrize(
    "settings", [{"threshold_rule": "adaptive"}, {"align": "uniform", "threshold": 0.0}], ids=str
)
def test_statistics_outlive_numbers_that_are_not_finite(settings: dict[str, Any]) -> None:
    made = labeler(**settings)
    broken = rows(*[[0.8, 0.1, 0.1]] * 4)
    broken[..., 0] = float("nan")
    made(broken, VALID)
    guess = made(rows(*[[0.8, 0.1, 0.1]] * 4), VALID)
    assert guess.keep.all()
