"""Choice of classes among the numbers or colors in masks, and of their order."""

from collections.abc import Sequence
from dataclasses import dataclass

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.data.folder_info import is_placeholder, placeholder_name
from semiseg.data.mask_labels import TRANSPARENT, Value, parse_color
from semiseg.data.palette import bit_color
from semiseg.errors import UserError
from semiseg.onboard.doubts import doubts
from semiseg.onboard.edge_values import EdgeValues, edge_values
from semiseg.onboard.named_classes import Assigned, assign, named_values, written_values
from semiseg.onboard.names import Named
from semiseg.onboard.number_columns import by_held_numbers
from semiseg.onboard.survey import Survey
from semiseg.onboard.two_scales import require_one_scale

VOC_VOID = "#e0e0c0"
VOC_CLASSES = 64


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


def as_named(found: Survey, named: Named | None) -> Survey:
    """Return a survey by colors where palettes give other indices to the colors that are written down.

    Editors that save an own palette change the indices and keep the colors.
    """
    if named is None or found.colored or not found.palette:
        return found
    written = {
        entry.number: entry.color for entry in named.entries if entry.number is not None and entry.color
    }
    shown = found.palette
    if all(written.get(index) == color for index, color in shown.items()):
        return found
    if not set(shown.values()) <= set(written.values()):
        return found
    return found.in_colors(
        f"palettes give other indices to the colors in {named.source}, as editors do: masks are read by their colors"
    )


def decide(found: Survey, named: Named | None, void: Sequence[Value]) -> Classes:
    """Choose the classes of a dataset.

    Args:
        found: numbers or colors in the masks.
        named: names that somebody has written down; ``None`` makes placeholders.
        void: numbers or colors that mean "not labeled".

    Raises:
        UserError: the names do not match the masks, or do in several ways, there are fewer than two classes, or the
            files are no masks.
    """
    named = by_held_numbers(named, found) if named else None
    written = named_values(named, found) if named else []
    edges = edge_values(found, [*written, *void])
    notes = [*found.reading.notes, *(named.notes if named else ()), *([edges.note] if edges.note else [])]
    unlabeled = [*void, *edges.values]
    explicit = [value for value in written_values(named, found) if value is not None] if named else []
    require_one_scale(found, explicit, unlabeled)
    if (
        found.colored
        and VOC_VOID in found.pixels
        and not void
        and VOC_VOID not in written
        and len(found.pixels) > 2
    ):
        unlabeled.append(VOC_VOID)
        notes.append(f'{VOC_VOID} means "not labeled", as in PASCAL VOC')
    held = [value for value in _ordered(found) if value not in unlabeled]
    chosen = _placeholders(held, found, edges) if named is None else assign(held, named, found)
    if both := [value for value in void if value in chosen.values]:
        raise UserError(f"--void {both[0]}: {named.source if named else 'it'} makes it a class")
    if TRANSPARENT in chosen.values:
        notes.append(f'{TRANSPARENT} counts as a class; if it means "not labeled": --void {TRANSPARENT}')
    notes += chosen.notes
    notes += doubts(found, chosen.values, named is None)
    outside = dict.fromkeys((*unlabeled, *chosen.void))
    kept = [value for value in outside if value != IGNORE_INDEX and value not in chosen.values]
    made_up = any(map(is_placeholder, chosen.names))
    return Classes(chosen.names, chosen.values, tuple(kept), made_up, tuple(notes))


def _ordered(found: Survey) -> list[Value]:
    """Sort numbers by size, and colors in the order of PASCAL VOC where it has all of them, else by their code."""
    clear = [value for value in found.pixels if value == TRANSPARENT]
    rest = [value for value in found.pixels if value != TRANSPARENT]
    if not found.colored:
        return clear + sorted(rest, key=lambda value: int(value))
    voc = {bit_color(index): index for index in (*range(VOC_CLASSES), IGNORE_INDEX)}
    colors = {value: parse_color(str(value)) for value in rest}
    if all(color in voc for color in colors.values()):
        return clear + sorted(rest, key=lambda value: voc[colors[value]])
    return clear + sorted(rest, key=lambda value: colors[value])


def _placeholders(held: list[Value], found: Survey, edges: EdgeValues) -> Assigned:
    """Classes with made-up names."""
    values, notes = _without_names(held, edges)
    if len(values) < 2:
        raise UserError(_one_value(found, held, edges))
    names = tuple(placeholder_name(label) for label in range(len(values)))
    return Assigned(names, tuple(values), (), tuple(notes))


def _without_names(held: list[Value], edges: EdgeValues) -> tuple[list[Value], list[str]]:
    """Values of classes without names, and notes about doubts."""
    numbers = [value for value in held if isinstance(value, int)]
    plain = [value for value in numbers if value != IGNORE_INDEX]
    if len(numbers) < len(held):
        return held, []
    dense = len(plain) > 0 and plain[0] in (0, 1) and 2 * len(plain) > max(plain) + 1
    if not dense or plain in ([0], [1]):
        note = f'{IGNORE_INDEX} counts as a class; if it means "not labeled": --void {IGNORE_INDEX}'
        return held, [note] if IGNORE_INDEX in held else []
    if plain[0] == 1:
        note = (
            f'{IGNORE_INDEX} means "not labeled"; if it is a class: --classes NAME=1,...,NAME={IGNORE_INDEX}'
        )
        return list(plain), [note] if IGNORE_INDEX in held else []
    if any(value in range(max(plain)) for value in edges.values):
        return list(plain), []
    absent = [str(value) for value in range(max(plain)) if value not in plain]
    notes = [f"no mask holds {', '.join(absent)}: taken for a class that is absent"] if absent else []
    return list(range(max(plain) + 1)), notes


def _one_value(found: Survey, held: list[Value], edges: EdgeValues) -> str:
    return (
        f"the {len(found.masks)} masks hold {found.listed(held) or 'nothing'} and no other value that could be a "
        "class; expected at least two classes. Label more, or name a class that these masks do not show: "
        f"--classes background={held[0] if held else 0},object=VALUE"
        + (f". {edges.note}" if edges.note else "")
    )
