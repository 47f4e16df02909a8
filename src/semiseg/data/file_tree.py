"""All files below a folder, without those that a system or a program keeps there for itself."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from semiseg.data.garbage import without_collection

OF_THE_SYSTEM = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
        *("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__"),
    }
)
"""Names of files and folders that no person made, in lower case."""


def is_own(name: str) -> bool:
    """Whether a file or folder of this name may be a person's: it is not hidden and none of a system."""
    return not name.startswith(".") and name.lower() not in OF_THE_SYSTEM


def files_below(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted; hidden ones and those of a system are left out.

    Linked folders are followed, except into one that they lie in. Empty where there is no such folder.
    """
    return [path for _, path in named_below(folder)]


@without_collection()
def named_below(folder: Path) -> list[tuple[str, Path]]:
    """Return ``files_below`` with their names relative to the folder, with ``/`` between folders."""
    return list(_named(folder, "", frozenset()))


def _named(folder: Path, prefix: str, above: frozenset[str]) -> Iterator[tuple[str, Path]]:
    """Yield names and files in the order of the parts of their paths."""
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry.name, entry.is_dir()) for entry in found if is_own(entry.name))
        # Faster than making each path out of a text.
        paths = {path.name: path for path in folder.iterdir()}
    except OSError:
        return
    real = os.path.realpath(folder)
    if not above:
        above = frozenset(map(str, Path(real).parents))
    inside = above | {real}
    for name, is_folder in entries:
        if not is_folder:
            yield f"{prefix}{name}", paths[name]
        elif os.path.realpath(paths[name]) not in inside:
            yield from _named(paths[name], f"{prefix}{name}/", inside)


def count_endings(files: Iterable[PurePath]) -> list[str]:
    """Count files by their endings, such as "3 heic" and "1 json", the most frequent first."""
    counts = Counter(path.suffix.lower().lstrip(".") or "without ending" for path in files)
    return [
        f"{count:,} {ending}"
        for ending, count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    ]
