"""PNGs that Label Studio exports of its brush: one a task, annotation and label, named by their numbers."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semiseg.data.image_files import image_files
from semiseg.data.mask_pixels import read_pixels
from semiseg.labels.brush_rle import HALF
from semiseg.labels.label_record import LabeledShape, Patch

NAME = re.compile(r"task-(?P<task>\d+)-annotation-(?P<annotation>\d+)-by-[^-]*-(?P<rest>.+)-\d+")


class _Png(NamedTuple):
    annotation: int
    label: str
    path: Path


Pngs = Mapping[str, list[_Png]]
"""Files by the number of their task."""


def named_pngs(folders: Iterable[Path]) -> Pngs:
    """Return the PNGs below folders whose names are those of an export.

    The name of the control stands before that of the label; it is what all names begin with up to a hyphen.
    """
    found = [
        (path, match)
        for folder in folders
        for path in image_files(folder)
        if (match := NAME.fullmatch(path.stem))
    ]
    controls = {match["rest"].split("-")[0] for _, match in found}
    cut = len(controls.pop()) + 1 if len(controls) == 1 else 0
    by_task: dict[str, list[_Png]] = defaultdict(list)
    for path, match in found:
        by_task[match["task"]].append(_Png(int(match["annotation"]), match["rest"][cut:], path))
    return by_task


def png_shapes(pngs: Iterable[_Png]) -> tuple[LabeledShape, ...]:
    """Return the shapes of the newest annotation of a task, that of the highest number, in the order of the names."""
    files = sorted(pngs, key=lambda png: png.path.name)
    newest = max((png.annotation for png in files), default=0)
    return tuple(
        LabeledShape(png.label, (partial(_patch, png.path),), name=png.path.name)
        for png in files
        if png.annotation == newest
    )


def _patch(path: Path) -> Patch:
    return Patch(np.asarray(read_pixels(path).colors() & 255 >= HALF))
