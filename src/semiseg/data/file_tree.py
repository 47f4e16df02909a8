"""All files below a folder, without those that a system or a program keeps there for itself."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePath

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
    found: list[Path] = []
    for base, folders, files in os.walk(folder, followlinks=True):
        inside = {os.path.realpath(base), *map(str, Path(os.path.realpath(base)).parents)}
        folders[:] = [
            name for name in folders if is_own(name) and os.path.realpath(Path(base, name)) not in inside
        ]
        found += [Path(base, name) for name in files if is_own(name)]
    return sorted(found, key=lambda path: path.parts)


def count_endings(files: Iterable[PurePath]) -> list[str]:
    """Count files by their endings, such as "3 heic" and "1 json", the most frequent first."""
    counts = Counter(path.suffix.lower().lstrip(".") or "without ending" for path in files)
    return [
        f"{count:,} {ending}"
        for ending, count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    ]
