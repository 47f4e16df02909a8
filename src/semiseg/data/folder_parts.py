"""Division of an own dataset into training, validation, test and unlabeled images."""

import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from semiseg.contracts.dataset import Part
from semiseg.data.folder_files import FolderFiles
from semiseg.data.image_groups import draw_share
from semiseg.errors import UserError
from semiseg.splits.lists import spread

Source = str | float
"""Source of validation or test images: a list, a subfolder of the images, or a share of the labeled images."""

logger = logging.getLogger(__name__)


def divide(
    base: Path,
    images: Path,
    found: FolderFiles,
    outside: Iterable[str],
    sources: Mapping[Part, Source],
    groups: Mapping[str, str],
) -> dict[Part, tuple[str, ...]]:
    """Return the ids of each part.

    Args:
        base: folder of the dataset.
        images: folder of the images, for messages.
        found: images and masks.
        outside: ids of further images without masks.
        sources: source of the part "val", and of "test" if there is one.
        groups: group of each id that has one; a share draws whole groups, and unlabeled images of a group that is
            measured on are left out.

    Raises:
        UserError: no labeled or no validation image, or a source that names none.
    """
    held = _held_out(base, found, sources, groups)
    if not held["val"]:
        listed = base / f"{sources['val']}.txt"
        raise UserError(
            f"{base} has no validation images: there is neither {listed} nor a folder "
            f"{images / str(sources['val'])}. Write their names into {base / 'val.txt'}, or hold out a "
            "share of the labeled images, for example dataset.val=0.2"
        )
    measured = {image_id for ids in held.values() for image_id in ids}
    drawn = {i for part in sources for i in held[part] if not _is_beside(base, sources[part])}
    train = _training_ids(base, found, measured, drawn)
    labeled = {*train, *measured}
    rest = [image_id for image_id in (*found.ids, *outside) if image_id not in labeled]
    return {"train": train, **held, "unlabeled": _apart(rest, measured, groups)}


def _apart(unlabeled: Collection[str], measured: Iterable[str], groups: Mapping[str, str]) -> tuple[str, ...]:
    """Unlabeled images without those of groups that are measured on, which a log message counts."""
    held = {groups[image_id] for image_id in measured if image_id in groups}
    kept = tuple(image_id for image_id in unlabeled if groups.get(image_id) not in held)
    if len(kept) < len(unlabeled):
        count = len(unlabeled) - len(kept)
        logger.warning("left out %d unlabeled images of groups that are in val or test", count)
    return kept


def _held_out(
    base: Path, found: FolderFiles, choices: Mapping[Part, Source], groups: Mapping[str, str]
) -> dict[Part, tuple[str, ...]]:
    """Ids of val and test: first those that lists and folders name, then shares of what is left, by whole groups."""
    held: dict[Part, tuple[str, ...]] = {
        part: _named_ids(base, found, choice) for part, choice in choices.items() if isinstance(choice, str)
    }
    for part, share in choices.items():
        if isinstance(share, str):
            continue
        if not 0 < share < 1:
            raise UserError(
                "expected a share between 0 and 1, a list file or a subfolder",
                key=f"dataset.{part}",
                value=share,
            )
        taken = {image_id for ids in held.values() for image_id in ids}
        labeled = [image_id for image_id in sorted(found.masks) if image_id not in taken]
        if groups:
            held[part] = draw_share(labeled, share, groups)
        else:
            held[part] = spread(labeled, max(1, round(len(labeled) * share)))
    return held


def _named_ids(base: Path, found: FolderFiles, choice: str) -> tuple[str, ...]:
    listed = base / (choice if choice.endswith(".txt") else f"{choice}.txt")
    if choice.endswith(".txt") or listed.is_file():
        return found.listed(listed)
    return tuple(image_id for image_id in found.ids if image_id.startswith(f"{choice.strip('/')}/"))


def _is_beside(base: Path, choice: str | float) -> bool:
    """Whether a list or a subfolder of the dataset says what is held out."""
    return isinstance(choice, str) and not Path(choice).is_absolute()


def _training_ids(base: Path, found: FolderFiles, held: set[str], drawn: set[str]) -> tuple[str, ...]:
    """Ids that may be labeled: those of train.txt, or all with a mask; what is held out leaves the latter.

    It leaves train.txt too where no list beside that says what is held out, but a share, or a list elsewhere.
    """
    listed = base / "train.txt"
    if listed.is_file():
        return tuple(image_id for image_id in found.listed(listed) if image_id not in drawn)
    train = tuple(image_id for image_id in sorted(found.masks) if image_id not in held)
    if not train:
        raise UserError(f"{base} has no labeled image left for training: all {len(held)} are in val or test")
    return train
