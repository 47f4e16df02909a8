"""All figures of a study as PNG files, each for light and for dark pages."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure as Canvas

from semiseg.files import replacing
from semiseg.report import plots_alt, plots_cells, plots_lines
from semiseg.report.curves import RunCurves, curves
from semiseg.report.gallery import Gallery, contact_sheet
from semiseg.report.groups import (
    ALL,
    baseline_first,
    column_name,
    grouped,
    is_baseline,
    line_name,
    panels,
)
from semiseg.report.model import Cell, Figure, Study
from semiseg.report.plots_style import DARK, LIGHT, Look, Theme, looks
from semiseg.report.wording import COSTS, metric_name

DPI = 180
# Narrow, so that a phone shows the letters at their size.
WIDTH = 5.0
HEIGHT = 3.7
ROW = 0.34
FRAME = 1.1

Draw = Callable[[Canvas, Theme], None]


@dataclass(frozen=True)
class Plan:
    """A figure before it is drawn.

    Args:
        name: as of ``Figure``.
        title: as of ``Figure``.
        alt: as of ``Figure``.
        size: width and height in inches.
        draw: draws it into an empty canvas of that size.
        caption: as of ``Figure``.
    """

    name: str
    title: str
    alt: str
    size: tuple[float, float]
    draw: Draw
    caption: str = ""


def write_figures(study: Study, galleries: Sequence[Gallery], folder: Path) -> list[Figure]:
    """Write the figures that the study has numbers for, over those of the same names.

    Args:
        study: what is shown.
        galleries: their contact sheets are written too.
        folder: gets NAME.png and NAME-dark.png, contact sheets as NAME.jpg; made where it does not exist.

    Returns:
        In the order in which a report shows them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = [_written(plan, folder) for plan in plans(study)]
    for gallery in galleries:
        name = f"gallery-{_stem(gallery.name)}"
        path = folder / f"{name}.jpg"
        with replacing(path) as file:
            # A sheet of photographs takes five times as much as a PNG.
            contact_sheet(gallery).save(file, "JPEG", quality=85, subsampling=0)
        figures.append(Figure(name, path, f"Predictions, {gallery.name}", plots_alt.gallery(gallery), path))
    return figures


def plans(study: Study) -> list[Plan]:
    """Lay out all figures of numbers."""
    cells = baseline_first(study)
    look = looks([line_name(cell.key) for cell in cells])
    if not cells:
        return []
    run_curves = {run.path: curves(run) for cell in cells for run in cell.runs}
    found = [_scores(study, cells, look), *_difference(study, look), *_classes(study)]
    for name, members in panels(cells).items():
        found += _learning(name, members, look, run_curves)
        found += _pseudo(name, members, look, run_curves)
    return [*found, _costs(study, look)]


def _scores(study: Study, cells: Sequence[Cell], look: Mapping[str, Look]) -> Plan:
    name = metric_name(study.metric)
    placed = [cell for cell in cells if cell.fraction and cell.scores[study.metric].n]
    if len({cell.fraction for cell in placed}) > 1:
        return _ratio(study, placed, look)
    rows = [cell for cell in study.cells if cell.runs]
    styles = [look[line_name(cell.key)] for cell in rows]
    return Plan(
        "scores",
        name,
        plots_alt.scores(study),
        _row_size(rows),
        lambda canvas, theme: plots_cells.draw_scores(
            canvas, theme, rows, styles, study.metric, f"{name} (%)"
        ),
        "Mean, one standard deviation to each side, and each seed as a small dot.",
    )


def _ratio(study: Study, cells: Sequence[Cell], look: Mapping[str, Look]) -> Plan:
    name = metric_name(study.metric)
    lines = grouped(cells, line_name)
    full = [
        cell.scores[study.metric].mean for cell in cells if is_baseline(study, cell) and cell.fraction == 1
    ]
    reference = full[0] if len(full) == 1 else None
    caption = "Means, with a band of one standard deviation to each side and each seed as a small dot."
    if reference is not None:
        caption += f" Dotted: {study.baseline} with all labels."
    return Plan(
        "ratio",
        f"{name} against the share of labeled images",
        plots_alt.scores(study),
        (WIDTH, HEIGHT),
        lambda canvas, theme: plots_lines.draw_ratio(
            canvas, theme, lines, look, study.metric, f"{name} (%)", reference
        ),
        caption,
    )


