"""Account of the files of a folder that a dataset does not use."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from semiseg.data.file_tree import count_endings
from semiseg.data.folder_files import FolderFiles
from semiseg.splits.lists import IMAGE_SUFFIXES

SHOWN_FOLDERS = 8


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
    """Counts of pictures by folder; of many folders by those that they lie in."""
    depth = 99
    while len({_parent(base, path, depth) for path in pictures}) > SHOWN_FOLDERS and depth > 1:
        depth = min(depth, max(len(path.relative_to(base).parts) for path in pictures)) - 1
    groups: dict[str, list[Path]] = {}
    for path in pictures:
        groups.setdefault(_parent(base, path, depth), []).append(path)
    largest = Counter({folder: len(held) for folder, held in groups.items()}).most_common(SHOWN_FOLDERS)
    items = [f"{count} in {folder}" for folder, _ in largest for count in count_endings(groups[folder])]
    rest = sum(map(len, groups.values())) - sum(count for _, count in largest)
    return [*items, f"{rest:,} pictures in {len(groups) - len(largest):,} more folders"] if rest else items


def _parent(base: Path, path: Path, depth: int) -> str:
    return "/".join(path.relative_to(base).parts[:-1][:depth]) or "."
