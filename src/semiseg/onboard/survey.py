"""Survey of the masks of a folder: their numbers or colors, and the pixels of each."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from semiseg.data.file_faults import BadFilesError
from semiseg.data.file_inspection import FileFault
from semiseg.data.mask_format import MaskFormat
from semiseg.data.mask_labels import Value
from semiseg.data.picture_files import BadFileError
from semiseg.onboard.mask_reading import MaskReading, choose_reading, mask_files
from semiseg.onboard.mask_values import Counts, MaskValues, read_values

MAX_THREADS = 16
SHOWN_VALUES = 12


@dataclass(frozen=True)
class Survey:
    """Numbers or colors in all masks, as they are read.

    Args:
        reading: how the masks are read.
        masks: values of each mask.
        faults: masks that cannot be read.
    """

    reading: MaskReading
    masks: tuple[MaskValues, ...]
    faults: tuple[FileFault, ...] = ()

    @property
    def colored(self) -> bool:
        """Whether colors count, and not numbers."""
        return self.reading.by_color

    @property
    def palette(self) -> Mapping[int, str]:
        """Color of each number, where all masks have palettes that agree."""
        return self.reading.format.colors

    @cached_property
    def held(self) -> tuple[dict[Value, int], ...]:
        """Number of pixels of each value, by mask."""
        return tuple(self._translated(mask, mask.pixels) for mask in self.masks)

    @cached_property
    def pixels(self) -> dict[Value, int]:
        """Number of pixels of each value in all masks."""
        return dict(sum((Counter(each) for each in self.held), Counter()))

    @cached_property
    def specks(self) -> Counter[Value]:
        """Number of pixels of each value that lie in no block of 2x2 equal pixels."""
        return sum((Counter(self._translated(mask, mask.specks)) for mask in self.masks), Counter())

    @cached_property
    def rims(self) -> Counter[Value]:
        """Number of pixels of each value in thin lines between two others; of palettes only where numbers count."""
        masks = [mask for mask in self.masks if not self.colored or mask.format.kind != "palette"]
        return sum((Counter(self._translated(mask, mask.rims.pixels)) for mask in masks), Counter())

    def in_colors(self, note: str) -> "Survey":
        """The same masks, read by the colors that a viewer shows, for the reason that a note gives."""
        shared = MaskFormat("color", 8, self.reading.format.alpha)
        return replace(self, reading=MaskReading(shared, (*self.reading.notes, note)))

    def holders(self, value: Value) -> list[MaskValues]:
        """Masks that hold a value."""
        return [mask for mask, held in zip(self.masks, self.held, strict=True) if value in held]

    def share(self, values: Sequence[Value]) -> float:
        """Share of the pixels of all masks that have one of the values."""
        return sum(self.pixels.get(value, 0) for value in values) / sum(mask.size for mask in self.masks)

    def listed(self, values: Sequence[Value]) -> str:
        """Values with their pixels and masks, as text."""
        some = []
        for value in values[:SHOWN_VALUES]:
            masks = self.holders(value)
            where = (
                f"in {len(masks)} masks"
                if len(masks) > 2
                else f"in {mask_files([each.path for each in masks])}"
            )
            some.append(f"{value} ({self.pixels.get(value, 0):,} pixels, {self.share([value]):.2%}, {where})")
        more = f" and {len(values) - SHOWN_VALUES} more" if len(values) > SHOWN_VALUES else ""
        return ", ".join(some) + more

    def _translated(self, mask: MaskValues, counts: Counts) -> dict[Value, int]:
        found: Counter[Value] = Counter()
        for code, count in counts.items():
            if code in mask.pixels:
                found[self.reading.value(mask, code)] += count
        return dict(found)


def survey(
    masks: Mapping[str, Path],
    tick: Callable[[], None],
    values: Callable[[str, Path], MaskValues] = read_values,
) -> Survey:
    """Read all masks and count the pixels of their values.

    Args:
        masks: mask file of each id.
        tick: function called after each mask.
        values: function that reads a mask.

    Raises:
        BadFilesError: no mask can be read.
        UserError: masks may be read in two ways that differ.
    """
    faults: list[FileFault] = []
    found: list[MaskValues] = []

    def read(image_id: str) -> MaskValues | BadFileError:
        try:
            return values(image_id, masks[image_id])
        except BadFileError as error:
            return error

    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        for image_id, result in zip(masks, pool.map(read, masks), strict=True):
            tick()
            if isinstance(result, BadFileError):
                faults.append(FileFault(image_id, str(masks[image_id]), result.reason))
            else:
                found.append(result)
    if not found:
        raise BadFilesError(faults)
    return Survey(choose_reading(found), tuple(found), tuple(faults))
