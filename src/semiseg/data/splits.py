"""Which training images are labeled and which are not: rules for any dataset, and own lists."""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from semiseg.data.dataset import Part, SegDataset
from semiseg.data.lists import read_ids, require_disjoint, spread
from semiseg.errors import UserError

Family = Literal["every", "shuffled", "list"]
Unlabeled = Literal["rest", "all"]
SHUFFLE_SEED = 7777
PUBLISHED_RATIOS = {Fraction(106): Fraction("105.82"), Fraction(30): Fraction("29.75")}


@dataclass(frozen=True)
class Split:
    """Ids of the labeled, unlabeled, validation and test images of a run.

    Args:
        labeled: ids whose masks are learned from.
        unlabeled: ids whose masks are never opened in training.
        val: ids that the network is selected on.
        test: ids that are only reported; may be empty.
        name: the share or number of labels as it was asked for: "1/8", "732", "full".
        family: which rule made it.
        split_id: which of the rule's partitions it is.
    """

    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()
    name: str = "full"
    family: str = "every"
    split_id: str = "0"

    @cached_property
    def sha256(self) -> dict[str, str]:
        """Hex SHA-256 of the labeled and of the unlabeled ids, in their order and joined by LF."""
        return {"labeled": ids_sha256(self.labeled), "unlabeled": ids_sha256(self.unlabeled)}

    @property
    def fraction(self) -> float:
        """Share of labeled images among all training images."""
        return len(self.labeled) / len({*self.labeled, *self.unlabeled})

    @property
    def counts(self) -> dict[str, int]:
        """Number of ids of each kind."""
        kinds = ("labeled", "unlabeled", "val", "test")
        return {kind: len(getattr(self, kind)) for kind in kinds}


def ids_sha256(ids: Sequence[str]) -> str:
    """Hex SHA-256 of ids joined by LF, without one at the end."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def parse_split(text: str) -> Fraction | int | Literal["full"]:
    """Read ``split``: a fraction such as "1/8" or "1/105.82", a number of images such as "732", or "full".

    Raises:
        UserError: anything else.
    """
    expected = 'expected a fraction such as 1/8, a number of images such as 732, or "full"'
    if text.strip() == "full":
        return "full"
    top, slash, bottom = text.strip().partition("/")
    try:
        value = Fraction(top) / Fraction(bottom) if slash else Fraction(top)
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"split={text}: {expected}") from error
    if slash and 0 < value <= 1:
        return value
    if not slash and top.isdigit() and value > 0:
        return int(value)
    near = ""
    if not slash and 0 < value < 1:
        near = f"; the nearest fraction is 1/{round(1 / value)}"
    raise UserError(f"split={text}: {expected}{near}")


def make_split(
    dataset: SegDataset,
    split: str,
    family: Family = "every",
    split_id: int | str = 0,
    unlabeled: Unlabeled = "rest",
    lists_root: str | Path | None = None,
) -> Split:
    """Divide the training images of a dataset; N is the number of ``dataset.ids("train")``.

    Families:
        every: ``1/r`` takes every r-th id of the training list from the first on, ``ceil(N / r)`` in all (the
            rule of CPS). Other fractions f take ``floor(N * f)`` and a number takes that many, at even
            distances: positions ``floor(i * N / count)``. There is one partition, ``split_id=0``.
        shuffled: the rule of DMT. One generator seeded with 7777 shuffles the list in place ``split_id + 1``
            times; the first ``floor(N / r)`` ids are labeled, one more where that number is 1 modulo 8 (which
            left a batch of one image), so smaller sets lie in larger ones. 1/106 and 1/30 mean the ratios
            105.82 and 29.75, as published. A number takes exactly that many.
        list: ``labeled.txt`` in ``lists_root``, or in its subfolder for this split and id (``1of8``, ``1_8``,
            or either with ``/0`` or ``/split_0``); optional ``unlabeled.txt`` and ``val.txt`` beside it.

    Images of the part "unlabeled" always join the unlabeled ones, except where ``unlabeled.txt`` names them.

    Args:
        dataset: gives the ids.
        split: see ``parse_split``.
        family: "every", "shuffled" or "list".
        split_id: which partition of the family.
        unlabeled: "rest" takes the training images that are not labeled, "all" also the labeled ones (their
            masks unused), in the order of the list.
        lists_root: folder of the family "list".

    Raises:
        UserError: no such split, more images than there are, lists at fault, or an id in two parts.
    """
    _refuse_unknown(family, unlabeled)
    if family == "list":
        made = _from_lists(dataset, split, str(split_id), lists_root)
    else:
        made = _by_rule(dataset, split, family, split_id)
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
        raise UserError(f"split_family={family}: expected every, shuffled or list; nearest: {near}")
    if unlabeled not in get_args(Unlabeled):
        raise UserError(
            f"unlabeled={unlabeled}: expected rest (images without label) or all (labeled ones too)"
        )


def _by_rule(dataset: SegDataset, split: str, family: str, split_id: int | str) -> Split:
    rule = _every if family == "every" else _shuffled
    order, count = rule(dataset.ids("train"), split, split_id)
    rest = (*order[count:], *dataset.ids("unlabeled"))
    return Split(order[:count], rest, dataset.ids("val"), dataset.ids("test"), split, family, str(split_id))


def _every(pool: Sequence[str], split: str, split_id: int | str) -> tuple[tuple[str, ...], int]:
    """Return labeled and then other ids, each in the order of the list, and the number of labeled ones."""
    if str(split_id) != "0":
        raise UserError(
            f"split_id={split_id}: the family every has one partition, split_id=0; "
            "take split_family=shuffled for several"
        )
    share = parse_split(split)
    if isinstance(share, Fraction) and share.numerator == 1:
        labeled = tuple(pool[:: share.denominator])
    else:
        labeled = spread(pool, _count(share, len(pool), split))
    chosen = set(labeled)
    return (*labeled, *(image_id for image_id in pool if image_id not in chosen)), len(labeled)


def _shuffled(pool: Sequence[str], split: str, split_id: int | str) -> tuple[tuple[str, ...], int]:
    """Return all ids in the shuffled order, and the number of labeled ones."""
    if not str(split_id).isdigit():
        raise UserError(f"split_id={split_id}: expected the number of a shuffle: 0, 1, 2, ...")
    order = list(pool)
    generator = random.Random(SHUFFLE_SEED)
    for _ in range(int(split_id) + 1):
        generator.shuffle(order)
    share = parse_split(split)
    if isinstance(share, Fraction):
        share = 1 / PUBLISHED_RATIOS.get(1 / share, 1 / share)
    count = _count(share, len(pool), split)
    if isinstance(share, Fraction) and count % 8 == 1:
        count = min(count + 1, len(pool))
    return tuple(order), count


def _count(share: Fraction | int | Literal["full"], total: int, split: str) -> int:
    """Number of labeled images of ``total``."""
    if share == "full":
        return total
    count = math.floor(total * share) if isinstance(share, Fraction) else share
    if count > total:
        raise UserError(f"split={split}: there are only {total} training images; the largest split is full")
    if count == 0:
        raise UserError(
            f"split={split}: less than one of {total} training images; the smallest split is 1/{total}"
        )
    return count


def _from_lists(dataset: SegDataset, split: str, split_id: str, lists_root: str | Path | None) -> Split:
    if lists_root is None:
        raise UserError("split_family=list needs split_lists=FOLDER, the folder with labeled.txt")
    folder, named = _list_folder(Path(lists_root).expanduser(), split, split_id)
    known = [image_id for part in get_args(Part) for image_id in dataset.ids(part)]
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
