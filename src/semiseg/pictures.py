"""Predictions as pictures: label maps that read back as labels, overlays, confidence, a legend; and their files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from semiseg.contracts.dataset import Array, DatasetInfo, Pixels
from semiseg.data.display import displayed
from semiseg.data.palette import Color
from semiseg.files import replacing
from semiseg.tasks.samples import IGNORED_COLOR, colorize

Bits = Literal[8, 16]
ROW_HEIGHT = 22
MAP_EFFORT, PHOTO_EFFORT = 6, 1
"""Compression levels of PNG, 0 to 9, for maps and photos; photos hardly become smaller by a higher one."""


def save(path: Path, picture: Image.Image, effort: int = MAP_EFFORT) -> None:
    """Save a picture as PNG, whole or not at all; its folder exists."""
    with replacing(path) as file:
        picture.save(file, "PNG", compress_level=effort)


def indexed(label: Array, info: DatasetInfo) -> Image.Image:
    """Return a palette picture whose pixels are the labels themselves.

    Args:
        label: label map ``(H, W) uint8``.
        info: colors of the classes; other values are white.
    """
    return paletted(label, dict(enumerate(info.palette)))


def paletted(values: Array, colors: Mapping[int, Color]) -> Image.Image:
    """Return values ``(H, W) uint8`` as a palette picture; those without a color are white."""
    palette = np.full((256, 3), IGNORED_COLOR, np.uint8)
    for value, color in colors.items():
        palette[value] = color
    picture = Image.fromarray(values)
    picture.putpalette(palette.ravel().tolist())
    return picture


def overlaid(image: Pixels, label: Array, info: DatasetInfo, opacity: float = 0.5) -> Image.Image:
    """Return a picture with the colors of the classes over it.

    Args:
        image: image ``(H, W, C)``, shown as ``displayed`` does.
        label: label map ``(H, W) uint8``.
        info: colors of the classes.
        opacity: share of the color, 0 to 1.
    """
    return Image.blend(
        Image.fromarray(displayed(image, info.bands)), Image.fromarray(colorize(label, info)), opacity
    )


def gray(confidence: NDArray[np.float32], bits: Bits = 8) -> Image.Image:
    """Return shares ``(H, W) float32``, 0 to 1, as a gray picture whose largest value, 255 or 65535, means 1."""
    largest, kind = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    return Image.fromarray(np.rint(np.nan_to_num(confidence).clip(0, 1) * largest).astype(kind))


def legend(info: DatasetInfo) -> Image.Image:
    """Draw the colors of the classes with their label values and names."""
    names = zip(info.classes, info.palette, strict=True)
    return color_legend({f"{value}  {name}": color for value, (name, color) in enumerate(names)})


def color_legend(colors: Mapping[str, Color]) -> Image.Image:
    """Draw colors with a text beside each."""
    font = ImageFont.load_default(13)
    texts = list(colors)
    width = 44 + max(int(font.getlength(text)) for text in texts)
    canvas = Image.new("RGB", (width, ROW_HEIGHT * len(texts) + 6), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for row, (text, color) in enumerate(colors.items()):
        top = 6 + row * ROW_HEIGHT
        draw.rectangle((6, top, 26, top + 15), fill=color, outline=(0, 0, 0))
        draw.text((34, top), text, fill=(0, 0, 0), font=font)
    return canvas
