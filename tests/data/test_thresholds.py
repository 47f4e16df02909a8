"""Class-balanced thresholds: the rule, and labels that are read equal to the published two passes."""

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from semiseg.contracts.dataset import Array, Confidence
from semiseg.data.pseudo import PseudoLabels, PseudoWriter, above_thresholds
from semiseg.errors import UserError
from semiseg.pseudo import class_balanced_thresholds, label_image

CLASSES = 5
Network = Callable[[int], Tensor]


def network(number: int) -> Tensor:
    """Probabilities of an image; class 4 never wins, class 3 rarely."""
    generator = torch.Generator().manual_seed(number)
    size = [(17, 23), (8, 31), (30, 19), (5, 5)][number % 4]
    logits = torch.randn(CLASSES, *size, generator=generator)
    logits[3] -= 3.5
    logits[4] -= 30
    # Coarse confidences, so that many are equal.
    return (logits * 4).round().div(4).softmax(0)


def two_passes(images: range, ratio: float, stride: int) -> list[Tensor]:
    """The published program: predict every image for the thresholds, then predict every image again."""
    listed: list[list[float]] = [[] for _ in range(CLASSES)]
    for number in images:
        best = network(number).max(0)
        for place in range(0, best.values.numel(), stride):
            listed[int(best.indices.flatten()[place])].append(best.values.flatten()[place].item())
    thresholds = []
    for values in listed:
        ascending = sorted(values)
        if len(values) * min(ratio, 1) < 1:
            thresholds.append(1e-5)
        elif ratio >= 1:
            thresholds.append(ascending[0])
        else:
            thresholds.append(ascending[len(values) - 1 - math.floor(len(values) * ratio)])
    labels = []
    for number in images:
        best = network(number).max(0)
        least = torch.tensor(thresholds, dtype=torch.float32)[best.indices]
        labels.append(torch.where(best.values < least, 255, best.indices))
    return labels


@pytest.mark.parametrize("ratio", [0.01, 0.2, 0.4, 0.6, 0.8, 0.999, 1.0])
@pytest.mark.parametrize("stride", [16, 1, 7])
def test_one_pass_and_a_store_give_the_labels_of_two_passes(
    ratio: float, stride: int, tmp_path: Path
) -> None:
    images = range(8)
    with PseudoWriter(tmp_path / "labels") as writer:
        for number in images:
            label, confidence = label_image(network(number))
            writer.write(str(number), label.numpy(), confidence.numpy())
        store = writer.seal()
    found = class_balanced_thresholds(map(store.read, store.ids), CLASSES, ratio, stride)  # type: ignore[arg-type]
    labels = PseudoLabels(store.path, thresholds=[float(value) for value in found])
    counts = np.zeros(256, int)
    for number, expected in zip(images, two_passes(images, ratio, stride), strict=True):
        label, confidence = labels.read(str(number))
        assert np.array_equal(label, expected.numpy())
        assert np.array_equal(labels.label(str(number)), label)
        assert confidence is not None
        assert np.array_equal(confidence, network(number).max(0).values.numpy())
        at_once, _ = label_image(network(number), found.tolist())
        assert np.array_equal(at_once.numpy(), label)
        counts += np.bincount(label.ravel(), minlength=256)
    assert labels.count() == counts.tolist()
    assert counts[4] == 0
    if ratio == stride == 1:
        assert counts[255] == 0
    elif 0.1 < ratio < 0.9:
        assert counts[255] > 0


def pairs(label: list[int], confidence: list[float]) -> list[tuple[Array, Confidence]]:
    return [(np.array([label], np.uint8), np.array([confidence], np.float32))]


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0.2, 0.7), (0.25, 0.7), (0.5, 0.6), (0.75, 0.5), (0.99, 0.5), (1.0, 0.5), (3.0, 0.5)],
)
def test_the_place_of_the_threshold(ratio: float, expected: float) -> None:
    four = pairs([1, 1, 1, 0, 1], [0.8, 0.6, 0.5, 0.9, 0.7])
    found = class_balanced_thresholds(four, 3, ratio, stride=1)
    assert found.dtype == np.float32
    assert found[1] == np.float32(1e-5 if ratio == 0.2 else expected)
    assert found[0] == np.float32(0.9 if ratio >= 1 else 1e-5)
    assert found[2] == np.float32(1e-5)


def test_ignored_pixels_do_not_count() -> None:
    found = class_balanced_thresholds(pairs([255, 0, 255, 0], [0.1, 0.4, 0.2, 0.6]), 1, 1.0, stride=1)
    assert found.tolist() == pytest.approx([0.4])


def test_equality_passes_and_ignored_stays() -> None:
    label, confidence = np.array([[0, 1, 1, 255]], np.uint8), np.array([[0.5, 0.5, 0.7, 0.0]], np.float32)
    assert above_thresholds(label, confidence, (0.5, 0.6)).tolist() == [[0, 255, 1, 255]]


@pytest.mark.parametrize("wrong", [{"ratio": 0.0}, {"ratio": -1}, {"ratio": 0.5, "stride": 0}])
def test_bad_arguments_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        class_balanced_thresholds([], 2, **wrong)


def test_thresholds_travel_with_the_handle(tmp_path: Path) -> None:
    with PseudoWriter(tmp_path / "labels") as writer:
        writer.write("a", np.array([[0, 1]], np.uint8), np.array([[0.2, 0.9]], np.float32))
        writer.seal()
    labels = PseudoLabels(tmp_path / "labels", thresholds=[0.5, 0.5])
    for handle in (labels, pickle.loads(pickle.dumps(labels))):
        assert handle.label("a").tolist() == [[255, 1]]
        assert np.array_equal(handle.read("a")[1], np.array([[0.2, 0.9]], np.float32))
    assert PseudoLabels(tmp_path / "labels").label("a").tolist() == [[0, 1]]
    assert PseudoLabels(tmp_path / "labels").count()[:2] == [1, 1]


def test_thresholds_need_confidences(tmp_path: Path) -> None:
    with PseudoWriter(tmp_path / "labels", keep_confidence=False) as writer:
        writer.write("a", np.array([[0, 1]], np.uint8), np.array([[0.2, 0.9]], np.float32))
        writer.seal()
    with pytest.raises(UserError, match="no confidence"):
        PseudoLabels(tmp_path / "labels", thresholds=[0.5, 0.5]).label("a")
