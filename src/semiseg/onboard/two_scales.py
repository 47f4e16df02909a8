"""Groups of masks that give the same classes other values: 1 or 255, 8 or 16 bits, clear or opaque."""

from collections.abc import Sequence
from dataclasses import dataclass

from semiseg.data.mask_labels import TRANSPARENT, Value
from semiseg.errors import UserError
from semiseg.onboard.mask_reading import SMALL, mask_files
from semiseg.onboard.mask_values import MaskValues
from semiseg.onboard.survey import Survey
from semiseg.splits.lists import shown

DEEP = 256
"""Number from which 8 bits are too few."""

WHITE_16 = 65535
STEP_16 = 257
"""Factor from white of 8 bits to white of 16 bits."""


@dataclass(frozen=True)
class MaskGroup:
    """Masks that hold some values.

    Args:
        values: the values, in order.
        masks: the masks.
    """

    values: tuple[Value, ...]
    masks: tuple[MaskValues, ...]

    @property
    def counts(self) -> bool:
        """Whether the group has more than one value or mask."""
        return len(self.values) > 1 or len(self.masks) > 1

    def text(self) -> str:
        """Number of masks, values and files."""
        files = mask_files([each.path for each in self.masks])
        return f"{len(self.masks)} hold {shown(map(str, self.values))}: {files}"


def require_one_scale(found: Survey, written: Sequence[Value], void: Sequence[Value]) -> None:
    """Check that no masks hold other values in place of those of the others.

    Args:
        found: values of all masks.
        written: values that somebody has written down as classes.
        void: values that mean "not labeled".

    Raises:
        UserError: two groups of masks share no value other than 0; or the ground is transparent in some masks and
            opaque in the others.
    """
    groups = None if found.palette or found.colored else _scales(found, void)
    if groups and not _both_written(groups, written):
        low, high = groups
        raise UserError(_two_scales(low, high))
    groups = _opaque_ground(found, void)
    if groups and not _both_written(groups, written):
        raise UserError(_two_grounds(*groups))


def _scales(found: Survey, void: Sequence[Value]) -> tuple[MaskGroup, MaskGroup] | None:
    """Masks with low and with high numbers, where no mask holds both."""
    numbers = [value for value in found.pixels if isinstance(value, int) and value and value not in void]
    for limit in (SMALL, DEEP):
        low = _group(found, sorted(value for value in numbers if value < limit))
        high = _group(found, sorted(value for value in numbers if value >= limit))
        if (
            not low.masks
            or not high.masks
            or {each.path for each in low.masks} & {each.path for each in high.masks}
        ):
            continue
        if not any(0 in mask.pixels for mask in high.masks) or not _other_scale(low, high, limit):
            continue
        if limit == DEEP or low.values == (1,) or (low.counts and high.counts):
            return low, high
    return None


def _group(found: Survey, values: Sequence[Value]) -> MaskGroup:
    held = zip(found.masks, found.held, strict=True)
    return MaskGroup(
        tuple(values), tuple(mask for mask, each in held if any(value in each for value in values))
    )


def _opaque_ground(found: Survey, void: Sequence[Value]) -> tuple[MaskGroup, MaskGroup] | None:
    """Masks with transparent pixels, and those that all hold one value which the first ones lack."""
    clear = _group(found, [TRANSPARENT])
    opaque = [each for each in found.held if TRANSPARENT not in each]
    if not clear.masks or not opaque or TRANSPARENT in void:
        return None
    beside = {value for each in found.held if TRANSPARENT in each for value in each}
    shared = [value for value in opaque[0] if all(value in each for each in opaque)]
    new = [value for value in shared if value not in beside and value not in void]
    if len(opaque) == 1:
        new = [value for value in new if opaque[0][value] == max(opaque[0].values())]
    if not new:
        return None
    return clear, _group(found, [max(new, key=lambda value: found.pixels[value])])


def _other_scale(low: MaskGroup, high: MaskGroup, limit: int) -> bool:
    """Whether low numbers count classes and high ones do not go on with it, or white has 8 and 16 bits."""
    lows, highs = [int(value) for value in low.values], [int(value) for value in high.values]
    if limit == DEEP:
        return WHITE_16 in highs or any(value * STEP_16 in highs for value in lows)
    both = len(lows) + len(highs)
    return 2 * len(lows) >= max(lows) and 2 * both <= max(highs)


def _both_written(groups: tuple[MaskGroup, MaskGroup], written: Sequence[Value]) -> bool:
    return all(any(value in written for value in group.values) for group in groups)


def _two_grounds(clear: MaskGroup, opaque: MaskGroup) -> str:
    (value,) = opaque.values
    return (
        f"masks are transparent or hold {value}, and none both. {clear.text()}; {opaque.text()}. Save all masks in "
        f"the same way; or, where both mean the same, write it by hand without `semiseg init`: dataset=folder "
        f"dataset.root=DIR 'dataset.classes=[background,...]' "
        f'"dataset.values=[[transparent,{_quoted(value)}],...]". If transparent pixels are not labeled: '
        "--void transparent. If both are classes: --classes NAME=VALUE,..."
    )


def _quoted(value: Value) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


def _two_scales(low: MaskGroup, high: MaskGroup) -> str:
    same = "Save all masks with the same numbers"
    if len(low.values) == len(high.values):
        names = ["background", *(f"class_{place}" for place in range(1, len(low.values) + 1))]
        pairs = [f"[{one},{other}]" for one, other in zip(low.values, high.values, strict=True)]
        same += (
            f"; or, where {high.values[0]} means the same as {low.values[0]}, write it by hand without `semiseg init`: "
            f"dataset=folder dataset.root=DIR 'dataset.classes=[{','.join(names)}]' "
            f"'dataset.values=[0,{','.join(pairs)}]'"
        )
    cut = ",".join(map(str, high.values))
    return (
        f"masks hold two sets of numbers, and no mask both. {low.text()}; {high.text()}. {same}. If "
        f'{cut} means "not labeled": --void {cut}. If all are classes of their own, name all: '
        "--classes NAME=VALUE,..."
    )
