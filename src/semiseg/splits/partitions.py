"""Published partitions: what there is, where it comes from, how it is known again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from semiseg.contracts.dataset import ids_sha256
from semiseg.errors import UserError
from semiseg.splits.rules import Share, parse_split

DATASETS = ("voc", "cityscapes")
OWN_RULES = ("every", "shuffled")
"""Families that any dataset has."""

RULES = (*OWN_RULES, "sbd")
"""Families that are made from the user's own files."""

Key = tuple[str, str, str]
"""Family, split and split_id of a partition."""


@dataclass(frozen=True)
class IdList:
    """What is known of a list of ids.

    Args:
        count: how many ids.
        sha256: hex SHA-256 of the ids in their order, joined by LF; None where it is not known.
    """

    count: int
    sha256: str | None

    def fits(self, ids: Sequence[str]) -> bool:
        """Whether ids are these; without a known hash, whether they are as many."""
        return len(ids) == self.count and self.sha256 in (None, ids_sha256(ids))


@dataclass(frozen=True)
class Origin:
    """A repository that publishes lists.

    Args:
        name: its name in the manifest.
        repository: address to clone.
        commit: the state that the hashes are of.
        license: SPDX name, or "none".
        branch: where the commit is on no default branch.
    """

    name: str
    repository: str
    commit: str
    license: str
    branch: str | None = None


@dataclass(frozen=True)
class Partition:
    """A published division of training images.

    Args:
        dataset: "voc" or "cityscapes".
        family: its family.
        split: share or number of labels, for example "1/8" or "92".
        split_id: which one of several.
        labeled: the labeled list.
        unlabeled: the unlabeled list as semiseg takes it.
        file: list of the labeled images below the family's root; None where nobody published a file.
        clean: how many labeled images are among the 1,464 of VOC's train list; None for other datasets.
        alias: (family, split, split_id) of the partition that it equals in every list and order.
        equal: the same, of one whose unlabeled images have another order.
        published: the unlabeled list as published, where that differs from ``unlabeled``.
        shared: ids of the published unlabeled list that are labeled too; they are left out of ``unlabeled``.
    """

    dataset: str
    family: str
    split: str
    split_id: str
    labeled: IdList
    unlabeled: IdList
    file: str | None = None
    clean: int | None = None
    alias: Key | None = None
    equal: Key | None = None
    published: IdList | None = None
    shared: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """Family, split and split_id."""
        return self.family, self.split, self.split_id

    def __str__(self) -> str:
        return " ".join(self.key)


@dataclass(frozen=True)
class Family:
    """Partitions of one rule or one repository.

    Args:
        name: as in ``split_family=NAME``.
        about: what it is, one line.
        origin: who published it.
        rule: the rule that makes it, None for published lists only.
        root: folder of the lists in the repository.
        rename: what in the name of a labeled list to replace by what, for the name of the unlabeled one.
        pool: which images of each dataset its partitions divide.
        defects: known faults of the published files and what is done about them.
        partitions: all of them.
    """

    name: str
    about: str
    origin: Origin
    rule: str | None
    root: str
    rename: tuple[str, str]
    pool: Mapping[str, str]
    defects: tuple[str, ...]
    partitions: tuple[Partition, ...]

    def of(self, dataset: str) -> list[Partition]:
        """Partitions of one dataset."""
        return [each for each in self.partitions if each.dataset == dataset]

    def unlabeled_file(self, partition: Partition) -> str:
        """Name of the unlabeled list that belongs to a partition's labeled one."""
        return str(partition.file).replace(*self.rename)


