"""Photometric changes and cutout: reproducible, contained, and honest about what they can't do."""

import pickle
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from semiseg.contracts.dataset import Array
from semiseg.data.augment import Augment, Photometric
from semiseg.data.cutout import Cutout
from semiseg.data.geometry import RandomCrop
from semiseg.data.views import Strong, Weak
from semiseg.errors import UserError

A = pytest.importorskip("albumentations")


def noise(seed: int = 0, height: int = 48, width: int = 40) -> tuple[Array, Array]:
    rng = np.random.RandomState(seed)
    image = rng.randint(0, 256, (height, width, 3)).astype(np.uint8)
    return image, rng.randint(0, 5, (height, width)).astype(np.uint8)


def stpp_colors() -> Photometric:
    return Photometric(
        [
            A.ColorJitter((0.5, 1.5), (0.5, 1.5), (0.5, 1.5), (-0.25, 0.25), p=0.8),
            A.ToGray(p=0.2),
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=0.5),
        ]
    )


def test_seed_decides_everything() -> None:
    image, label = noise()
    photometric, twin = stpp_colors(), pickle.loads(pickle.dumps(stpp_colors()))
    first = [photometric(image, label, seed)[0] for seed in range(20)]
    np.random.seed(3)
    random.seed(3)
    again = [twin(image, label, seed)[0] for seed in reversed(range(20))][::-1]
    assert all(map(np.array_equal, first, again))
    assert len({result.tobytes() for result in first}) > 10


def test_labels_are_untouched_and_optional() -> None:
    image, label = noise()
    changed, same = stpp_colors()(image, label, 2**62)
    assert same is not None
    assert np.array_equal(same, label)
    alone, nothing = stpp_colors()(image, None, 2**62)
    assert nothing is None
    assert np.array_equal(alone, changed)


def test_transforms_draw_independently() -> None:
    # With one seed for all, as albumentations has it, two equal gates would always agree.
    image = np.full((4, 4, 3), 100, np.uint8)

    def shares(transforms: list[Any], values: tuple[int, int]) -> list[int]:
        photometric = Photometric(transforms)
        results = [int(photometric(image, None, seed)[0][0, 0, 0]) for seed in range(400)]
        return [results.count(value) for value in (100, 100 + values[0], 100 + values[1], 100 + sum(values))]

    def brighter(by: int) -> Any:
        return A.RGBShift(r_shift_limit=(by, by), g_shift_limit=0, b_shift_limit=0, p=0.5)

    assert min(shares([brighter(10), brighter(40)], (10, 40))) > 60
    assert min(shares([A.Sequential([brighter(10), brighter(40)], p=1)], (10, 40))) > 60


def test_moving_transforms_carry_the_label() -> None:
    photometric = Photometric([A.Sequential([A.Rotate((90, 90), fill_mask=255, p=1), A.Blur(p=1)])])
    assert photometric.moving == ("Rotate",)
    assert stpp_colors().moving == ()
    image, label = noise(height=40, width=40)
    _, turned = photometric(image, label, 0)
    assert turned is not None
    assert np.array_equal(turned, np.rot90(label))


def test_made_up_pixels_must_not_become_a_class() -> None:
    with pytest.raises(UserError, match=r"Rotate labels .* class 0; give it fill_mask: 255"):
        Photometric([A.OneOf([A.Rotate(), A.Blur()])])


@pytest.mark.parametrize("transform", ["RandomCrop", "Normalize"])
def test_size_and_type_must_stay(transform: str) -> None:
    built = A.RandomCrop(8, 8, p=1) if transform == "RandomCrop" else A.Normalize(p=1)
    with pytest.raises(UserError, match=transform):
        Photometric([built])(*noise(), 0)


@pytest.mark.slow
def test_an_unknown_argument_of_albumentations_raises() -> None:
    program = "import semiseg.data.augment, albumentations as A; A.ColorJitter(brightnes=0.4)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "brightnes" in run.stderr


# An upgrade of OpenCV, numpy or albumentations may round differently, but must not change what a seed means.
@pytest.mark.parametrize(
    ("transform", "means", "spread"),
    [
        (
            A.ColorJitter((0.5, 1.5), (0.5, 1.5), (0.5, 1.5), (-0.25, 0.25), p=1),
            (137.86, 141.66, 139.63),
            67.25,
        ),
        (A.ToGray(p=1), (127.45, 127.45, 127.45), 49.36),
        (A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=1), (125.44, 129.00, 124.77), 16.72),
    ],
    ids=["jitter", "gray", "blur"],
)
def test_a_seed_keeps_its_meaning(transform: Any, means: tuple[float, ...], spread: float) -> None:
    result, _ = Photometric([transform])(noise()[0], None, 7)
    assert result.mean((0, 1)) == pytest.approx(means, abs=0.3)
    assert result.std() == pytest.approx(spread, abs=0.3)


def test_cutout_marks_what_it_erases() -> None:
    image, label = noise()
    erased, applied = Cutout(), 0
    for seed in range(60):
        result, result_label = erased(image, label, seed)
        assert result_label is not None
        gone = result_label == 255
        applied += bool(gone.any())
        assert np.array_equal(result[~gone], image[~gone])
        assert np.array_equal(result_label[~gone], label[~gone])
        assert np.array_equal(erased(image, None, seed)[0], result)
    assert 18 < applied < 42
    assert label.max() < 255


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 2}, "p=2"),
        ({"area": (0.5, 1.5)}, "area"),
        ({"ratio": (0, 1)}, "ratio"),
        ({"noise": (0, 300)}, "noise"),
        ({"area": [0.1]}, "area"),
    ],
)
def test_cutout_explains_bad_values(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Cutout(**arguments)


def test_cutout_that_never_fits_says_so() -> None:
    with pytest.raises(UserError, match="no box"):
        Cutout(p=1, area=(1, 1), ratio=(4, 4))(*noise(), 0)


def test_augment_offers_a_weak_and_a_strong_view() -> None:
    augment = Augment(RandomCrop(24), stpp_colors(), Cutout())
    assert isinstance(augment.weak, Weak)
    assert isinstance(augment.strong, Strong)
    image, label = noise()
    weak, strong = (view(image, label, (0, "a", 1)) for view in (augment.weak, augment.strong))
    assert weak["image"].shape == strong["image"].shape == (24, 24, 3)
    kept = strong["label"] != 255
    assert np.array_equal(strong["label"][kept], weak["label"][kept])
