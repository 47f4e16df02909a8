"""Names of classes that a person or a labeling tool has written down."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semiseg.data.mask_labels import Value, color_text, parse_color
from semiseg.errors import UserError
from semiseg.splits.lists import read_lines, repeated, shown

STEMS = (
    "classes",
    "class_names",
    "class_dict",
    "labels",
    "label_names",
    "labelmap",
    "label_map",
    "label_colors",
    "names",
    "colormap",
    "codes",
)
SUFFIXES = (".txt", ".csv")


@dataclass(frozen=True)
class Named:
    """Names in the order of the labels.

    Args:
        names: names of the classes.
        values: number or color of each class in the masks; ``None`` where none is written.
        source: file or option that they come from.
    """

    names: tuple[str, ...]
    values: tuple[Value | None, ...]
    source: str


def given_names(text: str) -> Named:
    """Read names from the command line: "soil,wheat" or "soil=#000000,wheat=#00ff80" or "soil=0,wheat=255".

    Raises:
        UserError: a name is empty or there twice, or a color is none.
    """
    pairs = [entry.partition("=") for entry in text.split(",")]
    return _named([(name.strip(), _value(value.strip())) for name, _, value in pairs], "--classes")


def find_names(base: Path) -> Named | None:
    """Read the names from a file such as classes.txt, class_dict.csv or labelmap.txt; return ``None`` without one.

    A line holds a name, and a color as "#rrggbb" or three numbers, or one number, in any order, between commas,
    colons or blanks.

    Raises:
        UserError: a name is there twice.
    """
    files = (base / f"{stem}{suffix}" for stem in STEMS for suffix in SUFFIXES)
    path = next((path for path in files if path.is_file()), None)
    if path is None:
        return None
    entries = [_entry(line) for line in read_lines(path) if not re.match(r"#(?![0-9a-fA-F]{6}\b)|//", line)]
    if len(entries) > 1 and entries[0][1] is None and all(value is not None for _, value in entries[1:]):
        del entries[0]  # the titles of a table
    named = [(name, value) for name, value in entries if name]
    return _named(named, str(path)) if named else None


def _named(entries: Sequence[tuple[str, Value | None]], source: str) -> Named:
    names = [name for name, _ in entries]
    if "" in names or len(names) < 2:
        raise UserError(f"{source}: expected at least two names of classes, for example soil,wheat,weed")
    if twice := repeated(names):
        raise UserError(f"{source}: class names occur twice: {shown(twice)}")
    values = [value for _, value in entries if value is not None]
    if twice := repeated(map(str, values)):
        raise UserError(f"{source}: two classes have {shown(twice)}")
    return Named(tuple(names), tuple(value for _, value in entries), source)


def _entry(line: str) -> tuple[str, Value | None]:
    words = [word for word in re.split(r"[,;:\t ]+", line) if word]
    numbers = [int(word) for word in words if word.isdigit() and int(word) <= 255]
    color = next((word.lower() for word in words if re.fullmatch("#[0-9a-fA-F]{6}", word)), None)
    if color is None and len(numbers) >= 3:
        color = color_text(numbers[-3] << 16 | numbers[-2] << 8 | numbers[-1])
    name = " ".join(word for word in words if not word.isdigit() and not word.startswith("#")).strip("\"'")
    return name, color or (numbers[0] if len(numbers) == 1 else None)


def _value(text: str) -> Value | None:
    if not text:
        return None
    if text.isdigit():
        return int(text)
    parse_color(text)
    return text.lower()