@dataclass(frozen=True)
class Manifest:
    """All that is known of published partitions.

    Args:
        families: by name.
        pools: the images that partitions divide, by dataset and name; sorted ids.
        subsets: ids of small validation sets, by name and dataset.
        samples: DMT's left and right samples by dataset and (split, split_id).
        lists: further published lists, by name, with their file.
    """

    families: Mapping[str, Family]
    pools: Mapping[str, Mapping[str, IdList]]
    subsets: Mapping[str, Mapping[str, tuple[str, ...]]]
    samples: Mapping[str, Mapping[tuple[str, str], tuple[IdList, IdList]]]
    lists: Mapping[str, tuple[IdList, str]]
    _by_key: dict[tuple[str, str, str, str], Partition] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = {
            (each.dataset, *each.key): each for family in self.families.values() for each in family.partitions
        }
        object.__setattr__(self, "_by_key", found)

    def canonical(self, partition: Partition) -> Partition:
        """Return the partition that an alias stands for; others stand for themselves."""
        return self._by_key[partition.dataset, *partition.alias] if partition.alias else partition

    def find(self, dataset: str, family: str, split: str, split_id: str) -> Partition:
        """Return a partition; ``split`` may also be its number of labeled images.

        Raises:
            UserError: the family has no partition of this dataset, split or id; names the nearest.
        """
        known = self.families[family].of(dataset)
        if not known:
            raise UserError(f"split_family={family}: {self._other_families(dataset, family)}")
        share = parse_split(split)
        same = [each for each in known if share in (parse_split(each.split), each.labeled.count)]
        if not same:
            raise UserError(
                f"split={split}: the family {family} has for {dataset} {described(known)}; "
                f"nearest: {_nearest(known, share, self.pools[dataset]).split}."
            )
        found = next((each for each in same if each.split_id == split_id), None)
        if found is None:
            ids = [each.split_id for each in same]
            raise UserError(
                f"split_id={split_id}: split={same[0].split} of the family {family} has the "
                f"{'ids' if len(ids) > 1 else 'id'} {', '.join(ids)}; nearest: {_nearest_id(ids, split_id)}."
            )
        return found

    def names(self, partition: Partition) -> list[Partition]:
        """All partitions that are equal to one, itself left out, whatever the order of their unlabeled images."""
        own = self._class_of(partition)
        others = (each for each in self._by_key.values() if each.dataset == partition.dataset)
        return [each for each in others if each.key != partition.key and self._class_of(each) == own]

    def _class_of(self, partition: Partition) -> Key:
        found = self.canonical(partition)
        return found.equal or found.key

    def _other_families(self, dataset: str, family: str) -> str:
        datasets = [each for each in DATASETS if self.families[family].of(each)]
        here = [name for name, each in self.families.items() if each.of(dataset)] or list(OWN_RULES)
        return (
            f"its lists are of dataset={' and '.join(datasets)}, not of {dataset}. "
            f"Families for {dataset}: {', '.join(here)}, or list for lists of your own."
        )


def described(partitions: Sequence[Partition]) -> str:
    """Name the splits of a family with their ids: "1/16, 1/8 (split_id 0, 1, 2), 60 (split_id 0)"."""
    ids: dict[str, list[str]] = {}
    for each in partitions:
        ids.setdefault(each.split, []).append(each.split_id)
    by_ids: dict[str, list[str]] = {}
    for split, numbers in ids.items():
        by_ids.setdefault(", ".join(numbers), []).append(split)
    return ", ".join(f"{', '.join(splits)} (split_id {numbers})" for numbers, splits in by_ids.items())


def _nearest(known: Sequence[Partition], share: Share, pools: Mapping[str, IdList]) -> Partition:
    """The partition whose number of labeled images is nearest, as a ratio; fractions among fractions."""
    total = pools.get("trainaug", pools["train"]).count
    wanted = float(total) if share == "full" else float(share if isinstance(share, int) else total * share)
    fractions = [each for each in known if "/" in each.split]

    def distance(each: Partition) -> float:
        count = max(each.labeled.count, 1)
        return max(wanted / count, count / wanted)

    return min(fractions if fractions and isinstance(share, Fraction) else known, key=distance)


def _nearest_id(ids: Sequence[str], wanted: str) -> str:
    return min(ids, key=lambda each: abs(int(each) - int(wanted))) if wanted.isdigit() else ids[0]
