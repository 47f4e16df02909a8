"""Values in masks that belong to classes whose names are written down."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.data.mask_labels import TRANSPARENT, Value, parse_color
from semiseg.errors import UserError
from semiseg.onboard.names import ClassEntry, Named
from semiseg.onboard.survey import Survey
from semiseg.splits.lists import shown

SHOWN_PAIRS = 6
MOSTLY = 0.5
"""Share of pixels above which a value called "unlabeled" is the background."""

FEW_NAMES = 3
"""Names up to which 255 may be the last class; among more classes it usually means "not labeled"."""


@dataclass(frozen=True)
class Assigned:
    """Classes with their values in masks.

    Args:
        names: names of the classes.
        values: value of each class.
        void: values that mean "not labeled" by their names.
        notes: decisions that may be wrong, and how to change them.
    """

    names: tuple[str, ...]
    values: tuple[Value, ...]
    void: tuple[Value, ...] = ()
    notes: tuple[str, ...] = ()


def named_values(named: Named, found: Survey) -> list[Value]:
    """Values in masks that certainly belong to named classes: those that are written, or positions that cover all."""
    written = [value for value in written_values(named, found) if value is not None]
    if written or found.colored:
        return written
    positions = range(len(named.entries))
    return (
        list(positions) if all(value in positions or _is_void(value, found) for value in found.pixels) else []
    )


def written_values(named: Named, found: Survey) -> tuple[Value | None, ...]:
    """Value of each entry as it is written down, in the kind in which masks are read; ``None`` where it has none.

    Raises:
        UserError: only numbers are written and masks are color-coded, or colors that the palettes do not have.
    """
    if found.colored:
        colors = tuple(entry.color for entry in named.entries)
        if not any(colors) and any(entry.number is not None for entry in named.entries):
            raise UserError(
                f"{named.source} gives numbers, but the masks are color-coded: "
                f"{found.listed(sorted(found.pixels, key=str))}. Give colors: --classes "
                f"'{named.entries[0].name}=#rrggbb,...'"
            )
        return colors
    if any(entry.number is not None for entry in named.entries):
        clear = TRANSPARENT in found.pixels
        return tuple(
            TRANSPARENT if clear and entry.color == TRANSPARENT else entry.number for entry in named.entries
        )
    return tuple(_number_of_color(entry, found) for entry in named.entries)


def _number_of_color(entry: ClassEntry, found: Survey) -> int | None:
    """Number in masks that shows a color: by their palettes, or as a shade of grey."""
    if entry.color is None or entry.color == TRANSPARENT:
        return None
    for mask in found.masks:
        index = next((index for index, color in mask.format.colors.items() if color == entry.color), None)
        if index is not None:
            return index
    red, green, blue = parse_color(entry.color)
    gray = not any(mask.format.colors for mask in found.masks) and red == green == blue
    return red if gray else None


def assign(held: Sequence[Value], named: Named, found: Survey) -> Assigned:
    """Give each named class its value: as written, else its position, else by the order of the values.

    Args:
        held: values in the masks that may be classes, in order.
        named: names of the classes.
        found: survey of the masks.

    Raises:
        UserError: names and values do not match.
    """
    if len(named.entries) < 2:
        raise UserError(_one_name(held, named, found))
    values = written_values(named, found)
    kept = [place for place, entry in enumerate(named.entries) if not entry.is_nothing]
    if any(values[place] is not None for place in kept):
        return _as_written(held, named, values, found)
    return _in_order(held, named, found)


def _as_written(
    held: Sequence[Value], named: Named, values: Sequence[Value | None], found: Survey
) -> Assigned:
    missing = [
        entry
        for entry, value in zip(named.entries, values, strict=True)
        if value is None and not entry.is_nothing
    ]
    known = set(values)
    kept = known - {None}
    unknown = [value for value in held if value not in known and not _is_void(value, found)]
    if missing and (unknown or len(kept) < 2 or not all(entry.color for entry in missing)):
        raise UserError(f"{named.source}: {missing[0].name} has no value, others have; give all or none")
    notes: tuple[str, ...] = ()
    if named.lines and not unknown:
        notes = (f"the numbers in {named.source} are taken for the values of the classes",)
    if missing:
        names = shown(f"{entry.name} ({entry.color})" for entry in missing)
        notes = (*notes, f"{named.source} names classes whose colors no mask has; they are left out: {names}")
    if unknown and named.lines:
        whole = replace(named, entries=tuple(map(ClassEntry, named.lines)), lines=())
        return _in_order(held, whole, found)
    if unknown:
        shades = _shades(held, named, found)
        if shades is None:
            count = sum(not entry.is_nothing for entry in named.entries)
            raise UserError(
                f"{named.source} names {count} classes, but the masks also hold {found.listed(unknown)}. "
                f"Give them a class: --classes {_pairs(named, values, unknown)}; or say that they mean "
                f'"not labeled": --void {joined(unknown)}'
            )
        values, notes = shades, (f"the masks hold the colors of {named.source} as shades of grey",)
    pairs = [(entry, value) for entry, value in zip(named.entries, values, strict=True) if value is not None]
    return _without_nothing(pairs, named, found, notes)


def _in_order(held: Sequence[Value], named: Named, found: Survey) -> Assigned:
    """Classes whose names have no values."""
    plain = [value for value in held if not _is_void(value, found)]
    for entries, notes in _readings(named, held, found):
        count = len(entries)
        if _white_is_class(held, count, found):
            more = (
                f"{IGNORE_INDEX} counts as the class {entries[-1].name}, as {count} names are given and the masks hold "
                f'{count} values; if it means "not labeled": --void {IGNORE_INDEX}'
            )
            return _without_nothing(list(zip(entries, held, strict=True)), named, found, (*notes, more))
        if not found.colored and all(isinstance(value, int) and value < count for value in plain):
            return _without_nothing(
                [(entry, place) for place, entry in enumerate(entries)], named, found, notes
            )
        for choice in (held, plain):
            if len(choice) == count:
                more = f"{named.source} gives no colors: its names are given to the colors in the order of this table"
                notes = (*notes, more) if found.colored and named.source != "--classes" else notes
                return _without_nothing(list(zip(entries, choice, strict=True)), named, found, notes)
    count, first = len(named.entries), held[0] if held else 0
    head = (
        f"{named.source} names {count} classes, but the masks hold {len(held)} values: {found.listed(held)}"
    )
    if background := _with_background(held, named, found):
        raise UserError(
            f"{head}. If the names are those of all but {first}, name that too: --classes {background} . If others "
            "lack a name, give all: --classes NAME=VALUE,..."
        )
    raise UserError(
        f"{head}. Name "
        f'all, or say which mean "not labeled": --void {joined(held[:1])}; or write pairs: '
        f"--classes '{named.entries[0].name}={first},...'"
    )


def _white_is_class(held: Sequence[Value], count: int, found: Survey) -> bool:
    """Whether 255 is the last of a few classes: each name has a value with it, and one has none without it."""
    if found.colored or count > FEW_NAMES or list(held) != [*range(count - 1), IGNORE_INDEX]:
        return False
    return found.rims[IGNORE_INDEX] < MOSTLY * found.pixels[IGNORE_INDEX]


def _one_name(held: Sequence[Value], named: Named, found: Survey) -> str:
    """Message for a single name, with a name for the other value where masks hold two."""
    head = (
        f"{named.source} names one class: expected at least two names of classes, for example soil,wheat,weed"
    )
    cure = _with_background(held, named, found)
    return f"{head}. The masks hold {found.listed(held)}" + (f": --classes {cure}" if cure else "")


def _with_background(held: Sequence[Value], named: Named, found: Survey) -> str | None:
    """The option ``--classes`` with a name for 0 before the others, where the names are one fewer than the values."""
    numbers = held if len(held) == len(named.entries) + 1 else [v for v in held if not _is_void(v, found)]
    if found.colored or not numbers or numbers[0] != 0 or len(numbers) != len(named.entries) + 1:
        return None
    if any(re.search("[,=]", name) for name in named.names):
        return None
    first = "background" if "background" not in map(str.lower, named.names) else "other"
    names = [first, *named.names]
    if list(numbers) != list(range(len(numbers))):
        names = [f"{name}={value}" for name, value in zip(names, numbers, strict=True)]
    return shlex.quote(",".join(names))


def _readings(
    named: Named, held: Sequence[Value], found: Survey
) -> list[tuple[Sequence[ClassEntry], tuple[str, ...]]]:
    """The entries without a leading or final word for "not labeled" that no value is left for, and all entries."""
    plain = [value for value in held if not _is_void(value, found)]
    whole: tuple[Sequence[ClassEntry], tuple[str, ...]] = (named.entries, ())
    spare = len(plain) < len(named.entries)
    if not found.colored:
        spare = all(isinstance(value, int) and value < len(named.entries) - 1 for value in plain)
    readings = [whole]
    for entry, others in ((named.entries[0], named.entries[1:]), (named.entries[-1], named.entries[:-1])):
        if entry.is_nothing and spare and len(others) > 1:
            note = (
                f"{named.source} names {len(named.entries)} classes, the masks hold {len(plain)} values: "
                f'"{entry.name}" is taken for "not labeled" and is no class. If it is one, write pairs: '
                f"--classes {entry.name}=VALUE,..."
            )
            readings.insert(0, (others, (note,)))
            break
    return readings


def _without_nothing(
    pairs: Sequence[tuple[ClassEntry, Value]], named: Named, found: Survey, notes: Sequence[str]
) -> Assigned:
    """Leave out entries that mean "not labeled": by a name that says so, or a usual word for few of the pixels."""
    void, kept, more = [], [], list(notes)
    for entry, value in pairs:
        share = found.share([value])
        if entry.is_no_class or (entry.is_nothing and share <= MOSTLY):
            void.append(value)
            if not entry.is_no_class:
                more.append(
                    f'{entry.name} ({value}, {share:.2%} of the pixels) means "not labeled", as its name says; if it '
                    "is a class: --classes NAME=VALUE,... with all of them"
                )
            continue
        kept.append((entry, value))
        if entry.is_nothing:
            more.append(
                f"{entry.name} ({value}) holds {share:.2%} of the pixels and is taken for a class; if it means "
                f'"not labeled": --void {joined([value])} and --classes NAME=VALUE,... with the others'
            )
    if len(kept) < 2:
        raise UserError(
            f'{named.source}: without those that mean "not labeled" ({", ".join(map(str, void))}) it names '
            f"{len(kept)} classes; expected at least two. If they are classes: --classes NAME=VALUE,..."
        )
    names, values = zip(*((entry.name, value) for entry, value in kept), strict=True)
    return Assigned(names, values, tuple(void), tuple(more))


def _shades(held: Sequence[Value], named: Named, found: Survey) -> list[int] | None:
    """Numbers of all entries where grey masks hold their colors as shades of grey, which some editors save."""
    colors = [
        parse_color(entry.color) for entry in named.entries if entry.color and entry.color != TRANSPARENT
    ]
    if len(colors) < len(named.entries) or any(mask.format.kind != "gray" for mask in found.masks):
        return None
    # Pillow's weights, which are those of ITU-R 601.
    shades = [(red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16 for red, green, blue in colors]
    return shades if set(held) <= set(shades) and len(set(shades)) == len(shades) else None


def _pairs(named: Named, values: Sequence[Value | None], unknown: Sequence[Value]) -> str:
    """The option ``--classes`` with all classes and values without a name, as far as it fits on a line."""
    pairs = [f"{entry.name}={value}" for entry, value in zip(named.entries, values, strict=True)]
    pairs = pairs if len(pairs) <= SHOWN_PAIRS else [*pairs[:1], "..."]
    return "'" + ",".join([*pairs, *(f"NAME={value}" for value in unknown[:SHOWN_PAIRS])]) + "'"


def _is_void(value: Value, found: Survey) -> bool:
    return value == IGNORE_INDEX and not found.colored


def joined(values: Sequence[Value]) -> str:
    """Values as the option ``--void`` reads them."""
    text = ",".join(map(str, values))
    return f"'{text}'" if "#" in text else text
