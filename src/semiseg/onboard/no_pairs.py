"""Message for a folder in which no image has a mask: what lies there, and what would match."""

import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from semiseg.data.file_tree import count_endings
from semiseg.data.folder_files import TREE, nearest_pair
from semiseg.labels.label_studio_pngs import NAME
from semiseg.name_keys import name_key
from semiseg.onboard.layout import KnownLayout, Layout
from semiseg.onboard.listed_pairs import list_faults
from semiseg.onboard.looks import looks_drawn, some_of
from semiseg.onboard.tool_files import tool_files, tool_lines
from semiseg.splits.lists import IMAGE_SUFFIXES, MASK_SUFFIXES

SHOWN_FOLDERS = 10


def no_pairs_text(
    base: Path,
    files: Sequence[Path],
    given: KnownLayout,
    unlike: Mapping[Path, Path] | None = None,
    plain: Layout | None = None,
) -> str:
    """Say what lies in a folder, and why no layout was taken.

    Args:
        base: folder of the dataset.
        files: all files below it.
        given: known settings of the layout.
        unlike: pairs by name whose masks do not look like any.
        plain: layout that pairs names, of which the images look like masks too.
    """
    pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    drawn = _drawn_folders(pictures)
    options = " of the folders and names given" if given != KnownLayout() else ""
    lines = [f"{len(pictures):,} images, but none has a mask{options}. Pictures by folder:"]
    lines += _folder_lines(base, pictures, drawn)
    if unlike:
        image, mask = next(iter(sorted(unlike.items())))
        lines.append(
            f"{_below(base, mask)} and {len(unlike) - 1:,} others have names of images, but do not look like masks, "
            "which have fewer colors than their image and its size. If they are: "
            f"--images {_below(base, image.parent)} --masks {_below(base, mask.parent)}"
        )
    elif plain and all(path.parent in drawn for path in pictures):
        lines.append(
            f"Those in {plain.masks} have the names of those in {plain.images}, which look like masks too, as "
            "drawings and black-and-white pictures do. If they are images: semiseg init "
            f"{shlex.quote(str(base))} {plain.words()}"
        )
    else:
        lines += _unmatched(base, pictures, drawn)
    lines += tool_lines(base, files)
    lines += list_faults(base, files)
    lines += _unread(base, files, pictures)
    lines.append(
        "Names decide what belongs together: a mask has the name of its image, in another folder or with an "
        f"ending such as _mask. Expected:\n{TREE}\nOr name the folders: --images DIR --masks DIR; or a list with an "
        "image and its mask in each line: --pairs FILE."
    )
    return "\n".join(lines)


def _drawn_folders(pictures: Sequence[Path]) -> set[Path]:
    """Folders most of whose pictures look like masks."""
    by_folder = _by_folder(pictures)
    some = sorted(by_folder, key=lambda folder: -len(by_folder[folder]))[:SHOWN_FOLDERS]
    return {folder for folder in some if looks_drawn(some_of(by_folder[folder]))}


def _by_folder(files: Sequence[Path]) -> dict[Path, list[Path]]:
    found: dict[Path, list[Path]] = defaultdict(list)
    for path in files:
        found[path.parent].append(path)
    return found


def _folder_lines(base: Path, pictures: Sequence[Path], drawn: set[Path]) -> list[str]:
    by_folder = _by_folder(pictures)
    largest = sorted(by_folder.items(), key=lambda each: -len(each[1]))[:SHOWN_FOLDERS]
    lines = [
        f"  {folder}: {', '.join(count_endings(held))}{', which look like masks' if folder in drawn else ''}"
        for folder, held in largest
    ]
    rest = len(by_folder) - len(largest)
    return [*lines, *([f"  and {rest:,} more folders"] if rest > 0 else [])]


def _unmatched(base: Path, pictures: Sequence[Path], drawn: set[Path]) -> list[str]:
    """The image and the mask whose names are nearest, where there are both."""
    masks = {path.stem: path for path in pictures if path.parent in drawn}
    images = {path.stem: path for path in pictures if path.parent not in drawn}
    if not masks:
        return []
    if not images:
        return [
            "All of them look like masks: the images are missing, or are as plain as masks; then name both folders."
        ]
    by_task = [path for path in masks.values() if NAME.fullmatch(path.stem)]
    if by_task:
        return [
            f"Label Studio named {len(by_task):,} masks by the numbers of its tasks, such as {_below(base, by_task[0])}"
            ": its JSON says which pictures these are. Export the project as JSON too; then `semiseg import "
            f"label-studio {by_task[0].parent} tasks.json --images {next(iter(images.values())).parent}` makes masks "
            f"with the names of the pictures: {next(iter(images))}.png for {next(iter(images.values())).name}"
        ]
    near = nearest_pair(images, masks)
    image, mask = near or (next(iter(images.values())), next(iter(masks.values())))
    nearest = "; these two are nearest" if near else ""
    return [
        f"{_below(base, image)} and {_below(base, mask)} do not match by name{nearest}. Export the masks with names "
        f"of images: {image.stem}.png for {image.name}"
    ]


def _unread(base: Path, files: Sequence[Path], pictures: Sequence[Path]) -> list[str]:
    """Files of endings that are not read and that are named as pictures are."""
    known = {name_key(path.stem) for path in pictures}
    of_tools = {path for group in tool_files(files).values() for path in group}
    groups: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in files:
        ending = path.suffix.lower()
        if ending not in IMAGE_SUFFIXES and path not in of_tools and _named_so(path.stem, known):
            groups[path.parent, ending].append(path)
    return [
        f"{_below(base, folder)} holds {len(group):,} {ending.lstrip('.')} named as the images, but {ending} is not "
        f"among {' '.join(MASK_SUFFIXES)}: convert them"
        for (folder, ending), group in sorted(groups.items(), key=lambda each: -len(each[1]))[:SHOWN_FOLDERS]
    ]


def _named_so(stem: str, known: set[str]) -> bool:
    """Whether a name is one of some, perhaps with an ending behind a separator."""
    key = name_key(stem)
    return key in known or any(
        key[:place] in known for place, letter in enumerate(key) if place and letter in "_-. "
    )


def _below(base: Path, path: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)
