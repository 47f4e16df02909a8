"""Images of bands and their masks by id, whole or as tiles: one place on the ground, and no label without a value."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from semiseg.contracts.dataset import IGNORE_INDEX, Array, Bands, Pixels
from semiseg.data.bands import Valid, band_size, read_bands
from semiseg.data.folder_files import FolderFiles
from semiseg.data.mask_reader import MaskReader
from semiseg.data.picture_files import BadFileError
from semiseg.data.raster import grids_differ, is_raster, raster_grid, read_raster_mask
from semiseg.data.tile_grid import TileGrid, cut
from semiseg.data.window import Window

KNOWN_MASKS = 256


class BandReader:
    """Reader of the images and masks of a dataset of bands.

    Args:
        bands: channels of the images.
    """

    def __init__(self, bands: Bands) -> None:
        self.bands = bands
        self.windows: dict[str, Window] = {}
        """Window of each tile, by its id; images without one are whole."""
        self.watch: Callable[[str, Pixels, Valid], None] | None = None
        """Function that gets the id of each image that is read, its pixels, and where they have a value."""
        self._checked: set[tuple[Path, Path]] = set()
        self._last: tuple[str, Valid] | None = None

    def image(self, image_id: str, path: Path) -> Pixels:
        """Return an image ``(H, W, C)``; raises what ``read_bands`` raises."""
        image, valid = read_bands(path, self.bands, self.windows.get(image_id))
        if self.watch is not None:
            self.watch(image_id, image, valid)
        # Its mask is read next.
        self._last = image_id, valid
        return image

    def label(self, image_id: str, image: Path, mask: Path, masks: MaskReader) -> Array:
        """Return the label map of an image; pixels without a value are 255.

        Args:
            image_id: id.
            image: file of the image.
            mask: file of the mask.
            masks: reader of masks that are no TIFF of numbers, which knows the labels of the numbers too.

        Raises:
            BadFileError: a mask on another grid than its image, or what the reader and ``read_bands`` raise.
        """
        self._require_same_grid(image, mask)
        window = self.windows.get(image_id)
        if is_raster(mask) and not masks.by_color:
            numbers, void = read_raster_mask(mask, window)
            # Any number may stand for nodata; 255 is never a fault.
            label = masks.of_numbers(np.where(void, numbers.dtype.type(IGNORE_INDEX), numbers), mask)
            label[void] = IGNORE_INDEX
        else:
            label = masks.read(mask)
            if window is not None:
                label = label[window.top : window.bottom, window.left : window.right].copy()
        valid = self._valid(image_id, image)
        if valid is not None and valid.shape == label.shape:
            label[~valid] = IGNORE_INDEX
        return label

    def _valid(self, image_id: str, path: Path) -> Valid:
        last = self._last
        if last is not None and last[0] == image_id:
            return last[1]
        return read_bands(path, self.bands, self.windows.get(image_id))[1]

    def _require_same_grid(self, image: Path, mask: Path) -> None:
        if (image, mask) in self._checked:
            return
        if is_raster(mask) and is_raster(image):
            found, expected = raster_grid(mask), raster_grid(image)
            if differ := grids_differ(found, expected):
                raise BadFileError(
                    mask,
                    f"lies on another grid than its image {image.name}: {differ}; the mask's stands first. Align them, "
                    "for example with rio warp --like, or write the mask anew from the image",
                )
        elif is_raster(mask):
            found, (height, width) = raster_grid(mask), band_size(image)
            if (found.height, found.width) != (height, width):
                raise BadFileError(
                    mask, f"mask is {found.width}x{found.height}, its image {width}x{height} (width x height)"
                )
        self._checked.add((image, mask))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None, "watch": None}


def cut_files(
    found: FolderFiles,
    outside: Mapping[str, Path],
    grid: TileGrid,
    unlabeled: frozenset[int],
    reader: BandReader,
) -> tuple[FolderFiles, dict[str, Path]]:
    """Cut the pictures of a folder into tiles; a tile whose mask labels no pixel is unlabeled.

    Args:
        found: files of whole pictures.
        outside: files of more pictures without mask.
        grid: grid of the tiles.
        unlabeled: values in masks that mean "not labeled".
        reader: reader that learns the window of each tile.

    Returns:
        Files of the tiles, and of those of the pictures without mask.
    """
    cuts = cut(found.images, found.masks, grid)
    more = cut(outside, {}, grid)
    reader.windows |= {tile: window for tile, (_, window) in (*cuts.items(), *more.items())}
    tiles: dict[str, list[str]] = {}
    for tile, (picture, _) in cuts.items():
        tiles.setdefault(picture, []).append(tile)
    masks: dict[str, Path] = {}
    for picture, path in found.masks.items():
        parts = tiles.get(picture, [picture])
        if len(parts) > 1 and is_raster(path):
            parts = _labeled(path, [(tile, reader.windows[tile]) for tile in parts], unlabeled)
        masks |= dict.fromkeys(parts, path)
    several = {picture: parts for picture, parts in tiles.items() if parts != [picture]}
    images = {tile: found.images[picture] for tile, (picture, _) in cuts.items()}
    files = replace(found, images=images, masks=masks, other_names={}, tiles=several)
    return files, {tile: outside[picture] for tile, (picture, _) in more.items()}


def _labeled(path: Path, tiles: Iterable[tuple[str, Window]], unlabeled: frozenset[int]) -> list[str]:
    tiles = tuple(tiles)
    status = path.stat()
    key = str(path), status.st_size, status.st_mtime_ns
    found = _labeled_windows(key, tuple(window for _, window in tiles), unlabeled)
    return [tile for tile, window in tiles if window in found]


@lru_cache(KNOWN_MASKS)
def _labeled_windows(
    key: tuple[str, int, int], windows: tuple[Window, ...], unlabeled: frozenset[int]
) -> frozenset[Window]:
    """Windows of a mask, by its path and stamp, that hold a label; a command builds its dataset several times."""
    found = []
    for window in windows:
        numbers, void = read_raster_mask(Path(key[0]), window)
        if not (np.isin(numbers, list(unlabeled)) | void).all():
            found.append(window)
    return frozenset(found)
