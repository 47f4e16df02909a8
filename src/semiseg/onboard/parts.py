"""Choice of the validation and test images of a new dataset."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from semiseg.data.file_tree import files_below
from semiseg.data.folder_files import FolderFiles
from semiseg.errors import UserError
from semiseg.splits.lists import require_ids

VAL_SHARE = 0.2
VAL_NAMES = ("val", "valid", "validation")
TEST_NAMES = ("test", "testing")


@dataclass(frozen=True)
class ChosenParts:
    """Validation and test images as settings of the dataset ``folder``.

    Args:
        val: list, subfolder, or share of the labeled images.
        test: list or subfolder; ``None`` takes no test images.
        listed: file to write the images to that a share draws; ``None`` where ``val`` is no share.
        notes: decisions that may be wrong, and how to change them.
    """

    val: str | float
    test: str | None
    listed: Path | None
    notes: tuple[str, ...]


def find_parts(
    root: Path, files: FolderFiles, given: str | float | None, own: Path, force: bool
) -> ChosenParts:
    """Find lists and subfolders of validation and test images; without any a share is drawn once and kept.

    Args:
        root: folder of the dataset.
        files: its images and masks.
        given: list, subfolder or share as typed; ``None`` searches for one.
        own: file next to the dataset's config that lists drawn images; used again where it exists.
        force: whether this list is replaced by another share.

    Raises:
        UserError: a share is given and the list exists.
    """
    test = _part(root, files, TEST_NAMES)
    notes = []
    folder = _folder(files.images, TEST_NAMES)
    if test is None and folder:
        notes.append(f"the images of {folder} have no masks: they count as unlabeled")
    val = _part(root, files, VAL_NAMES) if given is None else given
    if val is None and own.is_file():
        notes.append(
            f"images to validate on: those of {own}, as before; --val {VAL_SHARE} --force draws others"
        )
        val = str(own.resolve())
    elif val is None:
        notes.append(
            f"neither a val.txt nor a folder val: {own} lists {VAL_SHARE:.0%} of the labeled images, evenly over their "
            "sorted names. Frames of one video are nearly equal: keep whole videos together by --groups"
        )
    elif isinstance(val, float) and own.is_file() and not force:
        raise UserError(f"{own} exists already: --force replaces it, without --val it is used")
    share = VAL_SHARE if val is None else val
    return ChosenParts(share, test, own if isinstance(share, float) else None, tuple(notes))


def _part(root: Path, files: FolderFiles, names: Sequence[str]) -> str | None:
    """The list or the subfolder that holds a part: beside the images, by their folders, or in a folder of lists."""
    listed = next((name for name in names if (root / f"{name}.txt").is_file()), None)
    return listed or _folder(files.masks, names) or _list_below(root, files, names)


def _folder(ids: Iterable[str], names: Sequence[str]) -> str | None:
    """The first part of ids that is called so, perhaps with a year as in val2017."""
    leads = sorted({image_id.split("/")[0] for image_id in ids if "/" in image_id})
    return next(
        (lead for name in names for lead in leads if re.fullmatch(f"{name}[0-9]*", lead.lower())), None
    )


def _list_below(root: Path, files: FolderFiles, names: Sequence[str]) -> str | None:
    """The only list of a subfolder, such as ImageSets/Segmentation/val.txt, whose lines are images with masks."""
    wanted = {f"{name}.txt" for name in names}
    found = []
    for path in files_below(root):
        if path.name.lower() in wanted:
            try:
                found += [path] if require_ids(path, files.masks) else []
            except UserError:
                continue
    return found[0].relative_to(root).as_posix() if len(found) == 1 else None
