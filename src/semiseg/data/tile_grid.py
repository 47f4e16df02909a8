"""Large pictures as tiles on a grid: each tile is an image of its own, read without the rest."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from semiseg.data.bands import band_size, require_tileable
from semiseg.data.window import Window
from semiseg.declare import Ge, check_fields
from semiseg.errors import UserError

MARK = "@"
"""What stands between the id of a picture and the place of a tile in it."""


@dataclass(frozen=True)
class TileGrid:
    """Grid that pictures are cut on; tile "NAME@ROW,COLUMN" begins at this row and column of picture NAME.

    A picture of one tile keeps its id.

    A rest at the lower or right border of less than half a tile belongs to the last tile, so that no tile is a sliver.
    Pictures of up to one and a half tiles stay whole along that side.

    Args:
        size: height and width of a tile in pixels; best a multiple of the file's blocks.
        stride: pixels from one tile to the next in pictures without mask; ``None`` takes ``size``. Labeled pictures are
            always cut without overlap, since a validation tile must not show what another one trains on.
        block: side in pixels of the blocks that keep neighbors on one side of a split: a multiple of ``size``.
            ``None`` takes four tiles.

    Raises:
        UserError: a value out of range, or a block that is no multiple of the size.
    """

    size: Annotated[int, Ge(32)]
    stride: Annotated[int, Ge(1)] | None = None
    block: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.block is not None and self.block % self.size:
            raise UserError(f"expected a multiple of size={self.size}.", key="block", value=self.block)

    def windows(self, height: int, width: int, overlapping: bool) -> Iterator[Window]:
        """Yield the tiles of a picture row by row; ``overlapping`` where ``stride`` counts."""
        step = self.stride if overlapping and self.stride is not None else self.size
        for top, bottom in self._spans(height, step):
            for left, right in self._spans(width, step):
                yield Window(top, left, bottom, right)

    def groups(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the block of each tile, which holds its neighbors; whole pictures have none."""
        side = self.block or 4 * self.size
        found = {}
        for image_id in ids:
            name, mark, place = image_id.rpartition(MARK)
            if mark and re.fullmatch(r"\d+,\d+", place):
                row, column = (int(number) // side for number in place.split(","))
                found[image_id] = f"{name}{MARK}block {row},{column}"
        return found

    def _spans(self, length: int, step: int) -> Iterator[tuple[int, int]]:
        end = 0
        for start in range(0, length, step):
            if start > 0 and (end == length or length - start < self.size / 2):
                return
            following = start + step
            last = following >= length or length - following < self.size / 2
            end = length if last and length - start < 1.5 * self.size else min(start + self.size, length)
            yield start, end


def cut(
    images: Mapping[str, Path], masks: Mapping[str, Path], grid: TileGrid
) -> dict[str, tuple[str, Window]]:
    """Cut pictures into tiles.

    Args:
        images: image file of each id.
        masks: mask file of each id that has one.
        grid: grid.

    Returns:
        The picture and the window of each tile, by the tile's id.

    Raises:
        BadFileError: a picture cannot be read.
        UserError: a picture cannot be read in parts.
    """
    tiles = {}
    for image_id, path in images.items():
        height, width = band_size(path)
        windows = list(grid.windows(height, width, image_id not in masks))
        if len(windows) == 1:
            tiles[image_id] = image_id, windows[0]
            continue
        require_tileable(path)
        for window in windows:
            tiles[f"{image_id}{MARK}{window.top},{window.left}"] = image_id, window
    return tiles
