"""Pictures given to a command as files, folders and patterns, and names for the files made of them."""

import glob
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from semiseg.data.file_tree import count_endings, files_below
from semiseg.data.image_files import image_files
from semiseg.errors import UserError, listed, nearest
from semiseg.splits.lists import IMAGE_SUFFIXES, without_suffix

LABELED = ("images", "masks", "confidence", "legend.png", "ranking.csv", "classes.txt")
WRITTEN = {
    "predict.json": ("labels", "overlay", "confidence", "legend.png"),
    "label.json": LABELED,
    ".unfinished": LABELED,
}
"""Names of what ``semiseg predict`` and ``label`` write, by the file or folder that marks their output."""


class _Named(NamedTuple):
    """Pictures that one argument names, and the folder that their names are kept from."""

    files: list[Path]
    folder: Path


def find_images(arguments: Sequence[str | Path], suffixes: Sequence[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Find the pictures that arguments name.

    An argument is a file of any extension, a folder, of which all ``image_files`` are taken, or a pattern such as
    "photos/**/*.jpg", which gives files with the extension of an image, and folders. A picture that is named
    several times is taken once. What ``semiseg predict`` or ``label`` wrote there is left out, so that a folder of
    results may lie among the pictures; it is taken where its own folder is named, such as "OUT/images".

    Args:
        arguments: arguments of the command line.
        suffixes: extensions of images.

    Returns:
        Absolute paths, in the order of the arguments, by names for what is made of them: paths with ``/`` and
        without extension, relative to the deepest folder that all arguments share. Pictures that differ in nothing
        but the extension, or in upper and lower case, keep the extension.

    Raises:
        UserError: arguments that name no picture; it lists all of them.
    """
    found: list[_Named] = []
    faults: list[str] = []
    for argument in arguments:
        try:
            found.append(_named(str(argument), suffixes))
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n  ".join([f"{len(faults)} of {len(arguments)} arguments name no image:", *faults]))
    files = list(dict.fromkeys(path for each in found for path in each.files))
    base = Path(os.path.commonpath([each.folder for each in found]))
    return _distinct(files, base)


def left_aside(arguments: Sequence[str | Path], suffixes: Sequence[str] = IMAGE_SUFFIXES) -> str | None:
    """Count the files of folders among the arguments that are no pictures, by ending; ``None`` without any.

    Hidden files, those of a system and what ``semiseg predict`` or ``label`` wrote are not counted.

    Args:
        arguments: arguments of the command line.
        suffixes: endings of files that are read.
    """
    folders = [path for argument in arguments if (path := _absolute(Path(argument).expanduser())).is_dir()]
    files = {path: folder for folder in folders for path in files_below(folder)}
    written = cache(_written)
    rest = [
        path
        for path, folder in files.items()
        if path.suffix.lower() not in suffixes and not _is_written(path, folder, written)
    ]
    return f"left aside: {', '.join(count_endings(rest))}" if rest else None


def _is_written(path: Path, folder: Path, written: Callable[[Path], set[str]]) -> bool:
    """Whether semiseg wrote a file below a folder."""
    return any(
        path.relative_to(place).parts[0] in written(place)
        for place in path.parents
        if place.is_relative_to(folder)
    )


def _named(argument: str, suffixes: Sequence[str]) -> _Named:
    path = _absolute(Path(argument).expanduser())
    if not argument:
        raise UserError("an empty name")
    if path.is_dir():
        return _Named(_own(argument, image_files(path, suffixes), path, suffixes), path)
    if path.exists():
        return _Named([path], path.parent)
    if not glob.has_magic(argument):
        raise UserError(_absent(argument, path))
    folder = next(each for each in path.parents if not glob.has_magic(str(each)))
    files: list[Path] = []
    for match in sorted(map(Path, glob.glob(str(path), recursive=True))):  # noqa: PTH207 - takes absolute patterns
        if match.is_dir():
            files += image_files(match, suffixes)
        elif match.suffix.lower() in suffixes:
            files.append(match)
    return _Named(_own(argument, files, folder, suffixes), folder)


def _own(argument: str, files: Sequence[Path], folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Leave out what semiseg wrote at or below the folder that the argument searches.

    Raises:
        UserError: nothing is left.
    """
    written = cache(_written)
    own = [path for path in files if not _is_written(path, folder, written)]
    if not files:
        held = ", ".join(count_endings(files_below(folder)))
        raise UserError(
            f"{argument}: no images there ({listed(suffixes)})" + (f"; it holds {held}" if held else "")
        )
    if not own:
        raise UserError(
            f"{argument}: all images there were written by `semiseg predict` or `semiseg label`. Name their own "
            "folder to take them anyway"
        )
    return own


def _written(folder: Path) -> set[str]:
    """Names of what semiseg wrote into a folder, and of the files that say so."""
    there = [record for record in WRITTEN if (folder / record).exists()]
    return {name for record in there for name in (record, *WRITTEN[record])}


def _absent(argument: str, path: Path) -> str:
    if not path.parent.is_dir():
        return f"{argument}: there is no folder {path.parent}"
    near = nearest(path.name, [each.name for each in path.parent.iterdir()])
    return f"{argument}: there is no such file or folder." + (f" Did you mean {near}?" if near else "")


def _absolute(path: Path) -> Path:
    """Absolute path without links resolved, so that names are those that a person sees."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links


def _distinct(files: Sequence[Path], base: Path) -> dict[str, Path]:
    """Name files below a folder without extension where that keeps them distinct, else with it."""
    full = {path: path.relative_to(base).as_posix() for path in files}
    names = {path: without_suffix(PurePosixPath(name)) for path, name in full.items()}
    while True:
        groups = defaultdict(list)
        for path, name in names.items():
            groups[name.casefold()].append(path)
        shared = [
            path for group in groups.values() if len(group) > 1 for path in group if names[path] != full[path]
        ]
        if not shared:
            return {name: path for path, name in names.items()}
        names |= {path: full[path] for path in shared}
