"""Views: what a learner sees of one image. Every draw depends on the sample's key alone.

A method composes its views from the parts of an augmentation: geometry, photometric changes and cutout.
"""

import random
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from semiseg.contracts.dataset import Array, Confidence, Pixels
from semiseg.contracts.feeding import DrawKey, ViewData
from semiseg.data.cutout import Cutout
from semiseg.data.geometry import RandomCrop
from semiseg.data.mix_box import MixBox
from semiseg.data.overlap import OverlapPair
from semiseg.data.rare_crops import RareClasses
from semiseg.errors import UserError
from semiseg.seeding import derive_seed


class PhotometricChange(Protocol):
    """Random changes of a crop that keep its size, as ``semiseg.data.augment.Photometric`` makes them."""

    @property
    def moving(self) -> tuple[str, ...]:
        """Names of the changes that move pixels, so that the label map has to follow."""
        ...

    def __call__(self, image: Pixels, label: Array | None, seed: int) -> tuple[Pixels, Array | None]:
        """Apply the draws that belong to ``seed``."""
        ...


def _geometry_rng(key: DrawKey) -> random.Random:
    return random.Random(derive_seed(*key, "geometry"))


def _strengthened(
    image: Pixels,
    label: Array | None,
    key: DrawKey,
    photometric: PhotometricChange | None,
    cutout: Cutout | None,
) -> tuple[Pixels, Array | None]:
    if photometric is not None:
        image, label = photometric(image, label, derive_seed(*key, "photometric"))
    if cutout is not None:
        image, label = cutout(image, label, derive_seed(*key, "cutout"))
    return image, label


def _refuse_moved_pixels(photometric: PhotometricChange | None, view: str) -> None:
    if photometric is not None and photometric.moving:
        raise UserError(
            f"{', '.join(photometric.moving)} move pixels, which the {view} view can't follow; "
            "use transforms that change colors only."
        )


@dataclass(frozen=True)
class Weak:
    """Geometry only: ``image``, ``label`` and the label's ``confidence``, where there are any.

    Args:
        geometry: resize, crop and flip.
        valid: whether to give the map ``valid`` too: True where a pixel comes from the image, False in padding.
        rare: rule by which the crop of an image with a label is chosen among several; ``None`` draws one.
    """

    geometry: RandomCrop
    valid: bool = False
    rare: RareClasses | None = None

    def __call__(
        self, image: Pixels, label: Array | None, key: DrawKey, confidence: Confidence | None = None
    ) -> ViewData:
        """Cut the same crop from all of them."""
        rng = _geometry_rng(key)
        if self.rare is not None and label is not None:
            placement = self.rare.choose(self.geometry, label, rng)
        else:
            placement = self.geometry.draw(image.shape[0], image.shape[1], rng)
        data: ViewData = {"image": placement.image(image)}
        if label is not None:
            data["label"] = placement.map(label, self.geometry.pad_label)
        if confidence is not None:
            data["confidence"] = placement.map(confidence, 0)
        if self.valid:
            data["valid"] = placement.valid()
        return data


@dataclass(frozen=True)
class Strong:
    """Geometry, then photometric changes, then cutout: the arrays of ``Weak``.

    Pixels that cutout erases have label 255. They stay valid, because the map ``valid`` marks padding only.

    Args:
        geometry: resize, crop and flip.
        photometric: changes of the crop; ``None`` leaves its colors. Transforms that move pixels suit samples
            without confidence and without the map ``valid``.
        cutout: box that is erased last; ``None`` erases nothing.
        valid: whether to give the map ``valid`` too, see ``Weak``.
    """

    geometry: RandomCrop
    photometric: PhotometricChange | None = None
    cutout: Cutout | None = None
    valid: bool = False

    def __post_init__(self) -> None:
        if self.valid:
            _refuse_moved_pixels(self.photometric, "strong")

    def __call__(
        self, image: Pixels, label: Array | None, key: DrawKey, confidence: Confidence | None = None
    ) -> ViewData:
        """Cut the same crop from all of them, then change the crop."""
        if confidence is not None:
            _refuse_moved_pixels(self.photometric, "strong")
        data = Weak(self.geometry, self.valid)(image, label, key, confidence)
        image, label = _strengthened(data["image"], data.get("label"), key, self.photometric, self.cutout)
        return data | {"image": image} | ({} if label is None else {"label": label})


