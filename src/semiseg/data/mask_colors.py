"""Reading color-coded masks."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from semiseg.contracts.dataset import Array
from semiseg.data.image_files import BadFileError, open_mask
from semiseg.data.mask_labels import color_text
from semiseg.data.palette import Color


def read_colors(path: Path) -> NDArray[np.int32]:
    """Return the colors of a PNG, ``(H, W) int32``, red in the highest of three bytes.

    Grey and palette PNGs give the colors that a viewer shows; alpha is dropped.

    Raises:
        BadFileError: the reasons of ``read_mask``, except for the modes with color.
    """
    with open_mask(path) as image:
        rgb = np.asarray(ImageOps.exif_transpose(image).convert("RGB"), dtype=np.int32)
    packed: NDArray[np.int32] = (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]
    return packed


class ColorTable:
    """A table that turns color-coded masks into label maps.

    Args:
        labels: label of each color; 255 for those that mean "not labeled".
    """

    def __init__(self, labels: Mapping[Color, int]) -> None:
        packed = sorted(
            (red << 16 | green << 8 | blue, label) for (red, green, blue), label in labels.items()
        )
        self._codes = np.array([code for code, _ in packed], dtype=np.int32)
        self._labels = np.array([label for _, label in packed], dtype=np.uint8)

    def read(self, path: Path) -> Array:
        """Return the label map of a mask, ``(H, W) uint8`` with 255 ignored.

        Raises:
            BadFileError: it cannot be read, or shows a color that the table does not hold.
        """
        codes = read_colors(path)
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        unknown = self._codes[places] != codes
        if unknown.any():
            raise BadFileError(path, self._unknown(codes[unknown]))
        return self._labels[places]

    def options(self) -> list[list[int]]:
        """The table as plain values: packed color and label, sorted."""
        return [[int(code), int(label)] for code, label in zip(self._codes, self._labels, strict=True)]

    def _unknown(self, codes: NDArray[np.int32]) -> str:
        values, counts = np.unique(codes, return_counts=True)
        order = np.argsort(-counts)[:4]
        some = ", ".join(f"{color_text(int(values[i]))} ({counts[i]} pixels)" for i in order)
        more = f" and {len(values) - 4} more" if len(values) > 4 else ""
        text = (
            f"color {some}{more} of no class; dataset.values and dataset.void name {len(self._codes)} colors"
        )
        smooth = "; so many colors come from smoothed edges: save masks without antialiasing"
        return text + (smooth if len(values) > 4 * len(self._codes) else "")
