"""Augmentation of images that are not RGB: what has no meaning for their channels is left out or refused."""

import copy
import logging
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import albumentations
import numpy as np
from numpy.typing import NDArray

from semiseg.contracts.dataset import Array, Bands, Pixels
from semiseg.data.augment import Augment, Photometric, Transform
from semiseg.data.bands import band_fill
from semiseg.data.cutout import Cutout
from semiseg.data.display import from_shown, to_shown
from semiseg.data.geometry import BandCrop, RandomCrop
from semiseg.data.overlap import BandPair, OverlapPair
from semiseg.data.rand_intensity import RandIntensity
from semiseg.data.resize import as_type
from semiseg.data.views import OverlapCrops, PhotometricChange
from semiseg.errors import UserError

COLORS_ALONE = ("ToGray", "HueSaturationValue", "RGBShift", "ToSepia", "PlanckianJitter", "FancyPCA")
"""Transforms that change what only RGB has; they are left out."""

ANY_CHANNELS = (
    "AdditiveNoise", "AdvancedBlur", "Blur", "ChannelDropout", "Defocus", "Downscale", "GaussianBlur", "GaussNoise",
    "MotionBlur", "MultiplicativeNoise", "RandomBrightnessContrast", "RandomGamma", "SaltAndPepper", "Sharpen",
    "ShotNoise", "UnsharpMask",
)  # fmt: skip
"""Transforms that mean the same for any channel; those that move or erase pixels do so too."""

log = logging.getLogger(__name__)


class BandJitter(albumentations.ColorJitter):  # type: ignore[misc]
    """The brightness and contrast of ``ColorJitter``, for any number of channels.

    Brightness multiplies the numbers as they are shown (0 to 1), contrast their distance from their channel's mean.
    """

    def apply(
        self, img: NDArray[np.float32], brightness: float, contrast: float, order: list[int], **_: Any
    ) -> NDArray[np.float32]:
        """Change an image ``(H, W, C) float32`` from 0 to 1, in the drawn order."""
        for change in order:
            if change == 0:
                img = np.clip(img * np.float32(brightness), 0, 1)
            elif change == 1:
                mean = img.mean((0, 1), keepdims=True)
                img = np.clip(mean + (img - mean) * np.float32(contrast), 0, 1)
        return img


class BandPhotometric:
    """Transforms of albumentations for images that are not RGB.

    They see float32 numbers from 0 to 1, as ``to_shown`` makes them; what lies outside of that keeps its distance.

    Args:
        given: transforms for RGB images.
        bands: channels of the images.

    Raises:
        UserError: a transform that has no meaning for these channels.
    """

    def __init__(self, given: Photometric, bands: Bands) -> None:
        self.bands = bands
        self.left_out: list[str] = []
        self._inner = Photometric([self._adapted(item) for item in copy.deepcopy(given.transforms)])

    @property
    def moving(self) -> tuple[str, ...]:
        """Names of the transforms that move pixels, so that the label map has to follow."""
        return self._inner.moving

    def __call__(self, image: Pixels, label: Array | None, seed: int) -> tuple[Pixels, Array | None]:
        """Apply the draws that belong to ``seed`` to an image ``(H, W, C)``; see ``Photometric``."""
        whole = to_shown(image, self.bands)
        inside = whole.clip(0, 1)
        changed, label = self._inner(inside, label, seed)
        return from_shown(changed + (whole - inside), self.bands), label

    def _adapted(self, item: Transform) -> Transform:
        name = type(item).__name__
        if isinstance(item, albumentations.BaseCompose):
            item.transforms = [self._adapted(each) for each in item.transforms]
            return item
        if isinstance(item, albumentations.ColorJitter):
            self.left_out.append("saturation and hue of ColorJitter")
            return BandJitter(item.brightness, item.contrast, item.saturation, item.hue, p=item.p)
        if name in COLORS_ALONE:
            self.left_out.append(name)
            return albumentations.NoOp(p=item.p)
        if isinstance(item, albumentations.ImageOnlyTransform) and name not in ANY_CHANNELS:
            raise UserError(
                f"{name}: has no meaning for images of {self.bands.channels} bands. Leave it out, or take some of: "
                f"ColorJitter (brightness and contrast), {', '.join(ANY_CHANNELS)}.",
                key="augment",
                value=name,
            )
        return item


class BandCutout(Cutout):
    """A ``Cutout`` of images that are not RGB: its noise of 0 to 255 spans the numbers that are shown.

    Args:
        given: cutout for RGB images.
        bands: channels of the images.
    """

    bands: Bands

    def __init__(self, given: Cutout, bands: Bands) -> None:
        super().__init__(**{each.name: getattr(given, each.name) for each in fields(given)})
        object.__setattr__(self, "bands", bands)

    def pixels(self, noise: NDArray[np.float64], dtype: Any) -> Pixels:
        """See ``Cutout``."""
        return as_type(from_shown((noise / 255).astype(np.float32), self.bands), dtype)


def for_bands(augment: Augment, bands: Bands | None) -> Augment:
    """Return the augmentation of a run for the channels of its images; 8-bit RGB keeps what is given.

    Padding is the mean of each channel. Changes of colors are replaced or left out, which the log says once.

    Raises:
        UserError: a transform that has no meaning for these channels.
    """
    if bands is None:
        return augment
    fill = band_fill(bands)
    made = Augment(
        BandCrop(**_values(augment.geometry, RandomCrop), fill=fill),
        _photometric(augment.photometric, bands),
        None if augment.cutout is None else BandCutout(augment.cutout, bands),
        augment.pair,
    )
    made.rare = augment.rare
    if isinstance(augment.pair, OverlapCrops):
        made.pair = replace(
            augment.pair,
            pair=BandPair(**_values(augment.pair.pair, OverlapPair), fill=fill),
            photometric=_photometric(augment.pair.photometric, bands),
        )
    views = [made.photometric, getattr(made.pair, "photometric", None)]
    if left := list(dict.fromkeys(_left_out(views))):
        log.info("Left out of the augmentation, since images have bands and no colors: %s.", ", ".join(left))
    return made


def _photometric(given: PhotometricChange | None, bands: Bands) -> PhotometricChange | None:
    if isinstance(given, RandIntensity):
        raise given.refusal(f"{bands.channels} bands")
    return BandPhotometric(given, bands) if isinstance(given, Photometric) else given


def _left_out(changes: list[PhotometricChange | None]) -> Iterator[str]:
    for change in changes:
        if isinstance(change, BandPhotometric):
            yield from change.left_out


def _values(rule: Any, kind: type) -> dict[str, Any]:
    return {each.name: getattr(rule, each.name) for each in fields(kind)}
