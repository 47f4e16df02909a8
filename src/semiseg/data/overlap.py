"""Two overlapping crops of one image whose common part lies on a grid (CAC)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from semiseg.contracts.dataset import Array
from semiseg.data.geometry import BandCrop, CropSize, LongSide, RandomCrop, Resize
from semiseg.data.resize import MEAN_COLOR, Color, padded
from semiseg.data.window import Window, mirrored, resized_window
from semiseg.declare import Ge, Le, Len, Mark, check_fields
from semiseg.errors import UserError

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class CropPair:
    """Two crops of one image.

    Args:
        image_1: first crop, ``(H, W, 3) uint8``, already flipped where ``flip_1``.
        image_2: second crop.
        box_1: (top, left, bottom, right) of the common part inside the first crop before its flip; multiples
            of the stride, without padding.
        box_2: place of the common part inside the second crop; as large as ``box_1``.
        flip_1: whether the first crop was mirrored.
        flip_2: whether the second crop was mirrored.
        filled_1: rows and columns of the first crop that come from the image; below and, before the flip, to the
            right of them is padding.
        filled_2: rows and columns of the second crop that come from the image.
    """

    image_1: Array
    image_2: Array
    box_1: Box
    box_2: Box
    flip_1: bool
    flip_2: bool
    filled_1: tuple[int, int]
    filled_2: tuple[int, int]

    def valid(self, number: Literal[1, 2]) -> NDArray[np.bool_]:
        """Return which pixels ``(H, W)`` of the first or the second crop come from the image."""
        first = number == 1
        (rows, columns), flip = (self.filled_1, self.flip_1) if first else (self.filled_2, self.flip_2)
        valid = np.zeros(self.image_1.shape[:2], np.bool_)
        valid[:rows, :columns] = True
        return np.ascontiguousarray(valid[:, ::-1]) if flip else valid


def _pair_resize() -> LongSide:
    return LongSide(None, 0.8, 2.0, "pil_bicubic")


@dataclass(frozen=True)
class OverlapPair:
    """Draw two crops whose boxes overlap by an IoU within ``iou``; CAC's rule for unlabeled images.

    Args:
        crop_size: side, or (height, width), of both crops in pixels; multiples of ``stride``.
        resize: size rule, drawn once an image. CAC: ``LongSide(400, 0.8, 2.0, "pil_bicubic")`` on VOC,
            base 2048 on Cityscapes.
        stride: pixels whose multiples the crops are shifted by against each other.
        iou: bounds of the accepted IoU of the two boxes.
        tries: number of draws of the second crop before it is set equal to the first.
        pad_color: RGB of the padding at bottom and right.

    Raises:
        UserError: a crop that is no multiple of the stride, or bounds out of order.
    """

    crop_size: CropSize
    resize: Resize = field(default_factory=_pair_resize)
    stride: Annotated[int, Ge(1)] = 8
    iou: Annotated[Sequence[float], Len(2, 2), Ge(0), Le(1), Mark(expected="[low,high] from 0 to 1")] = (
        0.1,
        1.0,
    )
    tries: Annotated[int, Ge(0)] = 50
    pad_color: Color = MEAN_COLOR

    def __post_init__(self) -> None:
        check_fields(self)
        sides = (self.crop_size,) * 2 if isinstance(self.crop_size, int) else tuple(self.crop_size)
        if any(side % self.stride for side in sides):
            nearest = [max(1, round(side / self.stride)) * self.stride for side in sides]
            raise UserError(
                f"is not a multiple of stride={self.stride}; "
                f"the nearest is {nearest[0] if isinstance(self.crop_size, int) else nearest}.",
                key="crop_size",
                value=self.crop_size,
            )
        if self.iou[0] > self.iou[1]:
            raise UserError("expected [low,high] with low <= high.", key="iou", value=list(self.iou))
        object.__setattr__(self, "crop_size", sides)
        object.__setattr__(self, "iou", tuple(self.iou))
        object.__setattr__(self, "pad_color", tuple(self.pad_color))

    @classmethod
    def like(cls, geometry: RandomCrop, stride: int) -> "OverlapPair":
        """Return a pair with size, scale and padding of single crops, for an augmentation without crops in pairs."""
        resize = geometry.resize or LongSide(None, 1.0, 1.0)
        if isinstance(geometry, BandCrop):
            return BandPair(geometry.size, resize, stride, fill=geometry.fill)
        return cls(geometry.size, resize, stride, pad_color=geometry.pad_color)

    @property
    def padding(self) -> tuple[float, ...]:
        """Color of padded pixels."""
        return self.pad_color

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of both crops."""
        assert not isinstance(self.crop_size, int)
        return self.crop_size[0], self.crop_size[1]

    def __call__(self, image: Array, rng: random.Random) -> CropPair:
        """Apply one draw to an image ``(H, W, 3) uint8``."""
        height, width = self.resize.size(image.shape[0], image.shape[1], rng)
        first, second = self._corners(max(height, self.size[0]), max(width, self.size[1]), rng)
        top, left = min(first[0], second[0]), min(first[1], second[1])
        size = max(first[0], second[0]) - top + self.size[0], max(first[1], second[1]) - left + self.size[1]
        window = Window(top, left, top + size[0], left + size[1])
        both = resized_window(image, (height, width), self.resize.interpolation, window)
        both = padded(both, size, 0, 0, self.padding)
        shift = second[0] - first[0], second[1] - first[1]
        flip_1, flip_2 = rng.random() < 0.5, rng.random() < 0.5
        return CropPair(
            image_1=self._crop(both, (first[0] - top, first[1] - left), flip_1),
            image_2=self._crop(both, (second[0] - top, second[1] - left), flip_2),
            box_1=self._box(shift, (height, width)),
            box_2=self._box((-shift[0], -shift[1]), (height, width)),
            flip_1=flip_1,
            flip_2=flip_2,
            filled_1=self._filled(first, (height, width)),
            filled_2=self._filled(second, (height, width)),
        )

    def _corners(
        self, height: int, width: int, rng: random.Random
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        free_y, free_x = height - self.size[0], width - self.size[1]
        x1, y1 = rng.randint(0, free_x), rng.randint(0, free_y)
        for _ in range(self.tries):
            x2 = self._snapped(rng.randint(0, free_x), x1)
            y2 = self._snapped(rng.randint(0, free_y), y1)
            if self.iou[0] <= self._iou(x2 - x1, y2 - y1) <= self.iou[1]:
                return (y1, x1), (y2, x2)
        return (y1, x1), (y1, x1)

    def _snapped(self, value: int, origin: int) -> int:
        value = origin + self.stride * ((value - origin) // self.stride)
        return value + self.stride if value < 0 else value

    def _iou(self, dx: int, dy: int) -> float:
        height, width = self.size
        common = max(0, width - abs(dx)) * max(0, height - abs(dy))
        return common / (2 * height * width - common)

    def _box(self, shift: tuple[int, int], size: tuple[int, int]) -> Box:
        top, left = max(0, shift[0]), max(0, shift[1])
        bottom, right = (
            min(crop, crop + moved, self.stride * (side // self.stride))
            for crop, moved, side in zip(self.size, shift, size, strict=True)
        )
        return top, left, bottom, right

    def _filled(self, corner: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
        rows, columns = (
            min(crop, side - first) for crop, side, first in zip(self.size, size, corner, strict=True)
        )
        return rows, columns

    def _crop(self, image: Array, corner: tuple[int, int], flip: bool) -> Array:
        top, left = corner
        crop = image[top : top + self.size[0], left : left + self.size[1]]
        return mirrored(crop) if flip else np.ascontiguousarray(crop)


@dataclass(frozen=True)
class BandPair(OverlapPair):
    """An ``OverlapPair`` of images that are not RGB, padded with the mean of each channel instead of ``pad_color``.

    Args:
        fill: number of each channel in padding, in the number type of the images.
    """

    fill: tuple[float, ...] = ()

    @property
    def padding(self) -> tuple[float, ...]:
        """See ``OverlapPair``."""
        return self.fill
