"""Tables of classes: columns between commas, semicolons or tabs, with titles or without."""

import csv
import re
from collections.abc import Mapping, Sequence

from semiseg.data.mask_labels import color_text
from semiseg.onboard.class_lines import CVAT, parse_triple
from semiseg.onboard.names import ClassEntry

NAMES = (
    "name",
    "names",
    "classname",
    "labelname",
    "class",
    "classes",
    "label",
    "labels",
    "category",
    "title",
)
NUMBERS = (
    *("value", "pixelvalue", "pixel", "maskvalue", "idx", "index", "id", "classid", "classindex", "labelid"),
    *("number", "no", "code", "class", "label", "gray", "grey", "trainid"),
)
COLORS = ("color", "colour", "rgb", "hex", "colorrgb", "rgbcolor", "colorhex", "hexcolor")
CHANNELS = (("r", "red"), ("g", "green"), ("b", "blue"))

Rows = list[list[str]]


class UnclearTableError(Exception):
    """A table of which nobody can tell which column holds what."""


def table_entries(lines: Sequence[str]) -> tuple[list[ClassEntry], tuple[str, ...]] | None:
    """Return the classes of a table, and how it was understood; ``None`` where the lines are no table.

    Known titles decide. Without them one column of text holds the names, one of numbers the values, and three of
    numbers, or one as "#rrggbb", the colors.

    Args:
        lines: lines that are not blank.

    Raises:
        UnclearTableError: the columns may mean several things.
    """
    rows = _rows(lines)
    if rows is None:
        return None
    titles = _titles(rows)
    columns = list(zip(*rows[1:] if titles else rows, strict=True))
    if titles:
        chosen, unread = _by_titles(titles, columns)
        if chosen:
            others = {
                title: titles.index(title)
                for title in unread
                if title in NUMBERS
                and all(re.fullmatch(r"-?\d+", cell) for cell in columns[titles.index(title)])
            }
            unread = [title for title in unread if title not in others]
            notes = (f"columns that were not read: {', '.join(unread)}",) if unread else ()
            return _entries(chosen, columns, others), notes
    return _entries(_by_content(columns, rows[0] if titles else None), columns), ()


def _rows(lines: Sequence[str]) -> Rows | None:
    """Cells of all lines, where one separator parts all lines into as many columns; comments are left out."""
    kept = [line for line in lines if not re.match(r"\s*(//|#\s)", line)]
    if len(kept) < 2 or all(CVAT.fullmatch(line.strip()) for line in kept):
        return None
    for separator in "\t;,":
        rows = [_cells(line, separator) for line in kept]
        if _known(rows[0]):
            rows = [_fitted(row, line, rows[0], separator) for row, line in zip(rows, kept, strict=True)]
        width = max(map(len, rows))
        if width < 2 or any(len(row) < 2 for row in rows):
            continue
        rows = [row + [""] * (width - len(row)) for row in rows]
        filled = [place for place in range(width) if any(row[place] for row in rows)]
        rows = [[row[place] for place in filled] for row in rows]
        if len(filled) > 1 and _even(rows):
            return rows
    return None


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]


def _fitted(row: list[str], line: str, titles: list[str], separator: str) -> list[str]:
    """A row with as many cells as titles, where a name without quotes holds separators."""
    more = len(row) - len(titles)
    if more <= 0 or '"' in line:
        return row
    if _plain(titles[-1]) in NAMES:
        return [cell.strip() for cell in line.split(separator, len(titles) - 1)]
    if _plain(titles[0]) in NAMES:
        return [cell.strip() for cell in line.rsplit(separator, len(titles) - 1)]
    return row


def _even(rows: Rows) -> bool:
    """Whether the lines are rows of a table, and not names of which some have commas."""
    if _known(rows[0]):
        return True
    return all(rows[0]) and any(
        all(map(_is_number, column)) for column in zip(*rows[1:], strict=True) if column
    )


