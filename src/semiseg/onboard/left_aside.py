"""Account of the files of a folder that a dataset does not use."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from semiseg.data.file_tree import count_endings
from semiseg.data.folder_files import FolderFiles
from semiseg.splits.lists import IMAGE_SUFFIXES

SHOWN_FOLDERS = 6


def left_aside(base: Path, files: Iterable[Path], found: FolderFiles, read: Iterable[Path]) -> str | None:
    """Count the files that are not used, by ending, and pictures by folder too; ``None`` where all are used.

    Args:
        base: folder of the dataset.
        files: all its files.
        found: images and masks that are used.
        read: lists and other files that are used.
    """
    used = {path.resolve() for path in (*found.images.values(), *found.masks.values(), *read)}
    rest = [path for path in files if path.resolve() not in used]
    pictures = [path for path in rest if path.suffix.lower() in IMAGE_SUFFIXES]
    items = count_endings(path for path in rest if path.suffix.lower() not in IMAGE_SUFFIXES)
    items += _by_folder(base, pictures)
    return f"left aside: {', '.join(items)}" if items else None


def _by_folder(base: Path, pictures: Sequence[Path]) -> list[str]:
    """Counts of pictures by folder, or of all of them where the folders are many."""
    groups: dict[str, list[Path]] = {}
    for path in pictures:
        groups.setdefault(path.parent.relative_to(base).as_posix(), []).append(path)
    if len(groups) > SHOWN_FOLDERS:
        return [f"{count} in {len(groups)} folders" for count in count_endings(pictures)]
    return [f"{count} in {folder}" for folder, held in groups.items() for count in count_endings(held)]
