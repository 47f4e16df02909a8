"""Random scale, crop, padding and flip: each paper's rule, down to the order of its draws."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from semiseg.contracts.dataset import Array
from semiseg.data.resize import (
    MEAN_COLOR,
    OF_LIBRARY,
    Color,
    Interpolation,
    NearestRule,
    Pixel,
    padded,
    resized,
)
from semiseg.data.window import Window, mirrored, resized_window
from semiseg.declare import Ge, Gt, Len, Mark, check_fields
from semiseg.errors import UserError

Factor = Annotated[float, Gt(0)]
CropSize = Annotated[
    Annotated[int, Ge(1)] | Annotated[Sequence[int], Len(2, 2), Ge(1)],
    Mark(expected="a number of pixels or [height,width], 1 or more"),
]


class Resize(Protocol):
    """A rule for the size that an image is resized to."""

    @property
    def interpolation(self) -> Interpolation:
        """Rule by which the image is interpolated, see ``resized``."""
        ...

    def size(self, height: int, width: int, rng: random.Random) -> tuple[int, int]:
        """Draw the new (height, width) of an image of the given size."""
        ...


def map_interpolation(resize: Resize | None) -> Interpolation:
    """Return the rule by which maps are resized; a ``Resize`` may leave ``label_interpolation`` out."""
    if resize is None:
        return "opencv"
    chosen: NearestRule | None = getattr(resize, "label_interpolation", None)
    return resize.interpolation if chosen is None else OF_LIBRARY[chosen]


def _check_order(low: float, high: float) -> None:
    if low > high:
        raise UserError(f"is larger than high={high}.", key="low", value=low)


@dataclass(frozen=True)
class ScaleUniform:
    """Scale both sides by one factor, uniform in [low, high]; sides are rounded down.

    With 0.5, 1.5 and ``torch`` this is the rule of DMT.

    Args:
        low: smallest factor.
        high: largest factor.
        interpolation: rule of a library, see ``resized``.
        label_interpolation: library whose rule says which pixel of labels and other maps is nearest; ``None`` takes
            that of ``interpolation``. CAC resizes images by Pillow and labels by "opencv".

    Raises:
        UserError: a value out of range, or ``low`` above ``high``.
    """

    low: Factor = 0.5
    high: Factor = 2.0
    interpolation: Interpolation = "opencv"
    label_interpolation: NearestRule | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        _check_order(self.low, self.high)

    def factor(self, rng: random.Random) -> float:
        """Draw the factor."""
        return rng.uniform(self.low, self.high)

    def size(self, height: int, width: int, rng: random.Random) -> tuple[int, int]:
        """Draw the factor, return the new (height, width)."""
        scale = self.factor(rng)
        return max(1, int(scale * height)), max(1, int(scale * width))


@dataclass(frozen=True)
class ScaleChoice:
    """Scale both sides by one of ``values``; sides are rounded down.

    With 0.5, 0.75, 1, 1.5, 1.75, 2 (no 1.25) this is the rule of CPS.

    Args:
        values: factors to choose from.
        interpolation: rule of a library, see ``resized``.
        label_interpolation: library whose rule says which pixel of labels and other maps is nearest; ``None`` takes
            that of ``interpolation``. CAC resizes images by Pillow and labels by "opencv".

    Raises:
        UserError: no value, or one out of range.
    """

    values: Annotated[Sequence[float], Len(1), Gt(0), Mark(expected="factors above 0")]
    interpolation: Interpolation = "opencv"
    label_interpolation: NearestRule | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "values", tuple(self.values))

    def factor(self, rng: random.Random) -> float:
        """Draw the factor."""
        return rng.choice(self.values)

    def size(self, height: int, width: int, rng: random.Random) -> tuple[int, int]:
        """Draw the factor, return the new (height, width)."""
        scale = self.factor(rng)
        return max(1, int(height * scale)), max(1, int(width * scale))


@dataclass(frozen=True)
class LongSide:
    """Draw the new long side as an integer in [low * base, high * base], both ends included.

    ST++ uses base 400 (VOC) or 2048 (Cityscapes), 0.5 to 2 and ``pil_bilinear``; CAC the same with
    ``pil_bicubic``, and 0.8 to 2 for its pairs.

    Args:
        base: pixels that the factors refer to; ``None`` takes each image's own long side.
        low: smallest factor.
        high: largest factor.
        interpolation: rule of a library, see ``resized``.
        label_interpolation: library whose rule says which pixel of labels and other maps is nearest; ``None`` takes
            that of ``interpolation``. CAC resizes images by Pillow and labels by "opencv".

    Raises:
        UserError: a value out of range, or ``low`` above ``high``.
    """

    base: Annotated[int, Ge(1)] | None = None
    low: Factor = 0.5
    high: Factor = 2.0
    interpolation: Interpolation = "pil_bilinear"
    label_interpolation: NearestRule | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        _check_order(self.low, self.high)

    def size(self, height: int, width: int, rng: random.Random) -> tuple[int, int]:
        """Draw the long side, return the new (height, width); the short side is rounded to the nearest."""
        base = max(height, width) if self.base is None else self.base
        long = max(1, rng.randint(int(base * self.low), int(base * self.high)))
        if height > width:
            return long, max(1, int(width * long / height + 0.5))
        return max(1, int(height * long / width + 0.5)), long


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


@dataclass(frozen=True)
class RandomCrop:
    """Resize, flip, cut a window at random and pad what is missing.

    What was published:

    ========  ===================  ======  ============  ============  ==========  =========
    method    resize               flip    pad           pad_color     draw_order  draw_when
    ========  ===================  ======  ============  ============  ==========  =========
    ST++      LongSide(400)        last    bottom_right  black         xy          always
    CPS       ScaleChoice([...])   first   centered      MEAN_COLOR    yx          longer
    CAC       LongSide(400)        last    bottom_right  MEAN_COLOR    yx          always
    DMT       ScaleUniform(.5,1.5) last    bottom_right  black         yx          unfitting
    U2PL      ScaleTwoSided()      second  centered      MEAN_COLOR    yx          always
    ========  ===================  ======  ============  ============  ==========  =========

    CPS, CAC and U2PL pad with zero after normalizing or with the mean; here both are ``MEAN_COLOR``, because
    images stay 8-bit until the network normalizes them. CutMix-Seg has ``window="source"``, a ``ScaleChoice`` of 0.5,
    0.6, ..., 1.5, and centered padding.

    Args:
        crop_size: side, or (height, width), of the result in pixels.
        resize: size rule; ``None`` keeps the size.
        flip: time of the mirroring, which has probability 1/2: before everything else ("first", where the draw is
            0.5 or more, as CPS does), between resize and crop ("second", where it is below 0.5), at the end ("last",
            likewise), or never ("none").
        pad: place of an image that is smaller than the crop: top left ("bottom_right" is padded) or
            in the middle ("centered", the odd pixel goes to bottom and right).
        pad_color: RGB (0-255) of the padding.
        pad_label: label of the padding: class 0, as published in U2PL, or 255, which no loss counts (the default).
        draw_order: order of the draws of the two offsets.
        draw_when: condition of the draws of offsets: "always"; only that of a side that is "longer" than the crop;
            or both unless the image, padded, fits exactly ("unfitting"). Only matters for replaying a
            published random stream.
        crop_off_by_one: whether the offset of a longer side may be one too large, so that the window lacks its
            last row or column, which is padded. What CPS does.
        window: what the window is cut from: the "resized" image, or the "source", of which a window of the crop's size
            over the factor is cut, padded where the image is smaller, and then resized to the crop's size; that takes
            a ``ScaleChoice`` or ``ScaleUniform``.

    Raises:
        UserError: a value out of range.
    """

    crop_size: CropSize
    resize: Resize | None = None
    flip: Literal["last", "first", "second", "none"] = "last"
    pad: Literal["bottom_right", "centered"] = "bottom_right"
    pad_color: Color = MEAN_COLOR
    draw_order: Literal["xy", "yx"] = "yx"
    draw_when: Literal["always", "longer", "unfitting"] = "always"
    crop_off_by_one: bool = False
    window: Literal["resized", "source"] = "resized"
    pad_label: Literal[0, 255] = 255

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "crop_size", _pair(self.crop_size))
        object.__setattr__(self, "pad_color", tuple(self.pad_color))
        if self.window == "source" and not isinstance(self.resize, ScaleUniform | ScaleChoice):
            raise UserError(
                "needs a resize by a factor: ScaleChoice or ScaleUniform.", key="window", value="source"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the result."""
        return _pair(self.crop_size)

    def __call__(
        self, image: NDArray[Pixel], label: Array | None, rng: random.Random
    ) -> tuple[NDArray[Pixel], Array | None]:
        """Apply one draw to the image ``(H, W, C)`` and its label map ``(H, W) uint8``, if any."""
        placement = self.draw(image.shape[0], image.shape[1], rng)
        return placement.image(image), None if label is None else placement.map(label, self.pad_label)

    @property
    def padding(self) -> tuple[float, ...]:
        """Color of padded pixels of an image."""
        return self.pad_color

    def draw(self, height: int, width: int, rng: random.Random) -> "Placement":
        """Draw what is done to an image of this size and to all maps that belong to it."""
        flip = self.flip == "first" and rng.random() >= 0.5
        window = None
        if self.window == "source" and isinstance(self.resize, ScaleUniform | ScaleChoice):
            # Published code of CutMix-Seg: seg_transforms_cv.py, SegCVTransformRandomCropScaleHung
            factor, size = self.resize.factor(rng), (height, width)
            window = max(1, round(self.size[0] / factor)), max(1, round(self.size[1] / factor))
        else:
            size = (height, width) if self.resize is None else self.resize.size(height, width, rng)
        flip = flip or (self.flip == "second" and rng.random() < 0.5)
        top, left = self._offset(*size, rng, window or self.size)
        flip = flip or (self.flip == "last" and rng.random() < 0.5)
        if window is not None:
            return SourcePlacement(self, size, top, left, flip, window)
        return Placement(self, size, top, left, flip)

    def _offset(
        self, height: int, width: int, rng: random.Random, window: tuple[int, int]
    ) -> tuple[int, int]:
        crop_height, crop_width = window
        spare = {"y": max(0, height - crop_height), "x": max(0, width - crop_width)}
        offset = {"y": 0, "x": 0}
        for axis in self.draw_order:
            if self.draw_when == "always" or (
                spare[axis] if self.draw_when == "longer" else any(spare.values())
            ):
                extra = 1 if self.crop_off_by_one and spare[axis] else 0
                offset[axis] = rng.randint(0, spare[axis] + extra)
        return offset["y"], offset["x"]