def _titles(rows: Rows) -> list[str] | None:
    """Titles in plain letters, where the first row holds titles."""
    first, rest = rows[0], rows[1:]
    of_numbers = [place for place in range(len(first)) if all(_is_number(row[place]) for row in rest)]
    if any(map(_is_number, first)) or not (of_numbers or _known(first)):
        return None
    return [_plain(cell) for cell in first]


def _known(cells: Sequence[str]) -> bool:
    return any(_plain(cell) in NAMES for cell in cells)


def _plain(title: str) -> str:
    return re.sub(r"[^a-z0-9]", "", title.lower())


def _is_number(cell: str) -> bool:
    return bool(re.fullmatch(r"-?\d+", cell)) or parse_triple(cell) is not None


def _by_titles(titles: Sequence[str], columns: Sequence[tuple[str, ...]]) -> tuple[dict[str, int], list[str]]:
    """Place of names, numbers and colors by their titles, and titles that mean nothing; empty without names."""
    numeric = [all(_is_number(cell) for cell in column if cell) for column in columns]
    chosen: dict[str, int] = {}
    for key, known, numbers in (("name", NAMES, False), ("number", NUMBERS, True), ("color", COLORS, True)):
        places = [titles.index(title) for title in known if title in titles]
        places = [place for place in places if numeric[place] == numbers and place not in chosen.values()]
        if places:
            chosen[key] = places[0]
    for key, words in zip("rgb", CHANNELS, strict=True):
        places = [titles.index(title) for title in words if title in titles]
        if places:
            chosen[key] = places[0]
    if "name" not in chosen:
        return {}, []
    unread = [title for place, title in enumerate(titles) if place not in chosen.values()]
    if "" in unread:
        raise UnclearTableError(f"a line has more cells than the titles {', '.join(filter(None, titles))}")
    return chosen, unread


def _by_content(columns: Sequence[tuple[str, ...]], titles: Sequence[str] | None) -> dict[str, int]:
    """Place of names, numbers and colors by what the columns hold."""
    colors = [place for place, cells in enumerate(columns) if all(map(parse_triple, cells))]
    numbers = [
        place for place, cells in enumerate(columns) if all(map(_is_number, cells)) and place not in colors
    ]
    texts = [place for place in range(len(columns)) if place not in (*colors, *numbers)]
    if not texts and len(numbers) == 2 and colors:
        texts = [numbers.pop(0)]  # names that are numbers, as in the files of `semiseg label`
    kinds = f"{len(texts)} columns of text, {len(numbers)} of numbers and {len(colors)} of colors"
    about = f"it has {kinds}" + (f", and the titles {', '.join(titles)}" if titles else ", and no titles")
    if len(texts) != 1 or len(numbers) not in (0, 1, 3, 4) or len(colors) > 1:
        raise UnclearTableError(about)
    chosen = {"name": texts[0], **({"color": colors[0]} if colors else {})}
    if len(numbers) == 1:
        return {**chosen, "number": numbers[0]}
    if len(numbers) == 4:
        first = len(set(columns[numbers[0]])) == len(columns[0])
        chosen["number"] = numbers.pop(0 if first else -1)
    return {**chosen, **dict(zip("rgb", numbers, strict=False))}


def _entries(
    places: Mapping[str, int], columns: Sequence[tuple[str, ...]], others: Mapping[str, int] | None = None
) -> list[ClassEntry]:
    entries = []
    for row in zip(*columns, strict=True):
        cells = {key: row[place] for key, place in places.items()}
        color = parse_triple(cells.get("color", ""))
        if {"r", "g", "b"} <= cells.keys() and all(cells[key].isdigit() for key in "rgb"):
            red, green, blue = (int(cells[key]) for key in "rgb")
            color = color_text(red << 16 | green << 8 | blue)
        number = cells.get("number", "")
        entries.append(
            ClassEntry(
                cells["name"],
                int(number) if re.fullmatch(r"-?\d+", number) else None,
                color,
                others={title: int(row[place]) for title, place in (others or {}).items()},
            )
        )
    return entries
