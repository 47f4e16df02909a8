"""Lists of images and their masks in a folder, as layouts."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from semiseg.data.pair_lists import pair_rows, read_pair_lists
from semiseg.errors import UserError
from semiseg.onboard.candidates import Candidate
from semiseg.onboard.layout import Layout
from semiseg.splits.lists import IMAGE_SUFFIXES

LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".lst")
LARGEST_LIST = 1 << 26
MAX_LISTS = 20


def listed_candidates(base: Path, files: Sequence[Path], given: tuple[str, ...] | None) -> list[Candidate]:
    """Return the layouts that lists in a folder write down: that of all lists together, if they agree.

    Args:
        base: folder of the dataset.
        files: all files below it.
        given: lists that a person names; ``None`` looks for lists, and passes over those that cannot be read.

    Raises:
        UserError: a given list names no pair, or files that are not there.
    """
    pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if given is not None:
        return [_candidate(base, [base / Path(each).expanduser() for each in given], pictures)]
    lists = list(_pair_lists(files))
    try:
        return [_candidate(base, lists, pictures)] if lists else []
    except UserError:
        return [each for path in lists for each in _readable(base, path, pictures)]


def list_faults(base: Path, files: Sequence[Path]) -> list[str]:
    """Return what is wrong with the lists of pairs in a folder, one sentence a list."""
    pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    faults = []
    for path in _pair_lists(files):
        try:
            _candidate(base, [path], pictures)
        except UserError as error:
            faults.append(str(error))
    return faults


def _readable(base: Path, listed: Path, pictures: Sequence[Path]) -> Iterator[Candidate]:
    try:
        yield _candidate(base, [listed], pictures)
    except UserError:
        return


def _pair_lists(files: Sequence[Path]) -> Iterator[Path]:
    lists = [path for path in files if path.suffix.lower() in LIST_SUFFIXES]
    for path in lists if len(lists) <= MAX_LISTS else ():
        try:
            if path.stat().st_size <= LARGEST_LIST and pair_rows(path):
                yield path
        except (UserError, OSError):
            continue


def _candidate(base: Path, lists: Sequence[Path], pictures: Sequence[Path]) -> Candidate:
    pairs = read_pair_lists(base, lists, pictures)
    folder = Path(os.path.commonpath([path.parent for path in pairs]))
    images = folder.relative_to(base).as_posix() if folder.is_relative_to(base) else str(folder)
    names = tuple(
        path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path) for path in lists
    )
    taken = set(pairs.values())
    own = [path for path in pictures if path.is_relative_to(folder) and path not in taken]
    return Candidate(Layout(images, ".", pairs=names), pairs, own)
