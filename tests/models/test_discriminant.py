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


def moments_of(channels: int) -> ClassMoments:
    return ClassMoments(CLASSES, torch.ones(channels))


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
    moments, parts = (
        ClassMoments(CLASSES, torch.from_numpy(drawn(0, 9, channels)[0].mean(0) * scale + shift)),
        [],
    )
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
    moments = moments_of(4)
    moments.add(torch.from_numpy(features), torch.from_numpy(labels))
    logits = logits_of(moments.solve(0.1), 50 * features)
    np.testing.assert_allclose(logits[:, [0, 1, 3, 4]].sum(1), 0, atol=1e-8)
    assert 2 not in logits.argmax(1)


def test_blocks_of_pixels_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = (torch.from_numpy(each) for each in drawn(3, 100, 4))
    whole, blocks = moments_of(4), moments_of(4)
    whole.add(features, labels)
    monkeypatch.setattr("semiseg.models.discriminant.BLOCK", 7)
    monkeypatch.setattr("semiseg.models.discriminant.STRIP", 3)
    blocks.add(features, labels)
    for one, other in zip(whole.solve(0.1), blocks.solve(0.1), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_constant_channels_change_nothing() -> None:
    features, labels = drawn(1, 200, 4)
    steady = np.concatenate([features, np.full((200, 1), 7.0), np.zeros((200, 1))], 1)
    found, expected = moments_of(6), moments_of(4)
    found.add(torch.from_numpy(steady), torch.from_numpy(labels))
    expected.add(torch.from_numpy(features), torch.from_numpy(labels))
    # The ridge is a share of the mean variance, which two channels without any make smaller.
    np.testing.assert_allclose(
        logits_of(found.solve(0.1), steady), logits_of(expected.solve(0.1), features), rtol=1e-4, atol=1e-4
    )


def test_features_without_any_variance_stay_finite() -> None:
    """Of all classes together, and within each: the latter are told apart, by logits that float32 can hold."""
    labels = torch.tensor([0, 1] * 4)
    for features in (torch.full((8, 3), 2.0), 2.0 + labels[:, None] * torch.ones(3)):
        moments = moments_of(3)
        moments.add(features, labels)
        found = moments.solve(0.1)
        assert torch.isfinite(found.weight.float()).all()
        assert torch.isfinite(found.bias.float()).all()
    assert (logits_of(found, features.double().numpy()).argmax(1) == labels.numpy()).all()


def test_sums_of_parts_are_those_of_the_whole() -> None:
    (one, first), (other, second) = (map(torch.from_numpy, drawn(seed, 60, 4)) for seed in (0, 1))
    whole, left, right = (moments_of(4) for _ in range(3))
    whole.add(torch.cat([one, other]), torch.cat([first, second]))
    left.add(one, first)
    right.add(other, second)
    left.merge(right)
    assert left.present.tolist() == [True, True, False, True, True]
    for found, expected in zip(left.solve(0.1), whole.solve(0.1), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_separable_classes_are_told_apart() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, 400)
    features = 10 * np.eye(CLASSES)[labels] @ generator.normal(size=(CLASSES, 8)) + generator.normal(
        scale=0.1, size=(400, 8)
    )
    moments = moments_of(8)
    moments.add(torch.from_numpy(features).float(), torch.from_numpy(labels))
    assert (logits_of(moments.solve(0.1), features).argmax(1) == labels).all()


def test_one_class_alone_is_always_predicted() -> None:
    moments = moments_of(3)
    moments.add(torch.randn(20, 3), torch.full((20,), 3))
    logits = logits_of(moments.solve(0.1), np.random.default_rng(0).normal(size=(50, 3)) * 100)
    assert (logits.argmax(1) == 3).all()


def test_without_a_labeled_pixel_there_is_none() -> None:
    moments = moments_of(3)
    moments.add(torch.randn(4, 3), torch.full((4,), 255))
    moments.add(torch.empty(0, 3), torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="no labeled pixel"):
        moments.solve(0.1)
