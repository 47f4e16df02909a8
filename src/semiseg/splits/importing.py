"""``semiseg splits import``: published lists from a clone of their repository, verified and in one form."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from semiseg.errors import UserError
from semiseg.files import write_text
from semiseg.splits.lists import read_stems, shown
from semiseg.splits.manifest import manifest
from semiseg.splits.partitions import DATASETS, Family, IdList, Partition
from semiseg.splits.published_lists import LABELED, UNLABELED, folder_of, refuse_other_lists, write_lists
from semiseg.splits.rules import Divided, without

CITYSCAPES_END = "_leftImg8bit"
ORIGIN = "ORIGIN.txt"


@dataclass(frozen=True)
class _Read:
    """A partition as a clone has it, verified."""

    partition: Partition
    lists: Divided


def import_family(name: str, source: Path, target: Path, dataset: str | None = None) -> str:
    """Copy the lists of a family as plain ids; return what was done, as text.

    All lists are read and verified before the first is written. Families with a rule are compared only.

    Args:
        name: the family.
        source: a clone of the repository that publishes it, or a folder of it.
        target: root of the imported lists, see ``semiseg.splits.published_lists.folder_of``.
        dataset: only its lists.

    Raises:
        UserError: no lists there; lists that are missing or not as published, after the others have been
            imported; or other lists where these would be written.
    """
    family = manifest().families[name]
    wanted = [each for each in family.partitions if each.file and dataset in (None, each.dataset)]
    if not wanted:
        raise UserError(f"{_of(name, dataset)} needs no import: no lists of it are published but its rule.")
    root = _root_of(source, family, wanted)
    found, faults = _read_all(root, family, wanted)
    written, there, ruled = _write_all(target, found)
    lines = [
        *(f"known fault: {defect}" for defect in family.defects),
        *_unverified(found),
        f"{len(written)} partitions written to {target}" if written else "",
        f"{len(there)} partitions were in {target} already" if there else "",
        f"{len(ruled)} partitions are as their rule makes them: {_names(ruled)}; nothing to write"
        if ruled
        else "",
    ]
    text = "\n".join(line for line in lines if line)
    if faults:
        raise UserError(
            f"{text}\n{len(faults)} lists of {name} could not be imported:\n  "
            + "\n  ".join(faults)
            + f"\nThe lists are those of one state of the repository; in the clone: git checkout {family.origin.commit}"
        )
    return text


def _of(name: str, dataset: str | None) -> str:
    return f"{name} for {dataset}" if dataset else name


def _root_of(source: Path, family: Family, wanted: Sequence[Partition]) -> Path:
    """Return the folder below which most files of a family are: its root in the clone, or a part of it."""
    if not source.is_dir():
        raise UserError(f"--from={source}: no such folder. {_advice(family)}")
    parts = PurePosixPath(family.root).parts
    roots = [source.joinpath(*parts[start:]) for start in range(len(parts) + 1)]
    counts = [sum((root / str(each.file)).is_file() for each in wanted) for root in roots]
    if not any(counts):
        example = f"{family.root}/{wanted[0].file}"
        raise UserError(
            f"--from={source}: none of the lists of {family.name} is there, such as {example}. "
            f"{_advice(family)}"
        )
    return roots[counts.index(max(counts))]


def _advice(family: Family) -> str:
    origin = family.origin
    branch = f" --branch {origin.branch}" if origin.branch else ""
    return f"Give a clone of the repository that publishes them:\n  git clone{branch} {origin.repository}"


def _read_all(root: Path, family: Family, wanted: Sequence[Partition]) -> tuple[list[_Read], list[str]]:
    found, faults = [], []
    for each in wanted:
        try:
            found.append(_Read(each, _read(root, family, each)))
        except UserError as error:
            faults.append(str(error))
    return found, faults


def _read(root: Path, family: Family, partition: Partition) -> Divided:
    """Read the two lists of a partition; ids that are in both stay labeled."""
    labeled = _ids(root / str(partition.file), partition, partition.labeled)
    file = root / family.unlabeled_file(partition)
    if partition.unlabeled.count == 0 and not file.is_file():
        return labeled, ()
    unlabeled = _ids(file, partition, partition.published or partition.unlabeled)
    rest = without(unlabeled, labeled)
    if not partition.unlabeled.fits(rest):
        raise UserError(
            f"{file}: {len(rest)} ids are left without those that are labeled too, expected "
            f"{partition.unlabeled.count}"
        )
    return labeled, rest


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


def _write_all(
    target: Path, found: Sequence[_Read]
) -> tuple[list[Partition], list[Partition], list[Partition]]:
    """Write what is not there; return the partitions written, those there already, and those made by rules."""
    known = manifest()
    ruled = [each.partition for each in found if known.families[known.canonical(each.partition).family].rule]
    new: list[tuple[Partition, Path, dict[str, tuple[str, ...]]]] = []
    there: list[Partition] = []
    for each in found:
        if each.partition in ruled:
            continue
        labeled, unlabeled = each.lists
        # The labeled list comes last: where it is, the partition is complete.
        lists = {UNLABELED: unlabeled, LABELED: labeled}
        folder = folder_of(known.canonical(each.partition), target)
        if refuse_other_lists(folder, lists):
            there.append(each.partition)
        else:
            new.append((each.partition, folder, lists))
    for partition, folder, lists in new:
        write_lists(folder, lists)
        _note_origin(folder.parents[1], partition)
    return [partition for partition, _, _ in new], there, ruled


def _note_origin(folder: Path, partition: Partition) -> None:
    """Leave with the lists whose they are."""
    origin = manifest().families[partition.family].origin
    text = f"{origin.repository}\ncommit {origin.commit}\nlicense {origin.license}\n"
    if not (folder / ORIGIN).is_file():
        write_text(folder / ORIGIN, text)


def _unverified(found: Sequence[_Read]) -> list[str]:
    names = [each.partition for each in found if each.partition.labeled.sha256 is None]
    return [f"only the counts were verified, no hash is known: {_names(names)}"] if names else []


def _names(partitions: Sequence[Partition]) -> str:
    return "; ".join(
        f"{dataset} {shown([f'{each.split} {each.split_id}' for each in own])}"
        for dataset in DATASETS
        if (own := [each for each in partitions if each.dataset == dataset])
    )
