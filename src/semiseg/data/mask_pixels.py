"""Pixels of a mask: numbers or colors, and what is transparent."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semiseg.data.mask_format import MaskFormat, open_mask
from semiseg.data.mask_labels import parse_color
from semiseg.data.picture_files import BadFileError, Exif, decoded_picture

Codes = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int32]
"""Numbers of a mask, or its colors with red in the highest of three bytes (``int32``), ``(H, W)``."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class MaskPixels:
    """Decoded pixels of a mask.

    Args:
        format: format of the file; ``alpha`` says whether there is a fully transparent pixel.
        codes: numbers of a grey or palette mask, 0 and 1 where it has one bit a pixel; packed colors of others.
        transparent: fully transparent pixels; ``None`` without any. Their codes mean nothing.
    """

    format: MaskFormat
    codes: Codes
    transparent: Flags | None = None

    def equal_channels(self) -> bool:
        """Whether red, green and blue of a mask in color are equal in every visible pixel, so that it is grey."""
        seen = self.codes if self.transparent is None else self.codes[~self.transparent]
        return bool(((seen & 0xFF) * 0x010101 == seen).all())

    def gray(self) -> "MaskPixels":
        """The same pixels as numbers, of a mask in color whose channels are equal."""
        return MaskPixels(
            replace(self.format, kind="gray"), (self.codes & 0xFF).astype(np.uint8), self.transparent
        )

    def colors(self) -> NDArray[np.int32]:
        """Colors that a viewer shows, packed, ``(H, W) int32``; of grey masks with up to 8 bits a pixel."""
        if self.format.kind == "color":
            return self.codes.astype(np.int32, copy=False)
        if self.format.kind == "palette":
            table = np.zeros(256, dtype=np.int32)
            for index, color in self.format.colors.items():
                table[index] = int.from_bytes(bytes(parse_color(color)))
            return table[self.codes]
        return self.codes.astype(np.int32) * (0xFFFFFF if self.format.bits == 1 else 0x010101)


def read_pixels(path: Path, exif: Exif = "apply") -> MaskPixels:
    """Decode a mask.

    Args:
        path: file of the mask.
        exif: whether it is turned as its own EXIF orientation says.

    Raises:
        BadFileError: the reasons of ``open_mask``, damaged, or pixels that are neither opaque nor transparent.
    """
    image, found = open_mask(path)
    with image:
        shown = decoded_picture(image, path, exif)
        codes, alpha = _codes_and_alpha(shown)
    transparent = None
    if alpha is not None:
        partial = int(((alpha > 0) & (alpha < 255)).sum())
        if partial:
            raise BadFileError(path, _partial(partial, alpha.size))
        transparent = alpha == 0 if (alpha == 0).any() else None
    return MaskPixels(replace(found, alpha=transparent is not None), codes, transparent)


def _codes_and_alpha(image: Image.Image) -> tuple[Codes, NDArray[np.uint8] | None]:
    """Numbers or packed colors, and the opacity of each pixel (0 to 255) where the file says something about it."""
    if image.mode in ("La", "RGBa", "RGBX"):
        image = image.convert({"La": "LA", "RGBa": "RGBA", "RGBX": "RGB"}[image.mode])
    pixels = np.asarray(image)
    if image.mode in ("LA", "PA"):
        return pixels[..., 0], pixels[..., 1]
    if image.mode in ("RGB", "RGBA"):
        wide = pixels.astype(np.int32)
        codes = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
        return codes, pixels[..., 3] if image.mode == "RGBA" else _keyed(codes, image)
    numbers: Codes = pixels.astype(np.uint8) if image.mode == "1" else pixels
    return numbers, _keyed(numbers, image)


def _keyed(codes: Codes, image: Image.Image) -> NDArray[np.uint8] | None:
    """Opacity by the chunk tRNS of a PNG (one value, or that of each index) or the transparent index of a GIF."""
    key = image.info.get("transparency")
    if key is None:
        return None
    if isinstance(key, bytes):
        table = np.full(256, 255, dtype=np.uint8)
        table[: len(key)] = np.frombuffer(key, dtype=np.uint8)
        return table[codes]
    number = int.from_bytes(bytes(key)) if isinstance(key, tuple) else int(key)
    return np.where(codes == number, 0, 255).astype(np.uint8)


def _partial(count: int, total: int) -> str:
    return (
        f"{count:,} half-transparent pixels ({count / total:.2%}), which belong to no class; expected that each is "
        "opaque or fully transparent: draw without soft edges and with full opacity, or save without transparency"
    )