def _difference(study: Study, look: Mapping[str, Look]) -> Iterator[Plan]:
    rows = [cell for cell in study.cells if cell.difference is not None]
    if rows:
        styles = [look[line_name(cell.key)] for cell in rows]
        yield Plan(
            "difference",
            f"Difference of {metric_name(study.metric)} to {study.baseline}",
            plots_alt.differences(study, rows),
            _row_size(rows),
            lambda canvas, theme: plots_cells.draw_difference(
                canvas, theme, rows, styles, "percentage points"
            ),
            "Paired by seed and labeled images, with 95 % confidence intervals; hollow where a single pair has none.",
        )


def _classes(study: Study) -> Iterator[Plan]:
    cells = [cell for cell in study.cells if cell.iou]
    if cells and study.classes:
        size = 1.6 + 0.78 * len(cells), FRAME + 0.29 * len(study.classes)
        yield Plan(
            "classes",
            "IoU of each class on the validation images (%)",
            plots_alt.classes(cells, study.classes),
            size,
            lambda canvas, theme: plots_cells.draw_classes(canvas, theme, cells, study.classes),
        )


def _learning(
    name: str, cells: Sequence[Cell], look: Mapping[str, Look], run_curves: Mapping[Path, RunCurves]
) -> Iterator[Plan]:
    lines = {
        column_name(cell.key): parts
        for cell in cells
        if (parts := [found for run in cell.runs if (found := run_curves[run.path].miou)])
    }
    if lines:
        own = _own_looks(cells, look)
        yield Plan(
            f"learning-{_stem(name)}",
            _titled("Learning curves", name),
            plots_alt.curves("mIoU on the validation images", lines),
            (WIDTH, HEIGHT),
            lambda canvas, theme: plots_lines.draw_learning(canvas, theme, lines, own),
        )


def _pseudo(
    name: str, cells: Sequence[Cell], look: Mapping[str, Look], run_curves: Mapping[Path, RunCurves]
) -> Iterator[Plan]:
    members = {column_name(cell.key): [run_curves[run.path] for run in cell.runs] for cell in cells}
    coverage = {
        key: found for key, parts in members.items() if (found := [p.coverage for p in parts if p.coverage])
    }
    accuracy = {key: found for key in coverage if (found := [p.accuracy for p in members[key] if p.accuracy])}
    if coverage:
        own = _own_looks(cells, look)
        yield Plan(
            f"pseudo-{_stem(name)}",
            _titled("Pseudo-labels", name),
            f"{plots_alt.curves('Coverage', coverage)} {plots_alt.curves('Accuracy', accuracy)}".strip(),
            (WIDTH, HEIGHT + 1.3),
            lambda canvas, theme: plots_lines.draw_pseudo(canvas, theme, coverage, accuracy, own),
        )


def _costs(study: Study, look: Mapping[str, Look]) -> Plan:
    rows = [cell for cell in study.cells if cell.runs]
    styles = [look[line_name(cell.key)] for cell in rows]
    return Plan(
        "cost",
        "Throughput, time and memory of training",
        plots_alt.costs(rows),
        (WIDTH + 2.2, FRAME + ROW * len(rows)),
        lambda canvas, theme: plots_cells.draw_costs(canvas, theme, rows, styles, COSTS),
    )


def _own_looks(cells: Sequence[Cell], look: Mapping[str, Look]) -> dict[str, Look]:
    return {column_name(cell.key): look[line_name(cell.key)] for cell in cells}


def _row_size(rows: Sequence[Cell]) -> tuple[float, float]:
    return WIDTH, FRAME + ROW * len(rows)


def _titled(topic: str, name: str) -> str:
    return topic if name == ALL else f"{topic}, {name}"


def _stem(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name.replace("/", "of")).strip("-.") or "all"


def _written(plan: Plan, folder: Path) -> Figure:
    paths = {LIGHT: folder / f"{plan.name}.png", DARK: folder / f"{plan.name}-dark.png"}
    for theme, path in paths.items():
        with matplotlib.rc_context(theme.settings()):
            canvas = Canvas(figsize=plan.size, layout="constrained")
            plan.draw(canvas, theme)
            # Without the name of the program that wrote it, equal pictures are equal files.
            with replacing(path) as file:
                canvas.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return Figure(plan.name, paths[LIGHT], plan.title, plan.alt, paths[DARK], plan.caption)
