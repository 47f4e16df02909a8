"""Views: what a learner sees of one image. Every draw depends on the sample's key alone."""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from semiseg.contracts.dataset import IGNORE_INDEX, Array
from semiseg.data.cutout import Cutout
from semiseg.data.geometry import RandomCrop
from semiseg.data.overlap import OverlapPair
from semiseg.errors import UserError
from semiseg.seeding import derive_seed

if TYPE_CHECKING:
    from semiseg.data.augment import Photometric

Key = tuple[int | str, ...]
Sample = dict[str, NDArray[Any]]
"""Named arrays: images ``(H, W, 3) uint8``, ``label (H, W) uint8``, ``confidence (H, W) float32``, boxes, flips."""

Confidence = NDArray[np.float32]


class View(Protocol):
    """Turn an image into what a learner gets of it."""

    def __call__(
        self, image: Array, label: Array | None, key: Key, confidence: Confidence | None = None
    ) -> Sample:
        """Apply the draws that belong to ``key``; without a label or its confidence the sample has none."""
        ...


def _geometry_rng(key: Key) -> random.Random:
    return random.Random(derive_seed(*key, "geometry"))


def _strengthened(
    image: Array, label: Array | None, key: Key, photometric: "Photometric | None", cutout: Cutout | None
) -> tuple[Array, Array | None]:
    if photometric is not None:
        image, label = photometric(image, label, derive_seed(*key, "photometric"))
    if cutout is not None:
        image, label = cutout(image, label, derive_seed(*key, "cutout"))
    return image, label


def _cropped(
    geometry: RandomCrop, image: Array, label: Array | None, key: Key, confidence: Confidence | None
) -> Sample:
    placement = geometry.draw(image.shape[0], image.shape[1], _geometry_rng(key))
    sample: Sample = {"image": placement.image(image)}
    if label is not None:
        sample["label"] = placement.map(label, IGNORE_INDEX)
    if confidence is not None:
        sample["confidence"] = placement.map(confidence, 0)
    return sample


def _refuse_moved_pixels(photometric: "Photometric | None", view: str) -> None:
    if photometric is not None and photometric.moving:
        raise UserError(
            f"{', '.join(photometric.moving)} move pixels, which the {view} view can't follow; "
            "use transforms that change colors only."
        )


@dataclass(frozen=True)
class Weak:
    """Geometry only: ``image``, ``label`` and the label's ``confidence``, where there are any."""

    geometry: RandomCrop

    def __call__(
        self, image: Array, label: Array | None, key: Key, confidence: Confidence | None = None
    ) -> Sample:
        """Crop all of them alike."""
        return _cropped(self.geometry, image, label, key, confidence)


@dataclass(frozen=True)
class Strong:
    """Geometry, then photometric changes, then cutout: as ``Weak``.

    What cutout erases has label 255; transforms that move pixels suit samples without confidence only.
    """

    geometry: RandomCrop
    photometric: "Photometric | None" = None
    cutout: Cutout | None = None

    def __call__(
        self, image: Array, label: Array | None, key: Key, confidence: Confidence | None = None
    ) -> Sample:
        """Crop all of them alike, then change the crop."""
        if confidence is not None:
            _refuse_moved_pixels(self.photometric, "strong")
        sample = _cropped(self.geometry, image, label, key, confidence)
        image, label = _strengthened(sample["image"], sample.get("label"), key, self.photometric, self.cutout)
        return sample | {"image": image} | ({} if label is None else {"label": label})


@dataclass(frozen=True)
class WeakStrong:
    """One crop, as it is and strengthened ``k`` times: as ``Weak``, and ``strong_1`` to ``strong_k``.

    The label belongs to ``image``: what cutout erases is erased in the strong images only.
    """

    geometry: RandomCrop
    photometric: "Photometric | None" = None
    cutout: Cutout | None = None
    k: int = 1

    def __post_init__(self) -> None:
        _refuse_moved_pixels(self.photometric, "weak-and-strong")

    def __call__(
        self, image: Array, label: Array | None, key: Key, confidence: Confidence | None = None
    ) -> Sample:
        """Crop once, then strengthen the crop ``k`` times, each with draws of its own."""
        sample = _cropped(self.geometry, image, label, key, confidence)
        for number in range(1, self.k + 1):
            strong, _ = _strengthened(sample["image"], None, (*key, number), self.photometric, self.cutout)
            sample[f"strong_{number}"] = strong
        return sample


@dataclass(frozen=True)
class OverlapCrops:
    """Two overlapping crops of one image (CAC), without label.

    ``image_1``, ``image_2``; ``box_1``, ``box_2`` as (top, left, bottom, right) int64 of the common part in
    each crop before its flip; ``flip_1``, ``flip_2`` as bool.
    """

    pair: OverlapPair
    photometric: "Photometric | None" = None

    def __post_init__(self) -> None:
        _refuse_moved_pixels(self.photometric, "overlapping-crops")

    def __call__(
        self, image: Array, label: Array | None, key: Key, confidence: Confidence | None = None
    ) -> Sample:
        """Draw both crops, then change the colors of each with draws of its own."""
        pair = self.pair(image, _geometry_rng(key))
        return {
            "image_1": _strengthened(pair.image_1, None, (*key, 1), self.photometric, None)[0],
            "image_2": _strengthened(pair.image_2, None, (*key, 2), self.photometric, None)[0],
            "box_1": np.array(pair.box_1, np.int64),
            "box_2": np.array(pair.box_2, np.int64),
            "flip_1": np.array(pair.flip_1),
            "flip_2": np.array(pair.flip_2),
        }
