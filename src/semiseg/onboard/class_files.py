"""Search for the file of a folder that names the classes, and reading it by its kind."""

import codecs
from collections.abc import Iterator
from pathlib import Path

from semiseg.data.folder_info import MAX_CLASSES
from semiseg.errors import UserError
from semiseg.onboard.class_documents import document_entries
from semiseg.onboard.class_lines import line_entries
from semiseg.onboard.class_tables import NAMES as TITLES
from semiseg.onboard.class_tables import UnclearTableError, table_entries
from semiseg.onboard.names import ClassEntry, Named, named
from semiseg.splits.lists import IMAGE_SUFFIXES, shown

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
    "_classes",
    "objectinfo150",
    "categories",
    "obj",
)
DOCUMENTS = (".json", ".yaml", ".yml")
SUFFIXES = (".txt", ".csv", ".tsv", ".names", *DOCUMENTS)
TABLES = (".csv", ".tsv")
OF_TOOLS = ("data.yaml", "data.yml", "dataset.json", "meta.json")
"""Files of YOLO, nnU-Net and Supervisely, which hold names of classes among other things."""

ENCODINGS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
MAX_BYTES = 4 * 2**20


def find_names(base: Path) -> Named | None:
    """Read the names of the classes from a file such as classes.txt, class_dict.csv, labelmap.txt or data.yaml.

    The folder is searched, then its subfolders. Lists with a name a line, with numbers or colors beside it, tables
    with titles, CVAT's labelmap.txt, labelme's labels.txt, YAML and JSON are understood; nothing is cut off a name.

    Args:
        base: folder of the dataset.

    Returns:
        The names; ``None`` without such a file.

    Raises:
        UserError: the file is no text, is not understood, or names a class twice.
    """
    found = list(_files(base))
    for place, path in enumerate(found):
        content = read_names(path)
        if content is None:
            continue
        others = [each.relative_to(base).as_posix() for each in found[place + 1 :]]
        if path.parent == base and not others:
            return content
        note = f"names of classes: those of {path}" + (f"; not read: {shown(others, 4)}" if others else "")
        return Named(content.entries, content.source, (*content.notes, note))
    return None


def read_names(path: Path) -> Named | None:
    """Read one file of names; ``None`` where it is of another kind, as a list of images is.

    Raises:
        UserError: see ``find_names``.
    """
    text = _text(path)
    notes: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    if path.suffix.lower() in DOCUMENTS:
        entries = document_entries(text, path)
    else:
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        if any(line.strip().lower().endswith(IMAGE_SUFFIXES) for line in lines):
            return None
        entries, notes, whole = _entries(lines, path)
    if len(entries) > MAX_CLASSES or (not entries and path.name.lower() in OF_TOOLS):
        return None
    return named(entries, str(path), notes, whole)


def _entries(lines: list[str], path: Path) -> tuple[list[ClassEntry], tuple[str, ...], tuple[str, ...]]:
    """Entries, notes and whole lines of a text file: a table where its lines have the same columns, else a list."""
    try:
        table = table_entries(lines)
    except UnclearTableError as error:
        raise UserError(
            f"{path}: this table is not understood: {error}. Expected a title Name, Class or Label above the names, "
            "and Idx, Value or Pixel Value above numbers, or r,g,b or Color above colors; or give them by --classes"
        ) from error
    if table:
        return *table, ()
    entries, whole = line_entries(lines)
    if path.suffix.lower() in TABLES and entries and entries[0].name.lower().strip() in TITLES:
        return entries[1:], (f"the first line of {path}, {entries[0].name}, is taken for a title",), ()
    return entries, (), whole


def _files(base: Path) -> Iterator[Path]:
    """Candidates, those of the folder first, in the order of ``STEMS``."""
    for folder in (base, *sorted(each for each in base.iterdir() if each.is_dir() and each.name[0] != ".")):
        present = {path.name.lower(): path for path in sorted(folder.iterdir())}
        names = [*(f"{stem}{suffix}" for stem in STEMS for suffix in SUFFIXES), *OF_TOOLS]
        yield from (
            present[name]
            for name in names
            if name in present and present[name].is_file() and present[name].stat().st_size <= MAX_BYTES
        )


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        encoding = next((name for mark, name in ENCODINGS if data.startswith(mark)), "utf-8")
        return data.decode(encoding)
    except OSError as error:
        raise UserError(f"cannot read the names of classes in {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: no UTF-8 or UTF-16 text (byte {error.start}); save it as UTF-8, or give the names by --classes"
        ) from error
