"""The images that a network is worst on: a page of its own beside an evaluation, and a section of a report."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from semiseg import __version__
from semiseg.contracts.score_names import TOTALS, MetricName, ScoreNames
from semiseg.files import write_text
from semiseg.report.gallery import opened, picture_uri, small
from semiseg.report.records import RunRecord
from semiseg.report.rendering import html_environment
from semiseg.report.study import Study
from semiseg.tasks.samples import cut_panels

COLUMNS = ("image", "truth", "prediction", "wrong", "confidence")
PHOTOS = ("image", "wrong")
SHOWN = 200
"""Rows of the table on the page; ``images.csv`` has all."""


@dataclass(frozen=True)
class WorstImage:
    """One of the worst images.

    Args:
        name: Id of the image.
        values: Its fields in ``images.csv``, by column.
        pictures: Pictures by the names in ``COLUMNS``.
    """

    name: str
    values: Mapping[str, str]
    pictures: Mapping[str, Image.Image]


@dataclass(frozen=True)
class WorstImages:
    """Worst images of one run.

    Args:
        name: Name of the cell that the run belongs to.
        run: The run.
        score: Names of the score that they are ranked by.
        images: Images, the worst first.
        legend: Picture of the colors of the classes; ``None`` where there is none.
    """

    name: str
    run: RunRecord
    score: MetricName
    images: tuple[WorstImage, ...]
    legend: Image.Image | None = None


def read_rows(folder: Path) -> list[dict[str, str]]:
    """Read ``images.csv`` of an evaluation, the worst image first; empty where there is none that can be read."""
    try:
        with (folder / "images.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return []


def read_worst(folder: Path) -> tuple[WorstImage, ...]:
    """Read the pictures that ``semiseg eval`` wrote into a folder, with their rows of ``images.csv``."""
    rows, found = read_rows(folder), []
    for path in sorted((folder / "worst").glob("[0-9][0-9][0-9]-*.png")):
        number = int(path.name[:3])
        picture = opened(path)
        panels = None if picture is None else cut_panels(picture, len(COLUMNS))
        if panels is None or number > len(rows):
            continue
        named = zip(COLUMNS, panels, strict=True)
        pictures = {name: small(panel, name in PHOTOS) for name, panel in named}
        found.append(WorstImage(rows[number - 1]["image"], rows[number - 1], pictures))
    return tuple(found)


def find_worst(study: Study) -> tuple[WorstImages, ...]:
    """Collect the worst validation images of a study, of the first run of each cell that ``eval`` has measured."""
    found = []
    for cell in study.filled:
        for run in cell.runs:
            folder = run.path / "eval-val-reported"
            if images := read_worst(folder):
                legend = opened(folder / "worst" / "legend.png")
                # The first column after the id; an evaluation may have another score than its run.
                key = list(images[0].values)[1]
                score = TOTALS.get(key, (MetricName(key, key),))[0]
                found.append(WorstImages(cell.label, run, score, images, legend))
                break
    return tuple(found)


def write_worst_page(folder: Path, title: str, names: ScoreNames) -> None:
    """Write ``worst.html``, which needs no other file: scores and pictures of the worst images of an evaluation.

    Args:
        folder: Folder of the evaluation, with ``images.csv`` and ``worst/``.
        title: Title of the page.
        names: Names of the scores.
    """
    environment = html_environment()
    environment.filters["picture_uri"] = picture_uri
    rows = read_rows(folder)
    text = environment.get_template("worst.html.j2").render(
        title=title,
        images=read_worst(folder),
        score=names.primary,
        legend=opened(folder / "worst" / "legend.png"),
        head=_head(rows, names),
        rows=rows[:SHOWN],
        left=max(len(rows) - SHOWN, 0),
        version=__version__,
    )
    write_text(folder / "worst.html", text)


def _head(rows: Sequence[Mapping[str, str]], names: ScoreNames) -> dict[str, str]:
    """Names for people of the columns of ``images.csv`` that hold shares of all classes or the number of pixels."""
    known = {each.key: each.name for each in names.totals} | {"image": "image", "pixels": "pixels"}
    return {key: known[key] for key in (rows[0] if rows else ()) if key in known}
