"""Pictures of a study: the same validation images, with one column for each method."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from semiseg.data.palette import Color
from semiseg.errors import UserError
from semiseg.report.records import RunRecord
from semiseg.report.rendering import data_uri
from semiseg.report.study import Cell, Study, panels
from semiseg.tasks.samples import side_by_side, split_panels
from semiseg.tasks.shown_size import panel_size

PHOTO, TRUTH = "image", "truth"
MAX_WIDTH, MAX_HEIGHT, MAX_COLORS, QUALITY = 320, 640, 256, 82
MAX_PIXELS = 40_000_000
"""Pixels of the largest picture that is read; earlier versions drew narrow strips without a limit."""


@dataclass(frozen=True)
class GalleryRow:
    """One validation image.

    Args:
        name: Id of the image, as in the names of the files.
        pictures: Pictures by column: "image", "truth" where there is one, then each method's prediction.
    """

    name: str
    pictures: Mapping[str, Image.Image]


@dataclass(frozen=True)
class Gallery:
    """Pictures of the cells that differ in the method alone.

    Args:
        name: Values that they share, such as the split.
        runs: Run of each method whose pictures are shown.
        rows: Images that all of these runs have.
        legend: Color by class name; empty where no checkpoint can be read.
    """

    name: str
    runs: Mapping[str, RunRecord]
    rows: tuple[GalleryRow, ...]
    legend: Mapping[str, Color] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the pictures of each row."""
        return tuple(self.rows[0].pictures)


def find_galleries(study: Study) -> tuple[Gallery, ...]:
    """Collect the pictures in the ``samples/`` folders of a study's runs.

    Each method is shown by one of its runs: one with the seed that most runs of the group have, else its first.
    Runs without readable pictures, and groups without any, are left out.
    """
    galleries = []
    for name, cells in panels(study.filled).items():
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
    return stacked([side_by_side(list(row.pictures.items())) for row in gallery.rows])


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Draw pictures below each other."""
    width, heights = max(picture.width for picture in pictures), [picture.height for picture in pictures]
    canvas = Image.new("RGB", (width, sum(heights)), "white")
    for index, picture in enumerate(pictures):
        canvas.paste(picture, (0, sum(heights[:index])))
    return canvas


def picture_uri(picture: Image.Image, photo: bool) -> str:
    """Return a picture as an address for the page: a photograph as JPEG, any other picture without loss."""
    stream = io.BytesIO()
    if photo:
        picture.convert("RGB").save(stream, "jpeg", quality=QUALITY)
    else:
        _indexed(picture).save(stream, "png", optimize=True)
    return data_uri(stream.getvalue(), "jpeg" if photo else "png")


def _indexed(picture: Image.Image) -> Image.Image:
    """Return the same pixels with a palette, in a quarter of the bytes, where there are few enough colors."""
    values = np.asarray(picture.convert("RGB"), np.uint32)
    packed = values[..., 0] << 16 | values[..., 1] << 8 | values[..., 2]
    colors, indices = np.unique(packed, return_inverse=True)
    if len(colors) > MAX_COLORS:
        return picture
    indexed = Image.fromarray(indices.reshape(packed.shape).astype(np.uint8), "P")
    indexed.putpalette([int(color) >> shift & 255 for color in colors for shift in (16, 8, 0)])
    return indexed


def _shown_runs(cells: Sequence[Cell]) -> dict[str, RunRecord]:
    seeds = [run.seed for cell in cells for run in cell.runs]
    usual = max(dict.fromkeys(seeds), key=seeds.count)
    return {
        cell.column: next((run for run in cell.runs if run.seed == usual), cell.runs[0]) for cell in cells
    }


def opened(path: Path) -> Image.Image | None:
    """Read a picture; ``None`` where there is none that can be read, or one of a size that semiseg does not draw."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB") if picture.width * picture.height <= MAX_PIXELS else None
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def small(picture: Image.Image, photo: bool) -> Image.Image:
    """Return a picture at the size that pages show it, which is bounded in both directions."""
    height, width = panel_size(picture.height, picture.width, (1, MAX_WIDTH), MAX_HEIGHT)
    if (width, height) == picture.size:
        return picture
    # Nearest for classes, since a mixed color would be a class that is not there.
    return picture.resize((width, height), Image.Resampling.LANCZOS if photo else Image.Resampling.NEAREST)


def _pictures(folder: Path) -> dict[str, dict[str, Image.Image]]:
    """Panels by file name; files that are no picture of samples are left out."""
    found = {}
    for path in sorted(folder.glob("*.png")):
        if (picture := opened(path)) is None:
            continue
        try:
            panels = split_panels(picture)
        except ValueError:
            continue
        found[path.stem] = {name: small(panel, name == PHOTO) for name, panel in panels.items()}
    return found


def _rows(pictures: Mapping[str, Mapping[str, Mapping[str, Image.Image]]]) -> list[GalleryRow]:
    rows = []
    first = next(iter(pictures.values()), {})
    for name in first:
        found = {method: samples[name] for method, samples in pictures.items() if name in samples}
        # Runs on other images may use the same name, so the photographs themselves are compared.
        photos = {(each[PHOTO].size, each[PHOTO].tobytes()) for each in found.values()}
        if len(photos) == 1 and len(found) == len(pictures):
            shown = {panel: first[name][panel] for panel in (PHOTO, TRUTH) if panel in first[name]}
            predictions = {method: each["prediction"] for method, each in found.items()}
            rows.append(GalleryRow(name.split("-", 1)[-1], shown | predictions))
    return rows


def _legend(runs: Sequence[RunRecord]) -> dict[str, Color]:
    """Colors of the classes from the first checkpoint that can be read."""
    for run in runs:
        path = run.path / str(run.results.get("checkpoint"))
        if not path.is_file():
            continue
        # Imported only now, since torch takes seconds to import.
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
