"""Label maps painted from the shapes of a picture."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from semiseg.contracts.dataset import IGNORE_INDEX, Array
from semiseg.data.picture_files import BadFileError
from semiseg.labels.label_record import (
    IGNORE_NAME,
    Findings,
    LabeledPicture,
    LabeledShape,
    Order,
    Outline,
    Patch,
)
from semiseg.labels.outlines import Bits, Ring, filled

Size = tuple[int, int]


@dataclass(frozen=True)
class Painting:
    """Settings of label maps.

    Args:
        classes: label of each class name; 255 for names that mean "not labeled".
        rest: label of pixels that no shape covers.
        order: what is painted over what: "file" paints in the order of the file, "area" the smaller over the larger,
            "layer" the higher over the lower, and the later over the earlier of one layer.
        crowd_is_void: whether crowds are not labeled instead of their class; in both cases all else is painted over
            them.
    """

    classes: Mapping[str, int]
    rest: int
    order: Order
    crowd_is_void: bool = True

    def label_map(self, picture: LabeledPicture, size: Size, found: Findings) -> Array:
        """Return the label map of a picture of that height and width, ``(H, W) uint8``.

        Shapes that lie outside of the picture are counted as left out.

        Raises:
            BadFileError: its ``raster`` or the pixels of a shape cannot be read, or no shape lies in the picture.
        """
        if picture.raster is not None:
            return self._of_raster(picture.raster())
        label_map = np.full(size, self.rest, np.uint8)
        scale = (size[1], size[0]) if picture.relative else (1, 1)
        patches = [(shape, _read(shape, picture, size, scale)) for shape in picture.shapes]
        drawn = [(shape, patch) for shape, patch in patches if patch is not None]
        if outside := len(patches) - len(drawn):
            found.left_out["shapes outside of their picture"] += outside
            if not drawn:
                reason = f"all shapes ({outside}) lie outside of the picture of {size[1]}x{size[0]}"
                raise BadFileError(picture.source, f"{reason} (width x height)")
        if self.order == "area":
            drawn.sort(key=lambda pair: -int(np.count_nonzero(pair[1].bits)))
        elif self.order == "layer":
            drawn.sort(key=lambda pair: pair[0].layer)
        for shape, patch in sorted(drawn, key=lambda pair: not pair[0].crowd):
            height, width = patch.bits.shape
            window = label_map[patch.top : patch.top + height, patch.left : patch.left + width]
            window[patch.bits] = self._label(shape)
        return label_map

    def _label(self, shape: LabeledShape) -> int:
        if shape.label is None or shape.label == IGNORE_NAME or (shape.crowd and self.crowd_is_void):
            return IGNORE_INDEX
        return self.classes[shape.label]

    def _of_raster(self, values: Array) -> Array:
        """Labels of the positions of all names; those of ``classes`` stand in the same order."""
        table = np.full(256, IGNORE_INDEX, np.uint8)
        labels = list(self.classes.values())
        table[: len(labels)] = labels
        return table[values]


def _read(
    shape: LabeledShape, picture: LabeledPicture, size: Size, scale: tuple[float, float]
) -> Patch | None:
    try:
        return _patch(shape, size, scale)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise BadFileError(picture.source, f"{picture.file}, {shape.name}: {error}") from error


def _patch(shape: LabeledShape, size: Size, scale: tuple[float, float]) -> Patch | None:
    """Pixels of a shape; ``None`` where all of it lies outside of the picture."""
    forms = [form if isinstance(form, Outline | Patch) else form() for form in shape.form]
    parts = [_fill(form, size, scale) if isinstance(form, Outline) else _cut(form, size) for form in forms]
    if all(_outside(form, size, scale) for form in forms) and not any(part.bits.any() for part in parts):
        return None
    if len(parts) == 1:
        return parts[0]
    bits = np.zeros(size, bool)
    for part in parts:
        height, width = part.bits.shape
        bits[part.top : part.top + height, part.left : part.left + width] |= part.bits
    return Patch(bits)


def _outside(form: Outline | Patch, size: Size, scale: tuple[float, float]) -> bool:
    """Whether the smallest rectangle around an area has nothing in common with the picture."""
    if isinstance(form, Outline):
        corners = np.concatenate(form.rings) * scale
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
    else:
        left, top = form.left, form.top
        right, bottom = left + form.bits.shape[1], top + form.bits.shape[0]
    return bool(right <= 0 or bottom <= 0 or left >= size[1] or top >= size[0])


def _cut(patch: Patch, size: Size) -> Patch:
    """Cut off what lies outside of the picture."""
    top, left = max(patch.top, 0), max(patch.left, 0)
    rows = slice(top - patch.top, max(size[0] - patch.top, 0))
    columns = slice(left - patch.left, max(size[1] - patch.left, 0))
    return Patch(patch.bits[rows, columns], left, top)


def _fill(outline: Outline, size: Size, scale: tuple[float, float]) -> Patch:
    rings = [ring * scale for ring in outline.rings]
    corners = np.concatenate(rings)
    limits = np.array([size[1], size[0]])
    low = np.clip(np.floor(corners.min(0)) - 1, 0, limits).astype(int)
    high = np.clip(np.ceil(corners.max(0)) + 2, low, limits).astype(int)
    left, top = low.tolist()
    part = (int(high[1]) - top, int(high[0]) - left)
    moved = [ring - low for ring in rings]
    return Patch(_with_rim(moved, part) if outline.with_rim else filled(moved, part), left, top)


def _with_rim(rings: list[Ring], size: Size) -> Bits:
    canvas = Image.new("L", (size[1], size[0]))
    draw = ImageDraw.Draw(canvas)
    for ring in rings:
        draw.polygon([tuple(corner) for corner in ring.tolist()], fill=1)
    return np.asarray(canvas, dtype=bool)
