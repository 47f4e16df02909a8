"""Folder of a report: the page, which needs no other file and no network, Markdown, CSV and figures."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from semiseg import __version__
from semiseg.errors import UserError, listed
from semiseg.files import remove_temporaries, write_json, write_text, writes
from semiseg.report.comparable import measured_otherwise
from semiseg.report.limits import KINDS, limited_runs, limits
from semiseg.report.records import read_optional
from semiseg.report.rendering import html_environment, render_markdown
from semiseg.report.standings import standings
from semiseg.report.study import Cell, Study, StudyFigure, panels
from semiseg.report.tables import runs_csv, standing_columns, standings_table

if TYPE_CHECKING:
    from semiseg.report.gallery import Gallery

MARK = "report.json"
"""File that marks a folder as a report; it holds the command and the names of the figures."""

FIGURES = "figures"


class Panel(NamedTuple):
    """Cells of a panel that have the score of the study.

    Args:
        name: Name of the panel.
        cells: Cells of the panel, at least one.
        unlike: Differing keys that make their scores incomparable; empty where there are none.
        best: Cell with the highest mean.
    """

    name: str
    cells: Sequence[Cell]
    unlike: Sequence[str]
    best: Cell


def claim(folder: Path, force: bool = False) -> None:
    """Make a folder, or reuse one that holds a report; the figures of the earlier report are removed.

    Args:
        folder: Folder of the report.
        force: Whether a folder with other content is used too; files of other names are kept.

    Raises:
        UserError: the folder has other content, or cannot be made or written.
    """
    with writes(folder, "Choose another folder by -o."):
        folder.mkdir(parents=True, exist_ok=True)
        earlier = read_optional(folder / MARK, dict)
        found = sorted(path.name for path in folder.iterdir())
        if found and "figures" not in earlier and not force:
            raise UserError(
                f"{folder} holds no report but other files ({listed(found[:5])}). Choose another folder with -o, or "
                "add --force to write into it."
            )
        for name in earlier.get("figures", ()):
            (folder / FIGURES / Path(str(name)).name).unlink(missing_ok=True)
        remove_temporaries(folder)
        # Marked before anything is written, so that an interrupted report can be made again without --force.
        _mark(folder, "", ())


def write_report(study: Study, folder: Path, command: str) -> list[StudyFigure]:
    """Write all files of a report into its folder and return the figures.

    Args:
        study: Study to show.
        folder: Folder that ``claim`` has prepared.
        command: Command as it was typed.
    """
    # Imported only now: matplotlib takes a second, which help and mistakes need not.
    from semiseg.report.figures import write_figures
    from semiseg.report.gallery import find_galleries

    galleries = find_galleries(study)
    figures = write_figures(study, galleries, folder / FIGURES)
    write_text(folder / "results.csv", runs_csv(study))
    write_text(folder / "report.md", markdown(study, figures, folder))
    write_text(folder / "report.html", page(study, figures, galleries))
    _mark(folder, command, list(dict.fromkeys(path for each in figures for path in (each.path, each.dark))))
    return figures


def page(study: Study, figures: Sequence[StudyFigure] = (), galleries: Sequence["Gallery"] = ()) -> str:
    """Return a study as one HTML page that contains all pictures.

    Args:
        study: Study to show.
        figures: Figures of ``write_figures``.
        galleries: Pictures of the validation images.
    """
    from semiseg.report.gallery import picture_uri
    from semiseg.report.worst_images import find_worst

    environment = html_environment()
    environment.filters["picture_uri"] = picture_uri
    about: dict[str, list[str]] = {}
    for cell in study.cells:
        for note in cell.notes:
            about.setdefault(note, []).append(cell.label)
    return environment.get_template("page.html.j2").render(
        study=study,
        standings=standings(study),
        standing_columns=standing_columns(study),
        figures=figures,
        galleries=galleries,
        worst_of_runs=find_worst(study),
        panels=list(_panels(study)),
        limits=limits(study.finished),
        KINDS=KINDS,
        limited_runs=limited_runs(study.finished),
        notes=[*study.notes, *(f"{', '.join(labels)}: {note}." for note, labels in about.items())],
        run_names=_run_names(study),
        options={
            group: [str(name) for name in dict.fromkeys(run.option(group) for run in study.runs) if name]
            for group in ("dataset", "backbone", "model")
        },
        version=__version__,
    )


def markdown(study: Study, figures: Sequence[StudyFigure], folder: Path) -> str:
    """Return a study as Markdown.

    Args:
        study: Study to show.
        figures: Figures whose files are in ``folder`` or below.
        folder: Folder where the text will be stored; links are relative to it.
    """
    paths = {figure.name: Path(os.path.relpath(figure.path, folder)).as_posix() for figure in figures}
    found = limits(study.finished)
    return render_markdown(
        "report.md.j2",
        study=study,
        standings=standings_table(study),
        figures=figures,
        paths=paths,
        limits=found,
    )


def _run_names(study: Study) -> dict[Path, str]:
    """Return the paths of all runs below their common folder, since names of run folders may be times alone."""
    paths = {run.path: run.path.resolve() for _, run, _ in study.every_run()}
    top = os.path.commonpath([path.parent for path in paths.values()])
    return {path: whole.relative_to(top).as_posix() for path, whole in paths.items()}


def _panels(study: Study) -> Iterator[Panel]:
    for name, cells in panels(study.cells).items():
        scored = [cell for cell in cells if cell.scores[study.metric].mean is not None]
        if scored:
            unlike = measured_otherwise([cell.runs[0] for cell in scored])
            best = max(scored, key=lambda cell: cell.scores[study.metric].mean or 0.0)
            yield Panel(name, scored, unlike, best)


def _mark(folder: Path, command: str, figures: Sequence[Path]) -> None:
    """Mark the folder as a report, with the files in ``figures/`` that the next report may remove."""
    write_json(folder / MARK, {"command": command, "figures": [figure.name for figure in figures]})
