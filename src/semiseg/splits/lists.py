"""Id lists in text files: as people and the published repositories write them."""

import codecs
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path, PurePosixPath

from semiseg.errors import UserError
from semiseg.files import write_text, writes
from semiseg.name_keys import NameIndex

LABELED = "labeled.txt"
UNLABELED = "unlabeled.txt"

SHOWN_IDS = 10
MASK_SUFFIXES = (
    *(".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif", ".tga"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Endings of files that can hold a mask without loss."""

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".jpx", ".avif"),
    *MASK_SUFFIXES,
)
"""Endings of files that are read as images."""

LISTED_SUFFIXES = (*IMAGE_SUFFIXES, ".npy")
"""Endings that a name in a list may have: those of images, and of arrays of bands."""
ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and what they say; that of UTF-32 begins like that of UTF-16."""


def shown(ids: Iterable[str], limit: int = SHOWN_IDS) -> str:
    """Join ids for a message, the first ``limit`` of them and the number of the others."""
    listed = list(ids)
    rest = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {rest} more" if rest > 0 else "")


def repeated(ids: Iterable[str]) -> list[str]:
    """Ids that occur more than once, in the order of their first occurrence."""
    return [image_id for image_id, count in Counter(ids).items() if count > 1]


def spread(ids: Sequence[str], count: int) -> tuple[str, ...]:
    """Take ``count`` ids at even distances: those at ``floor(i * len(ids) / count)``, the first included."""
    return tuple(ids[index * len(ids) // count] for index in range(count))


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file without blank ones.

    UTF-8 and, with a byte order mark, UTF-16 and UTF-32 are read; line ends may be those of Windows.

    Raises:
        UserError: the file is missing, or is text of another encoding.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the id list {path}: {error.strerror or error}") from error
    encoding = next((name for mark, name in ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            _encoding_fault(path, f"byte {data[error.start]:#x} at position {error.start}")
        ) from error
    if "\0" in text:
        raise UserError(_encoding_fault(path, "bytes of 0, as in UTF-16 without a byte order mark"))
    return [line.strip() for line in text.splitlines() if line.strip()]


def _encoding_fault(path: Path, found: str) -> str:
    return (
        f"cannot read the id list {path}: it is no UTF-8 text ({found}). Save it as UTF-8: in an editor by "
        '"Save as" with the encoding UTF-8, in PowerShell by `Out-File -Encoding utf8`'
    )


def first_column(line: str) -> PurePosixPath:
    """Return the image's path or id of a line, which may name the mask too after a blank or a tab."""
    columns = line.split("\t") if "\t" in line else line.split()
    one_image = "\t" not in line and not columns[0].lower().endswith(LISTED_SUFFIXES)
    return PurePosixPath((line if one_image else columns[0]).strip().replace("\\", "/"))


def without_suffix(path: PurePosixPath) -> str:
    """Return a path without its extension, where that is one of an image; dots in names stay."""
    return str(path.with_suffix("") if path.suffix.lower() in LISTED_SUFFIXES else path)


def candidates(line: str) -> list[str]:
    """Ids that a line may mean: the line itself, then all endings of its path, the longest first."""
    path = first_column(line)
    endings = [PurePosixPath(*path.parts[start:]) for start in range(len(path.parts))]
    return [line, *(text for ending in endings for text in (str(ending), without_suffix(ending)))]


def read_ids(path: Path, known: Iterable[str]) -> tuple[str, ...]:
    """Read an id list and return the ids that its lines name, in the order of the file.

    A bare file name also stands for an id in a subfolder if only one id has this name. Names match as
    ``NameIndex`` says: those that differ in Unicode form or in case alone are one, if only one id is meant.

    Args:
        path: text file with one image a line, see ``candidates``.
        known: all ids that the dataset has.

    Raises:
        UserError: naming every unknown id with its line number and the nearest known one, every id that is there
            twice, or a line that may mean two.
    """
    pool = NameIndex(known)
    ids, unknown = [], []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            match = meant_id(line, pool)
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        if match is None:
            unknown.append((number, line))
        else:
            ids.append(match)
    if unknown:
        raise UserError(_unknown_ids(path, unknown, list(pool)))
    if twice := repeated(ids):
        raise UserError(f"{path} names {len(twice)} images twice: {shown(twice)}")
    return tuple(ids)


def meant_id(line: str, pool: NameIndex) -> str | None:
    """Return the id that a line names: one that equals it before one that only matches; ``None`` without any.

    Raises:
        UserError: the line may mean two.
    """
    meant = candidates(line)
    exact = next((each for each in meant if pool.has(each)), None)
    if exact is not None:
        return exact
    found = next((match for each in meant if (match := pool.find(each)) is not None), None)
    if found is None and len(first_column(line).parts) == 1:
        return pool.find_last(meant[-1])
    return found


def require_ids(path: Path, known: Iterable[str]) -> tuple[str, ...]:
    """Read an id list as ``read_ids`` does, and refuse one that names no image; raises ``UserError``."""
    ids = read_ids(path, known)
    if not ids:
        raise UserError(f"{path} names no image; expected one name a line. Write them, or remove the file")
    return ids


def read_stems(path: Path) -> tuple[str, ...]:
    """Read the bare file names without extension of the images that a list names; see ``first_column``.

    Raises:
        UserError: a name is there twice.
    """
    stems = [without_suffix(PurePosixPath(first_column(line).name)) for line in read_lines(path)]
    if twice := repeated(stems):
        raise UserError(f"{path} names {len(twice)} images twice: {shown(twice)}")
    return tuple(stems)


def require_disjoint(parts: Mapping[str, Iterable[str]], where: str) -> None:
    """Refuse ids that are in two parts, or twice in one.

    Raises:
        UserError: naming each pair of parts and the ids.
    """
    listed = {name: list(ids) for name, ids in parts.items()}
    faults = []
    for name, ids in listed.items():
        if twice := repeated(ids):
            faults.append(f"{len(twice)} ids twice in {name}: {shown(twice)}")
    for first, second in combinations(listed, 2):
        others = set(listed[second])
        if both := [image_id for image_id in listed[first] if image_id in others]:
            faults.append(f"{len(both)} ids both in {first} and in {second}: {shown(both)}")
    if faults:
        raise UserError(
            f"{where} leaks between its parts, which would falsify results:\n  " + "\n  ".join(faults)
        )


def refuse_other_lists(folder: Path, lists: Mapping[str, Sequence[str]]) -> bool:
    """Compare lists with the files of a folder; return whether all are there already.

    Raises:
        UserError: a file holds other ids; nothing should replace it unasked.
    """
    for name, ids in lists.items():
        if (folder / name).is_file() and read_lines(folder / name) != list(ids):
            raise UserError(
                f"{folder / name} holds other ids than the {len(ids)} that would be written; choose another folder, "
                "or remove it."
            )
    return all((folder / name).is_file() for name in lists)


def write_lists(folder: Path, lists: Mapping[str, Sequence[str]]) -> None:
    """Write id lists, one id a line.

    After a kill each file is whole or absent, and the last one is only there if all others are.

    Args:
        folder: made where it does not exist.
        lists: ids by file name.

    Raises:
        UserError: the folder cannot be written.
    """
    with writes(folder, "Choose another folder, or make room."):
        folder.mkdir(parents=True, exist_ok=True)
        for name, ids in lists.items():
            write_text(folder / name, "".join(f"{image_id}\n" for image_id in ids))


def _unknown_ids(path: Path, unknown: list[tuple[int, str]], pool: Sequence[str]) -> str:
    lines = []
    for position, (number, line) in enumerate(unknown[:SHOWN_IDS]):
        # The search takes about half a second in 10,000 ids.
        near = get_close_matches(candidates(line)[-1], pool, n=1) if position < 2 else []
        lines.append(f"  line {number}: {line}" + (f"   (nearest: {near[0]})" if near else ""))
    rest = len(unknown) - SHOWN_IDS
    more = f"\n  and {rest} more" if rest > 0 else ""
    return f"{path} names {len(unknown)} images that the dataset does not have:\n" + "\n".join(lines) + more
