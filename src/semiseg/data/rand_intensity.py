"""The strong view of AugSeg: a few random changes of intensity, of random strength (``augs_TIBA.py`` of its code)."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from semiseg.contracts.dataset import Array, Pixels
from semiseg.declare import Ge, check_fields
from semiseg.errors import UserError

Change = Callable[[Image.Image, random.Random], Image.Image]


@dataclass(frozen=True)
class RandIntensity:
    """1 to ``most`` of eleven changes of an 8-bit RGB image, drawn with replacement.

    They are: none, autocontrast, equalize, blur with sigma 0.1 to 2; contrast, brightness, color and sharpness, each
    weakened to 0.05 to 0.95; posterize to 4 to 7 bits, solarize from a level of 1 to 255, and a shift of the hue by up
    to half of the circle. Pillow computes them, as in the published code.

    Args:
        most: largest number of changes. Published: 3.

    Raises:
        UserError: a value out of range.
    """

    most: Annotated[int, Ge(1)] = 3

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def moving(self) -> tuple[str, ...]:
        """No change moves pixels."""
        return ()

    def __call__(self, image: Pixels, label: Array | None, seed: int) -> tuple[Pixels, Array | None]:
        """Apply the draws that belong to ``seed`` to an image ``(H, W, 3) uint8``.

        Raises:
            UserError: the image is not 8-bit RGB.
        """
        if image.dtype != np.uint8 or image.shape[2:] != (3,):
            raise self.refusal(f"{image.shape[2]} channels of {image.dtype}")
        draws = random.Random(seed)
        changed = Image.fromarray(image)
        for change in draws.choices(CHANGES, k=draws.randint(1, self.most)):
            changed = change(changed, draws)
        return np.array(changed), label

    def refusal(self, given: str) -> UserError:
        """Return the error for images of another kind."""
        return UserError(
            f"changes 8-bit RGB alone, and the images have {given}. Choose another augmentation, such as "
            "augment=unimatch.",
            key="augment.strong",
            value=type(self).__name__,
        )


def _identity(image: Image.Image, draws: random.Random) -> Image.Image:
    return image


def _autocontrast(image: Image.Image, draws: random.Random) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, draws: random.Random) -> Image.Image:
    return ImageOps.equalize(image)


def _blur(image: Image.Image, draws: random.Random) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(draws.uniform(0.1, 2.0)))


def _weakened(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Change:
    """Return a change towards what ``kind`` makes at 0: gray, black, colorless or smooth."""

    def change(image: Image.Image, draws: random.Random) -> Image.Image:
        return kind(image).enhance(0.95 - 0.9 * draws.random())

    return change


def _posterize(image: Image.Image, draws: random.Random) -> Image.Image:
    return ImageOps.posterize(image, 8 - max(1, math.ceil(4 * draws.random())))


def _solarize(image: Image.Image, draws: random.Random) -> Image.Image:
    return ImageOps.solarize(image, 256 - max(1, math.ceil(255 * draws.random())))


def _hue(image: Image.Image, draws: random.Random) -> Image.Image:
    shift = int(255 * draws.choice((-1, 1)) * 0.5 * draws.random())
    hue, saturation, value = image.convert("HSV").split()
    # The circle has 256 steps. The published code's own conversion of a negative shift fails under NumPy 2.
    turned = Image.fromarray(((np.asarray(hue).astype(np.int16) + shift) % 256).astype(np.uint8))
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


CHANGES: tuple[Change, ...] = (
    _identity,
    _autocontrast,
    _equalize,
    _blur,
    _weakened(ImageEnhance.Contrast),
    _weakened(ImageEnhance.Brightness),
    _weakened(ImageEnhance.Color),
    _weakened(ImageEnhance.Sharpness),
    _posterize,
    _solarize,
    _hue,
)
"""All changes; each is as likely as any other."""
