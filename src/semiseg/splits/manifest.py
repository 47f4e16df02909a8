"""The published partitions: the rows of ``data_splits/manifest.yaml``, and looking them up.

Imports neither torch nor Hydra.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import log
from pathlib import Path
from typing import Any

import yaml

from semiseg.errors import UserError
from semiseg.splits.rules import ANY_DATASET, RULES, Share, parse_split

PACKAGE = Path(__file__).resolve().parents[1]
FILE = Path("data_splits", "manifest.yaml")
VERSION = 1
OWN_LISTS = "list"
"""Value of ``split_family`` for lists of the user's own."""

TOP_KEYS = ("version", "origins", "pools", "subsets", "families", "dms", "lists")
FAMILY_KEYS = ("about", "rule", "origin", "root", "rename", "pool", "defects")
ROW_KEYS = ("labeled", "unlabeled", "rule", "file", "blob", "order", "clean", "alias", "published", "shared")

PartitionKey = tuple[str, str, str]
"""Family, split and split_id of a partition."""

Node = Mapping[str, Any]


@dataclass(frozen=True)
class IdList:
    """Number and hash of a list of ids.

    Args:
        count: number of ids.
        sha256: hex SHA-256 of the ids in their order, joined by LF; ``None`` where it is not known.
    """

    count: int
    sha256: str | None

    def fits(self, ids: Sequence[str]) -> bool:
        """Whether ids are these; without a known hash, whether their number is right."""
        # Imports numpy, which the names of the families need not.
        from semiseg.contracts.dataset import ids_sha256

        return len(ids) == self.count and self.sha256 in (None, ids_sha256(ids))


@dataclass(frozen=True)
class Partition:
    """A published division of training images into labeled and unlabeled ones: a row of the manifest.

    Args:
        dataset: name of the dataset.
        family: value of ``split_family``.
        split: share or number of labels, for example "1/8" or "92".
        split_id: number of the draw.
        labeled: the labeled list.
        unlabeled: the unlabeled list without ids that are labeled too.
        rule: rule that makes it from the dataset's own ids; ``None`` where the lists have to be imported.
        stored_as: key under which imported lists are stored; another partition's where the two are equal in every
            list and order.
        file: list of the labeled images below the family's root; ``None`` where no file is published.
        unlabeled_file: the same of the unlabeled images.
        published: the unlabeled list as published, where that differs from ``unlabeled``.
        clean: number of labeled images among the 1,464 of VOC's train list; ``None`` for other datasets.
        blob: git's id of the published file of the unlabeled images, where no hash of its ids is known.
        order: hash of the labeled ids followed by the unlabeled ones, where the published file is the order of the
            sorted ids as pickled numbers.
    """

    dataset: str
    family: str
    split: str
    split_id: str
    labeled: IdList
    unlabeled: IdList
    rule: str | None
    stored_as: PartitionKey
    file: str | None
    unlabeled_file: str | None
    published: IdList | None
    clean: int | None
    blob: str | None = None
    order: str | None = None

    @property
    def key(self) -> PartitionKey:
        """Family, split and split_id."""
        return self.family, self.split, self.split_id

    def __str__(self) -> str:
        return " ".join(self.key)


@dataclass(frozen=True)
class Family:
    """Partitions with one rule or from one repository.

    Args:
        name: value of ``split_family``.
        about: description in one line.
        repository: address to clone.
        commit: state of the repository that the hashes are of.
        license: SPDX name, or "none".
        branch: branch of the commit; ``None`` where it is the default one.
        root: folder of the lists in the repository.
        defects: known faults of the published files, and what is done about them.
    """

    name: str
    about: str
    repository: str
    commit: str
    license: str
    branch: str | None = None
    root: str = ""
    defects: Sequence[str] = ()

    @property
    def clone(self) -> str:
        """Command that gets the published files."""
        branch = f" --branch {self.branch}" if self.branch else ""
        return f"git clone{branch} {self.repository}"


