import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from semiseg.tasks.metrics import ConfusionMatrix


def brute_force(prediction, target, classes, absent, ignore):
    """Pixel by pixel, with sets of pixels as in the definition of the IoU."""
    pixels = [
        (int(p), int(t))
        for p, t in zip(prediction.flat, target.flat, strict=True)
        if 0 <= t < classes and t != ignore and 0 <= p < classes
    ]
    iou = []
    for c in range(classes):
        union = sum(p == c or t == c for p, t in pixels)
        iou.append(sum(p == c and t == c for p, t in pixels) / union if union else None)
    present = [value for value in iou if value is not None]
    divisor = classes if absent == "zero" and present else len(present)
    miou = sum(present) / divisor if divisor else math.nan
    accuracy = sum(p == t for p, t in pixels) / len(pixels) if pixels else math.nan
    return miou, iou, accuracy


@settings(max_examples=60, deadline=None)
@given(data=st.data(), classes=st.integers(1, 5), absent=st.sampled_from(["skip", "zero"]))
def test_equals_brute_force(data, classes, absent):
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=6))
    labels = st.one_of(st.integers(0, classes + 1), st.just(255))
    ignore = data.draw(st.sampled_from([255, 0]))
    target = data.draw(hnp.arrays(np.uint8, shape, elements=labels))
    prediction = data.draw(hnp.arrays(np.uint8, shape, elements=labels))
    matrix = ConfusionMatrix(classes, absent=absent, ignore_index=ignore)
    for p, t in zip(prediction, target, strict=True):
        matrix.update(torch.from_numpy(p), torch.from_numpy(t))
    found = matrix.compute()
    miou, iou, accuracy = brute_force(prediction, target, classes, absent, ignore)
    assert found.iou == pytest.approx(iou)
    assert found.miou == pytest.approx(miou, nan_ok=True)
    assert found.accuracy == pytest.approx(accuracy, nan_ok=True)
    assert sum(map(sum, found.confusion)) <= target.size


def test_a_global_matrix_is_not_a_mean_over_images():
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 0, 1]))
    matrix.update(torch.tensor([1]), torch.tensor([1]))
    assert matrix.compute().iou == [3 / 4, 1 / 2]


def test_an_absent_class_is_skipped_or_counted_as_zero():
    values = torch.tensor([0, 0, 1])
    for absent, miou in (("skip", 1.0), ("zero", 2 / 3)):
        matrix = ConfusionMatrix(3, absent=absent)
        matrix.update(values, values)
        assert matrix.compute().miou == pytest.approx(miou)
        assert matrix.compute().iou == [1.0, 1.0, None]


def test_nothing_valid_is_nan_and_never_an_error():
    matrix = ConfusionMatrix(3, absent="zero")
    matrix.update(torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2), 255))
    found = matrix.compute()
    assert math.isnan(found.miou)
    assert math.isnan(found.accuracy)
    assert found.iou == [None, None, None]


def test_pixels_without_a_prediction_lower_the_coverage_alone():
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([0, 1, 255, 255]), torch.tensor([0, 1, 1, 255]))
    found = matrix.compute()
    assert (found.miou, found.accuracy, found.coverage) == (1.0, 1.0, 2 / 3)


def test_other_dtypes_and_negative_labels():
    matrix = ConfusionMatrix(2)
    target = torch.tensor([-1, 0, 1], dtype=torch.int16)
    matrix.update(torch.tensor([0, 0, 0], dtype=torch.uint8), target)
    assert matrix.compute().confusion == [[1, 0], [1, 0]]
    assert target.tolist() == [-1, 0, 1]


def test_inputs_are_left_alone():
    prediction, target = torch.tensor([0, 7]), torch.tensor([1, 255])
    ConfusionMatrix(2).update(prediction, target)
    assert (prediction.tolist(), target.tolist()) == ([0, 7], [1, 255])


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ"):
        ConfusionMatrix(2).update(torch.zeros(2, 2), torch.zeros(2, 3))


def test_plain_values():
    matrix = ConfusionMatrix(2, absent="true_only")
    matrix.update(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0]))
    assert matrix.compute().as_dict() == {
        "miou": 2 / 3,
        "mdice": 4 / 5,
        "mprecision": 1.0,
        "mrecall": 2 / 3,
        "accuracy": 2 / 3,
        "fwiou": 2 / 3,
        "iou": [2 / 3, None],
        "dice": [4 / 5, None],
        "class_precision": [1.0, 0.0],
        "class_recall": [2 / 3, None],
        "true_pixels": [3, 0],
        "predicted_pixels": [2, 1],
        "counted_classes": [0],
        "absent_classes": [1],
        "confusion": [[2, 1], [0, 0]],
        "coverage": 1.0,
    }
    assert matrix.compute().by_class(["sky", "road"]) == {"sky": 2 / 3, "road": None}
