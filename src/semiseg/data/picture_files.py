"""Opening image files with a reason for every refusal, and reading images out of them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from semiseg.contracts.dataset import Array
from semiseg.data.picture_header import (
    PictureHeader,
    jpeg_bits,
    orientation_of,
    png_holds_exif,
    read_header,
)
from semiseg.errors import UserError

Exif = Literal["apply", "ignore"]
"""Whether a picture is turned as its EXIF orientation says, or left as it is stored."""

LARGEST_PIXELS = 2**31
"""Pixels of the largest picture that any command reads."""

IMAGE_MODES = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
)
ADVICE = (
    "Read all their bits, and TIFF, PNG and .npy of any channels, by dataset.bands, which `semiseg init FOLDER "
    "--bands` writes; or convert all images to 8 bits in the same way, for example by dividing by the largest value "
    "of the camera and multiplying with 255"
)
"""Advice for images of more than 8 bits a channel."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each orientation upright."""

BACK = UPRIGHT | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
"""What undoes ``UPRIGHT``."""


def exif_of(dataset: Any) -> Exif:
    """Whether a dataset turns its pictures as their EXIF orientation says; "apply" where it does not say."""
    found: Exif = getattr(dataset, "exif", "apply")
    return found


class BadFileError(UserError):
    """A file that is unusable as image or mask.

    Args:
        file: path of the file.
        reason: description of the fault and of what was expected.
    """

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason

    def __reduce__(self) -> tuple[type["BadFileError"], tuple[Path, str]]:
        return type(self), (self.file, self.reason)


def read_image(path: Path, exif: Exif = "apply") -> Array:
    """Return an image file as ``(H, W, 3) uint8`` RGB; see ``upright_rgb``.

    Args:
        path: file of the image.
        exif: whether it is turned as its EXIF orientation says.

    Raises:
        BadFileError: missing, empty, unreadable, cut off, too large, several pictures, or not 8 bits a channel.
    """
    image, header = open_picture(path)
    with image:
        if reason := depth_fault(image, header):
            raise BadFileError(path, reason)
        return _rgb(decoded_picture(image, path, exif))


def upright_rgb(image: Image.Image, exif: Exif = "apply") -> Array:
    """Return a picture as ``(H, W, 3) uint8`` RGB.

    Grey, palette, RGBA and CMYK are converted as PIL does, alpha is dropped, and a rotation in the EXIF
    data is applied, since labeling tools show pictures that way.

    Args:
        image: the picture.
        exif: "ignore" leaves it as it is stored.

    Raises:
        UserError: not 8 bits a channel.
    """
    deep = any(";16" in str(tile) for tile in getattr(image, "tile", ()))  # where PIL keeps the upper byte
    if image.mode not in IMAGE_MODES or deep:
        raise UserError(f"mode {image.mode} with 16 or 32 bits a channel; expected 8. {ADVICE}")
    return _rgb(framed(image, exif))


def framed(image: Image.Image, exif: Exif) -> Image.Image:
    """Return a picture, decoded, upright or as it is stored; the same object where there is nothing to turn."""
    orientation = orientation_of(image)
    image.load()
    left = orientation_of(image)  # of a TIFF 1, since PIL turns it while it decodes
    if exif == "apply":
        return image.transpose(UPRIGHT[left]) if left in UPRIGHT else image
    return image.transpose(BACK[orientation]) if left != orientation else image


def open_picture(path: Path, what: str = "image") -> tuple[Image.Image, PictureHeader]:
    """Open a file and read its header, with a reason for each way this fails; ``decoded_picture`` decodes it.

    Raises:
        BadFileError: missing, empty, unreadable, too large, or more than one picture.
    """
    data = _bytes(path, what)
    with _own_limit():
        try:
            image = Image.open(BytesIO(data))
            if image.format == "PNG":
                # Decoding misses some flipped bits that the checksums of a PNG show.
                image.verify()
                image = Image.open(BytesIO(data))
            header = read_header(image, data)
        except UnidentifiedImageError as error:
            if (bits := jpeg_bits(data)) != 8:
                raise BadFileError(path, f"{bits} bits a channel; expected 8. {ADVICE}") from error
            several = " as RGB; TIFF of several bands is read by dataset.bands: `semiseg init FOLDER --bands`"
            tiff = path.suffix.lower() in (".tif", ".tiff")
            raise BadFileError(path, f"not an image that PIL can read{several if tiff else ''}") from error
        except Exception as error:  # a decoder may raise anything
            raise BadFileError(path, _damaged(error)) from error
    if image.width * image.height > LARGEST_PIXELS:
        raise BadFileError(path, _too_large(image))
    if header.frames > 1:
        raise BadFileError(
            path,
            f"{header.frames} pictures in one file (pages, or frames of an animation); expected one: save the one "
            "that counts as a file of its own",
        )
    return image, header


def size_and_orientation(path: Path, exif: Exif = "apply") -> tuple[tuple[int, int], int]:
    """Height and width of a picture as it is read, and its EXIF orientation; only the header is read.

    Raises:
        Exception: whatever PIL raises for a file that it cannot open.
    """
    with _own_limit(), path.open("rb") as file, Image.open(file) as image:
        unturned = image.format == "PNG" and not png_holds_exif(file)
        orientation = 1 if unturned else orientation_of(image)
        size = image.height, image.width
        upright = (
            size[::-1] if orientation > 4 and image.format != "TIFF" else size
        )  # PIL gives that of a TIFF
    return (upright if exif == "apply" or orientation <= 4 else upright[::-1]), orientation


def depth_fault(image: Image.Image, header: PictureHeader) -> str | None:
    """Reason why an opened file is no image of 8 bits a channel; ``None`` for one that is."""
    if header.bits <= 8 and header.sample == "unsigned" and image.mode in IMAGE_MODES:
        return None
    kind = "" if header.sample == "unsigned" else f" ({header.sample} numbers)"
    return f"{header.bits} bits a channel{kind}; expected 8. {ADVICE}"


def decoded_picture(image: Image.Image, path: Path, exif: Exif) -> Image.Image:
    """Decode an opened file, upright or as it is stored; raises ``BadFileError`` where that fails."""
    with _own_limit():
        try:
            return framed(image, exif)
        except MemoryError as error:
            raise BadFileError(path, f"{image.width}x{image.height} pixels do not fit into memory") from error
        except Exception as error:  # a decoder may raise anything
            raise BadFileError(path, _damaged(error)) from error


def _rgb(image: Image.Image) -> Array:
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


def _bytes(path: Path, what: str) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise BadFileError(path, f"{what} missing") from error
    except OSError as error:
        raise BadFileError(path, f"cannot be read ({error.strerror})") from error
    if not data:
        raise BadFileError(path, "empty file (0 bytes)")
    return data


def _damaged(error: Exception) -> str:
    return f"cannot be decoded ({error}): damaged, cut off or not readable"


def _too_large(image: Image.Image) -> str:
    return (
        f"{image.width}x{image.height} are {image.width * image.height / 1e9:.1f} gigapixels; expected at most "
        f"{LARGEST_PIXELS:,} pixels: cut it into several images"
    )


_guard = threading.Lock()
_inside = 0
_before: int | None = None


@contextmanager
def _own_limit() -> Iterator[None]:
    """Lift PIL's limit of 179 megapixels while files are opened; it holds for the whole process, hence for threads."""
    global _inside, _before
    with _guard:
        if not _inside:
            _before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _inside += 1
    try:
        yield
    finally:
        with _guard:
            _inside -= 1
            if not _inside:
                Image.MAX_IMAGE_PIXELS = _before