@dataclass(frozen=True)
class BandCrop(RandomCrop):
    """A ``RandomCrop`` of images that are not RGB, padded with the mean of each channel instead of ``pad_color``.

    Args:
        fill: number of each channel in padding, in the number type of the images.
    """

    fill: tuple[float, ...] = ()

    @property
    def padding(self) -> tuple[float, ...]:
        """See ``RandomCrop``."""
        return self.fill


@dataclass(frozen=True)
class Placement:
    """The result of one draw of a ``RandomCrop``.

    Args:
        rule: rule that was drawn from.
        size: (height, width) that the image is resized to.
        top: first row of the window in the resized image.
        left: first column of the window.
        flip: whether the image is mirrored, when the rule says.
    """

    rule: RandomCrop
    size: tuple[int, int]
    top: int
    left: int
    flip: bool

    def image(self, image: NDArray[Pixel]) -> NDArray[Pixel]:
        """Return the crop of the image ``(H, W, C)``, of the same number type."""
        interpolation = "opencv" if self.rule.resize is None else self.rule.resize.interpolation
        return self._applied(image, interpolation, self.rule.padding)

    def map(self, values: NDArray[Pixel], fill: float) -> NDArray[Pixel]:
        """Return the crop of a map ``(H, W)`` of the image by nearest pixels, padded with ``fill``."""
        return self._applied(values, map_interpolation(self.rule.resize), fill)

    def valid(self) -> NDArray[np.bool_]:
        """Return which pixels of the crop ``(H, W)`` come from the image; the others are padding."""
        # The size of the window is enough: nothing has to be resized.
        shape = [
            max(0, min(side, whole - first))
            for side, whole, first in zip(self.rule.size, self.size, (self.top, self.left), strict=True)
        ]
        return self._placed(np.ones(shape, np.uint8), 0).view(np.bool_)

    def _applied(
        self, image: NDArray[Pixel], interpolation: Interpolation, fill: float | Sequence[float]
    ) -> NDArray[Pixel]:
        rule = self.rule
        height, width = rule.size
        between = self.flip and rule.flip == "second"
        left, right = self.left, self.left + width
        if between:
            # Of a resized image that is mirrored then, the window lies on the other side before.
            left, right = max(0, self.size[1] - right), self.size[1] - left
        window = resized_window(
            image,
            self.size,
            interpolation,
            Window(self.top, left, self.top + height, right),
            mirror=self.flip and rule.flip == "first",
        )
        return self._placed(mirrored(window) if between else window, fill)

    def _placed(self, window: NDArray[Pixel], fill: float | Sequence[float]) -> NDArray[Pixel]:
        """Pad the window to the size of the crop, then mirror the crop if that comes last."""
        rule = self.rule
        height, width = rule.size
        centered = rule.pad == "centered"
        top = (height - window.shape[0]) // 2 if centered else 0
        left = (width - window.shape[1]) // 2 if centered else 0
        image = padded(window, rule.size, top, left, fill)
        if self.flip and rule.flip == "last":
            image = mirrored(image)
        return np.ascontiguousarray(image)


@dataclass(frozen=True)
class SourcePlacement(Placement):
    """The result of one draw whose window lies in the image before it is resized, see ``RandomCrop.window``.

    Args:
        window: (height, width) of the window; ``size`` is that of the image, and ``top`` and ``left`` are its place in
            the image, padded where that is smaller.
    """

    window: tuple[int, int]

    def valid(self) -> NDArray[np.bool_]:
        """Return which pixels of the crop ``(H, W)`` come from the image, by nearest pixels as labels do."""
        return self.map(np.ones(self.size, np.uint8), 0).view(np.bool_)

    def _applied(
        self, image: NDArray[Pixel], interpolation: Interpolation, fill: float | Sequence[float]
    ) -> NDArray[Pixel]:
        rule, (height, width) = self.rule, self.window
        last = rule.flip == "last"
        source = mirrored(image) if self.flip and not last else image
        part = source[self.top : self.top + height, self.left : self.left + width]
        centered = rule.pad == "centered"
        top = (height - part.shape[0]) // 2 if centered else 0
        left = (width - part.shape[1]) // 2 if centered else 0
        result = resized(padded(part, self.window, top, left, fill), rule.size, interpolation)
        return np.ascontiguousarray(mirrored(result) if self.flip and last else result)
