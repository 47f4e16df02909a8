"""The pictures of a study: the same validation images, one column a method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from semiseg.data.palette import Color
from semiseg.errors import UserError
from semiseg.report.collect import RunRecord
from semiseg.report.groups import column_name, panels
from semiseg.report.model import Cell, Study
from semiseg.track.samples import side_by_side, split_panels

SHOWN = ("image", "truth")
MAX_WIDTH = 320


@dataclass(frozen=True)
class Row:
    """One validation image.

    Args:
        name: id of the image, as in the names of the files.
        pictures: by column: "image", "truth" where there is one, then each method's prediction.
    """

    name: str
    pictures: Mapping[str, Image.Image]


@dataclass(frozen=True)
class Gallery:
    """Pictures of the cells that differ in the method alone.

    Args:
        name: what they share, such as the split.
        runs: by method: the run that its pictures are of.
        rows: only images that all of these runs show.
        legend: color by class name; empty where no checkpoint tells it.
    """

    name: str
    runs: Mapping[str, RunRecord]
    rows: tuple[Row, ...]
    legend: Mapping[str, Color] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the pictures of each row."""
        return tuple(self.rows[0].pictures)


def find_galleries(study: Study) -> tuple[Gallery, ...]:
    """Collect the pictures in the ``samples/`` folders of a study's runs.

    Each method is shown by one of its runs: of the seed that most methods of the group have, else of its first.
    Runs without readable pictures, and groups without any, are left out.
    """
    galleries = []
    for name, cells in panels([cell for cell in study.cells if cell.runs]).items():
        runs = _shown_runs(cells)
        pictures = {
            method: found for method, run in runs.items() if (found := _pictures(run.path / "samples"))
        }
        rows = tuple(_rows(pictures))
        if rows:
            shown = {method: runs[method] for method in pictures}
            galleries.append(Gallery(name, shown, rows, _legend(tuple(shown.values()))))
    return tuple(galleries)


def contact_sheet(gallery: Gallery) -> Image.Image:
    """Draw all rows below each other, each picture below its name."""
    sheets = [side_by_side(list(row.pictures.items())) for row in gallery.rows]
    canvas = Image.new(
        "RGB", (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)), "white"
    )
    top = 0
    for sheet in sheets:
        canvas.paste(sheet, (0, top))
        top += sheet.height
    return canvas


def _shown_runs(cells: Sequence[Cell]) -> dict[str, RunRecord]:
    seeds = [_seed(run) for cell in cells for run in cell.runs]
    usual = max(dict.fromkeys(seeds), key=seeds.count)
    return {
        column_name(cell.key): next((run for run in cell.runs if _seed(run) == usual), cell.runs[0])
        for cell in cells
    }


def _seed(run: RunRecord) -> object:
    return run.config.get("seed")


def _pictures(folder: Path) -> dict[str, dict[str, Image.Image]]:
    """Panels by file name; files that are no picture of samples are left out."""
    found = {}
    for path in sorted(folder.glob("*.png")):
        try:
            with Image.open(path) as picture:
                panels = split_panels(picture.convert("RGB"))
        except (OSError, ValueError):
            continue
        found[path.stem] = {name: _reduced(panel, name == "image") for name, panel in panels.items()}
    return found


def _rows(pictures: Mapping[str, Mapping[str, Mapping[str, Image.Image]]]) -> list[Row]:
    rows = []
    first = next(iter(pictures.values()), {})
    for name in first:
        if not all(name in found for found in pictures.values()):
            continue
        shown = {panel: first[name][panel] for panel in SHOWN if panel in first[name]}
        predictions = {method: found[name]["prediction"] for method, found in pictures.items()}
        # The same name in runs on other images must not pass for the same image.
        if all(_equal(found[name]["image"], shown["image"]) for found in pictures.values()):
            rows.append(Row(name.split("-", 1)[-1], shown | predictions))
    return rows


def _equal(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and bool(np.array_equal(np.asarray(one), np.asarray(other)))


def _reduced(picture: Image.Image, photo: bool) -> Image.Image:
    if picture.width <= MAX_WIDTH:
        return picture
    size = MAX_WIDTH, max(round(picture.height * MAX_WIDTH / picture.width), 1)
    # Mixed colors would be classes that are not there.
    return picture.resize(size, Image.Resampling.LANCZOS if photo else Image.Resampling.NEAREST)


def _legend(runs: Sequence[RunRecord]) -> dict[str, Color]:
    """Colors of the classes from the first checkpoint that can be read."""
    for run in runs:
        path = run.path / str((run.summary or {}).get("checkpoint"))
        if not path.is_file():
            continue
        # Only now what reads it: torch takes a while.
        from semiseg.engine.checkpoint import load_bundle

        try:
            bundle = load_bundle(path)
        except (OSError, UserError):
            continue
        return {
            str(name): (int(color[0]), int(color[1]), int(color[2]))
            for name, color in zip(bundle["classes"], bundle["palette"], strict=True)
        }
    return {}
