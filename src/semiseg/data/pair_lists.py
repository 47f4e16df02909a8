"""Lists that name images and their masks, two paths a line."""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from semiseg.errors import UserError
from semiseg.name_keys import NameIndex
from semiseg.splits.lists import IMAGE_SUFFIXES, read_lines, shown

Row = tuple[str, str]
ENDING = "|".join(re.escape(suffix) for suffix in IMAGE_SUFFIXES)
TWO_PATHS = re.compile(rf"(\S.*?(?:{ENDING}))\s+(\S.*?(?:{ENDING}))(?:\s.*)?", re.IGNORECASE)

MASK_FIRST = re.compile(
    r"(?!.*\.).*(mask|label|annot|target|gt|seg).*[\t,;\s].*(image|img|photo|picture|rgb)", re.IGNORECASE
)
"""Line of titles in which the column of masks stands before that of images."""


def pair_rows(path: Path) -> list[Row]:
    """Return the two paths of each line of a list that names pictures in two columns.

    Columns stand between tabs, commas, semicolons or blanks, perhaps in quotes. The image comes first, unless the
    line of titles says that the mask does. Further columns and lines without two pictures are left out.

    Raises:
        UserError: the list is missing, or is text of an encoding that is not read.
    """
    lines = read_lines(path)
    rows = [row for row in map(_columns, lines) if row is not None]
    return [(image, mask) for mask, image in rows] if lines and MASK_FIRST.match(lines[0]) else rows


def _columns(line: str) -> Row | None:
    for separator in "\t,;":
        if separator in line:
            words = [word.strip() for word in next(csv.reader([line], delimiter=separator))]
            pictures = [word for word in words if word.lower().endswith(IMAGE_SUFFIXES)]
            if len(pictures) >= 2:
                return pictures[0], pictures[1]
    match = TWO_PATHS.fullmatch(line.replace('"', ""))
    return (match[1], match[2]) if match else None


class PathFinder:
    """Files of a folder, to be found by paths that lists name: as they are, or by the endings of these paths.

    Args:
        base: folder of the dataset.
        files: files below it.
    """

    def __init__(self, base: Path, files: Iterable[Path]) -> None:
        self._base = base
        self._names = NameIndex(path.relative_to(base).as_posix() for path in files)

    def find(self, text: str, beside: Path) -> Path | None:
        """Return the file that a list names, ``None`` where it is not there.

        Args:
            text: path in the list: absolute, or relative to the dataset or to the list; of another machine's path the
                longest ending that is a file of the dataset counts.
            beside: folder of the list.

        Raises:
            UserError: the name matches two files equally well.
        """
        path = PurePosixPath(text.replace("\\", "/"))
        if path.is_absolute() and Path(path).is_file():
            return Path(path)
        if beside != self._base and (beside / path).is_file():
            return beside / path
        for start in range(len(path.parts)):
            found = self._names.find("/".join(path.parts[start:]))
            if found is not None:
                return self._base / found
        return None


def read_pair_lists(base: Path, lists: Sequence[Path], files: Iterable[Path]) -> dict[Path, Path]:
    """Read lists of images and masks.

    Args:
        base: folder of the dataset.
        lists: files of the lists.
        files: pictures below the folder.

    Returns:
        The mask file of each image file.

    Raises:
        UserError: a list that names no pair, files that are not there, an image with two masks, or a mask of two.
    """
    finder = PathFinder(base, files)
    pairs: dict[Path, Path] = {}
    images: dict[Path, Path] = {}
    missing: list[str] = []
    for listed in lists:
        rows = pair_rows(listed)
        if not rows:
            raise UserError(f"{listed} names no pair; expected an image and its mask in each line")
        for row in rows:
            found = [finder.find(text, listed.parent) for text in row]
            missing += [text for text, path in zip(row, found, strict=True) if path is None]
            image, mask = found
            if image is None or mask is None:
                continue
            if pairs.setdefault(image, mask) != mask or images.setdefault(mask, image) != image:
                raise UserError(f"{listed} gives {row[0]} and {row[1]} different partners in two lines")
    if missing:
        raise UserError(f"{', '.join(map(str, lists))}: {len(missing)} files are not there: {shown(missing)}")
    return pairs