@dataclass(frozen=True)
class Manifest:
    """All that is known of published partitions.

    Args:
        families: by name.
        partitions: all rows, in the order of the file.
        pools: images that partitions divide, by dataset and name; the ids are sorted.
        subsets: ids of small validation sets, by name and dataset.
    """

    families: Mapping[str, Family]
    partitions: tuple[Partition, ...]
    pools: Mapping[str, Mapping[str, IdList]]
    subsets: Mapping[str, Mapping[str, tuple[str, ...]]]

    def of(self, dataset: str | None = None, family: str | None = None) -> list[Partition]:
        """Partitions of a dataset and a family; ``None`` takes those of all."""
        return [p for p in self.partitions if dataset in (None, p.dataset) and family in (None, p.family)]

    def find(self, dataset: str, family: str, split: str, split_id: str) -> Partition:
        """Return a partition; ``split`` may also be its number of labeled images.

        Raises:
            UserError: the family has no partition of this dataset, split or id; names the nearest.
        """
        known = self.of(dataset, family)
        if not known:
            datasets = dict.fromkeys(each.dataset for each in self.of(family=family))
            here = dict.fromkeys(each.family for each in self.of(dataset)) or ANY_DATASET
            raise UserError(
                f"its lists are of dataset={' and '.join(datasets)}, not of {dataset}. "
                f"Families for {dataset}: {', '.join(here)}, or {OWN_LISTS} for lists of your own.",
                key="split_family",
                value=family,
            )
        share = parse_split(split)
        same = [each for each in known if share in (parse_split(each.split), each.labeled.count)]
        if not same:
            nearest = _nearest(known, share, self.pools[dataset])
            expected = f"the family {family} has for {dataset} {_splits_with_ids(known)}; nearest: {nearest}."
            raise UserError(expected, key="split", value=split)
        ids = {each.split_id: each for each in same}
        if split_id not in ids:
            near = min(ids, key=lambda each: abs(int(each) - int(split_id)) if split_id.isdigit() else 0)
            has = f"{'ids' if len(ids) > 1 else 'id'} {', '.join(ids)}; nearest: {near}."
            expected = f"split={same[0].split} of the family {family} has the {has}"
            raise UserError(expected, key="split_id", value=split_id)
        return ids[split_id]

    def same_images(self, partition: Partition) -> list[Partition]:
        """Other partitions with these labeled and unlabeled images, the unlabeled ones in any order."""
        if partition.labeled.sha256 is None:
            return []
        own = partition.labeled, partition.unlabeled.count
        others = [each for each in self.of(partition.dataset) if each is not partition]
        return [each for each in others if (each.labeled, each.unlabeled.count) == own]

    def subset(self, dataset: str, name: str) -> tuple[str, ...]:
        """Return the ids of a small validation set.

        Raises:
            UserError: there is none of this name, or none for this dataset.
        """
        if name not in self.subsets:
            raise UserError(f"expected {', '.join(self.subsets)} or null.", key="val_subset", value=name)
        if dataset not in self.subsets[name]:
            expected = f"is of dataset={' and '.join(self.subsets[name])}, not of {dataset}."
            raise UserError(expected, key="val_subset", value=name)
        return self.subsets[name][dataset]


@cache
def manifest() -> Manifest:
    """The manifest that comes with semiseg."""
    shipped = PACKAGE / FILE
    return read_manifest(shipped if shipped.is_file() else PACKAGE.parents[1] / FILE)


def family_names() -> tuple[str, ...]:
    """All values of ``split_family``, the default first."""
    return (*manifest().families, OWN_LISTS)


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        UserError: the file is missing or damaged; says where.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return _manifest(yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except KeyError as error:
        raise UserError(f"the manifest of splits {path} is damaged: {error} is missing") from error
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"the manifest of splits {path} cannot be used: {error}") from error


