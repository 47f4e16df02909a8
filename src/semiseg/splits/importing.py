"""``semiseg splits import``: published lists from a clone of their repository, verified and in one form."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath

from semiseg.errors import UserError
from semiseg.files import write_text, writes
from semiseg.splits.lists import LABELED, UNLABELED, read_stems, refuse_other_lists, shown, write_lists
from semiseg.splits.manifest import Family, IdList, Partition, manifest
from semiseg.splits.pickled_order import read_order
from semiseg.splits.published_lists import folder_of
from semiseg.splits.rules import without

CITYSCAPES_END = "_leftImg8bit"
ORIGIN = "ORIGIN.txt"
ListFiles = Mapping[str, Sequence[str]]
"""Ids by the name of their file."""


def import_family(name: str, source: Path, target: Path, dataset: str | None = None) -> str:
    """Copy the lists of a family as plain ids; return what was done, as text.

    All lists are read and verified before the first is written. Families with a rule are compared only.

    Args:
        name: name of the family.
        source: a clone of the repository that publishes it, or a folder of it.
        target: root of the imported lists, see ``semiseg.splits.published_lists.folder_of``.
        dataset: name of the only dataset whose lists are imported; ``None`` imports those of all.

    Raises:
        UserError: no lists there; lists that are missing or not as published, after the others have been
            imported; or other lists where these would be written.
    """
    family = manifest().families[name]
    wanted = [each for each in manifest().of(dataset, name) if each.file]
    if not wanted:
        what = f"{name} for {dataset}" if dataset else name
        raise UserError(f"{what} needs no import: no lists of it are published but its rule.")
    root = _root_of(source, family, wanted)
    found: dict[Partition, ListFiles] = {}
    faults = []
    for each in wanted:
        try:
            found[each] = _read(root, each)
        except UserError as error:
            faults.append(str(error))
    lines = [*(f"known fault: {defect}" for defect in family.defects), *_import(found, family, target)]
    if faults:
        lines += [
            f"{len(faults)} lists of {name} could not be imported:",
            *(f"  {fault}" for fault in faults),
            "The lists are those of one state of the repository; in the clone: git checkout " + family.commit,
        ]
        raise UserError("\n".join(lines))
    return "\n".join(lines)


def _root_of(source: Path, family: Family, wanted: Sequence[Partition]) -> Path:
    """Return the folder below which most files of a family are: its root in the clone, or a part of it."""
    advice = f"Give a clone of the repository that publishes them:\n  {family.clone}"
    if not source.is_dir():
        raise UserError(f"--from={source}: no such folder. {advice}")
    parts = PurePosixPath(family.root).parts
    roots = [source.joinpath(*parts[start:]) for start in range(len(parts) + 1)]
    counts = {root: sum((root / str(each.file)).is_file() for each in wanted) for root in roots}
    if not any(counts.values()):
        example = f"{family.root}/{wanted[0].file}"
        raise UserError(
            f"--from={source}: none of the lists of {family.name} is there, such as {example}. {advice}"
        )
    return max(roots, key=counts.__getitem__)


def _read(root: Path, partition: Partition) -> ListFiles:
    """Read the two lists of a partition; ids that are in both stay labeled. An order gives places of sorted ids."""
    if partition.order is not None:
        count = partition.labeled.count
        places = list(map(str, read_order(root / str(partition.file), count + partition.unlabeled.count)))
        return {UNLABELED: places[count:], LABELED: places[:count]}
    labeled = _ids(root / str(partition.file), partition, partition.labeled)
    file = root / str(partition.unlabeled_file)
    rest: tuple[str, ...] = ()
    if partition.unlabeled.count > 0 or file.is_file():
        rest = without(_ids(file, partition, partition.published or partition.unlabeled), labeled)
        if partition.blob is not None and (found := _git_blob(file)) != partition.blob:
            raise UserError(
                f"{file} is not the published file: git's id of it is {found}, expected {partition.blob}"
            )
    if not partition.unlabeled.fits(rest):
        raise UserError(
            f"{file}: {len(rest)} ids are left without those that are labeled too, "
            f"expected {partition.unlabeled.count}"
        )
    # The labeled list comes last: where it is, the partition is complete.
    return {UNLABELED: rest, LABELED: labeled}


def _ids(file: Path, partition: Partition, expected: IdList) -> tuple[str, ...]:
    stems = read_stems(file)
    if partition.dataset == "cityscapes":
        names = [stem.removesuffix(CITYSCAPES_END) for stem in stems]
        stems = tuple(f"{name.partition('_')[0]}/{name}" for name in names)
    if not expected.fits(stems):
        raise UserError(
            f"{file} is not the published list of {partition}: {len(stems)} ids, expected {expected.count}"
            + (" with another SHA-256" if len(stems) == expected.count else "")
        )
    return stems


def _git_blob(file: Path) -> str:
    """Id under which git keeps the content of a file."""
    data = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _import(found: dict[Partition, ListFiles], family: Family, target: Path) -> list[str]:
    """Write lists that are not there; say what was written, what was there, and what rules make."""
    ruled = [each for each in found if each.rule]
    folders = {each: folder_of(each, target) for each in found if not each.rule}
    there = [each for each, folder in folders.items() if refuse_other_lists(folder, found[each])]
    new = [each for each in folders if each not in there]
    for each in new:
        write_lists(folders[each], found[each])
        if not (origin := folders[each].parents[1] / ORIGIN).is_file():
            with writes(origin, "Choose another folder by --to, or make room."):
                write_text(origin, f"{family.repository}\ncommit {family.commit}\nlicense {family.license}\n")
    unverified = [each for each in found if each.labeled.sha256 is None and each.order is None]
    lines = (
        (unverified, f"only the counts were verified, no hash is known: {_names(unverified)}"),
        (new, f"{len(new)} partitions written to {target}"),
        (there, f"{len(there)} partitions were in {target} already"),
        (ruled, f"{len(ruled)} partitions are as their rule makes them: {_names(ruled)}; nothing to write"),
    )
    return [line for partitions, line in lines if partitions]


def _names(partitions: Iterable[Partition]) -> str:
    return "; ".join(
        f"{dataset} {shown([f'{each.split} {each.split_id}' for each in own])}"
        for dataset, own in groupby(partitions, lambda each: each.dataset)
    )
