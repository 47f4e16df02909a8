"""Calibration against the definition of Guo et al. and scikit-learn's curve."""

import math

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from semiseg.tasks.calibration import CalibrationBins

VOID = 255


def expected_error(confidence, right, bins):
    """Sum over m of |B_m| / n · |acc(B_m) - conf(B_m)|, where B_m holds confidences of ((m - 1) / M, m / M]."""
    total = 0.0
    for index in range(bins):
        inside = (confidence > index / bins) & (confidence <= (index + 1) / bins)
        inside |= (confidence == 0) & (index == 0)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("bins", [1, 10, 15, 100])
@pytest.mark.parametrize("power", [0.2, 1.0, 5.0])
def test_equals_the_definition(bins: int, power: float) -> None:
    rng = np.random.default_rng(bins)
    confidence = (rng.random((4, 30, 40)) ** power).astype(np.float32)
    confidence.flat[:8] = [0, 1, 0.1, 0.2, 0.5, 0.25, 1e-9, 1 - 1e-7]
    truth = rng.integers(0, 3, confidence.shape).astype(np.uint8)
    labels = np.where(rng.random(truth.shape) < confidence, truth, (truth + 1) % 3)
    truth[rng.random(truth.shape) < 0.2] = VOID
    found = CalibrationBins(3, bins, VOID, "cpu")
    for part in range(4):
        found.update(*(torch.from_numpy(each[part]) for each in (labels, confidence, truth)))
    error, curve = found.compute()
    known = truth != VOID
    given, right = confidence[known].astype(np.float64), (labels == truth)[known]
    assert error == pytest.approx(expected_error(given, right, bins), abs=1e-6)
    assert sum(each["pixels"] for each in curve) == known.sum()
    accuracy, mean = calibration_curve(right, given, n_bins=bins)
    filled = [each for each in curve if each["pixels"]]
    assert [each["accuracy"] for each in filled] == pytest.approx(accuracy.tolist())
    assert [each["confidence"] for each in filled] == pytest.approx(mean.tolist(), abs=1e-6)


def test_nothing_counted_gives_no_error() -> None:
    found = CalibrationBins(3, 4, VOID, "cpu")
    found.update(torch.zeros(2, 2), torch.ones(2, 2), torch.full((2, 2), VOID))
    error, curve = found.compute()
    assert math.isnan(error)
    assert curve == [{"pixels": 0, "confidence": None, "accuracy": None}] * 4
