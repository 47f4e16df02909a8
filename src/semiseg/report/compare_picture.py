"""The picture of one image in a comparison: what two networks make of it, and where they differ."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from semiseg.contracts.dataset import Array, DatasetInfo
from semiseg.track.samples import colorize, side_by_side

Color = tuple[int, int, int]

# Okabe and Ito's colors, which people with any color vision tell apart.
ONLY_A, ONLY_B, NEITHER = (0, 114, 178), (230, 159, 0), (204, 121, 167)
ROW, SQUARE, SPACE = 20, 12, 6


def counted_pixels(truth: Array | None, label: Array, info: DatasetInfo) -> NDArray[np.bool_]:
    """Say which pixels count, ``(H, W) bool``: those with a true class, or all where there is no mask."""
    if truth is None:
        return np.ones(label.shape, np.bool_)
    counted: NDArray[np.bool_] = (truth < info.num_classes) & (truth != info.ignore_index)
    return counted


def draw(image: Array, truth: Array | None, a: Array, b: Array, info: DatasetInfo) -> Image.Image:
    """Draw image, truth where there is one, both predictions, and where these differ, above a legend.

    Args:
        image: ``(H, W, 3) uint8`` RGB.
        truth: ``(H, W) uint8``; None where the image has no mask.
        a: labels of the first network, ``(H, W) uint8``.
        b: labels of the second.
        info: names and colors of the classes.
    """
    counted = counted_pixels(truth, a, info)
    panels = [("image", image)]
    if truth is not None:
        panels.append(("truth", colorize(truth, info)))
    for name, label in (("A", a), ("B", b)):
        panels.append((_title(name, label, truth, counted), colorize(label, info)))
    panels.append(("difference", _difference_map(image, truth, a, b, counted)))
    row = side_by_side([(title, Image.fromarray(pixels)) for title, pixels in panels])
    differences = [("differ", NEITHER)]
    if truth is not None:
        differences = [("only A right", ONLY_A), ("only B right", ONLY_B), ("differ, neither right", NEITHER)]
    seen = sorted({*np.unique(a), *np.unique(b), *(() if truth is None else np.unique(truth[counted]))})
    classes = [(info.classes[index], info.palette[index]) for index in seen]
    parts = [row, _legend(classes, row.width), _legend(differences, row.width)]
    canvas = Image.new("RGB", (row.width, sum(part.height for part in parts)), (255, 255, 255))
    for index, part in enumerate(parts):
        canvas.paste(part, (0, sum(above.height for above in parts[:index])))
    return canvas


def _title(name: str, label: Array, truth: Array | None, counted: NDArray[np.bool_]) -> str:
    if truth is None or not counted.any():
        return name
    return f"{name}: {100 * (label == truth)[counted].mean():.1f} % right"


def _difference_map(
    image: Array, truth: Array | None, a: Array, b: Array, counted: NDArray[np.bool_]
) -> Array:
    """Paint pixels that differ over the pale gray image, ``(H, W, 3) uint8``."""
    pale = 160 + image.mean(2, keepdims=True) * (95 / 255)
    canvas = np.broadcast_to(pale, image.shape).astype(np.uint8)
    differ = (a != b) & counted
    canvas[differ] = NEITHER
    if truth is not None:
        canvas[differ & (a == truth)] = ONLY_A
        canvas[differ & (b == truth)] = ONLY_B
    return canvas


def _legend(entries: Sequence[tuple[str, Color]], width: int) -> Image.Image:
    """Draw colored squares with their names, in as many rows as they need."""
    font = ImageFont.load_default(12)
    places, left, top = [], SPACE, 0
    for name, _ in entries:
        length = round(font.getlength(name)) + SQUARE + 4 * SPACE
        if left > SPACE and left + length > width:
            left, top = SPACE, top + ROW
        places.append((left, top))
        left += length
    canvas = Image.new("RGB", (width, top + ROW + SPACE), (255, 255, 255))
    brush = ImageDraw.Draw(canvas)
    for (name, color), (x, y) in zip(entries, places, strict=True):
        y += SPACE
        brush.rectangle((x, y, x + SQUARE, y + SQUARE), fill=color, outline=(0, 0, 0))
        brush.text((x + SQUARE + SPACE, y - 1), name, fill=(0, 0, 0), font=font)
    return canvas
