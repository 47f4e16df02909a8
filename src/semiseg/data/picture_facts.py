"""Facts about pictures and masks, computed once from the decoded pixels: digests, a small gray picture, counts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 16
"""Side of the small gray picture in pixels."""

FREQUENCIES = 8
"""Number of the lowest vertical and horizontal frequencies that ``looks`` takes."""

BLANK_DEVIATION = 2.0
"""Standard deviation of the small gray picture, of 255 gray levels, below which a picture shows nothing."""


class ImageFacts(NamedTuple):
    """Facts about the pixels of an image.

    Args:
        size: height and width.
        digest: see ``pixel_digest``.
        small: see ``small_gray``.
    """

    size: tuple[int, int]
    digest: str
    small: bytes


class MaskFacts(NamedTuple):
    """Facts about a label map.

    Args:
        size: height and width.
        digest: see ``pixel_digest``.
        counts: number of pixels of each label value that occurs, rising.
    """

    size: tuple[int, int]
    digest: str
    counts: dict[int, int]


@dataclass(frozen=True)
class PictureFacts:
    """Facts about an image of a split and about its mask.

    Args:
        size: height and width of the image.
        picture: digest of the image, see ``pixel_digest``.
        small: small gray picture of the image, see ``small_gray``.
        mask: digest of the label map; ``None`` where the split reads no mask of the image.
        counts: number of pixels of each label value; ``None`` where the split reads no mask.
    """

    size: tuple[int, int]
    picture: str
    small: bytes
    mask: str | None = None
    counts: dict[int, int] | None = None


def image_facts(image: NDArray[Any]) -> ImageFacts:
    """Return the facts about an image, ``(H, W, C)`` of any type."""
    return ImageFacts((image.shape[0], image.shape[1]), pixel_digest(image), small_gray(image))


def mask_facts(mask: NDArray[np.uint8]) -> MaskFacts:
    """Return the facts about a label map, ``(H, W) uint8``."""
    counts = np.bincount(mask.ravel(), minlength=256)
    present = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    return MaskFacts((mask.shape[0], mask.shape[1]), pixel_digest(mask), present)


def pixel_digest(array: NDArray[Any]) -> str:
    """Return the hex BLAKE2b digest (128 bits) of an array's shape, type and values."""
    digest = hashlib.blake2b(f"{array.shape} {array.dtype.str}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def small_gray(image: NDArray[Any]) -> bytes:
    """Return an image as 16 x 16 gray bytes, each the mean of the pixels that it covers.

    Gray is that of ITU-R BT.601 for 8-bit RGB. Other images give the mean of their channels, stretched so that
    its smallest finite value is 0 and its largest 255.
    """
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        gray: NDArray[Any] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    else:
        gray = _stretched(image if image.ndim == 2 else image.mean(2, dtype=np.float64))
    small = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8).tobytes()


def _stretched(gray: NDArray[Any]) -> NDArray[np.float32]:
    finite = np.isfinite(gray)
    low, high = (float(gray[finite].min()), float(gray[finite].max())) if finite.any() else (0.0, 0.0)
    scaled = np.where(finite, gray, low).astype(np.float32) - low
    return np.asarray(scaled * (255 / max(high - low, 1e-12)), np.float32)


def looks(smalls: Sequence[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Return the perceptual hashes of small gray pictures, and which of them show anything.

    A hash has the signs of 63 coefficients of the discrete cosine transform: the lowest 8 vertical and 8
    horizontal frequencies, row by row from the lowest bit on, without the mean, relative to their median. It
    hardly changes with size, brightness, contrast or compression of a picture. A picture whose small gray
    picture deviates by less than 2 of 255 gray levels shows nothing: its signs come from noise.

    Returns:
        ``(N,) uint64`` and ``(N,) bool``.
    """
    pictures = np.frombuffer(b"".join(smalls), np.uint8).reshape(-1, SIDE, SIDE).astype(np.float32)
    basis = _cosines()
    spectrum = (basis @ pictures @ basis.T).reshape(-1, FREQUENCIES**2)[:, 1:]
    signs = spectrum > np.median(spectrum, axis=1, keepdims=True)
    weights = np.uint64(1) << np.arange(1, FREQUENCIES**2, dtype=np.uint64)
    values = np.where(signs, weights, np.uint64(0)).sum(1, dtype=np.uint64)
    return values, pictures.std((1, 2)) >= BLANK_DEVIATION


def _cosines() -> NDArray[np.float32]:
    """The lowest rows of the cosine transform (DCT-II), ``(8, 16)``."""
    frequency, place = np.arange(FREQUENCIES)[:, None], np.arange(SIDE)[None, :]
    return np.asarray(np.cos(np.pi / SIDE * (place + 0.5) * frequency), np.float32)
