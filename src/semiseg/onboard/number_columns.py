"""Choice among the columns of numbers in a table of classes, as those of Cityscapes are, by what masks hold."""

from collections.abc import Sequence
from dataclasses import replace

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.errors import UserError
from semiseg.onboard.names import ClassEntry, Named
from semiseg.onboard.survey import Survey
from semiseg.splits.lists import shown


def by_held_numbers(named: Named, found: Survey) -> Named:
    """Return classes with the numbers of the column that holds all values of the masks.

    Entries that this column gives a number below 0 or 255, which mean "not labeled", are left out.

    Args:
        named: classes; the numbers of further columns are in ``ClassEntry.others``.
        found: survey of the masks.

    Raises:
        UserError: several columns hold these values for other classes, and none has them alone.
    """
    titles = list(named.entries[0].others) if named.entries else []
    if found.colored or not titles:
        return named
    held = set(found.pixels) - {IGNORE_INDEX}
    columns: dict[str | None, Sequence[ClassEntry]] = {None: named.entries}
    columns |= {title: _of_column(named.entries, title) for title in titles}
    fitting = {title: entries for title, entries in columns.items() if _cover(entries, held)}
    exact = {title: entries for title, entries in fitting.items() if len(entries) == len(held)}
    chosen = exact if len(exact) == 1 else fitting
    meanings = {
        tuple(sorted((entry.number, entry.name) for entry in entries if entry.number in held))
        for entries in chosen.values()
    }
    if len(meanings) > 1:
        others = shown(title for title in chosen if title is not None)
        raise UserError(
            f"{named.source} has several columns of numbers, and the masks hold {found.listed(sorted(held, key=str))}, "
            f"which several of them give to different classes, {others} too. Leave one of the columns in the table, "
            "or write pairs: --classes NAME=VALUE,..."
        )
    if None in chosen or not chosen:
        return named
    title, entries = next(iter(chosen.items()))
    left = [entry.name for entry in named.entries if entry.name not in {each.name for each in entries}]
    note = f"the masks hold the numbers of the column {title} of {named.source}, which are taken"
    note += f"; classes without one are left out: {shown(left)}" if left else ""
    return replace(named, entries=tuple(entries), notes=(*named.notes, note))


def _of_column(entries: Sequence[ClassEntry], title: str) -> list[ClassEntry]:
    return [
        replace(entry, number=entry.others[title], others={})
        for entry in entries
        if 0 <= entry.others[title] != IGNORE_INDEX
    ]


def _cover(entries: Sequence[ClassEntry], held: set[int | str]) -> bool:
    numbers = [entry.number for entry in entries]
    return len(entries) > 1 and len(set(numbers)) == len(numbers) and held <= set(numbers)
