"""Random scale, crop, padding and flip on 8-bit images: each paper's rule, down to the order of its draws."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, cast, get_args

import cv2
import numpy as np
from PIL import Image

from semiseg.data.dataset import IGNORE_INDEX, Array
from semiseg.errors import UserError

Interpolation = Literal["opencv", "pil_bilinear", "pil_bicubic"]
Color = tuple[int, int, int]

MEAN_COLOR: Color = (124, 116, 104)
"""ImageNet's mean color, rounded; it is (almost) zero once a network has normalized it."""

_PIL_FILTERS = {"pil_bilinear": Image.Resampling.BILINEAR, "pil_bicubic": Image.Resampling.BICUBIC}


def check_choice(value: str, choices: Sequence[str], where: str) -> None:
    """Raise ``UserError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise UserError(f"{where} is {value!r}; expected one of {', '.join(choices)}.")


def resized(image: Array, size: tuple[int, int], interpolation: Interpolation) -> Array:
    """Resize an image ``(H, W, 3)`` or a label map ``(H, W)`` to ``size = (height, width)``.

    Images are interpolated as named: ``opencv`` is plain bilinear without antialiasing, the two of Pillow
    antialias when they shrink. Label maps take the nearest pixel by the rule of the same library.
    """
    height, width = size
    is_label = image.ndim == 2
    if interpolation == "opencv":
        method = cv2.INTER_NEAREST if is_label else cv2.INTER_LINEAR
        return cast(Array, cv2.resize(image, (width, height), interpolation=method))
    pil_filter = Image.Resampling.NEAREST if is_label else _PIL_FILTERS[interpolation]
    return np.asarray(Image.fromarray(image).resize((width, height), pil_filter))


def padded(image: Array, size: tuple[int, int], top: int, left: int, fill: int | Color) -> Array:
    """Place ``image`` at ``(top, left)`` of a canvas of ``size = (height, width)`` filled with ``fill``."""
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    canvas = np.empty((*size, *image.shape[2:]), np.uint8)
    canvas[:] = fill
    canvas[top : top + height, left : left + width] = image
    return canvas


class Resize(Protocol):
    """A rule for the size that an image is resized to."""

    @property
    def interpolation(self) -> Interpolation:
        """How the image is interpolated; see ``resized``."""
        ...

    def size(self, height: int, width: int, rng: random.Random) -> tuple[int, int]:
        """Draw the new (height, width) of an image of the given size."""
        ...


def _check_range(rule: str, low: float, high: float) -> None:
    if not 0 < low <= high:
        raise UserError(f"{rule}: low={low} and high={high}; expected 0 < low <= high.")


@dataclass(frozen=True)
class ScaleUniform:
    """Scale both sides by one factor, uniform in [low, high]; sides are rounded down.

    With 0.5 and 1.5 this is the rule of DMT.
    """

    low: float = 0.5
    high: float = 2.0
    interpolation: Interpolation = "opencv"

    def __post_init__(self) -> None:
        _check_range("ScaleUniform", self.low, self.high)
        check_choice(self.interpolation, get_args(Interpolation), "ScaleUniform: interpolation")

    def size(self, height: int, width: int, rng: random.Random) -> tuple[int, int]:
        """Draw the factor, return the new (height, width)."""
        scale = rng.uniform(self.low, self.high)
        return max(1, int(scale * height)), max(1, int(scale * width))


@dataclass(frozen=True)
class ScaleChoice:
    """Scale both sides by one of ``values``; sides are rounded down.

    With 0.5, 0.75, 1, 1.5, 1.75, 2 (no 1.25) this is the rule of CPS.
    """

    values: Sequence[float]
    interpolation: Interpolation = "opencv"

    def __post_init__(self) -> None:
        if not self.values or min(self.values) <= 0:
            raise UserError(
                f"ScaleChoice: values={list(self.values)}; expected at least one factor, all above 0."
            )
        check_choice(self.interpolation, get_args(Interpolation), "ScaleChoice: interpolation")
        object.__setattr__(self, "values", tuple(self.values))

    def size(self, height: int, width: int, rng: random.Random) -> tuple[int, int]:
        """Draw the factor, return the new (height, width)."""
        scale = rng.choice(self.values)
        return max(1, int(height * scale)), max(1, int(width * scale))


@dataclass(frozen=True)
class LongSide:
    """Draw the new long side as an integer in [low * base, high * base], both ends included.

    ST++ uses base 400 (VOC) or 2048 (Cityscapes), 0.5 to 2 and ``pil_bilinear``; CAC the same with
    ``pil_bicubic``, and 0.8 to 2 for its pairs.

    Args:
        base: pixels that the factors refer to; None takes each image's own long side.
        low: smallest factor.
        high: largest factor.
        interpolation: see ``resized``.
    """

    base: int | None = None
    low: float = 0.5
    high: float = 2.0
    interpolation: Interpolation = "pil_bilinear"

    def __post_init__(self) -> None:
        _check_range("LongSide", self.low, self.high)
        if self.base is not None and self.base < 1:
            raise UserError(f"LongSide: base={self.base}; expected pixels (1 or more), or null.")
        check_choice(self.interpolation, get_args(Interpolation), "LongSide: interpolation")

    def size(self, height: int, width: int, rng: random.Random) -> tuple[int, int]:
        """Draw the long side, return the new (height, width); the short side is rounded to the nearest."""
        base = max(height, width) if self.base is None else self.base
        long = max(1, rng.randint(int(base * self.low), int(base * self.high)))
        if height > width:
            return long, max(1, int(width * long / height + 0.5))
        return max(1, int(height * long / width + 0.5)), long


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    sides = (value, value) if isinstance(value, int) else tuple(value)
    if len(sides) != 2 or min(sides) < 1:
        raise UserError(
            f"crop_size is {value}; expected one number or [height, width], in pixels (1 or more)."
        )
    return sides[0], sides[1]


@dataclass(frozen=True)
class RandomCrop:
    """Resize, flip, cut a window at random and pad what is missing.

    The defaults suit any dataset. What was published:

    ========  ===================  ======  ============  ============  ==========  =========
    method    resize               flip    pad           pad_color     draw_order  draw_when
    ========  ===================  ======  ============  ============  ==========  =========
    ST++      LongSide(400)        last    bottom_right  black         xy          always
    CPS       ScaleChoice([...])   first   centered      MEAN_COLOR    yx          longer
    CAC       LongSide(400)        last    bottom_right  MEAN_COLOR    yx          always
    DMT       ScaleUniform(.5,1.5) last    bottom_right  black         yx          unfitting
    ========  ===================  ======  ============  ============  ==========  =========

    CPS and CAC pad with zero after normalizing or with the mean; here both are ``MEAN_COLOR``, because
    images stay 8-bit until the network normalizes them.

    Args:
        crop_size: side, or (height, width), of the result in pixels.
        resize: size rule; None keeps the size.
        flip: mirror with probability 1/2 before everything else ("first", where the draw is 0.5 or more, as
            CPS does), at the end ("last", where it is below 0.5), or never ("none").
        pad: where an image that is smaller than the crop lies: top left ("bottom_right" is padded) or
            in the middle ("centered", the odd pixel goes to bottom and right).
        pad_color: RGB (0-255) of the padding; its label is 255.
        draw_order: which offset is drawn first.
        draw_when: when offsets are drawn: "always"; only that of a side that is "longer" than the crop;
            or both unless the image, padded, fits exactly ("unfitting"). Only matters for replaying a
            published random stream.
        crop_off_by_one: let the offset of a longer side be one too large, so that the window lacks its
            last row or column, which is padded. What CPS does.
    """

    crop_size: int | Sequence[int]
    resize: Resize | None = field(default_factory=ScaleUniform)
    flip: Literal["last", "first", "none"] = "last"
    pad: Literal["bottom_right", "centered"] = "bottom_right"
    pad_color: Color = MEAN_COLOR
    draw_order: Literal["xy", "yx"] = "yx"
    draw_when: Literal["always", "longer", "unfitting"] = "always"
    crop_off_by_one: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "crop_size", _pair(self.crop_size))
        object.__setattr__(self, "pad_color", checked_color(self.pad_color))
        check_choice(self.flip, ("last", "first", "none"), "RandomCrop: flip")
        check_choice(self.pad, ("bottom_right", "centered"), "RandomCrop: pad")
        check_choice(self.draw_order, ("xy", "yx"), "RandomCrop: draw_order")
        check_choice(self.draw_when, ("always", "longer", "unfitting"), "RandomCrop: draw_when")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the result."""
        return _pair(self.crop_size)

    def __call__(self, image: Array, label: Array | None, rng: random.Random) -> tuple[Array, Array | None]:
        """Apply one draw to the image ``(H, W, 3) uint8`` and its label map ``(H, W) uint8``, if any."""
        flip = self.flip == "first" and rng.random() >= 0.5
        if flip:
            image, label = _mirrored(image), None if label is None else _mirrored(label)
        if self.resize is not None:
            size = self.resize.size(image.shape[0], image.shape[1], rng)
            image = resized(image, size, self.resize.interpolation)
            label = None if label is None else resized(label, size, self.resize.interpolation)
        top, left = self._offset(image.shape[0], image.shape[1], rng)
        image = self._window(image, top, left, self.pad_color)
        label = None if label is None else self._window(label, top, left, IGNORE_INDEX)
        if self.flip == "last" and rng.random() < 0.5:
            image, label = _mirrored(image), None if label is None else _mirrored(label)
        return np.ascontiguousarray(image), None if label is None else np.ascontiguousarray(label)

    def _offset(self, height: int, width: int, rng: random.Random) -> tuple[int, int]:
        crop_height, crop_width = self.size
        spare = {"y": max(0, height - crop_height), "x": max(0, width - crop_width)}
        offset = {"y": 0, "x": 0}
        for axis in self.draw_order:
            if self.draw_when == "always" or (
                spare[axis] if self.draw_when == "longer" else any(spare.values())
            ):
                extra = 1 if self.crop_off_by_one and spare[axis] else 0
                offset[axis] = rng.randint(0, spare[axis] + extra)
        return offset["y"], offset["x"]

    def _window(self, image: Array, top: int, left: int, fill: int | Color) -> Array:
        height, width = self.size
        window = image[top : top + height, left : left + width]
        if self.pad == "bottom_right":
            return padded(window, self.size, 0, 0, fill)
        return padded(
            window, self.size, (height - window.shape[0]) // 2, (width - window.shape[1]) // 2, fill
        )


def checked_color(value: Sequence[int]) -> Color:
    """Return an RGB color as a tuple; raise ``UserError`` unless it is three numbers from 0 to 255."""
    color = tuple(value)
    if len(color) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in color):
        raise UserError(f"pad_color is {list(color)}; expected three whole numbers from 0 to 255 (RGB).")
    return color[0], color[1], color[2]


def _mirrored(image: Array) -> Array:
    return np.ascontiguousarray(image[:, ::-1])
