"""Crops of labeled images that are drawn towards rare classes."""

import numpy as np
import pytest

from semiseg.data.augment import Augment
from semiseg.data.geometry import RandomCrop
from semiseg.data.rare_crops import RareClasses
from semiseg.errors import UserError


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A wide image of class 0 with a small patch of class 1 at the right, and one of class 2 at the left."""
    label = np.zeros((32, 256), np.uint8)
    label[8:24, 230:246] = 1
    label[:, :24] = 2
    return np.repeat(label[..., None], 3, 2), label


def rare_pixels(augment: Augment, value: int, count: int = 60) -> float:
    image, label = scene()
    crops = [augment.weak(image, label, ("seed", number)) for number in range(count)]
    assert all((crop["image"][..., 0] == crop["label"]).all() for crop in crops)
    return float(np.mean([(crop["label"] == value).any() for crop in crops]))


def test_crops_with_several_classes_come_more_often() -> None:
    geometry = RandomCrop(32)
    plain, rare = Augment(geometry), Augment(geometry, rare_candidates=20)
    assert rare_pixels(plain, 1) + rare_pixels(plain, 2) < 0.5
    assert rare_pixels(rare, 1) + rare_pixels(rare, 2) > 0.9


def test_shares_say_which_class_is_rare() -> None:
    augment = Augment(RandomCrop(32), rare_candidates=20, rare_shares=[0.8, 0.01, 0.19])
    assert rare_pixels(augment, 1) > 0.8


def test_images_without_labels_are_drawn_plainly() -> None:
    image, _ = scene()
    geometry = RandomCrop(32)
    plain, rare = Augment(geometry), Augment(geometry, rare_candidates=20)
    key = ("seed", 0)
    assert (plain.weak(image, None, key)["image"] == rare.weak(image, None, key)["image"]).all()


def test_shares_without_pixels_are_refused() -> None:
    with pytest.raises(UserError, match="above 0"):
        Augment(RandomCrop(32), rare_candidates=2, rare_shares=[0.0, 0.0])


def test_padding_is_no_variety() -> None:
    two = np.zeros((10, 10), np.uint8)
    two[:1] = 1
    padded = np.full((10, 10), 255, np.uint8)
    padded[:4] = 0
    rule = RareClasses()
    assert rule.score(padded) == 0
    assert rule.score(two) > 0.3
    # The same classes on fewer pixels are worth less.
    half = two.copy()
    half[:, 5:] = 255
    assert rule.score(half) == pytest.approx(rule.score(two) / 2)
