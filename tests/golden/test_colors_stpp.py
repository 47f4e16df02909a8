"""Color changes of ST++: albumentations makes them here, Pillow in the original, so bits differ but not the effect."""

from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image, ImageFilter

from semiseg.config.searchpath import conf_dir
from semiseg.contracts.dataset import Array
from semiseg.data.augment import Photometric
from semiseg.models.segmodel import IMAGENET_MEAN, IMAGENET_STD, InputConvention, SegModel

pytestmark = pytest.mark.golden("ST++ transforms")

SAME = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}


def picture() -> Array:
    """The made-up image of all checks of ST++, cut to 321 x 321."""
    y, x = np.mgrid[20:341, 10:331]
    return np.stack([(3 * x + 5 * y) % 256, (7 * x + 2 * y + 40) % 256, x * y % 256], -1).astype(np.uint8)


def strong() -> Photometric:
    node = OmegaConf.load(conf_dir() / "augment/standard.yaml")["strong"]  # that of augment=stpp
    result: Photometric = instantiate(node, _convert_="all")
    return result


def difference(changed: Array, expected: Any) -> float:
    """Mean absolute difference in gray levels."""
    return float(np.abs(changed.astype(float) - np.asarray(expected, float)).mean())


def test_normalized_input() -> None:
    class Backbone(torch.nn.Module):
        convention = InputConvention(mean=IMAGENET_MEAN, std=IMAGENET_STD)

    model = SegModel(Backbone(), torch.nn.Identity(), torch.nn.Identity(), 1)
    (found,) = model.normalize(torch.from_numpy(picture()).permute(2, 0, 1)[None])
    assert found.dtype == torch.float32
    assert found.double().sum().item() == pytest.approx(66343.926383, abs=0.05)
    assert found[0, 0, 0].item() == pytest.approx(0.1083141, abs=1e-6)
    assert found[2, 320, 320].item() == pytest.approx(-0.5495424, abs=1e-6)
    assert (found.min().item(), found.max().item()) == pytest.approx((-2.117904, 2.640000), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "value"),
    [(name, value) for name in ("brightness", "contrast", "saturation") for value in (0.5, 0.8, 1.3, 1.5)]
    + [("hue", value) for value in (-0.25, -0.1, 0.2)],
)
def test_colors_of_equal_strength(change: str, value: float) -> None:
    jitter = A.ColorJitter(**(SAME | {change: (value, value)}), p=1)
    expected = getattr(tv, f"adjust_{change}")(Image.fromarray(picture()), value)
    assert difference(jitter(image=picture())["image"], expected) < 1.5


def test_gray() -> None:
    changed = A.ToGray(p=1)(image=picture())["image"]
    expected = tv.to_grayscale(Image.fromarray(picture()), num_output_channels=3)
    assert np.abs(changed.astype(int) - np.asarray(expected, int)).max() <= 1


@pytest.mark.parametrize("sigma", [0.1, 0.7, 1.3, 2.0])
def test_blur_of_equal_strength(sigma: float) -> None:
    blur = A.GaussianBlur(sigma_limit=(sigma, sigma), p=1)
    expected = Image.fromarray(picture()).filter(ImageFilter.GaussianBlur(sigma))
    assert difference(blur(image=picture())["image"], expected) < 3


def test_how_often_colors_change() -> None:
    photometric, image = strong(), picture()[:24, :24]
    results = [photometric(image, None, seed)[0] for seed in range(1000)]
    gray = np.mean([(result == result[..., :1]).all() for result in results])
    same = np.mean([np.array_equal(result, image) for result in results])
    assert gray == pytest.approx(0.2, abs=0.05)
    # Neither jitter nor gray, and no blur or one too weak to be seen.
    assert same == pytest.approx(0.2 * 0.8 * (0.5 + 0.5 * 0.1), abs=0.04)


def test_brightness_and_contrast_of_many_draws() -> None:
    image = picture()[::8, ::8]
    photometric = strong()
    ours = [photometric(image, None, seed)[0] for seed in range(400)]
    torch.manual_seed(0)
    rng = np.random.RandomState(0)
    theirs = [published(Image.fromarray(image), rng) for _ in range(400)]
    for statistic in (np.mean, np.std):
        found, expected = ([float(statistic(each)) for each in many] for many in (ours, theirs))
        error = np.hypot(np.std(found), np.std(expected)) / np.sqrt(400)
        assert np.mean(found) == pytest.approx(np.mean(expected), abs=4 * error)
        assert np.std(found) == pytest.approx(np.std(expected), rel=0.2)


def published(image: Image.Image, rng: np.random.RandomState) -> Array:
    """The published chain of colors: jitter in random order, gray, blur."""
    if rng.rand() < 0.8:
        factors = {name: rng.uniform(0.5, 1.5) for name in ("brightness", "contrast", "saturation")}
        factors["hue"] = rng.uniform(-0.25, 0.25)
        for name in rng.permutation(list(factors)):
            image = getattr(tv, f"adjust_{name}")(image, factors[name])
    if rng.rand() < 0.2:
        image = tv.to_grayscale(image, num_output_channels=3)
    if rng.rand() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0)))
    return np.asarray(image)
