"""Which training images are labeled and which are not: rules for any dataset, published and own lists."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol, get_args, runtime_checkable

from semiseg.contracts.dataset import Part, SegDataset, Split
from semiseg.errors import UserError
from semiseg.splits.lists import LABELED, UNLABELED, read_ids, require_disjoint, shown
from semiseg.splits.manifest import OWN_LISTS, Partition, family_names, manifest
from semiseg.splits.published_lists import read_imported, read_imported_order
from semiseg.splits.rules import ANY_DATASET, ORDERS, Divided, every, first_of_order, shuffled, without


@runtime_checkable
class HasLists(Protocol):
    """A dataset with further published lists of ids, as VOC has."""

    def listed(self, name: str) -> tuple[str, ...]:
        """Ids of a list, in its order; raises ``UserError`` where there is none."""
        ...


def make_split(
    dataset: SegDataset,
    split: str,
    family: str = "every",
    split_id: int | str = 0,
    unlabeled: str = "rest",
    lists_root: str | Path | None = None,
    val_subset: str | None = None,
) -> Split:
    """Divide the training images of a dataset.

    Families:
        every, shuffled: rules for the list ``dataset.ids("train")``, see ``semiseg.splits.rules``; "every" has one
            partition, ``split_id=0``.
        sbd: VOC's own train list is labeled, the other training images are unlabeled, in their order.
        list: ``labeled.txt`` in ``lists_root``, or in its subfolder for this split and id (``1of8``, ``1_8``,
            or either with ``/0`` or ``/split_0``); optional ``unlabeled.txt`` and ``val.txt`` beside it.
        others: published partitions of VOC, Cityscapes, ADE20K and COCO, see ``semiseg.splits.manifest``; those that no
            rule gives are read from the lists that ``semiseg splits import`` wrote.

    Images of the part "unlabeled" always join the unlabeled ones, except where a list names them.

    Args:
        dataset: source of the ids; its name finds the published partitions.
        split: share or number of labeled images, see ``parse_split``.
        family: one of ``family_names()``.
        split_id: number of the draw.
        unlabeled: "rest" takes the training images that are not labeled, "all" also the labeled ones (their
            masks unused), in the order of the list.
        lists_root: folder of the family "list"; of imported lists, where they are not in the usual places.
        val_subset: name of a small published set of validation images, "valtiny"; the others then are test images.

    Raises:
        UserError: no such split, more images than there are, lists missing or at fault, or an id in two parts.
    """
    families = family_names()
    if family not in families:
        near = get_close_matches(str(family), families, n=1, cutoff=0.0)[0]
        expected = f"expected one of {', '.join(families)}; nearest: {near}"
        raise UserError(expected, key="split_family", value=family)
    if unlabeled not in ("rest", "all"):
        expected = "expected rest (images without label) or all (labeled ones too)"
        raise UserError(expected, key="unlabeled", value=unlabeled)
    if family == OWN_LISTS:
        made = _from_lists(dataset, split, str(split_id), lists_root)
    else:
        made = _from_family(dataset, split, family, str(split_id), lists_root)
    if val_subset is not None:
        made = _with_subset(dataset, made, val_subset)
    parts = {"labeled": made.labeled, "unlabeled": made.unlabeled, "val": made.val, "test": made.test}
    require_disjoint(parts, f"split {split}")
    if unlabeled == "all":
        used = {*made.labeled, *made.unlabeled}
        made = replace(made, unlabeled=tuple(each for each in _all_ids(dataset) if each in used))
    return made


def _from_family(
    dataset: SegDataset, split: str, family: str, split_id: str, lists_root: str | Path | None
) -> Split:
    if family in ANY_DATASET:
        labeled, rest = _by_rule(dataset, family, split, split_id)
    else:
        partition = manifest().find(dataset.info.name, family, split, split_id)
        split = partition.split
        if partition.rule:
            labeled, rest = _by_partition(dataset, partition)
        elif partition.order:
            labeled, rest = read_imported_order(partition, dataset.ids("train"), lists_root)
        else:
            labeled, rest = read_imported(partition, _all_ids(dataset), lists_root)
    rest = (*rest, *dataset.ids("unlabeled"))
    return Split(labeled, rest, dataset.ids("val"), dataset.ids("test"), split, family, split_id)


def _by_partition(dataset: SegDataset, partition: Partition) -> Divided:
    """Divide by the rule of a published partition."""
    _, split, split_id = partition.stored_as
    if partition.rule in ORDERS:
        return first_of_order(dataset.ids("train"), partition.rule, int(split_id), partition.labeled.count)
    return _by_rule(dataset, str(partition.rule), split, split_id)


def _by_rule(dataset: SegDataset, rule: str, split: str, split_id: str) -> Divided:
    pool = dataset.ids("train")
    if rule == "sbd":
        if not isinstance(dataset, HasLists):
            expected = f"needs VOC's list train.txt; {dataset.info.name} has none"
            raise UserError(expected, key="split_family", value="sbd")
        labeled = dataset.listed("train")
        return labeled, without(pool, labeled)
    if rule == "shuffled":
        if not split_id.isdigit():
            raise UserError("expected the number of a shuffle: 0, 1, 2, ...", key="split_id", value=split_id)
        return shuffled(pool, split, int(split_id))
    if split_id != "0":
        expected = "the family every has one partition, split_id=0; take split_family=shuffled for several"
        raise UserError(expected, key="split_id", value=split_id)
    return every(pool, split)


def _with_subset(dataset: SegDataset, made: Split, name: str) -> Split:
    """Validate on a subset; the other validation images become the test images."""
    chosen = manifest().subset(dataset.info.name, name)
    if missing := without(chosen, made.val):
        expected = f"{len(missing)} of its images are not for validation: {shown(missing)}"
        raise UserError(expected, key="val_subset", value=name)
    return replace(made, val=chosen, test=without(made.val, chosen))


def _all_ids(dataset: SegDataset) -> Sequence[str]:
    return [image_id for part in get_args(Part) for image_id in dataset.ids(part)]


def _from_lists(dataset: SegDataset, split: str, split_id: str, lists_root: str | Path | None) -> Split:
    if lists_root is None:
        raise UserError("split_family=list needs split_lists=FOLDER, the folder with labeled.txt")
    root = Path(lists_root).expanduser()
    folder = _list_folder(root, split, split_id)
    known = _all_ids(dataset)
    labeled = read_ids(folder / LABELED, known)
    if not labeled:
        raise UserError(f"{folder / LABELED} names no image")
    own_val, own_rest = folder / "val.txt", folder / UNLABELED
    val = read_ids(own_val, known) if own_val.is_file() else dataset.ids("val")
    if own_rest.is_file():
        rest = read_ids(own_rest, known)
    else:
        rest = without((*dataset.ids("train"), *dataset.ids("unlabeled")), (*labeled, *val))
    # The name of a subfolder tells the split.
    name = str(len(labeled)) if folder == root else split
    return Split(labeled, rest, val, dataset.ids("test"), name, OWN_LISTS, split_id)


def _list_folder(root: Path, split: str, split_id: str) -> Path:
    """Return the folder that holds labeled.txt: the root, or its subfolder for this split."""
    slugs = dict.fromkeys((split.replace("/", "of"), split.replace("/", "_")))
    below = (split_id, f"split_{split_id}", "")
    tried = [root, *(root / slug / each for slug in slugs if slug for each in below)]
    found = next((folder for folder in tried if (folder / LABELED).is_file()), None)
    if found is None:
        places = "\n".join(f"  {folder / LABELED}" for folder in tried)
        raise UserError(f"split_family=list: no list of labeled images at any of\n{places}")
    return found
