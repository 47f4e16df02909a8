"""Reading of masks into label maps, by their numbers or by their colors."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from semiseg.contracts.dataset import IGNORE_INDEX, Array, DatasetInfo
from semiseg.data.mask_format import CURE, PUBLISHED, WHITE, MaskFormat, difference
from semiseg.data.mask_labels import TRANSPARENT, MaskLabels, color_text, label_tables, ranges
from semiseg.data.mask_pixels import Codes, MaskPixels, read_pixels
from semiseg.data.palette import Color
from semiseg.data.picture_files import BadFileError, Exif

SHOWN_VALUES = 5
NUMBERS_ADVICE = (
    "expected a grey or palette PNG with the class index as value, or the colors of the classes in "
    "dataset.values (of own images; `semiseg init FOLDER` writes them)"
)


class OutsideClassesError(BadFileError):
    """A mask with values that are no class.

    Args:
        file: path of the mask.
        reason: description of the fault and of what was expected.
        pixels: number of pixels of each such value.
        size: number of all pixels of the mask.
    """

    def __init__(self, file: Path, reason: str, pixels: Mapping[str, int], size: int) -> None:
        super().__init__(file, reason)
        self.pixels = dict(pixels)
        self.size = size

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.file, self.reason, self.pixels, self.size)


class _Table(Protocol):
    """Labels of the values in masks."""

    def labels(self, pixels: MaskPixels, path: Path) -> Array:
        """Label map of decoded pixels; raises ``BadFileError`` for values without a label."""
        ...

    def options(self) -> dict[str, Any]:
        """The table as plain values."""
        ...


class MaskReader:
    """Reads label maps out of the masks of a dataset.

    Args:
        info: classes of the dataset.
        labels: labels of the numbers or colors in its masks.
        mask_format: format that each mask has to have; ``None`` reads any.
        exif: whether masks are turned as their own EXIF orientation says.

    Raises:
        UserError: a void value is a class.
    """

    def __init__(
        self,
        info: DatasetInfo,
        labels: MaskLabels,
        mask_format: MaskFormat | None = None,
        exif: Exif = "apply",
    ) -> None:
        self.by_color = bool(labels.colors)
        self.classes = info.classes
        positions = {label: label for label in range(info.num_classes)}
        self.numbers = positions if labels.numbers is None else labels.numbers
        """Label of each number; unused with colors."""
        self.format = mask_format
        self.white = mask_format.white if mask_format else None
        """Number that white of a mask of one bit means; ``None`` where the settings do not say it."""
        if self.white is None and WHITE in (labels.numbers or {}):
            self.white = WHITE
        self.names_transparent = labels.transparent is not None
        self._exif: Exif = exif
        self._transparent = labels.transparent
        self._table: _Table = (
            ColorTable(labels.colors)
            if self.by_color
            else NumberTable(info, self.numbers, labels.void, self.white or 1, labels.refused)
        )

    def read(self, path: Path) -> Array:
        """Return the label map of a mask, ``(H, W) uint8`` with 255 ignored.

        Raises:
            BadFileError: it cannot be read, has another format than the dataset, or values that are no class.
            OutsideClassesError: in the last case.
        """
        pixels = read_pixels(path, self._exif)
        if self.format is not None and (reason := self._differs(pixels, self.format)):
            raise BadFileError(path, f"{reason}. {CURE}")
        labels = self._table.labels(pixels, path)
        if pixels.transparent is not None:
            labels[pixels.transparent] = IGNORE_INDEX if self._transparent is None else self._transparent
        return labels

    def of_numbers(self, numbers: Codes, path: Path) -> Array:
        """Return the label map of numbers that were read in another way; raises ``OutsideClassesError``."""
        return self._table.labels(MaskPixels(MaskFormat("gray"), numbers), path)

    def options(self) -> dict[str, Any]:
        """Settings that change the label map of a given file, as plain values."""
        found = self._table.options()
        if self.format not in (None, PUBLISHED):
            found |= {"format": self.format.settings()}
        return found | ({} if self._transparent is None else {TRANSPARENT: self._transparent})

    def _differs(self, pixels: MaskPixels, shared: MaskFormat) -> str | None:
        return difference(pixels.format, shared, lambda index: bool((pixels.codes == index).any()))


class NumberTable:
    """A table that turns numbers into labels.

    Args:
        info: classes of the dataset.
        values: label of each number.
        void: numbers that mean "not labeled".
        white: number that white of a mask of one bit means, 1 or 255.
        refused: numbers that no mask may hold, even 255.
    """

    def __init__(
        self,
        info: DatasetInfo,
        values: Mapping[int, int],
        void: Sequence[int],
        white: int,
        refused: Sequence[int] = (),
    ) -> None:
        self._values = values
        self._labels, self._outside = label_tables(info, void, values)
        self._outside[list(refused)] = 1
        self._white = white

    def options(self) -> dict[str, Any]:
        """See ``MaskReader``."""
        return {"labels": self._labels.tolist(), "outside": self._outside.tolist()}

    def labels(self, pixels: MaskPixels, path: Path) -> Array:
        """See ``MaskReader.read``."""
        if pixels.format.kind == "color":
            if not pixels.equal_channels():
                raise BadFileError(path, _color_coded(pixels))
            pixels = pixels.gray()
        if pixels.format.bits == 1 and self._white != 1:
            pixels = replace(pixels, codes=pixels.codes * np.uint8(self._white))
        codes = pixels.codes
        if pixels.transparent is not None:
            codes = codes.copy()
            codes[pixels.transparent] = WHITE
        if codes.dtype != np.uint8 and codes.min() >= 0 and codes.max() < 256:
            codes = codes.astype(np.uint8)
        if codes.dtype == np.uint8 and len(self._labels) == 256:
            if cv2.countNonZero(cv2.LUT(codes, self._outside)):
                raise self._no_class(codes, pixels.format, path)
            return np.asarray(cv2.LUT(codes, self._labels), dtype=np.uint8)
        known = (codes >= 0) & (codes < len(self._labels))
        places = np.where(known, codes, 0)
        if not known.all() or self._outside[places].any():
            raise self._no_class(codes, pixels.format, path)
        return self._labels[places]

    def _no_class(self, codes: NDArray[Any], found: MaskFormat, path: Path) -> OutsideClassesError:
        values, counts = (each.tolist() for each in np.unique(codes, return_counts=True))
        wrong = {
            value: count
            for value, count in zip(values, counts, strict=True)
            if not 0 <= value < len(self._outside) or self._outside[value]
        }
        named = {
            value: f"{value} ({found.colors[value]})" if value in found.colors else str(value)
            for value in wrong
        }
        some = ", ".join(
            f"{named[value]} ({count} pixels)" for value, count in list(wrong.items())[:SHOWN_VALUES]
        )
        void = [int(value) for value in np.flatnonzero(self._outside == 0) if value not in self._values]
        reason = (
            f"label {some}{' and others' if len(wrong) > SHOWN_VALUES else ''} outside the classes; "
            f"expected {ranges(sorted(self._values))}"
            + (f", or {ranges(void)} where not labeled" if void else "")
        )
        if len(wrong) > 4 * len(self._values):
            reason += "; so many values come from smoothed edges: save masks without antialiasing"
        return OutsideClassesError(path, reason, {named[value]: wrong[value] for value in wrong}, codes.size)


class ColorTable:
    """A table that turns colors into labels.

    Args:
        labels: label of each color; 255 for those that mean "not labeled".
    """

    def __init__(self, labels: Mapping[Color, int]) -> None:
        packed = sorted((int.from_bytes(bytes(color)), label) for color, label in labels.items())
        self._codes = np.array([code for code, _ in packed], dtype=np.int32)
        self._labels = np.array([label for _, label in packed], dtype=np.uint8)

    def options(self) -> dict[str, Any]:
        """See ``MaskReader``."""
        pairs = zip(self._codes.tolist(), self._labels.tolist(), strict=True)
        return {"colors": [[code, label] for code, label in pairs]}

    def labels(self, pixels: MaskPixels, path: Path) -> Array:
        """See ``MaskReader.read``."""
        if pixels.format.bits > 8:
            raise BadFileError(
                path,
                f"grey mask of {pixels.format.bits} bits, while dataset.values names colors; expected RGB, a palette, "
                "or grey of 8 bits",
            )
        codes = pixels.colors()
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        unknown = self._codes[places] != codes
        if pixels.transparent is not None:
            unknown &= ~pixels.transparent
        if unknown.any():
            raise self._no_class(codes[unknown], codes.size, path)
        return self._labels[places]

    def _no_class(self, codes: NDArray[np.int32], size: int, path: Path) -> OutsideClassesError:
        values, counts = np.unique(codes, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        pixels = {color_text(int(values[each])): int(counts[each]) for each in order}
        some = ", ".join(f"{color} ({count} pixels)" for color, count in list(pixels.items())[:4])
        more = f" and {len(values) - 4} more" if len(values) > 4 else ""
        reason = (
            f"color {some}{more} of no class; dataset.values and dataset.void name {len(self._codes)} colors"
        )
        if len(values) > 4 * len(self._codes):
            reason += "; so many colors come from smoothed edges: save masks without antialiasing"
        return OutsideClassesError(path, reason, pixels, size)


def _color_coded(pixels: MaskPixels) -> str:
    values: Sequence[int] = np.unique(pixels.codes).tolist()
    found = ", ".join(color_text(value) for value in values[:4])
    return f"color-coded mask with {len(values)} colors ({found}, ...); {NUMBERS_ADVICE}"
