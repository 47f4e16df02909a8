"""Where imported lists of published partitions lie, and reading them for training."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from semiseg.data.lists import read_ids, read_lines
from semiseg.data.manifest import manifest
from semiseg.data.partitions import Partition
from semiseg.data.rules import Divided
from semiseg.errors import UserError
from semiseg.files import write_text

WORKING = Path("data_splits")
LABELED = "labeled.txt"
UNLABELED = "unlabeled.txt"


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
    return next((folder for folder in folders if (folder / LABELED).is_file()), None)


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
    for name, expected in ((LABELED, partition.labeled), (UNLABELED, partition.unlabeled)):
        ids = read_ids(folder / name, pool)
        if not expected.fits(ids):
            raise UserError(
                f"{folder / name} ({len(ids)} ids) is not the published list of {partition} for {partition.dataset} "
                f"({expected.count} ids): its SHA-256 differs. Remove {folder} and import it again, or use it as a "
                f"list of your own: split_family=list split_lists={folder}."
            )
        lists.append(ids)
    return lists[0], lists[1]


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
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, ids in lists.items():
        write_text(folder / name, "".join(f"{image_id}\n" for image_id in ids))
