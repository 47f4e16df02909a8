"""Check which partition a config asks for, before any data is there; nothing here imports torch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from semiseg.config.faults import Fault, fault_of
from semiseg.data.manifest import manifest
from semiseg.data.published import require_imported
from semiseg.data.rules import parse_split
from semiseg.errors import UserError


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
    dataset = values.get("dataset")
    name = str(dataset.get("name")) if isinstance(dataset, dict) else None
    if name is None:
        return
    if family in manifest().families and not (family in ("every", "shuffled") or _wrong(values.get("split"))):
        try:
            _look_up(name, str(family), str(values.get("split")), str(values.get("split_id")), lists)
        except UserError as error:
            yield fault_of(error, "split_family")
    if isinstance(subset, str):
        yield from _subset_faults(name, subset)


def _look_up(dataset: str, family: str, split: str, split_id: str, lists: str | None) -> None:
    """Refuse a partition that is not published, or not imported."""
    known = manifest()
    source = known.canonical(known.find(dataset, family, split, split_id))
    if known.families[source.family].rule is None:
        require_imported(source, lists)


def _subset_faults(dataset: str, name: str) -> Iterator[Fault]:
    subsets = manifest().subsets
    if name not in subsets:
        yield Fault("val_subset", f"expected {', '.join(subsets)} or null.", name)
    elif dataset not in subsets[name]:
        yield Fault("val_subset", f"is of dataset={' and '.join(subsets[name])}, not of {dataset}.", name)


def _wrong(split: Any) -> bool:
    try:
        parse_split(str(split))
    except UserError:
        return True
    return False
