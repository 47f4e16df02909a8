"""Names of classes that a person or a labeling tool has written down."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from semiseg.data.mask_labels import NOT_LABELED, TRANSPARENT, parse_color
from semiseg.errors import UserError
from semiseg.splits.lists import repeated, shown

NO_CLASS = frozenset({NOT_LABELED, "__ignore__"})
"""Names that never mean a class: semiseg's own, and that of labelme."""

NOTHING = frozenset(
    {
        *(
            "ignore",
            "ignored",
            "ignore label",
            "void",
            "unlabeled",
            "unlabelled",
            "unannotated",
            "not labeled",
        ),
        *("not labelled", "no label", "dont care", "don't care", "dontcare"),
    }
)
"""Words that often mean "not labeled", and in some datasets the background."""

MAX_NUMBER = 65535


@dataclass(frozen=True)
class ClassEntry:
    """One class as it is written down.

    Args:
        name: its name, unchanged.
        number: number in masks; ``None`` where none is written.
        color: color in masks as "#rrggbb", or "transparent"; ``None`` where none is written.
        sure: whether it is a class whatever its name says.
        others: numbers in further columns of a table, by their titles.
    """

    name: str
    number: int | None = None
    color: str | None = None
    sure: bool = False
    others: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_nothing(self) -> bool:
        """Whether the name is a word for "not labeled"."""
        plain = re.sub(r"[\s_-]+", " ", self.name.lower()).strip()
        return self.is_no_class or (plain in NOTHING and not self.sure)

    @property
    def is_no_class(self) -> bool:
        """Whether the name cannot be that of a class."""
        return self.name.lower() in NO_CLASS and not self.sure


@dataclass(frozen=True)
class Named:
    """Classes in the order in which they are written down.

    Args:
        entries: the classes.
        source: file or option that they come from.
        notes: how the file was understood, where that may be wrong.
        lines: whole lines, where numbers in them were taken for values, and may belong to the names.
    """

    entries: tuple[ClassEntry, ...]
    source: str
    notes: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all entries."""
        return tuple(entry.name for entry in self.entries)


def given_names(text: str) -> Named:
    """Read names from the command line: "soil,wheat" or "soil=#000000,wheat=#00ff80" or "soil=0,wheat=255".

    Raises:
        UserError: a name is empty or there twice, or a color is none.
    """
    entries = []
    for each in text.split(","):
        name, _, value = (part.strip() for part in each.partition("="))
        if value and not value.isdigit() and value.lower() != TRANSPARENT:
            parse_color(value)
        number = int(value) if value.isdigit() else None
        color = value.lower() if value and number is None else None
        entries.append(ClassEntry(name, number, color, sure=True))
    return named(entries, "--classes")


def named(
    entries: Sequence[ClassEntry], source: str, notes: Iterable[str] = (), lines: Sequence[str] = ()
) -> Named:
    """Return checked names.

    Raises:
        UserError: there is none, one is empty, or names or values occur twice; all faults are named.
    """
    notes = list(notes)
    if any(
        entry.name == NOT_LABELED for entry in entries
    ):  # written by semiseg, which names classes as they are
        entries = [replace(entry, sure=entry.name != NOT_LABELED) for entry in entries]
    if negative := [entry for entry in entries if (entry.number or 0) < 0]:
        entries = [entry for entry in entries if entry not in negative]
        left = shown(f"{entry.name} ({entry.number})" for entry in negative)
        notes.append(f"classes with a number below 0, which no mask holds, are left out: {left}")
    names = [entry.name for entry in entries]
    if "" in names or not names:
        raise UserError(f"{source}: expected at least two names of classes, for example soil,wheat,weed")
    classes = [entry for entry in entries if not entry.is_nothing]
    faults = []
    if twice := repeated(names):
        faults.append(f"class names occur twice: {shown(twice)}")
    for values in ([entry.number for entry in classes], [entry.color for entry in classes]):
        for value in repeated(str(each) for each in values if each is not None):
            same = [entry.name for entry in classes if value in (str(entry.number), entry.color)]
            faults.append(f"two classes have {value}: {shown(same)}")
    if wrong := [entry for entry in classes if (entry.number or 0) > MAX_NUMBER]:
        faults.append(f"{wrong[0].name} has the value {wrong[0].number}; expected 0 to {MAX_NUMBER}")
    if faults:
        raise UserError(f"{source}: {'; '.join(faults)}")
    return Named(tuple(entries), source, tuple(notes), tuple(lines))
