"""Recognition of files in which labeling tools keep labels that are no masks."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from semiseg.splits.lists import spread

HEAD_BYTES = 1 << 16
LOOKED_INTO = 5
MANY_TEXTS = 3

JSON_KINDS = (
    ("labelme", re.compile(r'"shapes"\s*:')),
    ("cityscapes", re.compile(r'"imgHeight"\s*:|"imgWidth"\s*:')),
    ("VIA", re.compile(r'"_via_|"regions"\s*:')),
    (
        "Label Studio",
        re.compile(r'"annotations"\s*:\s*\[\s*\{(?s:.)*?"result"\s*:|"from_name"\s*:|brush_labels_'),
    ),
    ("COCO", re.compile(r'"categories"\s*:|"segmentation"\s*:|"iscrowd"\s*:|"images"\s*:\s*\[')),
    ("Supervisely", re.compile(r'"objects"\s*:(?s:.)*?"classTitle"\s*:')),
)
XML_KINDS = (
    ("CVAT", re.compile(r"<annotations[\s>]")),
    ("VOC", re.compile(r"<annotation[\s>]")),
)
YOLO_LINE = re.compile(r"\d+(\s+[-+]?\d*\.?\d+(e-?\d+)?){4,}\s*", re.IGNORECASE)
FORMATS = {
    "labelme": "labelme",
    "cityscapes": "cityscapes",
    "Label Studio": "label-studio",
    "COCO": "coco",
    "CVAT": "cvat",
    "YOLO": "yolo",
}
"""Formats of ``semiseg import`` by the tools that write them."""


def tool_files(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the files that hold labels of a tool, by the name of the tool; of files of one ending some are opened."""
    found: dict[str, list[Path]] = {}
    by_ending: dict[tuple[str, Path], list[Path]] = {}
    for path in files:
        if path.suffix.lower() in (".json", ".xml", ".txt"):
            by_ending.setdefault((path.suffix.lower(), path.parent), []).append(path)
    for (_, _), group in by_ending.items():
        some = spread([str(path) for path in group], min(LOOKED_INTO, len(group)))
        kinds = Counter(kind for path in some if (kind := _kind(Path(path))) is not None)
        for kind, count in kinds.most_common(1):
            if 2 * count >= len(some):
                found.setdefault(kind, []).extend(group)
    return found


def tool_lines(base: Path, files: Sequence[Path]) -> list[str]:
    """Say of the files with labels of tools how they become masks, a line a tool."""
    lines = []
    for kind, group in tool_files(files).items():
        noun = f"{kind} file" + ("s" if len(group) > 1 else "")
        if kind in FORMATS:
            cure = f"`semiseg import {FORMATS[kind]} {_place(base, group)}` makes them"
        else:
            cure = "export masks, or a format that `semiseg import --help` names, from that tool"
        lines.append(f"{len(group):,} {noun}: semiseg reads masks; {cure}")
    return lines


def _place(base: Path, group: Sequence[Path]) -> Path:
    return group[0] if len(group) == 1 else base


def _kind(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return None
    if path.suffix.lower() == ".txt":
        lines = [line for line in head.splitlines()[:20] if line.strip()]
        return "YOLO" if lines and all(YOLO_LINE.fullmatch(line.strip()) for line in lines) else None
    kinds = JSON_KINDS if path.suffix.lower() == ".json" else XML_KINDS
    return next((name for name, sign in kinds if sign.search(head)), None)
