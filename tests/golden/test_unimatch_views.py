"""Crops of labeled images and hard pixels of UniMatch against numbers that the original program gave."""

import hashlib
import random
from typing import Any

import numpy as np
import pytest
import torch
from noise_fill import labels, noise

from semiseg.data.geometry import LongSide, RandomCrop
from semiseg.losses import cross_entropy, ohem_cross_entropy


def picture(width: int, height: int) -> tuple[Any, Any]:
    y, x = np.mgrid[:height, :width]
    image = np.stack([(3 * x + 5 * y) % 256, (7 * x + 2 * y + 40) % 256, x * y % 256], -1).astype(np.uint8)
    return image, np.where(x % 37 == 0, 255, (x // 13 + y // 11) % 21).astype(np.uint8)


def sha(values: Any) -> str:
    return hashlib.sha1(np.ascontiguousarray(values).tobytes()).hexdigest()[:12]


@pytest.mark.golden("UniMatch views")
@pytest.mark.parametrize(
    ("size", "seed", "image", "mask", "ignored"),
    [
        ((500, 375), 0, "ea76f385edf9", "86ce51b830dc", 3210),
        ((500, 375), 1, "47cf9529091c", "9a81608c8689", 12561),
        ((500, 375), 2, "07828d5b1391", "a90ce54e7f6e", 34501),
        ((500, 375), 3, "95b8088cd49b", "3126d3eeabdd", 2568),
        ((200, 150), 0, "9aaf66929c77", "d3dd3e592570", 38148),
        ((200, 150), 1, "75102301654d", "9d21279400e0", 82629),
        ((200, 150), 2, "6712e8dce4d5", "babe02e20ec1", 91137),
        ((200, 150), 3, "e95bc97a0e6d", "25a32365b364", 67517),
    ],
)
def test_labeled_crops(size: tuple[int, int], seed: int, image: str, mask: str, ignored: int) -> None:
    geometry = RandomCrop(321, LongSide(), pad_color=(0, 0, 0), draw_order="xy")
    crop, label = geometry(*picture(*size), random.Random(seed))
    assert label is not None
    assert (sha(crop), sha(label), int((label == 255).sum())) == (image, mask, ignored)


@pytest.mark.golden("UniMatch views")
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((500, 375), [(644, 483), (387, 290), (307, 230), (493, 370)]),
        ((333, 500), [(429, 644), (258, 387), (204, 307), (328, 493)]),
        ((120, 90), [(158, 119), (94, 71), (74, 56), (120, 90)]),
        ((300, 300), [(582, 582), (218, 218), (591, 591), (271, 271)]),
    ],
)
def test_drawn_sizes(size: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    drawn = [LongSide().size(size[1], size[0], random.Random(seed)) for seed in range(4)]
    assert [(width, height) for height, width in drawn] == expected


@pytest.mark.golden("UniMatch losses")
@pytest.mark.parametrize(
    ("kept_at_least", "loss", "gradient", "kept"),
    [
        (0, 1.5793285894714968, 0.775600302304279, 110),
        (1, 2.9827987244211402, 1.3777410391734954, 57),
        (40, 2.9827987244211402, 1.3777410391734954, 57),
        (100, 1.7362083395428072, 0.8510707269862677, 100),
        (109, 1.5938006212742548, 0.7826814910909712, 109),
        (110, 1.5793285894714968, 0.775600302304279, 110),
        (111, 1.5793285894714968, 0.775600302304279, 110),
        (100000, 1.5793285894714968, 0.775600302304279, 110),
    ],
)
def test_hard_pixels(kept_at_least: int, loss: float, gradient: float, kept: int) -> None:
    logits = (6 * noise(5 * 10 * 13, 90).reshape(1, 5, 10, 13)).requires_grad_()
    target = labels(1, 10, 13, 5, 2)
    y, x = torch.meshgrid(torch.arange(10), torch.arange(13), indexing="ij")
    target = torch.where((target != 255) & ((2 * x + y) % 3 != 0), logits.detach().argmax(1), target)
    if kept_at_least:
        found = ohem_cross_entropy(logits, target, 0.7, kept_at_least, reduction="sum_count")
    else:
        # The published code mines nothing then, which is plain cross entropy.
        found = cross_entropy(logits, target, reduction="sum_count")
    (slope,) = torch.autograd.grad(found.mean, logits)
    assert float(found.mean.detach()) == pytest.approx(loss, rel=1e-9)
    assert float(slope.abs().sum()) == pytest.approx(gradient, rel=1e-9)
    assert int(found.counted) == kept
