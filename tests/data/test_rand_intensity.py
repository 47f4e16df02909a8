"""Changes of intensity of AugSeg's strong view: their number, their strength, and what they refuse."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from band_pictures import bands
from semiseg.data import rand_intensity
from semiseg.data.augment import Augment
from semiseg.data.band_augment import for_bands
from semiseg.data.geometry import RandomCrop
from semiseg.data.rand_intensity import CHANGES, RandIntensity
from semiseg.data.views import WeakStrong
from semiseg.errors import UserError


def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(30, 220, (24, 20, 3), dtype=np.uint8)


def changed(number: int, seed: int) -> NDArray[np.uint8]:
    return np.array(CHANGES[number](Image.fromarray(picture()), random.Random(seed)))


def test_one_to_three_changes_each_as_likely_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[int] = Counter()
    lengths: Counter[int] = Counter()
    seen: list[int] = []

    def noted(number: int) -> Any:
        def change(image: Image.Image, draws: random.Random) -> Image.Image:
            seen.append(number)
            return image

        return change

    monkeypatch.setattr(rand_intensity, "CHANGES", tuple(noted(number) for number in range(11)))
    for seed in range(4000):
        seen.clear()
        RandIntensity()(picture(), None, seed)
        lengths[len(seen)] += 1
        counts.update(seen)
    assert set(lengths) == {1, 2, 3}
    assert max(lengths.values()) / min(lengths.values()) < 1.15
    assert set(counts) == set(range(11))
    assert max(counts.values()) / min(counts.values()) < 1.2


def test_a_seed_gives_one_result_of_the_same_size_and_type() -> None:
    given = picture()
    label = np.zeros((24, 20), np.uint8)
    results = [RandIntensity()(given, label, seed) for seed in (3, 3, 4, 5, 6)]
    assert np.array_equal(results[0][0], results[1][0])
    assert len({each.tobytes() for each, _ in results}) > 2
    for image, same in results:
        assert (image.shape, image.dtype) == (given.shape, given.dtype)
        assert same is label
    assert np.array_equal(given, picture())


def test_contrast_brightness_color_and_sharpness_are_weakened() -> None:
    spreads = [
        lambda image: image.std(),
        lambda image: image.mean(),
        lambda image: np.ptp(image.astype(int), axis=2).mean(),
        lambda image: np.abs(np.diff(image.astype(int), axis=0)).mean(),
    ]
    for number, spread in enumerate(spreads, start=4):
        shares = [spread(changed(number, seed)) / spread(picture()) for seed in range(200)]
        # An edge of the image stays as it is where sharpness smooths.
        assert max(shares) < 0.99
        assert min(shares) < 0.5
        if number < 7:
            assert min(shares) > 0.03
            assert np.mean(shares) == pytest.approx(0.5, abs=0.06)


def test_posterize_keeps_four_to_seven_bits() -> None:
    bits = {int(np.bitwise_or.reduce(changed(8, seed), axis=None)) for seed in range(100)}
    assert bits == {0b11110000, 0b11111000, 0b11111100, 0b11111110}


def test_solarize_inverts_what_is_above_a_level() -> None:
    levels = set()
    for seed in range(300):
        result, given = changed(9, seed), picture()
        inverted = result != given
        assert np.array_equal(result[inverted], 255 - given[inverted])
        levels.add(int(given[inverted].min()) if inverted.any() else 256)
    assert min(levels) < 40
    assert max(levels) == 256


def test_hue_turns_to_both_sides_and_wraps() -> None:
    red = Image.new("RGB", (1, 1), (255, 0, 0))
    hues = {np.array(CHANGES[10](red, random.Random(seed)).convert("HSV"))[0, 0, 0] for seed in range(300)}
    assert min(hues) < 20
    assert max(hues) > 235
    assert any(100 < hue < 128 for hue in hues)
    assert any(128 < hue < 156 for hue in hues)


def test_other_images_are_refused() -> None:
    for image in (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 5), np.uint8)):
        with pytest.raises(UserError, match="changes 8-bit RGB alone"):
            RandIntensity()(image, None, 0)
    with pytest.raises(UserError, match="the images have 5 bands"):
        for_bands(Augment(RandomCrop(16), RandIntensity()), bands(5, "uint16"))
    with pytest.raises(UserError, match="most"):
        RandIntensity(0)


def test_it_is_the_strong_view_of_a_pair() -> None:
    view = WeakStrong(RandomCrop(16), RandIntensity(), valid=True)
    images = [view(picture(), None, (0, "train", number, "unlabeled", 0)) for number in range(6)]
    assert any(not np.array_equal(each["image"], each["strong_1"]) for each in images)
