"""Check which partition a config asks for, before any data is there; nothing here imports torch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from semiseg.config.faults import Fault, faults_of_error
from semiseg.errors import UserError
from semiseg.splits.manifest import manifest
from semiseg.splits.partitions import OWN_RULES, Partition
from semiseg.splits.published_lists import require_imported
from semiseg.splits.rules import parse_split


def split_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Find what is wrong with the split keys together.

    Args:
        values: plain values of a config; each may be missing or wrong by itself.
    """
    family, lists, subset = (values.get(key) for key in ("split_family", "split_lists", "val_subset"))
    if family == "list" and lists is None:
        yield Fault("split_lists", "split_family=list needs the folder that holds labeled.txt.", None)
    elif lists is not None and not Path(str(lists)).expanduser().is_dir():
        yield Fault("split_lists", "no such folder.", lists)
    name = _dataset_name(values)
    if name is None:
        return
    try:
        _partition(values, name)
    except UserError as error:
        yield from faults_of_error(error, "split_family")
    if isinstance(subset, str):
        yield from _subset_faults(name, subset)


def require_lists(values: Mapping[str, Any]) -> None:
    """Refuse a published partition whose lists are not imported.

    Args:
        values: plain values of a config whose split keys have no fault.

    Raises:
        UserError: says how to import it.
    """
    name = _dataset_name(values)
    partition = _partition(values, name) if name else None
    if partition is not None:
        source = manifest().canonical(partition)
        if manifest().families[source.family].rule is None:
            require_imported(source, values.get("split_lists"))


def _dataset_name(values: Mapping[str, Any]) -> str | None:
    dataset = values.get("dataset")
    return str(dataset.get("name")) if isinstance(dataset, dict) else None


def _partition(values: Mapping[str, Any], dataset: str) -> Partition | None:
    """Look up the published partition that is asked for; None for own rules, own lists and faulty values."""
    family, split, split_id = (str(values.get(key)) for key in ("split_family", "split", "split_id"))
    if family not in manifest().families or family in OWN_RULES or _wrong(split):
        return None
    return manifest().find(dataset, family, split, split_id)


def _subset_faults(dataset: str, name: str) -> Iterator[Fault]:
    subsets = manifest().subsets
    if name not in subsets:
        yield Fault("val_subset", f"expected {', '.join(subsets)} or null.", name)
    elif dataset not in subsets[name]:
        yield Fault("val_subset", f"is of dataset={' and '.join(subsets[name])}, not of {dataset}.", name)


def _wrong(split: str) -> bool:
    try:
        parse_split(split)
    except UserError:
        return True
    return False
