"""Choice of classes among the numbers or colors in masks, and of their order."""

from collections.abc import Sequence
from dataclasses import dataclass

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.data.folder import placeholder_name
from semiseg.data.mask_labels import Value, parse_color
from semiseg.data.palette import bit_color
from semiseg.errors import UserError
from semiseg.onboard.names import Named
from semiseg.onboard.survey import Survey

VOC_VOID = "#e0e0c0"
VOC_CLASSES = 64
RARE = 0.0002
MANY_THIN = 3


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset, as settings of ``folder``.

    Args:
        names: names of the classes.
        values: number or color of each class in the masks.
        void: numbers other than 255, or colors, that mean "not labeled".
        made_up: whether the names are placeholders.
        notes: decisions that may be wrong, and how to change them.
    """

    names: tuple[str, ...]
    values: tuple[Value, ...]
    void: tuple[Value, ...]
    made_up: bool = False
    notes: tuple[str, ...] = ()

    @property
    def by_position(self) -> bool:
        """Whether the value of each class is its position."""
        return self.values == tuple(range(len(self.values)))


def decide(found: Survey, named: Named | None, void: Sequence[Value]) -> Classes:
    """Choose the classes of a dataset.

    Args:
        found: numbers or colors in the masks.
        named: names that somebody has written down; ``None`` makes placeholders.
        void: numbers or colors that mean "not labeled".

    Raises:
        UserError: the names do not match the masks, or there are fewer than two classes.
    """
    notes = _rare(found)
    unlabeled = list(void)
    if found.colored and VOC_VOID in found.pixels and not void and len(found.pixels) > 2:
        unlabeled.append(VOC_VOID)
        notes.append(f'{VOC_VOID} means "not labeled", as in PASCAL VOC')
    held = [value for value in _ordered(found) if value not in unlabeled]
    if named is None:
        values, more = _without_names(held)
        notes += more + _smoothed(held, found)
        if len(values) < 2:
            raise UserError(_one_value(found, held))
        names = tuple(placeholder_name(label) for label in range(len(values)))
    else:
        names, values = named.names, _named_values(held, named, found)
    outside = [value for value in unlabeled if value != IGNORE_INDEX and value not in values]
    if both := [value for value in unlabeled if value in values]:
        raise UserError(f"--void {both[0]}: {named.source if named else 'it'} makes it a class")
    return Classes(names, tuple(values), tuple(outside), named is None, tuple(notes))


def _ordered(found: Survey) -> list[Value]:
    """Sort numbers by size, and colors in the order of PASCAL VOC where it has all of them, else by their code."""
    if not found.colored:
        return sorted(found.pixels, key=lambda value: int(value))
    voc = {bit_color(index): index for index in (*range(VOC_CLASSES), IGNORE_INDEX)}
    colors = {value: parse_color(str(value)) for value in found.pixels}
    if all(color in voc for color in colors.values()):
        return sorted(found.pixels, key=lambda value: voc[colors[value]])
    return sorted(found.pixels, key=lambda value: colors[value])


def _without_names(held: list[Value]) -> tuple[list[Value], list[str]]:
    """Values of classes without names, and notes about doubts."""
    numbers = [value for value in held if isinstance(value, int)]
    if len(numbers) < len(held):
        return held, []
    plain = [value for value in numbers if value != IGNORE_INDEX]
    dense = bool(plain) and plain[0] == 0 and 2 * len(plain) > max(plain) + 1
    if not dense or numbers == [0, IGNORE_INDEX]:
        note = f'{IGNORE_INDEX} counts as a class; if it means "not labeled": --void {IGNORE_INDEX}'
        return held, [note] if IGNORE_INDEX in held else []
    absent = [str(value) for value in range(max(plain)) if value not in plain]
    notes = [f"no mask holds {', '.join(absent)}: taken for a class that is absent"] if absent else []
    return list(range(max(plain) + 1)), notes


def _named_values(held: list[Value], named: Named, found: Survey) -> list[Value]:
    """Values of the named classes: as written, else their positions, else the values in the masks."""
    count = len(named.names)
    plain = [value for value in held if value != IGNORE_INDEX]
    written = [value for value in named.values if value is not None]
    if written:
        if len(written) < count:
            missing = [name for name, value in zip(named.names, named.values, strict=True) if value is None]
            raise UserError(f"{named.source}: {missing[0]} has no value, others have; give all or none")
        if unknown := [value for value in plain if value not in written]:
            raise UserError(
                f"{named.source} names {count} classes, but the masks also hold {_listed(unknown, found)}. "
                f'Give them a class, or say that they mean "not labeled": --void {_joined(unknown)}'
            )
        return written
    if not found.colored and all(int(value) < count for value in plain):
        return list(range(count))
    for choice in (held, plain):
        if len(choice) == count:
            return choice
    raise UserError(
        f"{named.source} names {count} classes, but the masks hold {len(held)} values: {_listed(held, found)}. Name "
        f'all, or say which mean "not labeled": --void {_joined(held[:1])}; or write pairs: '
        f"--classes '{named.names[0]}={held[0]},...'"
    )


def _rare(found: Survey) -> list[str]:
    total = sum(found.pixels.values())
    rare = [value for value, count in found.pixels.items() if count < RARE * total and value != IGNORE_INDEX]
    if not rare:
        return []
    return [f"few pixels hold {_listed(rare, found)}; if that is a mistake: --void {_joined(rare)}"]


def _smoothed(held: Sequence[Value], found: Survey) -> list[str]:
    thin = [value for value in held if value in found.thin]
    if len(thin) < MANY_THIN:
        return []
    return [
        f"{len(thin)} of {len(held)} values are seen in lines of one pixel alone, as smoothed edges make them: save "
        f'the masks without antialiasing, or say that these mean "not labeled": --void {_joined(thin)}'
    ]


def _listed(values: Sequence[Value], found: Survey) -> str:
    some = ", ".join(f"{value} ({found.pixels[value]:,} pixels)" for value in values[:12])
    return some + (f" and {len(values) - 12} more" if len(values) > 12 else "")


def _joined(values: Sequence[Value]) -> str:
    text = ",".join(map(str, values))
    return f"'{text}'" if "#" in text else text


def _one_value(found: Survey, held: list[Value]) -> str:
    return (
        f"the {found.masks} masks hold {_listed(held, found) or 'nothing'} and no other value that could be a class; "
        "expected at least two classes. Label more, or name a class that these masks do not show: "
        f"--classes background={held[0] if held else 0},object=VALUE"
    )
