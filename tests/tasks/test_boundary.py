"""Boundary IoU against the erosion of its publication, made with OpenCV, class by class and image by image."""

import math

import cv2
import numpy as np
import pytest
import torch

from semiseg.tasks.boundary import BoundaryCounts, contours

VOID = 255


def rim(mask: np.ndarray, ratio: float) -> np.ndarray:
    """The contour of a binary mask: what the published erosion takes away."""
    height, width = mask.shape
    steps = max(1, round(ratio * math.hypot(height, width)))
    # A black frame, so that the edge of the image is a contour too.
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inner = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=steps)[1:-1, 1:-1]
    return (mask > 0) & (inner == 0)


def published(truths, predictions, label, ratio):
    both = either = 0
    for truth, prediction in zip(truths, predictions, strict=True):
        known = truth != VOID
        one, other = rim((truth == label) & known, ratio), rim((prediction == label) & known, ratio)
        both += int((one & other).sum())
        either += int((one | other).sum())
    return both / either if either else None


def blobs(rng: np.random.Generator, height: int, width: int, classes: int) -> np.ndarray:
    label = np.zeros((height, width), np.uint8)
    for _ in range(6):
        center = int(rng.integers(width)), int(rng.integers(height))
        cv2.circle(label, center, int(rng.integers(2, 12)), int(rng.integers(classes)), -1)
    return label


@pytest.mark.parametrize("ratio", [0.02, 0.1, 0.001])
@pytest.mark.parametrize("size", [(40, 60), (64, 64), (7, 90), (1, 30), (30, 2), (128, 32)])
def test_equals_the_published_erosion(size: tuple[int, int], ratio: float) -> None:
    rng = np.random.default_rng(size[0])
    truths = np.stack([blobs(rng, *size, 4) for _ in range(3)])
    predictions = np.stack([np.roll(each, 2, axis=1) for each in truths])
    predictions[2] = 3  # and one class everywhere
    truths[:, : size[0] // 4, : size[1] // 3] = VOID
    counts = BoundaryCounts(5, ratio, VOID, "cpu")
    counts.update(torch.from_numpy(predictions[:2]), torch.from_numpy(truths[:2]))
    counts.update(torch.from_numpy(predictions[2:]), torch.from_numpy(truths[2:]))
    right = [published(truths, predictions, label, ratio) for label in range(5)]
    assert counts.compute() == pytest.approx(right)
    assert right[4] is None


def test_a_moved_thin_line_scores_lower_than_its_region() -> None:
    truth = torch.zeros(1, 100, 100, dtype=torch.uint8)
    truth[:, 20:80, 20:80] = 1
    moved = truth.roll(2, 2)
    counts = BoundaryCounts(2, 0.02, VOID, "cpu")
    counts.update(moved, truth)
    iou = (truth & moved).sum() / (truth | moved).sum()
    assert counts.compute()[1] < 0.7 < 0.9 < iou


def test_void_alone_counts_nothing() -> None:
    counts = BoundaryCounts(2, 0.02, VOID, "cpu")
    counts.update(torch.zeros(1, 9, 9, dtype=torch.int64), torch.full((1, 9, 9), VOID))
    assert counts.compute() == [None, None]


def test_a_strip_is_all_contour() -> None:
    assert contours(torch.zeros(1, 4, 6000, dtype=torch.int64), 120).all()
