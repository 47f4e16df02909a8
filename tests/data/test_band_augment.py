"""Geometry, colors and batches of images of any channels and number types."""

import random
from typing import Any

import albumentations
import cv2
import numpy as np
import pytest
import torch

from band_pictures import bands, numbers
from semiseg.data.augment import Augment, Photometric
from semiseg.data.band_augment import ANY_CHANNELS, BandPhotometric, for_bands
from semiseg.data.collate import image_tensor
from semiseg.data.cutout import Cutout
from semiseg.data.geometry import LongSide, RandomCrop, ScaleUniform
from semiseg.data.overlap import OverlapPair
from semiseg.data.resize import Interpolation, padded, resized
from semiseg.data.views import OverlapCrops, Strong, Weak
from semiseg.data.window import Window, resized_window
from semiseg.errors import UserError

KINDS = [(channels, dtype) for channels in (1, 2, 4, 5, 10) for dtype in ("uint8", "uint16", "float32")]
WAYS: list[Interpolation] = ["opencv", "torch", "pil_bilinear", "pil_bicubic"]


def standard() -> Augment:
    """The parts of augment=standard, each always applied."""
    strong = Photometric(
        [
            albumentations.ColorJitter((0.5, 1.5), (0.5, 1.5), (0.5, 1.5), (-0.25, 0.25), p=1.0),
            albumentations.ToGray(p=1.0),
            albumentations.GaussianBlur(sigma_limit=(0.1, 2.0), p=1.0),
        ]
    )
    return Augment(RandomCrop(32, ScaleUniform()), strong, Cutout(p=1.0))


@pytest.mark.parametrize(("channels", "dtype"), KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_each_channel_is_resized_as_if_alone(channels: int, dtype: str, way: Interpolation) -> None:
    image = numbers(21, 34, channels, dtype) * (300 if dtype == "uint16" else 1)
    whole = resized(image, (40, 27), way)
    assert (whole.shape, whole.dtype) == ((40, 27, channels), image.dtype)
    for channel in range(channels):
        alone = cv2.resize(image[..., channel].astype(np.float32), (27, 40), interpolation=cv2.INTER_LINEAR)
        if not way.startswith("pil"):
            assert np.abs(whole[..., channel] - alone).max() < 1
    part = resized_window(image, (40, 27), way, Window(5, 3, 37, 27), mirror=True)
    assert part.shape == (32, 24, channels)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    assert np.abs(part.astype(float) - resized(mirrored, (40, 27), way)[5:37, 3:27]).max() <= 1


@pytest.mark.parametrize(("channels", "dtype"), KINDS)
def test_padding_is_the_mean_of_each_channel(channels: int, dtype: str) -> None:
    image = numbers(10, 12, channels, dtype)
    fill = tuple(float(channel + 7) for channel in range(channels))
    canvas = padded(image, (16, 20), 2, 3, fill)
    assert (canvas.shape, canvas.dtype) == ((16, 20, channels), image.dtype)
    assert np.array_equal(canvas[2:12, 3:15], image)
    assert (canvas[0, 0] == fill).all()


@pytest.mark.parametrize(("channels", "dtype"), KINDS)
def test_the_standard_augmentation_suits_any_bands(channels: int, dtype: str) -> None:
    augment = for_bands(standard(), bands(channels, dtype))
    image, label = numbers(24, 40, channels, dtype), np.zeros((24, 40), np.uint8)
    for view in (augment.weak, augment.strong):
        data = view(image, label, (1, "step", 2))
        assert (data["image"].shape, data["image"].dtype) == ((32, 32, channels), image.dtype)
        assert data["label"].shape == (32, 32)
        again = view(image.copy(), label, (1, "step", 2))
        assert np.array_equal(data["image"], again["image"])
    weak = Weak(augment.geometry)(image, label, (3, "x", 1))
    if (weak["label"] == 255).any():
        assert (weak["image"][weak["label"] == 255] == 100).all()
    strong = Strong(augment.geometry, augment.photometric)(image, label, (3, "x", 1))
    assert not np.array_equal(strong["image"], weak["image"])


@pytest.mark.parametrize(("channels", "dtype"), [(1, "float32"), (4, "uint16"), (5, "uint8")])
def test_crops_in_pairs_suit_bands(channels: int, dtype: str) -> None:
    pair = OverlapCrops(
        OverlapPair(32, LongSide(None, 0.8, 2.0, "pil_bicubic")), standard().photometric, valid=True
    )
    augment = for_bands(Augment(RandomCrop(32), pair=pair), bands(channels, dtype))
    assert augment.pair is not None
    data = augment.pair(numbers(20, 30, channels, dtype), None, (1, "step", 2))
    for number in (1, 2):
        assert data[f"image_{number}"].shape == (32, 32, channels)
        assert data[f"image_{number}"].dtype == dtype
    like = OverlapPair.like(augment.geometry, 8)(numbers(20, 30, channels, dtype), random.Random(0))
    assert (like.image_1[-1, -1] == 100).all()


def test_what_only_colors_have_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for_bands(standard(), bands(4, "uint16"))
    assert "saturation and hue of ColorJitter, ToGray" in caplog.text


@pytest.mark.parametrize("name", ["Posterize", "CLAHE", "Equalize", "ChannelShuffle", "InvertImg"])
def test_what_has_no_meaning_is_refused_by_name(name: str) -> None:
    transform = getattr(albumentations, name)(p=1.0)
    with pytest.raises(UserError, match=f"{name}: has no meaning for images of 4 bands"):
        for_bands(
            Augment(RandomCrop(32), Photometric([albumentations.OneOf([transform])])), bands(4, "uint8")
        )


@pytest.mark.parametrize("name", ANY_CHANNELS)
def test_the_others_apply_to_any_channels(name: str) -> None:
    for channels in (2, 5):
        change = BandPhotometric(
            Photometric([getattr(albumentations, name)(p=1.0)]), bands(channels, "uint16")
        )
        image = numbers(24, 24, channels, "uint16")
        changed, _ = change(image, None, 3)
        assert (changed.shape, changed.dtype) == (image.shape, image.dtype)
        assert not np.array_equal(changed, image)


def test_numbers_far_from_the_mean_stay_far() -> None:
    image = np.full((16, 16, 2), 100, np.float32)
    image[4, 4] = 1e6
    blur = BandPhotometric(Photometric([albumentations.RandomBrightnessContrast(p=1.0)]), bands(2, "float32"))
    changed, _ = blur(image, None, 1)
    assert abs(changed[4, 4, 0] - 1e6) < 1000
    assert abs(changed[0, 0, 0] - 100) < 100


def test_rgb_keeps_its_augmentation() -> None:
    augment = standard()
    assert for_bands(augment, None) is augment


@pytest.mark.parametrize(
    ("dtype", "expected"), [("uint8", torch.uint8), ("uint16", torch.float32), ("float32", torch.float32)]
)
def test_batches_hold_each_number(dtype: str, expected: torch.dtype) -> None:
    images: list[Any] = [numbers(6, 7, 5, dtype, seed) for seed in range(2)]
    if dtype == "uint16":
        images[0][0, 0] = 65535
    batch = image_tensor(images)
    assert (batch.shape, batch.dtype) == ((2, 5, 6, 7), expected)
    assert np.array_equal(batch.numpy(), np.stack(images).transpose(0, 3, 1, 2))
