"""Which training images are labeled and which are not: rules for any dataset, published and own lists."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, Protocol, get_args, runtime_checkable

from semiseg.contracts.dataset import Part, SegDataset, Split
from semiseg.errors import UserError
from semiseg.splits.lists import read_ids, require_disjoint, shown
from semiseg.splits.manifest import manifest
from semiseg.splits.partitions import OWN_RULES
from semiseg.splits.published_lists import read_imported
from semiseg.splits.rules import Divided, every, shuffled, without

Family = Literal[
    "every", "shuffled", "list", "sbd", "cps", "cps_clean", "cac", "clean", "stpp", "u2pl", "dmtc"
]
UnlabeledRule = Literal["rest", "all"]


@runtime_checkable
class HasLists(Protocol):
    """A dataset with further published lists of ids, as VOC has."""

    def listed(self, name: str) -> tuple[str, ...]:
        """Ids of a list, in its order; raises ``UserError`` where there is none."""
        ...


def make_split(
    dataset: SegDataset,
    split: str,
    family: Family = "every",
    split_id: int | str = 0,
    unlabeled: UnlabeledRule = "rest",
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
        others: published partitions of VOC and Cityscapes, see ``semiseg.splits.manifest``; those that no rule
            gives are read from the lists that ``semiseg splits import`` wrote.

    Images of the part "unlabeled" always join the unlabeled ones, except where a list names them.

    Args:
        dataset: gives the ids, and by its name the published partitions.
        split: see ``parse_split``.
        family: one of ``Family``.
        split_id: which partition of the family.
        unlabeled: "rest" takes the training images that are not labeled, "all" also the labeled ones (their
            masks unused), in the order of the list.
        lists_root: folder of the family "list"; of imported lists, where they are not in the usual places.
        val_subset: small published set of validation images, "valtiny"; the others then are test images.

    Raises:
        UserError: no such split, more images than there are, lists missing or at fault, or an id in two parts.
    """
    _refuse_unknown(family, unlabeled)
    if family == "list":
        made = _from_lists(dataset, split, str(split_id), lists_root)
    elif family in OWN_RULES:
        made = _made(dataset, _by_rule(dataset, family, split, str(split_id)), split, family, split_id)
    else:
        made = _published(dataset, split, family, str(split_id), lists_root)
    if val_subset is not None:
        made = _with_subset(dataset, made, val_subset)
    require_disjoint(
        {"labeled": made.labeled, "unlabeled": made.unlabeled, "val": made.val, "test": made.test},
        f"split {split}",
    )
    if unlabeled == "all":
        used = {*made.labeled, *made.unlabeled}
        everything = (image_id for part in get_args(Part) for image_id in dataset.ids(part))
        return replace(made, unlabeled=tuple(image_id for image_id in everything if image_id in used))
    return made


def _refuse_unknown(family: str, unlabeled: str) -> None:
    if family not in get_args(Family):
        near = get_close_matches(str(family), get_args(Family), n=1, cutoff=0.0)[0]
        raise UserError(
            f"expected one of {', '.join(get_args(Family))}; nearest: {near}",
            key="split_family",
            value=family,
        )
    if unlabeled not in get_args(UnlabeledRule):
        raise UserError(
            "expected rest (images without label) or all (labeled ones too)", key="unlabeled", value=unlabeled
        )


def _made(dataset: SegDataset, divided: Divided, split: str, family: str, split_id: int | str) -> Split:
    labeled, rest = divided
    rest = (*rest, *dataset.ids("unlabeled"))
    return Split(labeled, rest, dataset.ids("val"), dataset.ids("test"), split, family, str(split_id))


def _by_rule(dataset: SegDataset, rule: str, split: str, split_id: str) -> Divided:
    pool = dataset.ids("train")
    if rule == "sbd":
        if not isinstance(dataset, HasLists):
            raise UserError(f"split_family=sbd: needs VOC's list train.txt; {dataset.info.name} has none")
        labeled = dataset.listed("train")
        return labeled, without(pool, labeled)
    if rule == "shuffled":
        if not split_id.isdigit():
            raise UserError("expected the number of a shuffle: 0, 1, 2, ...", key="split_id", value=split_id)
        return shuffled(pool, split, int(split_id))
    if split_id != "0":
        raise UserError(
            "the family every has one partition, split_id=0; take split_family=shuffled for several",
            key="split_id",
            value=split_id,
        )
    return every(pool, split)


def _published(
    dataset: SegDataset, split: str, family: str, split_id: str, lists_root: str | Path | None
) -> Split:
    known = manifest()
    partition = known.find(dataset.info.name, family, split, split_id)
    source = known.canonical(partition)
    if rule := known.families[source.family].rule:
        divided = _by_rule(dataset, rule, source.split, source.split_id)
    else:
        divided = read_imported(source, _all_ids(dataset), lists_root)
    return _made(dataset, divided, partition.split, family, split_id)


def _with_subset(dataset: SegDataset, made: Split, name: str) -> Split:
    """Validate on a subset; the other validation images become the test images."""
    subsets = manifest().subsets
    if name not in subsets:
        raise UserError(f"expected {', '.join(subsets)} or null", key="val_subset", value=name)
    chosen = subsets[name].get(dataset.info.name)
    if chosen is None:
        raise UserError(
            f"is of dataset={' and '.join(subsets[name])}, not of {dataset.info.name}",
            key="val_subset",
            value=name,
        )
    if missing := without(chosen, made.val):
        raise UserError(
            f"{len(missing)} of its images are not for validation: {shown(missing)}",
            key="val_subset",
            value=name,
        )
    return replace(made, val=chosen, test=without(made.val, chosen))


def _all_ids(dataset: SegDataset) -> Sequence[str]:
    return [image_id for part in get_args(Part) for image_id in dataset.ids(part)]


def _from_lists(dataset: SegDataset, split: str, split_id: str, lists_root: str | Path | None) -> Split:
    if lists_root is None:
        raise UserError("split_family=list needs split_lists=FOLDER, the folder with labeled.txt")
    folder, named = _list_folder(Path(lists_root).expanduser(), split, split_id)
    known = _all_ids(dataset)
    labeled = read_ids(folder / "labeled.txt", known)
    if not labeled:
        raise UserError(f"{folder / 'labeled.txt'} names no image")
    own_val = folder / "val.txt"
    val = read_ids(own_val, known) if own_val.is_file() else dataset.ids("val")
    own_rest = folder / "unlabeled.txt"
    if own_rest.is_file():
        rest = read_ids(own_rest, known)
    else:
        taken = {*labeled, *val}
        rest = tuple(i for i in (*dataset.ids("train"), *dataset.ids("unlabeled")) if i not in taken)
    name = split if named else str(len(labeled))
    return Split(labeled, rest, val, dataset.ids("test"), name, "list", split_id)


def _list_folder(root: Path, split: str, split_id: str) -> tuple[Path, bool]:
    """Return the folder that holds labeled.txt, and whether its name tells the split."""
    if (root / "labeled.txt").is_file():
        return root, False
    slugs = dict.fromkeys((split.replace("/", "of"), split.replace("/", "_")))
    tried = [root / slug / below for slug in slugs for below in (split_id, f"split_{split_id}", "") if slug]
    found = next((folder for folder in tried if (folder / "labeled.txt").is_file()), None)
    if found is None:
        places = "\n".join(f"  {folder / 'labeled.txt'}" for folder in [root, *tried])
        raise UserError(f"split_family=list: no list of labeled images at any of\n{places}")
    return found, True
