"""Photometric changes through albumentations, and the augmentation that a config names."""

import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeAlias

from semiseg.contracts.dataset import IGNORE_INDEX, Array, Pixels
from semiseg.contracts.feeding import View
from semiseg.data.cutout import Cutout
from semiseg.data.geometry import RandomCrop
from semiseg.data.rare_crops import RareClasses
from semiseg.data.views import PhotometricChange, Strong, Weak
from semiseg.declare import Ge
from semiseg.errors import UserError
from semiseg.seeding import derive_seed

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # its import would ask the network for a newer version
import albumentations

# An unknown argument would be ignored with this warning.
warnings.filterwarnings("error", r"Argument\(s\) .* not valid for transform", UserWarning)

Transform: TypeAlias = albumentations.BasicTransform | albumentations.BaseCompose


def _leaves(transforms: Sequence[Transform]) -> Iterator[albumentations.BasicTransform]:
    for item in transforms:
        if isinstance(item, albumentations.BaseCompose):
            yield from _leaves(item.transforms)
        else:
            yield item


def _seed(item: Transform, seed: int) -> None:
    # albumentations gives all parts of a composition one seed, so that their draws would be the same.
    item.set_random_seed(seed)
    if isinstance(item, albumentations.BaseCompose):
        for number, part in enumerate(item.transforms):
            _seed(part, derive_seed(seed, number))


class Photometric:
    """A list of transforms of albumentations, reproducible for each sample.

    Args:
        transforms: transforms or compositions such as ``OneOf``; with an unknown argument they raise.

    Raises:
        UserError: a transform would label the pixels that it makes up.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)
        for leaf in _leaves(self.transforms):
            fill = getattr(leaf, "fill_mask", None)
            if fill is not None and fill != IGNORE_INDEX:
                raise UserError(
                    f"{type(leaf).__name__} labels the pixels that it makes up as class {fill:g}; "
                    f"give it fill_mask: {IGNORE_INDEX}, which no loss counts."
                )

    @property
    def moving(self) -> tuple[str, ...]:
        """Names of the transforms that move pixels, so that the label map has to follow."""
        return tuple(
            type(leaf).__name__
            for leaf in _leaves(self.transforms)
            if not isinstance(leaf, albumentations.ImageOnlyTransform | albumentations.NoOp)
        )

    def __call__(self, image: Pixels, label: Array | None, seed: int) -> tuple[Pixels, Array | None]:
        """Apply the draws that belong to ``seed``.

        Args:
            image: image ``(H, W, 3) uint8``, or ``(H, W, C) float32`` from 0 to 1.
            label: label map ``(H, W) uint8``; ``None`` for an image without one.
            seed: seed of all draws; the same seed gives the same result in every process.

        Raises:
            UserError: a transform changed the size or the number type of the image.
        """
        data: dict[str, Any] = {"image": image} if label is None else {"image": image, "mask": label}
        for number, item in enumerate(self.transforms):
            _seed(item, derive_seed(seed, number))
            data = item(**data)
            changed = data["image"]
            if changed.shape != image.shape or changed.dtype != image.dtype:
                raise UserError(
                    f"{type(item).__name__} made a {changed.dtype} image of size {changed.shape[:2]} out of "
                    f"a {image.dtype} image of size {image.shape[:2]}; the size is set by trainer.crop_size and "
                    "normalizing is the network's part, so leave such transforms out."
                )
        return data["image"], data.get("mask")


class Augment:
    """The augmentation of a run: the parts of which a method composes its views (``semiseg.data.views``).

    Args:
        weak: resize, crop and flip; the attribute ``geometry``.
        strong: color changes; the attribute ``photometric``. ``None`` leaves the colors.
        cutout: box that is erased last in strong images; ``None`` erases nothing.
        pair: complete view of two crops, for methods that compare them; with ``None`` such a method composes one
            of the parts above.
        rare_candidates: number of crops that are drawn of an image with labels, of which the one with most of rare
            classes is taken; 1 draws plainly.
        rare_shares: share of each class among the labeled pixels, in the order of the classes, by which crops are
            compared; ``None`` takes the crop whose classes are most even.
    """

    def __init__(
        self,
        weak: RandomCrop,
        strong: PhotometricChange | None = None,
        cutout: Cutout | None = None,
        pair: View | None = None,
        rare_candidates: Annotated[int, Ge(1)] = 1,
        rare_shares: Sequence[float] | None = None,
    ) -> None:
        self.geometry = weak
        self.rare = (
            RareClasses(candidates=rare_candidates, shares=rare_shares) if rare_candidates > 1 else None
        )
        self.photometric = strong
        self.cutout = cutout
        self.pair = pair

    @property
    def weak(self) -> View:
        """Geometry only."""
        return Weak(self.geometry, rare=self.rare)

    @property
    def strong(self) -> View:
        """Geometry, color changes and cutout."""
        return Strong(self.geometry, self.photometric, self.cutout)
