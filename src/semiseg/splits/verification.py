"""``semiseg splits make`` and ``check``: a partition of the user's own dataset, written or examined."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from semiseg.cli.splits import table
from semiseg.config import build
from semiseg.config.check import Checker
from semiseg.config.compose import Composed, Request
from semiseg.config.prepare import checked
from semiseg.contracts.dataset import SegDataset, Split, ids_sha256
from semiseg.data.check import FileBacked
from semiseg.errors import UserError
from semiseg.splits.manifest import manifest
from semiseg.splits.partitions import Partition
from semiseg.splits.published_lists import (
    LABELED,
    UNLABELED,
    find_imported,
    refuse_other_lists,
    unlike_published,
    write_lists,
)
from semiseg.splits.split import Family, make_split

MAX_THREADS = 16
SHUFFLES = ("0", "1", "2")


def make(overrides: Sequence[str], folder: Path) -> str:
    """Write the lists of a partition; return what was done, as text.

    Args:
        overrides: config keys, as of ``semiseg train``.
        folder: where to; made if needed.

    Raises:
        UserError: the config is at fault, or the folder holds other lists.
    """
    _, split = _data(_config(overrides))
    lists = {UNLABELED: split.unlabeled, LABELED: split.labeled}
    there = refuse_other_lists(folder, lists)
    if not there:
        write_lists(folder, lists)
    counts = f"{len(split.labeled):,} labeled and {len(split.unlabeled):,} unlabeled ids"
    use = f"use them by split_family=list split_lists={folder}"
    return f"{counts} {'were already' if there else 'written'} in {folder}; {use}"


def check(overrides: Sequence[str], others: Sequence[str], *, masks: bool = True) -> None:
    """Print what there is to know about a partition.

    Args:
        overrides: config keys, as of ``semiseg train``.
        others: partitions to compare with, as FAMILY:SPLIT:ID; none takes those at hand of the same split.
        masks: open the labeled masks and count classes.

    Raises:
        UserError: the config or a list is at fault, an id is in two parts, or files are missing.
    """
    config = _config(overrides)
    dataset, split = _data(config)
    own = f"{split.family}:{split.name}:{split.split_id}"
    print("\n".join(_head(dataset, split)))
    compared = {own: split.labeled, **_others(config, dataset, split, others)}
    missing = missing_files(dataset, split)
    if masks:
        print("\n" + "\n".join(_classes(dataset, split, {image_id for image_id, _ in missing})))
    if len(compared) > 1:
        print("\n" + "\n".join(_overlaps(compared, own if not others else None)))
    if missing:
        files = "\n  ".join(str(path) for _, path in missing[:10])
        more = f"\n  and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise UserError(f"{len(missing)} files are missing:\n  {files}{more}")


def _config(overrides: Sequence[str]) -> Composed:
    return checked(Request(tuple(overrides)), Checker(), settings_only=True)


def _data(config: Composed) -> tuple[SegDataset, Split]:
    dataset = build.dataset(config)
    return dataset, build.split(config, dataset)


def _head(dataset: SegDataset, split: Split) -> list[str]:
    counts = ", ".join(f"{count:,} {kind}" for kind, count in split.counts.items() if count)
    asked = f"split={split.name} split_family={split.family} split_id={split.split_id}"
    return [
        f"dataset={dataset.info.name} {asked}: {counts}",
        f"  sha256 of the labeled ids   {split.sha256['labeled']}",
        f"  sha256 of the unlabeled ids {split.sha256['unlabeled']}",
        f"  {_published_as(dataset, split)}",
        "  no id is in two parts, or twice in one",
    ]


def _published_as(dataset: SegDataset, split: Split) -> str:
    """Say which published partitions have these labeled images, by hash."""
    known = manifest()
    own = [each for family in known.families.values() for each in family.of(dataset.info.name)]
    same = [each for each in own if each.labeled.sha256 == ids_sha256(split.labeled)]
    if same:
        return f"labeled images as published in: {', '.join(map(str, same))}"
    unlike = unlike_published(dataset.info.name, (split.family, split.name, split.split_id), split.labeled)
    return unlike or "no published partition has these labeled images"


def missing_files(dataset: SegDataset, split: Split) -> list[tuple[str, Path]]:
    """Ids and paths of images of a split that are not on disk, and of masks that are learned from or evaluated."""
    if not isinstance(dataset, FileBacked):
        return []
    masked = {*split.labeled, *split.val, *split.test}

    def expected() -> Iterator[tuple[str, Path]]:
        for image_id in dict.fromkeys((*split.labeled, *split.unlabeled, *split.val, *split.test)):
            image, mask = dataset.files(image_id)
            yield image_id, image
            if image_id in masked and mask is not None:
                yield image_id, mask

    return [(image_id, path) for image_id, path in expected() if not path.is_file()]


@dataclass(frozen=True)
class Coverage:
    """How much of each class some images hold.

    Args:
        images: images that hold a class, by label.
        pixels: its pixels.
        counted: images whose masks were read.
    """

    images: tuple[int, ...]
    pixels: tuple[int, ...]
    counted: int


def coverage(dataset: SegDataset, ids: Sequence[str]) -> Coverage:
    """Count images and pixels of every class in the masks of some images."""
    classes = dataset.info.num_classes

    def count(image_id: str) -> NDArray[np.int64] | None:
        mask = dataset.mask(image_id)
        return None if mask is None else np.bincount(mask.ravel(), minlength=256)[:classes]

    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        found = [each for each in pool.map(count, ids) if each is not None]
    counts = np.stack(found) if found else np.zeros((0, classes), np.int64)
    images, pixels = (counts > 0).sum(0), counts.sum(0)
    return Coverage(tuple(images.tolist()), tuple(pixels.tolist()), len(found))


def _classes(dataset: SegDataset, split: Split, missing: set[str]) -> list[str]:
    found = coverage(dataset, [image_id for image_id in split.labeled if image_id not in missing])
    total = max(sum(found.pixels), 1)
    rows = [
        [name, f"{images:,}", f"{images / max(found.counted, 1):.1%}", f"{pixels:,}", f"{pixels / total:.2%}"]
        for name, images, pixels in zip(dataset.info.classes, found.images, found.pixels, strict=True)
    ]
    absent = [name for name, images in zip(dataset.info.classes, found.images, strict=True) if not images]
    return [
        f"classes in the masks of {found.counted:,} labeled images:",
        *table(["class", "images", "share", "pixels", "share"], rows),
        f"  in no labeled image, so it cannot be learned: {', '.join(absent)}"
        if absent
        else "  no class is missing",
    ]


def _others(
    config: Composed, dataset: SegDataset, split: Split, specs: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Labeled ids of the partitions to compare with, by name."""
    lists = config.split_lists
    if specs:
        return {spec: _labeled(dataset, spec, split, lists) for spec in specs}
    known = manifest()
    names = {f"every:{split.name}:0", *(f"shuffled:{split.name}:{number}" for number in SHUFFLES)}
    families = [family for family in known.families.values() if family.name not in ("every", "shuffled")]
    at_hand = [
        f"{each.family}:{each.split}:{each.split_id}"
        for family in families
        for each in family.of(dataset.info.name)
        if each.split == split.name and _at_hand(known.canonical(each), lists)
    ]
    found: dict[str, tuple[str, ...]] = {}
    for spec in [*sorted(names), *at_hand]:
        try:
            labeled = _labeled(dataset, spec, split, lists)
        except UserError:  # this dataset has no such partition; nobody asked for it
            continue
        if not any(set(labeled) == set(ids) for ids in [split.labeled, *found.values()]):
            found[spec] = labeled
    return found


def _at_hand(partition: Partition, lists: str | None) -> bool:
    return bool(manifest().families[partition.family].rule or find_imported(partition, lists))


def _labeled(dataset: SegDataset, spec: str, split: Split, lists: str | None) -> tuple[str, ...]:
    parts = spec.split(":")
    if len(parts) > 3 or not parts[0]:
        raise UserError(f"--overlap={spec}: expected FAMILY:SPLIT:ID, for example cac:1/8:0")
    family, name, split_id = (*parts, *("", split.name, "0")[len(parts) :])
    return make_split(dataset, name, cast(Family, family), split_id, lists_root=lists).labeled


def _overlaps(compared: dict[str, tuple[str, ...]], own: str | None) -> list[str]:
    """Lay out how many labeled images two partitions share; of all pairs, or of those with ``own``."""
    names = list(compared)
    rows = []
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            if own in (None, first):
                a, b = set(compared[first]), set(compared[second])
                common = len(a & b)
                rows.append(
                    [first, second, f"{common:,}", f"{common / len(a):.1%}", f"{common / len(b):.1%}"]
                )
    titles = ["labeled images of", "and of", "common", "of the first", "of the second"]
    return table(titles, rows, left=(0, 1))
