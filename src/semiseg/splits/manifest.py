"""Reading ``data_splits/manifest.yaml``; imports neither torch nor Hydra."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from semiseg.errors import UserError
from semiseg.splits.partitions import DATASETS, RULES, Family, IdList, Key, Manifest, Origin, Partition

PACKAGE = Path(__file__).resolve().parents[1]
NAME = "manifest.yaml"
VERSION = 1
SHA256 = re.compile(r"[0-9a-f]{64}")
Node = Mapping[str, Any]


@cache
def manifest() -> Manifest:
    """The manifest that comes with semiseg."""
    shipped = PACKAGE / "data_splits" / NAME
    return load(shipped if shipped.is_file() else PACKAGE.parents[1] / "data_splits" / NAME)


def load(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        UserError: the file is missing or damaged; says where.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return _manifest(raw)
    except KeyError as error:
        raise UserError(f"the manifest of splits {path} is damaged: {error} is missing") from error
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"the manifest of splits {path} cannot be used: {error}") from error


def _manifest(raw: Node) -> Manifest:
    _only(raw, "the file", "version", "origins", "pools", "subsets", "families", "dms", "lists")
    if raw["version"] != VERSION:
        raise ValueError(f"version {raw['version']}; this semiseg reads version {VERSION}")
    origins = {name: Origin(name, **node) for name, node in raw["origins"].items()}
    pools = {name: {key: _ids(node) for key, node in pool.items()} for name, pool in raw["pools"].items()}
    result = Manifest(
        families={name: _family(name, raw["families"], origins) for name in raw["families"]},
        pools=pools,
        subsets={
            name: {each: tuple(map(str, node[each])) for each in DATASETS if each in node}
            for name, node in raw["subsets"].items()
        },
        samples={
            dataset: {
                _split_and_id(key): (_ids(node["left"]), _ids(node["right"])) for key, node in rows.items()
            }
            for dataset, rows in raw["dms"].items()
        },
        lists={name: (_ids(node["ids"]), str(node["file"])) for name, node in raw["lists"].items()},
    )
    for fault in _faults(result):
        raise ValueError(fault)
    return result


def _family(name: str, families: Node, origins: Mapping[str, Origin]) -> Family:
    node = families[name]
    _only(node, name, "about", "rule", "origin", "root", "rename", "pool", "defects", *DATASETS)
    old, new = node.get("rename", ("", ""))
    return Family(
        name=name,
        about=str(node["about"]),
        origin=origins[node["origin"]],
        rule=node.get("rule"),
        root=str(node.get("root", "")),
        rename=(str(old), str(new)),
        pool=dict(node["pool"]),
        defects=tuple(map(str, node.get("defects", ()))),
        partitions=tuple(
            _partition(families, dataset, (name, *_split_and_id(row)))
            for dataset in DATASETS
            for row in node.get(dataset, {})
        ),
    )


def _partition(families: Node, dataset: str, key: Key) -> Partition:
    """Read a row; an alias has the counts and hashes of what it stands for."""
    row = _row(families, dataset, key)
    _only(
        row, " ".join(key), "labeled", "unlabeled", "file", "clean", "alias", "equal", "published", "shared"
    )
    alias, equal = _key(row.get("alias")), _key(row.get("equal"))
    facts = _row(families, dataset, alias) if alias else row
    return Partition(
        dataset,
        *key,
        labeled=_ids(facts["labeled"]),
        unlabeled=_ids(facts["unlabeled"]),
        file=row.get("file"),
        clean=facts.get("clean"),
        alias=alias,
        equal=equal,
        published=_ids(row["published"]) if "published" in row else None,
        shared=tuple(map(str, row.get("shared", ()))),
    )


def _row(families: Node, dataset: str, key: Key) -> Node:
    family, split, split_id = key
    row: Node = families[family][dataset][f"{split} {split_id}"]
    return row


def _split_and_id(text: str) -> tuple[str, str]:
    split, split_id = text.split(" ")
    return split, split_id


def _key(text: str | None) -> Key | None:
    if text is None:
        return None
    family, split, split_id = text.split(" ")
    return family, split, split_id


def _ids(node: Any) -> IdList:
    count, sha256 = node
    if not isinstance(count, int) or not (sha256 is None or SHA256.fullmatch(str(sha256))):
        raise ValueError(f"{node} is not [number of ids, SHA-256 or null]")
    return IdList(count, sha256)


def _only(node: Node, where: str, *known: str) -> None:
    if unknown := [key for key in node if key not in known]:
        raise ValueError(f"{where} has the unknown key {unknown[0]}; known: {', '.join(known)}")


def _faults(found: Manifest) -> Iterator[str]:
    """What does not fit together."""
    for family in found.families.values():
        if family.rule not in (None, *RULES):
            yield f"{family.name} has the rule {family.rule}; there are {', '.join(RULES)}"
        for each in family.partitions:
            pool = found.pools[each.dataset][family.pool[each.dataset]]
            if each.labeled.count + each.unlabeled.count != pool.count:
                yield f"{each} ({each.dataset}) does not divide its pool of {pool.count} images"
            if not (family.rule or (each.file and family.root)):
                yield f"{each} ({each.dataset}) has neither rule nor file"
