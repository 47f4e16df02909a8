"""Check the partition that a config asks for, before any data is there; this module does not import torch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from semiseg.config.faults import Fault, faults_of_error
from semiseg.errors import UserError, nearest
from semiseg.splits.manifest import OWN_LISTS, Partition, family_names, manifest
from semiseg.splits.published_lists import WORKING, find_imported, require_imported
from semiseg.splits.rules import ANY_DATASET, parse_split


def split_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Find faults of the split keys, alone and together.

    Args:
        values: plain values of a config; each may be missing or wrong by itself.
    """
    lists, subset, family = (values.get(key) for key in ("split_lists", "val_subset", "split_family"))
    if family not in family_names():
        near = nearest(str(family), family_names())
        yield Fault("split_family", f"expected one of: {', '.join(family_names())}.", family, near)
    if values.get("split_family") == OWN_LISTS and lists is None:
        yield Fault("split_lists", "split_family=list needs the folder that holds labeled.txt.", None)
    elif lists is not None and not Path(str(lists)).expanduser().is_dir():
        yield Fault("split_lists", "no such folder.", lists)
    dataset = _dataset_name(values)
    if dataset is None:
        return
    try:
        _partition(values, dataset)
    except UserError as error:
        yield from faults_of_error(error, "split_family")
    if isinstance(subset, str):
        try:
            manifest().subset(dataset, subset)
        except UserError as error:
            yield from faults_of_error(error, "val_subset")


def require_lists(values: Mapping[str, Any]) -> None:
    """Refuse a published partition whose lists are not imported.

    Args:
        values: plain values of a config whose split keys have no fault.

    Raises:
        UserError: says how to import it.
    """
    dataset = _dataset_name(values)
    partition = _partition(values, dataset) if dataset else None
    if partition is not None and partition.rule is None:
        require_imported(partition, values.get("split_lists"))


def imported_below(values: Mapping[str, Any], directory: Path) -> Path | None:
    """Return the folder of imported lists in a working directory, if the published partition of a config is there."""
    dataset = _dataset_name(values)
    try:
        partition = _partition(values, dataset) if dataset else None
    except UserError:  # named by the check of the split
        return None
    lists = directory / WORKING
    if partition is None or partition.rule is not None or find_imported(partition, lists) is None:
        return None
    return lists


def _dataset_name(values: Mapping[str, Any]) -> str | None:
    dataset = values.get("dataset")
    return str(dataset.get("name")) if isinstance(dataset, dict) else None


def _partition(values: Mapping[str, Any], dataset: str) -> Partition | None:
    """Return the published partition that a config asks for; ``None`` for other families and faulty values."""
    family, split, split_id = (str(values.get(key)) for key in ("split_family", "split", "split_id"))
    if family not in manifest().families or family in ANY_DATASET:
        return None
    try:
        parse_split(split)
    except UserError:  # the check of the key ``split`` names this fault
        return None
    return manifest().find(dataset, family, split, split_id)
