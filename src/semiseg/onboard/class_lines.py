"""Lists of classes with a name a line, with or without numbers and colors beside it."""

import re
from collections.abc import Sequence

from semiseg.data.mask_labels import TRANSPARENT, color_text
from semiseg.onboard.names import ClassEntry

_RGB = r"\d+,\s*\d+,\s*\d+"
CVAT = re.compile(
    rf"(?P<name>[^:]+(?=:{_RGB}\Z)|.+?(?=:{_RGB}:)|.+?(?=::[^:]*:[^:]*\Z))"
    rf":(?P<color>(?:{_RGB})?)(?::[^:]*){{0,2}}"
)
"""Line of CVAT's labelmap.txt: name, color, parts and actions; the last two may lack, and the color only with both."""

_GAP = r"(?:\s*[,;:=\t]\s*|\s+)"
_COLOR = rf"(?P<color>#[0-9a-fA-F]{{6}}|\d{{1,3}}{_GAP}\d{{1,3}}{_GAP}\d{{1,3}})"
_NUMBER = r"(?P<number>\d{1,5})"
_NAME = r"(?P<name>\S.*?)"
FORMS = tuple(
    re.compile(form)
    for form in (
        rf"{_NUMBER}{_GAP}{_COLOR}{_GAP}{_NAME}",
        rf"{_COLOR}{_GAP}{_NAME}",
        rf"{_NUMBER}{_GAP}{_NAME}{_GAP}{_COLOR}",
        rf"{_NAME}{_GAP}{_NUMBER}{_GAP}{_COLOR}",
        rf"{_NAME}{_GAP}{_COLOR}",
        rf"{_NUMBER}(?:[.)]\s*|{_GAP}){_NAME}",
        rf"{_NAME}{_GAP}{_NUMBER}",
    )
)
"""Forms of a line with numbers or colors; a form counts where all lines have it."""


def line_entries(lines: Sequence[str]) -> tuple[list[ClassEntry], tuple[str, ...]]:
    """Return the classes of a list.

    Numbers and colors are parted from the names only where all lines begin or all lines end with them, and where
    that leaves different names; everything else belongs to the name.

    Args:
        lines: lines that are not blank.

    Returns:
        The classes, and the whole lines where numbers were parted from the names, which may be wrong.
    """
    kept = [line.strip() for line in _without_comments(lines)]
    if kept and all(CVAT.fullmatch(line) for line in kept):
        return [_entry(CVAT.fullmatch(line)) for line in kept], ()
    if len(kept) == 1:
        kept = [word.strip() for word in re.split(r"[,;\t]", kept[0]) if word.strip()]
    for form in FORMS:
        entries = [_entry(form.fullmatch(line)) for line in kept]
        if _plausible(entries):
            return entries, tuple(kept) if entries[0].color is None else ()
    return [ClassEntry(_unquoted(line)) for line in kept], ()


def _without_comments(lines: Sequence[str]) -> list[str]:
    """Lines without those that begin with "//" or "# ", and without a title such as "#label:color"."""
    titled = bool(lines) and re.match(r"#[A-Za-z_ ]+[:,;\t]", lines[0].strip()) is not None
    return [line for line in lines[titled:] if not re.match(r"//|#\s", line.strip())]


def _entry(found: re.Match[str] | None) -> ClassEntry:
    if found is None:
        return ClassEntry("")
    parts = found.groupdict()
    number, color = parts.get("number"), parts.get("color")
    return ClassEntry(_unquoted(parts["name"]), int(number) if number else None, parse_triple(color or ""))


def parse_triple(text: str) -> str | None:
    """Return the color of "#rrggbb" or three numbers as "#rrggbb", or "transparent"; ``None`` where it is neither."""
    if text.strip().lower() == TRANSPARENT:
        return TRANSPARENT
    if re.fullmatch("#[0-9a-fA-F]{6}", text.strip()):
        return text.strip().lower()
    numbers = [int(word) for word in re.findall(r"\d+", text)]
    if len(numbers) != 3 or max(numbers) > 255 or re.search(r"[^\d\s,;:=()\[\]rgbRGB]", text):
        return None
    return color_text(numbers[0] << 16 | numbers[1] << 8 | numbers[2])


def _plausible(entries: Sequence[ClassEntry]) -> bool:
    """Whether all lines have the form, and neither names nor values are equal."""
    names = [entry.name for entry in entries]
    numbers = [entry.number for entry in entries]
    colors = [entry.color for entry in entries]
    columns = [column for column in (numbers, colors) if any(value is not None for value in column)]
    return bool(columns) and all(
        None not in column and "" not in column and len(set(column)) == len(column)
        for column in (names, *columns)
    )


def _unquoted(name: str) -> str:
    name = name.strip()
    return name[1:-1].strip() if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'" else name