@dataclass(frozen=True)
class WeakStrong:
    """One crop, as it is and strengthened ``k`` times: the arrays of ``Weak``, and ``strong_1`` to ``strong_k``.

    All images show the same place, so label, confidence and the map ``valid`` hold for each of them; what cutout
    erases is erased in the strong images only. FixMatch takes ``k=1``, UniMatch ``k=2`` with ``valid=True``.

    Args:
        geometry: resize, crop and flip.
        photometric: changes of each strong image, with draws of its own; ``None`` leaves the colors.
        cutout: box that is erased last in each strong image; ``None`` erases nothing.
        k: number of strong images.
        valid: whether to give the map ``valid`` too, see ``Weak``.
        box: rule of the CutMix boxes ``box_1`` to ``box_k``, one for each strong image, as (top, left, height, width)
            int64, zeros for none; ``None`` gives no boxes.

    Raises:
        UserError: a transform moves pixels, or ``k`` is below 1.
    """

    geometry: RandomCrop
    photometric: PhotometricChange | None = None
    cutout: Cutout | None = None
    k: int = 1
    valid: bool = False
    box: MixBox | None = None

    def __post_init__(self) -> None:
        _refuse_moved_pixels(self.photometric, "weak-and-strong")
        if self.k < 1:
            raise UserError(f"WeakStrong: k={self.k}; expected a number of strong images, 1 or more.")

    def __call__(
        self, image: Pixels, label: Array | None, key: DrawKey, confidence: Confidence | None = None
    ) -> ViewData:
        """Crop once, then strengthen the crop ``k`` times, each with draws of its own."""
        data = Weak(self.geometry, self.valid)(image, label, key, confidence)
        for number in range(1, self.k + 1):
            strong, _ = _strengthened(data["image"], None, (*key, number), self.photometric, self.cutout)
            data[f"strong_{number}"] = strong
            if self.box is not None:
                seed = derive_seed(*key, number, "box")
                # Two sources, as published: Python's decides whether there is a box, NumPy's draws it.
                shape = np.random.RandomState(np.random.MT19937(seed))
                box = self.box((strong.shape[0], strong.shape[1]), random.Random(seed), shape)
                data[f"box_{number}"] = np.array(box, np.int64)
        return data


@dataclass(frozen=True)
class OverlapCrops:
    """Two overlapping crops of one image, without label, for methods that compare what both show.

    ``image_1``, ``image_2``; ``box_1``, ``box_2`` as (top, left, bottom, right) int64 of the common part in
    each crop before its flip; ``flip_1``, ``flip_2`` as bool.

    Args:
        pair: size, scale and overlap of the crops.
        photometric: changes of each crop, with draws of its own; ``None`` leaves the colors.
        valid: whether to give the maps ``valid_1`` and ``valid_2`` of both crops, after their flips, see ``Weak``.

    Raises:
        UserError: a transform moves pixels.
    """

    pair: OverlapPair
    photometric: PhotometricChange | None = None
    valid: bool = False

    def __post_init__(self) -> None:
        _refuse_moved_pixels(self.photometric, "overlapping-crops")

    def __call__(
        self, image: Pixels, label: Array | None, key: DrawKey, confidence: Confidence | None = None
    ) -> ViewData:
        """Draw both crops, then change the colors of each with draws of its own."""
        pair = self.pair(image, _geometry_rng(key))
        data: ViewData = {
            "image_1": _strengthened(pair.image_1, None, (*key, 1), self.photometric, None)[0],
            "image_2": _strengthened(pair.image_2, None, (*key, 2), self.photometric, None)[0],
            "box_1": np.array(pair.box_1, np.int64),
            "box_2": np.array(pair.box_2, np.int64),
            "flip_1": np.array(pair.flip_1),
            "flip_2": np.array(pair.flip_2),
        }
        if self.valid:
            data |= {"valid_1": pair.valid(1), "valid_2": pair.valid(2)}
        return data
