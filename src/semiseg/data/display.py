"""Images of any channels as pictures: the numbers that are black and white, and the channels that are shown."""

import numpy as np
from numpy.typing import NDArray

from semiseg.contracts.dataset import Array, Bands, Pixels
from semiseg.data.resize import as_type

REACH = 2.0
"""Standard deviations below and above the mean that are black and white: about 95 % of the pixels lie between."""


def to_shown(image: Pixels, bands: Bands) -> NDArray[np.float32]:
    """Return an image ``(H, W, C)`` as float32, 0 where it is black and 1 where it is white; more lies beyond."""
    mean, span = _range(bands)
    return (image.astype(np.float32) - mean) / span + np.float32(0.5)


def from_shown(values: NDArray[np.float32], bands: Bands) -> Pixels:
    """Inverse of ``to_shown``, in the number type of the images."""
    mean, span = _range(bands)
    return as_type((values - np.float32(0.5)) * span + mean, np.dtype(bands.dtype))


def displayed(image: Pixels, bands: Bands | None) -> Array:
    """Return an image as a picture ``(H, W, 3) uint8`` RGB.

    Bands go from black to white within two deviations around the mean of the dataset, so that all pictures and all
    tiles of a picture are comparable.

    Args:
        image: image ``(H, W, C)``.
        bands: channels of the images, and which are shown; ``None`` for 8-bit RGB, which stays as it is.
    """
    if bands is None:
        return image
    shown = list(bands.shown)
    mean, span = _range(bands)
    values = (image[..., shown].astype(np.float32) - mean[shown]) / span[shown] + np.float32(0.5)
    picture = as_type(np.nan_to_num(values) * 255, np.uint8)
    return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))


def _range(bands: Bands) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.array(bands.mean, np.float32), np.array(bands.std, np.float32) * np.float32(2 * REACH)
