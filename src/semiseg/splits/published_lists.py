"""Where imported lists of published partitions lie, and reading them for training."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from semiseg.contracts.dataset import ids_sha256
from semiseg.errors import UserError
from semiseg.files import write_text
from semiseg.splits.lists import read_ids, read_lines
from semiseg.splits.manifest import manifest
from semiseg.splits.partitions import Key, Partition
from semiseg.splits.rules import Divided

WORKING = Path("data_splits")
LABELED = "labeled.txt"
UNLABELED = "unlabeled.txt"
BOTH = (LABELED, UNLABELED)


def cache_dir() -> Path:
    """Folder of imported lists that all working directories share."""
    from semiseg.data.store_files import (
        cache_folder,
    )  # imports OpenCV, which a look at ./data_splits need not

    return cache_folder(None) / "splits"


def folder_of(partition: Partition, root: Path) -> Path:
    """Folder of a partition's two lists: ``ROOT/voc/cac/1of8/0``."""
    return (
        root / partition.dataset / partition.family / partition.split.replace("/", "of") / partition.split_id
    )


def find_imported(partition: Partition, lists_root: str | Path | None = None) -> Path | None:
    """Return the folder of an imported partition, or None.

    Args:
        partition: the partition, no alias.
        lists_root: folder that lists were imported into; None looks in ./data_splits and in the cache.
    """
    folders = (folder_of(partition, root) for root in _roots(lists_root))
    return next((folder for folder in folders if all((folder / name).is_file() for name in BOTH)), None)


def _roots(lists_root: str | Path | None) -> Iterator[Path]:
    if lists_root is not None:
        yield Path(lists_root).expanduser()
    else:
        yield WORKING
        yield cache_dir()


def require_imported(partition: Partition, lists_root: str | Path | None = None) -> Path:
    """Return the folder of an imported partition.

    Raises:
        UserError: it is not imported; says how to import it, and which equal partition is there.
    """
    found = find_imported(partition, lists_root)
    if found is not None:
        return found
    known = manifest()
    origin = known.families[partition.family].origin
    equal = [
        each
        for each in known.names(partition)
        if known.families[known.canonical(each).family].rule
        or find_imported(known.canonical(each), lists_root)
    ]
    instead = (
        f"\nAt hand with the same images: split_family={equal[0].family} split={equal[0].split} "
        f"split_id={equal[0].split_id}."
        if equal
        else ""
    )
    branch = f" --branch {origin.branch}" if origin.branch else ""
    place = f" in {lists_root}" if lists_root is not None else f" in {WORKING}/ or {cache_dir()}"
    raise UserError(
        f"split_family={partition.family}: its lists for {partition.dataset} are not{place}. Import them once:\n"
        f"git clone{branch} {origin.repository}\n"
        f"semiseg splits import {partition.family} --from {origin.repository.rsplit('/', 1)[1]}{instead}"
    )


def read_imported(
    partition: Partition, known: Iterable[str], lists_root: str | Path | None = None
) -> Divided:
    """Read the labeled and the unlabeled ids of an imported partition.

    Args:
        partition: the partition, no alias.
        known: ids of the dataset.
        lists_root: see ``find_imported``.

    Raises:
        UserError: not imported, ids that the dataset does not have, or lists that are not as published.
    """
    folder = require_imported(partition, lists_root)
    pool = frozenset(known)
    lists = []
    for name, expected in zip(BOTH, (partition.labeled, partition.unlabeled), strict=True):
        found = read_lines(folder / name)
        if not expected.fits(found):
            raise UserError(
                f"{folder / name} ({len(found)} ids) is not the published list of {partition} for "
                f"{partition.dataset} ({expected.count} ids): its SHA-256 differs. Remove {folder} and import it "
                f"again, or use it as a list of your own: split_family=list split_lists={folder}."
            )
        lists.append(read_ids(folder / name, pool))
    return lists[0], lists[1]


def unlike_published(dataset: str, key: Key, labeled: Sequence[str]) -> str | None:
    """Say that labeled images are others than those of the published partition of this name.

    Rules give other images where the training images are others: an incomplete download, another train set.

    Args:
        dataset: its name.
        key: family, split and split_id.
        labeled: the labeled ids.

    Returns:
        None where they are as published, or nothing of this name is.
    """
    families = manifest().families
    family = families.get(key[0])
    named = next((each for each in family.of(dataset) if each.key == key), None) if family else None
    if named is None or named.labeled.sha256 in (None, ids_sha256(labeled)):
        return None
    return (
        f"NOT the published partition of this name ({named.labeled.count:,} labeled images): the training images of "
        "this dataset are others"
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
    """Write id lists, one id a line; a kill leaves each file whole or absent, the last one shows that all are there.

    Args:
        folder: made where it does not exist.
        lists: ids by file name.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, ids in lists.items():
            write_text(folder / name, "".join(f"{image_id}\n" for image_id in ids))
    except OSError as error:
        raise UserError(
            f"lists cannot be written to {folder}: {error.strerror or error}. Choose another folder, "
            "or make room."
        ) from error
