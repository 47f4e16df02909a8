"""Header of an image file: depth and number of pictures, which decoded pixels no longer show, and orientation."""

import re
from dataclasses import dataclass
from typing import BinaryIO, Literal

from PIL import ExifTags, Image

Sample = Literal["unsigned", "signed", "float"]
SAMPLES: dict[int, Sample] = {1: "unsigned", 2: "signed", 3: "float"}
"""Kinds of numbers by the value of TIFF's tag SampleFormat."""

TIFF_BITS, TIFF_SAMPLE, TIFF_SUBFILE = 258, 339, 254
REDUCED_OR_MASK = 1 | 4
"""Bits of TIFF's tag NewSubfileType on pages that only repeat the first one, smaller or as its mask."""

PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
PNG_EXIF_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")

TURNED = range(2, 9)
"""Orientations of EXIF other than upright: 2 and 4 mirrored, 3 half turned, 5 to 8 turned by a quarter."""


@dataclass(frozen=True)
class PictureHeader:
    """Facts in the header of an image file.

    Args:
        format: name of the format, as Pillow calls it.
        bits: bits of a channel as stored; of a palette those of an index.
        sample: kind of the stored numbers.
        frames: number of pictures in the file; previews and smaller copies of the first one do not count.
    """

    format: str
    bits: int
    sample: Sample = "unsigned"
    frames: int = 1


def read_header(image: Image.Image, data: bytes) -> PictureHeader:
    """Read the header of a file that Pillow has opened and not yet decoded.

    Args:
        image: the opened file.
        data: its bytes.
    """
    bits, sample = _depth(image, data)
    return PictureHeader(str(image.format), bits, sample, _frames(image))


def orientation_of(image: Image.Image) -> int:
    """Orientation of a picture by EXIF, 1 to 8; 1 where there is none, or none that can be read.

    Pillow decodes a PNG for that, since EXIF may stand after the pixels; see ``png_holds_exif``.
    """
    try:
        tags = getattr(image, "tag_v2", None)  # of a TIFF, where the tag is one of the file's own
        value = (tags or {}).get(ExifTags.Base.Orientation) or image.getexif().get(
            ExifTags.Base.Orientation, 1
        )
        return int(value) if int(value) in TURNED else 1
    except Exception:  # a damaged EXIF block may raise anything, and turns nothing
        return 1


def png_holds_exif(file: BinaryIO) -> bool:
    """Whether a PNG has a chunk in which Pillow looks for an orientation; the place in the file stays as it is."""
    before = file.tell()
    place = 8
    try:
        while True:
            file.seek(place)
            length, name = int.from_bytes(file.read(4)), file.read(4)
            if name == b"eXIf" or (name in PNG_TEXT and file.read(21).startswith(PNG_EXIF_TEXTS)):
                return True
            if name in (b"IEND", b""):
                return False
            place += 12 + length
    finally:
        file.seek(before)


def _depth(image: Image.Image, data: bytes) -> tuple[int, Sample]:
    if image.format == "PNG":
        return data[24], "unsigned"
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        kinds = tags.get(TIFF_SAMPLE, (1,))
        return max(tags.get(TIFF_BITS, (1,))), SAMPLES.get(max(kinds), "unsigned")
    if image.format == "JPEG2000" and (found := re.search(rb"\xff\x4f\xff\x51", data)):
        return _size_segment_bits(data[found.end() :])
    if image.format == "AVIF" and (found := re.search(rb"pixi.{4}(.)(.)", data, re.DOTALL)):
        return found[2][0], "unsigned"
    if image.format == "PPM" and image.mode in ("L", "RGB", "I"):
        return largest_value(image).bit_length(), "unsigned"
    if image.mode == "F":
        return 32, "float"
    by_mode = {"1": 1, "I": 32}
    return by_mode.get(image.mode, 16 if image.mode.startswith("I;16") else 8), "unsigned"


def largest_value(image: Image.Image) -> int:
    """Value that means white in an opened PGM or PPM; Pillow spreads other values than 255 over 0 to 255."""
    args = image.tile[0].args  # type: ignore[attr-defined]
    if isinstance(args, tuple):
        return int(args[1])
    return 65535 if args == "I;16B" else 255


def _size_segment_bits(segment: bytes) -> tuple[int, Sample]:
    """Depth in the segment SIZ of JPEG 2000 (ISO/IEC 15444-1, A.5.1), of which the marker has been read."""
    depths = [segment[38 + 3 * channel] for channel in range(int.from_bytes(segment[36:38]))]
    signed = any(depth & 0x80 for depth in depths)
    return max(depth & 0x7F for depth in depths) + 1, "signed" if signed else "unsigned"


def jpeg_bits(data: bytes) -> int:
    """Bits of a channel of a JPEG by its frame header; 8 where there is none. Pillow opens those of 8 bits alone."""
    place = 2
    while data[:2] == b"\xff\xd8" and data[place : place + 1] == b"\xff" and place + 4 < len(data):
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[place + 4]
        place += 2 + length
    return 8


def _frames(image: Image.Image) -> int:
    if image.format == "MPO":  # a JPEG with previews, or with the depth or gain map that telephones add
        return 1
    frames = int(getattr(image, "n_frames", 1))
    if image.format != "TIFF" or frames == 1:
        return frames
    own = 0
    for page in range(frames):
        image.seek(page)
        own += not image.tag_v2.get(TIFF_SUBFILE, 0) & REDUCED_OR_MASK  # type: ignore[attr-defined]
    image.seek(0)
    return own
