"""Class-balanced pseudo-labels against numbers recorded from the published DMT code."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from semiseg.contracts.dataset import Array, Confidence
from semiseg.data.pseudo import above_thresholds
from semiseg.pseudo import class_balanced_thresholds, label_image

pytestmark = pytest.mark.golden("DMT pseudo-labels")

SIZES = [(33, 49), (30, 41), (25, 49), (33, 33)]


def probabilities() -> list[torch.Tensor]:
    """Four images of four classes: logits of 6x8 resized to 33x49, of which each image is the top left part."""
    c, i, j = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in (4, 6, 8)), indexing="ij")
    found = []
    for k, (height, width) in enumerate(SIZES):
        logits = (2 * torch.sin(0.5 + 1.1 * k + 0.8 * c + 0.7 * i + 0.45 * j * (c + 1))).float()
        maps = F.interpolate(logits[None], size=(33, 49), mode="bilinear", align_corners=True)[0]
        found.append(maps[:, :height, :width].softmax(0))
    return found


def stored() -> list[tuple[Array, Confidence]]:
    pairs = (label_image(each) for each in probabilities())
    return [(label.numpy(), confidence.numpy()) for label, confidence in pairs]


def test_samples_and_confidences() -> None:
    pairs = stored()
    sampled = np.concatenate([label.ravel()[::16] for label, _ in pairs])
    assert np.bincount(sampled).tolist() == [58, 118, 79, 70]
    assert all(confidence.dtype == np.float32 for _, confidence in pairs)
    total = sum(confidence.sum(dtype=np.float64) for _, confidence in pairs)
    assert total == pytest.approx(3091.74381, abs=1e-4)


ROWS = [
    (0.2, (0.7443987, 0.7221926, 0.7046471, 0.6683825), 0.205386553, [76, 431, 351, 202]),
    (0.4, (0.6589987, 0.6318401, 0.6398866, 0.5875271), 0.403991475, [284, 774, 568, 459]),
    (0.6, (0.6242878, 0.5653357, 0.5882179, 0.5365165), 0.548924627, [391, 1071, 785, 586]),
    (0.8, (0.5391004, 0.5080864, 0.4961709, 0.4629066), 0.773493509, [666, 1340, 1129, 857]),
    (1.0, (0.2903557, 0.3091435, 0.3385110, 0.3614948), 0.992637086, [1057, 1667, 1370, 1029]),
]


@pytest.mark.parametrize(("ratio", "expected", "share", "pixels"), ROWS)
def test_thresholds_and_what_they_keep(
    ratio: float, expected: tuple[float, ...], share: float, pixels: list[int]
) -> None:
    pairs = stored()
    thresholds = class_balanced_thresholds(pairs, 4, ratio)
    assert thresholds.tolist() == pytest.approx(expected, abs=1e-6)
    kept = [above_thresholds(label, confidence, tuple(thresholds)) for label, confidence in pairs]
    flat = np.concatenate([label.ravel() for label in kept])
    assert np.bincount(flat[flat != 255]).tolist() == pixels
    assert (flat != 255).mean() == pytest.approx(share, abs=1e-9)
    for label, image in zip(kept, probabilities(), strict=True):
        at_once, confidence = label_image(image, thresholds.tolist())
        assert np.array_equal(at_once.numpy(), label)
        assert np.array_equal(confidence.numpy(), image.max(0).values.numpy())
