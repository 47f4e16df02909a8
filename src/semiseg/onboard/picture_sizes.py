"""The typical size of the pictures of a dataset, and how much they differ."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

TURNED = 0.2
"""Share of pictures that stand, or that lie, from which both kinds count."""


@dataclass(frozen=True)
class TypicalSize:
    """Size of a picture in the middle of all.

    Args:
        width: median of the widths.
        height: median of the heights.
        short_end: longer side that a tenth of the pictures have less than.
        long_end: longer side that a tenth of the pictures have more than.
        turned: whether some pictures stand and others lie.
    """

    width: int
    height: int
    short_end: int
    long_end: int
    turned: bool

    @property
    def long(self) -> int:
        """The longer side."""
        return max(self.width, self.height)

    @property
    def spread(self) -> float:
        """Factor between the ends of the longer sides."""
        return self.long_end / self.short_end


def typical_size(sizes: Mapping[tuple[int, int], int]) -> TypicalSize:
    """Return the typical size of pictures from their numbers by width and height; there is at least one."""
    total = sum(sizes.values())
    standing = sum(count for (width, height), count in sizes.items() if height > width)
    lying = sum(count for (width, height), count in sizes.items() if width > height)
    longer = {size: max(size) for size in sizes}
    return TypicalSize(
        width=_at(0.5, {size: size[0] for size in sizes}, sizes),
        height=_at(0.5, {size: size[1] for size in sizes}, sizes),
        short_end=_at(0.1, longer, sizes),
        long_end=_at(0.9, longer, sizes),
        turned=min(standing, lying) > TURNED * total,
    )


def _at(share: float, values: Mapping[tuple[int, int], int], counts: Mapping[tuple[int, int], int]) -> int:
    """Return the value that a share of the pictures have or stay below."""
    wanted = max(math.ceil(share * sum(counts.values())), 1)
    seen = 0
    for size in sorted(values, key=lambda each: values[each]):
        seen += counts[size]
        if seen >= wanted:
            return values[size]
    raise ValueError("no pictures")
