"""Photometric changes through albumentations, and the augmentation that a config names."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeAlias

import numpy as np

from semiseg.data.cutout import Cutout
from semiseg.data.dataset import IGNORE_INDEX, Array
from semiseg.data.geometry import RandomCrop
from semiseg.data.views import Strong, View, Weak
from semiseg.errors import UserError
from semiseg.seeding import derive_seed

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # its import would ask the network for a newer version
import albumentations

Transform: TypeAlias = albumentations.BasicTransform | albumentations.BaseCompose


def transform(name: str, **arguments: Any) -> Transform:
    """Build a transform of albumentations by its class name.

    ``transforms: [...]`` of compositions such as ``OneOf`` may hold such descriptions in turn:
    mappings of ``name`` and arguments.

    Raises:
        UserError: there is no such transform, or an argument is unknown or has a bad value.
    """
    cls = getattr(albumentations, name, None)
    if not (isinstance(cls, type) and issubclass(cls, Transform)):
        near = get_close_matches(name, dir(albumentations), 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"albumentations has no transform {name!r}.{hint}")
    if isinstance(arguments.get("transforms"), Sequence):
        arguments["transforms"] = [_built(inner) for inner in arguments["transforms"]]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            return cls(**{key: _plain(value) for key, value in arguments.items()})
    except (UserWarning, TypeError, ValueError) as error:
        raise UserError(f"{name}: {error}") from error


def _plain(value: Any) -> Any:
    # albumentations takes tuples where YAML can only write lists.
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = [_plain(item) for item in value]
        return items if items and isinstance(items[0], Transform) else tuple(items)
    return value


def _built(described: Transform | Mapping[str, Any]) -> Transform:
    if isinstance(described, Transform):
        return described
    if not isinstance(described, Mapping) or "name" not in described:
        raise UserError(f"{described!r} is no transform; expected a mapping of name and arguments.")
    return transform(**{str(key): value for key, value in described.items()})


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
        transforms: transforms, or mappings of ``name`` (the class in albumentations) and its arguments.

    Raises:
        UserError: an unknown transform or argument; a transform that would label the pixels it makes up.
    """

    def __init__(self, transforms: Sequence[Transform | Mapping[str, Any]]) -> None:
        self._transforms = [_built(item) for item in transforms]
        for leaf in _leaves(self._transforms):
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
            for leaf in _leaves(self._transforms)
            if not isinstance(leaf, albumentations.ImageOnlyTransform | albumentations.NoOp)
        )

    def __call__(self, image: Array, label: Array | None, seed: int) -> tuple[Array, Array | None]:
        """Apply the draws that belong to ``seed``.

        Args:
            image: ``(H, W, 3) uint8``.
            label: ``(H, W) uint8``, or None.
            seed: of all draws; the same seed gives the same result in every process.

        Raises:
            UserError: a transform changed the size or the number type of the image.
        """
        data: dict[str, Any] = {"image": image} if label is None else {"image": image, "mask": label}
        for number, item in enumerate(self._transforms):
            _seed(item, derive_seed(seed, number))
            data = item(**data)
            changed = data["image"]
            if changed.shape != image.shape or changed.dtype != np.uint8:
                raise UserError(
                    f"{type(item).__name__} made a {changed.dtype} image of size {changed.shape[:2]} out of "
                    f"a uint8 image of size {image.shape[:2]}; the size is set by trainer.crop_size and "
                    "normalizing is the network's part, so leave such transforms out."
                )
        return data["image"], data.get("mask")


class Augment:
    """The augmentation of a run: geometry for every view, strong changes for those that want them.

    Args:
        weak: resize, crop and flip.
        strong: color changes of the strong view.
        cutout: box erased last in the strong view.
        name: as in ``augment=NAME``.
    """

    def __init__(
        self,
        weak: RandomCrop,
        strong: Photometric | None = None,
        cutout: Cutout | None = None,
        name: str = "",
    ) -> None:
        self.geometry = weak
        self.photometric = strong
        self.cutout = cutout
        self.name = name

    @property
    def weak(self) -> View:
        """Geometry only."""
        return Weak(self.geometry)

    @property
    def strong(self) -> View:
        """Geometry, color changes and cutout."""
        return Strong(self.geometry, self.photometric, self.cutout)
