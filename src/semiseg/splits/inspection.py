"""A split of the user's own dataset: its lists written, its files, classes and overlap with others examined."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from semiseg.contracts.dataset import DatasetInfo, SegDataset, Split
from semiseg.data.file_faults import CheckReport, check_files, without_images
from semiseg.data.file_inspection import FileBacked
from semiseg.data.store import stored
from semiseg.data.trust import weigh
from semiseg.errors import UserError
from semiseg.output import collected_messages, text_table
from semiseg.splits.lists import LABELED, UNLABELED, refuse_other_lists, write_lists
from semiseg.splits.manifest import manifest
from semiseg.splits.published_lists import find_imported, unlike_published
from semiseg.splits.rules import ANY_DATASET
from semiseg.splits.split import make_split

SHUFFLES = ("0", "1", "2")


def write_split(split: Split, folder: Path) -> str:
    """Write the lists of a split; return what was done, as text.

    Args:
        split: source of the ids.
        folder: target folder; made if needed.

    Raises:
        UserError: the folder holds other lists, or cannot be written.
    """
    lists = {UNLABELED: split.unlabeled, LABELED: split.labeled}
    there = refuse_other_lists(folder, lists)
    if not there:
        write_lists(folder, lists)
    counts = f"{len(split.labeled):,} labeled and {len(split.unlabeled):,} unlabeled ids"
    use = f"use them by split_family=list split_lists={folder}"
    return f"{counts} {'were already' if there else 'written'} in {folder}; {use}"


def inspect_split(
    dataset: SegDataset, split: Split, others: Sequence[str], lists_root: str | None, *, masks: bool = True
) -> Iterator[str]:
    """Yield what there is to know about a split, line by line.

    Args:
        dataset: dataset that the split divides.
        split: the split.
        others: partitions to compare with, as FAMILY:SPLIT:ID; none takes those at hand of the same share.
        lists_root: folder of imported lists; ``None`` looks in the usual places.
        masks: read the images and masks, count classes and search copies.

    Raises:
        UserError: one of ``others`` cannot be made, files are missing or bad, or no run would start on the split.
    """
    own = f"{split.family}:{split.name}:{split.split_id}"
    yield from _head(dataset, split)
    compared = {own: split.labeled, **_others(dataset, split, others, lists_root)}
    missing = _missing_files(dataset, split)
    if masks:
        kept = _without_missing(dataset, split, missing)
        with collected_messages() as found:
            report = check_files(stored(dataset, kept, filled=False), kept)
        yield from ("", *_classes(dataset.info, report))
        yield from (f"  {each}" for each in found)
    if len(compared) > 1:
        yield from ("", *_overlaps(compared, None if others else own))
    if masks and not missing:
        yield from ("", *_limits(dataset, report))
    if missing:
        files = "\n  ".join(str(path) for _, path in missing[:10])
        more = f"\n  and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise UserError(f"{len(missing)} files are missing:\n  {files}{more}")


def _without_missing(dataset: SegDataset, split: Split, missing: Sequence[tuple[str, Path]]) -> Split:
    """A split without the images whose files are missing; where none would be left, all bad files are named."""
    try:
        return without_images(split, {image_id for image_id, _ in missing})
    except UserError:
        check_files(dataset, split)
        raise


def _head(dataset: SegDataset, split: Split) -> list[str]:
    counts = ", ".join(f"{count:,} {kind}" for kind, count in split.counts.items() if count)
    asked = f"split={split.name} split_family={split.family} split_id={split.split_id}"
    return [
        f"dataset={dataset.info.name} {asked}: {counts}",
        f"  sha256 of the labeled ids   {split.sha256['labeled']}",
        f"  sha256 of the unlabeled ids {split.sha256['unlabeled']}",
        f"  {_published_as(dataset.info.name, split)}",
        "  no id is in two parts, or twice in one",
    ]


def _published_as(dataset: str, split: Split) -> str:
    """Say which published partitions have these labeled images, by hash."""
    same = [each for each in manifest().of(dataset) if each.labeled.sha256 == split.sha256["labeled"]]
    if same:
        return f"labeled images as published in: {', '.join(map(str, same))}"
    unlike = unlike_published(dataset, (split.family, split.name, split.split_id), split.labeled)
    return unlike or "no published partition has these labeled images"


def _missing_files(dataset: SegDataset, split: Split) -> list[tuple[str, Path]]:
    """Ids and paths of images of a split that are not on disk, and of masks that are learned from or evaluated."""
    if not isinstance(dataset, FileBacked):
        return []
    masked = {*split.labeled, *split.val, *split.test}
    found = []
    for image_id in dict.fromkeys((*split.labeled, *split.unlabeled, *split.val, *split.test)):
        image, mask = dataset.files(image_id)
        paths = (image, mask) if image_id in masked else (image,)
        found += [(image_id, path) for path in paths if path is not None and not path.is_file()]
    return found


def _limits(dataset: SegDataset, report: CheckReport) -> list[str]:
    """Lay out what limits the meaning of a result."""
    found = weigh(dataset, report)
    lines = [f"  warning: {each}" for each in (*found.warnings, *found.unmeasured)]
    lines += [f"  note: {each}" for each in found.notes]
    return ["copies, groups and classes of the parts:", *(lines or ["  nothing that limits a result"])]


def _classes(info: DatasetInfo, report: CheckReport) -> list[str]:
    """Lay out how many images and pixels of every class the labeled masks hold."""
    classes = info.classes
    masks = [report.facts[image_id].counts or {} for image_id in report.split.labeled]
    counted = [[mask.get(label, 0) for label in range(len(classes))] for mask in masks]
    counts = np.array(counted, np.int64).reshape(-1, len(classes))
    found = list(zip(classes, (counts > 0).sum(0).tolist(), counts.sum(0).tolist(), strict=True))
    total = max(int(counts.sum()), 1)
    rows = [
        [name, f"{images:,}", f"{images / max(len(counts), 1):.1%}", f"{pixels:,}", f"{pixels / total:.2%}"]
        for name, images, pixels in found
    ]
    absent = ", ".join(name for name, images, _ in found if not images)
    return [
        f"classes in the masks of {len(counts):,} labeled images:",
        *text_table(["class", "images", "share", "pixels", "share"], rows),
        f"  in no labeled image, so it cannot be learned: {absent}" if absent else "  no class is missing",
    ]


def _others(
    dataset: SegDataset, split: Split, specs: Sequence[str], lists_root: str | None
) -> dict[str, tuple[str, ...]]:
    """Labeled ids of the partitions to compare with, by name."""
    if specs:
        return {spec: _labeled(dataset, spec, split, lists_root) for spec in specs}
    names = [f"every:{split.name}:0", *(f"shuffled:{split.name}:{number}" for number in SHUFFLES)]
    names += [
        ":".join(each.key)
        for each in manifest().of(dataset.info.name)
        if each.split == split.name and each.family not in ANY_DATASET
        if each.rule or find_imported(each, lists_root)
    ]
    found: dict[str, tuple[str, ...]] = {}
    for spec in names:
        try:
            labeled = _labeled(dataset, spec, split, lists_root)
        except UserError:  # this dataset has no such partition; nobody asked for it
            continue
        if not any(set(labeled) == set(ids) for ids in [split.labeled, *found.values()]):
            found[spec] = labeled
    return found


def _labeled(dataset: SegDataset, spec: str, split: Split, lists_root: str | None) -> tuple[str, ...]:
    parts = spec.split(":")
    if len(parts) > 3 or not parts[0]:
        raise UserError(f"--overlap={spec}: expected FAMILY:SPLIT:ID, for example cac:1/8:0")
    family, name, split_id = (*parts, *("", split.name, "0")[len(parts) :])
    return make_split(dataset, name, family, split_id, lists_root=lists_root).labeled


def _overlaps(compared: Mapping[str, Sequence[str]], own: str | None) -> list[str]:
    """Lay out how many labeled images two partitions share; of all pairs, or of those with ``own``."""
    rows = []
    for first, second in combinations(compared, 2):
        if own in (None, first):
            a, b = set(compared[first]), set(compared[second])
            common = len(a & b)
            rows.append([first, second, f"{common:,}", f"{common / len(a):.1%}", f"{common / len(b):.1%}"])
    titles = ["labeled images of", "and of", "common", "of the first", "of the second"]
    return text_table(titles, rows, left=(0, 1))