def _manifest(raw: Node) -> Manifest:
    _refuse_unknown_keys(raw, "the file", TOP_KEYS)
    if raw["version"] != VERSION:
        raise ValueError(f"version {raw['version']}; this semiseg reads version {VERSION}")
    pools = {name: {key: _id_list(node) for key, node in pool.items()} for name, pool in raw["pools"].items()}
    families: dict[str, Family] = {}
    partitions: list[Partition] = []
    rows = raw["families"]
    for name, node in rows.items():
        _refuse_unknown_keys(node, name, (*FAMILY_KEYS, *pools))
        if node.get("rule") not in (None, *RULES):
            raise ValueError(f"{name} has the rule {node['rule']}; there are {', '.join(RULES)}")
        facts = {key: node[key] for key in ("about", "root", "defects") if key in node}
        families[name] = Family(name, **facts, **raw["origins"][node["origin"]])
        for dataset in [each for each in pools if each in node]:
            pool = pools[dataset][node["pool"][dataset]]
            partitions += [_partition(rows, dataset, f"{name} {row}", pool) for row in node[dataset]]
    subsets = {
        name: {dataset: tuple(node[dataset]) for dataset in pools if dataset in node}
        for name, node in raw["subsets"].items()
    }
    return Manifest(families, tuple(partitions), pools, subsets)


def _partition(families: Node, dataset: str, name: str, pool: IdList) -> Partition:
    """Read a row; an alias has the counts and hashes of what it stands for."""
    family, row = _find_row(families, dataset, name)
    _refuse_unknown_keys(row, name, ROW_KEYS)
    alias = row.get("alias", name)
    source, facts = _find_row(families, dataset, alias)
    file, (old, new) = row.get("file"), family.get("rename", ("", ""))
    rule = facts.get("rule", source.get("rule"))
    if rule not in (None, *RULES):
        raise ValueError(f"{name} ({dataset}) has the rule {rule}; there are {', '.join(RULES)}")
    if not (rule or (file and family.get("root"))):
        raise ValueError(f"{name} ({dataset}) has neither rule nor file")
    labeled, unlabeled = _id_list(facts["labeled"]), _id_list(facts["unlabeled"])
    if labeled.count + unlabeled.count != pool.count:
        raise ValueError(f"{name} ({dataset}) does not divide its pool of {pool.count} images")
    return Partition(
        dataset,
        *_key(name),
        labeled,
        unlabeled,
        rule=rule,
        stored_as=_key(alias),
        file=file,
        unlabeled_file=file and file.replace(old, new),
        published=_id_list(row["published"]) if "published" in row else None,
        clean=facts.get("clean"),
        blob=row.get("blob"),
        order=row.get("order"),
    )


def _find_row(families: Node, dataset: str, name: str) -> tuple[Node, Node]:
    family, split, split_id = _key(name)
    return families[family], families[family][dataset][f"{split} {split_id}"]


def _key(name: str) -> PartitionKey:
    family, split, split_id = name.split(" ")
    return family, split, split_id


def _id_list(node: Any) -> IdList:
    count, sha256 = node
    if not isinstance(count, int) or not (sha256 is None or re.fullmatch(r"[0-9a-f]{64}", str(sha256))):
        raise ValueError(f"{node} is not [number of ids, SHA-256 or null]")
    return IdList(count, sha256)


def _refuse_unknown_keys(node: Node, where: str, known: Sequence[str]) -> None:
    if unknown := [key for key in node if key not in known]:
        raise ValueError(f"{where} has the unknown key {unknown[0]}; known: {', '.join(known)}")


def _splits_with_ids(partitions: Sequence[Partition]) -> str:
    """Name splits with their ids: "1/16, 1/8 (split_id 0, 1, 2), 60 (split_id 0)"."""
    ids = {p.split: ", ".join(q.split_id for q in partitions if q.split == p.split) for p in partitions}
    splits = {numbers: ", ".join(split for split in ids if ids[split] == numbers) for numbers in ids.values()}
    return ", ".join(f"{names} (split_id {numbers})" for numbers, names in splits.items())


def _nearest(known: Sequence[Partition], share: Share, pools: Mapping[str, IdList]) -> str:
    """The split whose number of labeled images is nearest, as a ratio; fractions among fractions."""
    total = pools.get("trainaug", pools["train"]).count
    wanted = total if share == "full" else share if isinstance(share, int) else total * share
    fractions = [each for each in known if "/" in each.split]
    among = fractions if fractions and isinstance(share, Fraction) else known
    return min(among, key=lambda each: abs(log(each.labeled.count / wanted))).split
