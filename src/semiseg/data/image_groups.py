"""Groups of images that belong together, such as those of a patient, a video, a tile set or a building."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from semiseg.errors import UserError
from semiseg.name_keys import NameIndex
from semiseg.splits.lists import meant_id, read_lines, shown

TABLES = (".csv", ".tsv", ".txt")
"""Endings of files with an image and its group a line; other settings are patterns."""

ID_NAMES = ("id", "image", "image_id", "file", "filename", "file_name", "name", "path")
GROUP_NAMES = ("group", "group_id")
KEY = "dataset.groups"


def read_groups(setting: str | None, base: Path, ids: Iterable[str]) -> dict[str, str]:
    """Return the group of each image that has one.

    Args:
        setting: pattern whose parentheses match the group in an id (several are joined by "/"), or file with an
            image and its group a line; ``None`` for no groups.
        base: folder of the dataset, in which the file is searched.
        ids: ids of all images.

    Raises:
        UserError: the pattern is wrong or matches no id; the file is missing, names no image or puts one into two
            groups.
    """
    if setting is None:
        return {}
    known = list(ids)
    if setting.lower().endswith(TABLES):
        return _from_table(base / Path(setting).expanduser(), setting, known)
    return _from_pattern(setting, known)


def _from_pattern(setting: str, ids: Sequence[str]) -> dict[str, str]:
    try:
        pattern = re.compile(setting)
    except re.error as error:
        raise UserError(f"no regular expression: {error}", key=KEY, value=setting) from error
    example = ids[0] if ids else "p07_001"
    if not pattern.groups:
        raise UserError(
            "expected parentheses around the part of an id that names its group, for example '^(p[0-9]+)_' for ids "
            f"such as p07_001, or the name of a CSV file; the first id is {example}",
            key=KEY,
            value=setting,
        )
    found = {
        image_id: "/".join(part for part in match.groups() if part)
        for image_id in ids
        if (match := pattern.search(image_id))
    }
    groups = {image_id: group for image_id, group in found.items() if group}
    if ids and not groups:
        raise UserError(f"matches none of {len(ids):,} ids, such as {example}", key=KEY, value=setting)
    return groups


def _from_table(path: Path, setting: str, ids: Sequence[str]) -> dict[str, str]:
    lines = read_lines(path)
    delimiter = next((each for each in ("\t", ";") if lines and each in lines[0]), ",")
    rows = [
        [field.strip() for field in row]
        for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    ]
    expected = f"{path}: expected an image and its group a line, as in p07_001{delimiter}p07"
    if short := [number for number, row in enumerate(rows, start=1) if len(row) < 2]:
        raise UserError(f"{expected}; line {short[0]} has one field", key=KEY, value=setting)
    pool = NameIndex(ids)
    first, second = _columns(rows, pool, expected, setting)
    groups: dict[str, str] = {}
    faults = []
    for row in rows:
        image_id = meant_id(row[first], pool) if len(row) > max(first, second) else None
        if image_id is not None and row[second]:
            other = groups.setdefault(image_id, row[second])
            if other != row[second]:
                faults.append(f"{image_id} is in the groups {other} and {row[second]}")
    if faults:
        raise UserError(f"{path}: {shown(faults)}", key=KEY, value=setting)
    if not groups:
        raise UserError(
            f"{path} names none of the {len(ids):,} images, such as {shown(ids, 1)}; its first line is "
            f"{lines[0] if lines else 'missing'}",
            key=KEY,
            value=setting,
        )
    return groups


def _columns(rows: Sequence[Sequence[str]], pool: NameIndex, expected: str, setting: str) -> tuple[int, int]:
    """Columns of the image and of its group: by the names of a first line, else the first two."""
    if not rows:
        return 0, 1
    names = [field.lower() for field in rows[0]]
    group = next((place for place, name in enumerate(names) if name in GROUP_NAMES), None)
    image = next((place for place, name in enumerate(names) if name in ID_NAMES), None)
    if group is not None and image is not None:
        return image, group
    if len(names) > 2:
        raise UserError(
            f"{expected}, or a first line that names the columns id and group; it has {len(names)} columns: "
            f"{shown(rows[0])}",
            key=KEY,
            value=setting,
        )
    hits = [sum(meant_id(row[place], pool) is not None for row in rows if row[place]) for place in (0, 1)]
    return (0, 1) if hits[0] >= hits[1] else (1, 0)


def draw_share(ids: Sequence[str], share: float, groups: Mapping[str, str]) -> tuple[str, ...]:
    """Draw about a share of some images by whole groups, spread evenly over the groups' first ids.

    A group is taken where more than half of it is due by the share, so that the number of images is off by at
    most half of the largest group drawn. Where that takes none, the smallest group is taken.

    Args:
        ids: sorted ids to draw from.
        share: share of them, between 0 and 1.
        groups: group of each id; an id without one is a group of its own.

    Returns:
        The drawn ids, in the order of ``ids``.

    Raises:
        UserError: all images are of one group, so that none is left for the other side.
    """
    members: dict[tuple[bool, str], list[str]] = {}
    for image_id in ids:
        members.setdefault((image_id in groups, groups.get(image_id, image_id)), []).append(image_id)
    if len(members) < 2:
        raise UserError(
            f"all {len(ids):,} labeled images are of one group, so that none can be validated on that is of another; "
            "name the validation images by dataset.val, leave dataset.groups out, or give smaller blocks of tiles by "
            "dataset.tiles.block"
        )
    due, taken = 0.0, set[str]()
    for each in members.values():
        due += share * len(each)
        if due - len(taken) > len(each) / 2 and len(taken) + len(each) < len(ids):
            taken.update(each)
    if not taken:
        smallest: list[str] = min(members.values(), key=len)
        taken.update(smallest)
    return tuple(each for each in ids if each in taken)


def joined(groups: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return groups in which the images of each pair are in one group too, along chains of pairs and groups.

    Args:
        groups: group of each id that has one.
        pairs: ids that have to be together.

    Returns:
        The first id of the joined images as the group of each, for all ids in ``groups`` or ``pairs``.
    """
    leader: dict[str, str] = {}

    def find(image_id: str) -> str:
        root = leader.setdefault(image_id, image_id)
        while leader[root] != root:
            root = leader[root]
        while leader[image_id] != root:
            leader[image_id], image_id = root, leader[image_id]
        return root

    firsts: dict[str, str] = {}
    links = [*pairs, *((firsts.setdefault(group, image_id), image_id) for image_id, group in groups.items())]
    for first, second in links:
        low, high = sorted((find(first), find(second)))
        leader[high] = low
    return {image_id: find(image_id) for image_id in list(leader)}
