"""The linear discriminant against a plain computation of two passes, pixel by pixel."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from semiseg.models.discriminant import ABSENT_LOGIT, RIDGE, ClassMoments, Discriminant

CLASSES = 5
Floats = NDArray[np.float64]


def plain(features: Floats, labels: NDArray[np.int64], weights: Floats, shrinkage: float) -> Floats:
    """Centered logits of all pixels: first the means, then the products of what differs from them."""
    counted = [place for place in range(len(labels)) if 0 <= labels[place] < CLASSES]
    present = sorted({int(labels[place]) for place in counted})
    total = sum(weights[place] for place in counted)
    means, shares = [], []
    for label in present:
        own = [place for place in counted if labels[place] == label]
        mass = sum(weights[place] for place in own)
        means.append(sum(weights[place] * features[place] for place in own) / mass)
        shares.append(mass / total)
    within = np.zeros((features.shape[1],) * 2)
    for place in counted:
        moved = features[place] - means[present.index(int(labels[place]))]
        within += weights[place] / total * np.outer(moved, moved)
    variances = np.diag(within)
    within = (1 - shrinkage) * within + np.diag(shrinkage * variances + RIDGE * variances.mean())
    inverse = np.linalg.inv(within)
    logits = np.full((len(labels), CLASSES), ABSENT_LOGIT)
    for label, mean, share in zip(present, means, shares, strict=True):
        logits[:, label] = (features - mean / 2) @ inverse @ mean + np.log(share)
    # Classes are compared around the same point, which no difference of logits depends on.
    logits[:, present] -= logits[:, present].mean(1, keepdims=True)
    return logits


def logits_of(found: Discriminant, features: Floats) -> Floats:
    return (torch.from_numpy(features) @ found.weight.T + found.bias).numpy()


def drawn(seed: int, pixels: int, channels: int) -> tuple[Floats, NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    labels = generator.choice([0, 1, 3, 4, 255, -1], pixels)
    centers = generator.normal(size=(256, channels))
    mixing = generator.normal(size=(channels, channels)) / channels**0.5
    return centers[labels % 256] + generator.normal(size=(pixels, channels)) @ mixing, labels


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(
    ("shift", "scale", "pixels", "channels"),
    [(0.0, 1.0, 200, 6), (1000.0, 1.0, 200, 6), (-30.0, 1e-3, 200, 6), (0.0, 1.0, 12, 30)],
    ids=["plain", "far from 0", "small", "more channels than pixels"],
)
def test_it_equals_the_plain_computation(
    shift: float, scale: float, pixels: int, channels: int, shrinkage: float
) -> None:
    if shrinkage == 0 and channels > pixels:
        pytest.skip(
            "a singular covariance: all that is left is the ridge, and both computations lose their digits"
        )
    moments, parts = ClassMoments(CLASSES, channels), []
    for seed, weight in enumerate((1.0, 0.25, 3.0)):
        features, labels = drawn(seed, pixels, channels)
        features = scale * features + shift
        moments.add(torch.from_numpy(features), torch.from_numpy(labels), weight)
        parts.append((features, labels, np.full(pixels, weight)))
    features, labels, weights = (np.concatenate(each) for each in zip(*parts, strict=True))
    found = moments.solve(shrinkage)
    # Around the cloud: far from 0, a product of large numbers has fewer digits in either computation.
    expected = plain(features - shift, labels, weights, shrinkage)
    moved = Discriminant(found.weight, found.bias + found.weight.sum(1) * shift)
    np.testing.assert_allclose(logits_of(moved, features - shift), expected, rtol=1e-8, atol=1e-8)
    assert found.bias[2] == ABSENT_LOGIT
    assert not found.weight[2].any()


def test_present_classes_sum_to_zero_and_the_largest_logit_is_not_below() -> None:
    features, labels = drawn(0, 300, 4)
    moments = ClassMoments(CLASSES, 4)
    moments.add(torch.from_numpy(features), torch.from_numpy(labels))
    logits = logits_of(moments.solve(), 50 * features)
    np.testing.assert_allclose(logits[:, [0, 1, 3, 4]].sum(1), 0, atol=1e-8)
    assert 2 not in logits.argmax(1)


def test_blocks_of_pixels_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = (torch.from_numpy(each) for each in drawn(3, 100, 4))
    whole, blocks = ClassMoments(CLASSES, 4), ClassMoments(CLASSES, 4)
    whole.add(features, labels)
    monkeypatch.setattr("semiseg.models.discriminant.BLOCK", 7)
    monkeypatch.setattr("semiseg.models.discriminant.STRIP", 3)
    blocks.add(features, labels)
    for one, other in zip(whole.solve(), blocks.solve(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_constant_channels_change_nothing() -> None:
    features, labels = drawn(1, 200, 4)
    steady = np.concatenate([features, np.full((200, 1), 7.0), np.zeros((200, 1))], 1)
    found, expected = ClassMoments(CLASSES, 6), ClassMoments(CLASSES, 4)
    found.add(torch.from_numpy(steady), torch.from_numpy(labels))
    expected.add(torch.from_numpy(features), torch.from_numpy(labels))
    # The ridge is a share of the mean variance, which two channels without any make smaller.
    np.testing.assert_allclose(
        logits_of(found.solve(), steady), logits_of(expected.solve(), features), rtol=1e-4, atol=1e-4
    )


def test_features_without_any_variance_stay_finite() -> None:
    moments = ClassMoments(CLASSES, 3)
    moments.add(torch.full((8, 3), 2.0), torch.tensor([0, 1] * 4))
    found = moments.solve()
    assert torch.isfinite(found.weight).all()
    assert torch.isfinite(found.bias).all()


def test_separable_classes_are_told_apart() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, 400)
    features = 10 * np.eye(CLASSES)[labels] @ generator.normal(size=(CLASSES, 8)) + generator.normal(
        scale=0.1, size=(400, 8)
    )
    moments = ClassMoments(CLASSES, 8)
    moments.add(torch.from_numpy(features).float(), torch.from_numpy(labels))
    assert (logits_of(moments.solve(), features).argmax(1) == labels).all()


def test_one_class_alone_is_always_predicted() -> None:
    moments = ClassMoments(CLASSES, 3)
    moments.add(torch.randn(20, 3), torch.full((20,), 3))
    logits = logits_of(moments.solve(), np.random.default_rng(0).normal(size=(50, 3)) * 100)
    assert (logits.argmax(1) == 3).all()


def test_without_a_labeled_pixel_there_is_none() -> None:
    moments = ClassMoments(CLASSES, 3)
    moments.add(torch.randn(4, 3), torch.full((4,), 255))
    moments.add(torch.empty(0, 3), torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="no labeled pixel"):
        moments.solve()
