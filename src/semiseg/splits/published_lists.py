"""Imported lists of published partitions: their folders, and reading them for training."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from semiseg.contracts.dataset import ids_sha256
from semiseg.errors import UserError
from semiseg.splits.lists import LABELED, UNLABELED, read_ids, read_lines
from semiseg.splits.manifest import Partition, PartitionKey, manifest
from semiseg.splits.rules import Divided

WORKING = Path("data_splits")
BOTH = (LABELED, UNLABELED)


def cache_dir() -> Path:
    """Folder of imported lists that all working directories share."""
    # Imports OpenCV, which a look at the config need not.
    from semiseg.data.store_files import cache_folder

    return cache_folder(None) / "splits"


def folder_of(partition: Partition, root: Path) -> Path:
    """Folder of a partition's two lists: ``ROOT/voc/cac/1of8/0``."""
    family, split, split_id = partition.stored_as
    return root / partition.dataset / family / split.replace("/", "of") / split_id


def find_imported(partition: Partition, lists_root: str | Path | None = None) -> Path | None:
    """Return the folder of an imported partition, or ``None`` where it is not imported.

    Args:
        partition: the partition.
        lists_root: folder that lists were imported into; ``None`` looks in ./data_splits, then in the cache.
    """
    roots = (WORKING, cache_dir()) if lists_root is None else (Path(lists_root).expanduser(),)
    folders = [folder_of(partition, root) for root in roots]
    return next((each for each in folders if all((each / name).is_file() for name in BOTH)), None)


def require_imported(partition: Partition, lists_root: str | Path | None = None) -> Path:
    """Return the folder of an imported partition.

    Raises:
        UserError: it is not imported; says how to import it, and which equal partition is there.
    """
    found = find_imported(partition, lists_root)
    if found is not None:
        return found
    family = manifest().families[partition.stored_as[0]]
    place = f"{WORKING}/ or {cache_dir()}" if lists_root is None else lists_root
    lines = [
        f"its lists for {partition.dataset} are not in {place}. Import them once:",
        family.clone,
        f"semiseg splits import {family.name} --from {family.repository.rsplit('/', 1)[1]}",
    ]
    for each in manifest().same_images(partition):
        if each.rule or find_imported(each, lists_root):
            same = f"split_family={each.family} split={each.split} split_id={each.split_id}"
            lines.append(f"At hand with the same images: {same}.")
            break
    raise UserError("\n".join(lines), key="split_family", value=family.name)


def read_imported(
    partition: Partition, known: Iterable[str], lists_root: str | Path | None = None
) -> Divided:
    """Read the labeled and the unlabeled ids of an imported partition.

    Args:
        partition: the partition.
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
                f"{folder / name} ({len(found)} ids) is not the published list of {' '.join(partition.stored_as)} "
                f"for {partition.dataset} ({expected.count} ids): its SHA-256 differs. Remove {folder} and import "
                f"it again, or use it as a list of your own: split_family=list split_lists={folder}."
            )
        lists.append(read_ids(folder / name, pool))
    return lists[0], lists[1]


def read_imported_order(
    partition: Partition, pool: Sequence[str], lists_root: str | Path | None = None
) -> Divided:
    """Read a partition whose imported lists are places in the sorted training ids.

    Args:
        partition: the partition.
        pool: training ids of the dataset.
        lists_root: see ``find_imported``.

    Raises:
        UserError: not imported, or ids that are not as published: the lists or the training images are others.
    """
    folder = require_imported(partition, lists_root)
    places = [int(line) for name in BOTH for line in read_lines(folder / name) if line.isdigit()]
    ids = sorted(pool)
    order = tuple(ids[place] for place in places if place < len(ids))
    if len(order) != len(ids) or ids_sha256(order) != partition.order:
        total = partition.labeled.count + partition.unlabeled.count
        raise UserError(
            f"the order in {folder} is of the {total:,} published training images of {partition.dataset}; of the "
            f"{len(ids):,} of this dataset it does not give the published lists of {partition}"
        )
    return order[: partition.labeled.count], order[partition.labeled.count :]


def unlike_published(dataset: str, key: PartitionKey, labeled: Sequence[str]) -> str | None:
    """Say that labeled images are others than those of the published partition of this name.

    Rules give other images where the training images are others: an incomplete download, another train set.

    Args:
        dataset: name of the dataset.
        key: family, split and split_id.
        labeled: the labeled ids.

    Returns:
        ``None`` where they are as published, or nothing of this name is.
    """
    for each in manifest().of(dataset, key[0]):
        if each.key == key and each.labeled.sha256 not in (None, ids_sha256(labeled)):
            return (
                f"NOT the published partition of this name ({each.labeled.count:,} labeled images): the training "
                "images of this dataset are others"
            )
    return None
