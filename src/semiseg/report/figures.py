"""All figures of a study as PNG files, each for light and for dark pages, with descriptions in words."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from semiseg.files import replacing
from semiseg.report import plotting
from semiseg.report.comparable import grouped
from semiseg.report.gallery import Gallery, contact_sheet
from semiseg.report.plotting import STYLES, Lines, Looks
from semiseg.report.records import RunCurves, curves, mean_curve
from semiseg.report.scores import (
    COSTS,
    difference,
    mean_std,
    percent,
    quantity,
)
from semiseg.report.study import ALL, Cell, Study, StudyFigure, panels

DPI = 180
# Narrow, so that letters keep a readable size on a phone.
WIDTH, HEIGHT = 5.0, 3.7
ROW, FRAME = 0.34, 1.1

Write = Callable[..., StudyFigure]
"""Function that writes a figure, ``_write`` with its folder."""


def write_figures(study: Study, galleries: Sequence[Gallery], folder: Path) -> list[StudyFigure]:
    """Write the figures that the study has numbers for; files of the same names are replaced.

    Args:
        study: Study to show.
        galleries: Galleries whose contact sheets are written too, as NAME.jpg.
        folder: Folder that gets NAME.png and NAME-dark.png; made where it does not exist.

    Returns:
        Figures in the order in which a report shows them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = list(_number_figures(study, partial(_write, folder)))
    for gallery in galleries:
        name = f"gallery-{_stem(gallery.name)}"
        path = folder / f"{name}.jpg"
        with replacing(path) as file:
            # As a PNG, a sheet of photographs takes five times as many bytes.
            contact_sheet(gallery).save(file, "JPEG", quality=85, subsampling=0)
        rows, columns = ", ".join(row.name for row in gallery.rows), ", ".join(gallery.columns)
        alt = f"Validation images {rows}, one a row, with the columns {columns}."
        figures.append(StudyFigure(name, path, f"Predictions, {gallery.name}", alt, path))
    return figures


def _number_figures(study: Study, write: Write) -> Iterator[StudyFigure]:
    """Write all figures of numbers, the baseline before the other methods."""
    cells = sorted(study.filled, key=lambda cell: not study.is_baseline(cell))
    if not cells:
        return
    looks = {
        name: plotting.line_look(index)
        for index, name in enumerate(dict.fromkeys(cell.look for cell in cells))
    }
    for name, members in grouped(study.filled, lambda cell: cell.dataset).items():
        yield _scores(write, study, name, members, looks)
    yield from _difference(write, study, looks)
    for name, members in study.datasets.items():
        yield from _classes(write, study, name, members)
    for name, members in panels(cells).items():
        drawn = {cell.column: [curves(run) for run in cell.runs] for cell in members}
        own = {cell.column: looks[cell.look] for cell in members}
        yield from _curve_figures(write, study, name, drawn, own)
    yield _costs(write, study, looks)


def _scores(write: Write, study: Study, dataset: str, cells: Sequence[Cell], looks: Looks) -> StudyFigure:
    """Write the scores of the cells of a dataset, over the share of labeled images where there are several."""
    name, suffix = study.metric_name, study.suffix(dataset)
    stem = f"-{_stem(dataset)}" if suffix else ""
    averages = [cell.scores[study.metric] for cell in cells]
    alt = f"{name} in percent. {_each(cells, lambda cell: mean_std(cell.scores[study.metric]))}"
    lined = sorted(cells, key=lambda cell: not study.is_baseline(cell))
    placed = [cell for cell in lined if cell.fraction and cell.scores[study.metric].n]
    if len({cell.fraction for cell in placed}) < 2:
        return write(
            f"scores{stem}",
            f"{name}{suffix}",
            alt,
            lambda canvas: plotting.draw_averages(
                canvas.subplots(), cells, looks, averages, 100, f"{name} (%)"
            ),
            _rows_size(cells),
            "Mean, one standard deviation to each side, and each seed as a small dot.",
        )
    full = [cell for cell in placed if study.is_baseline(cell) and cell.fraction == 1]
    reference = full[0].scores[study.metric].mean if len(full) == 1 else None
    caption = "Means, with a band of one standard deviation to each side and each seed as a small dot."
    if reference is not None:
        caption += f" Dotted: {study.baseline} with all labels."
    lines = grouped(placed, lambda cell: cell.look)
    return write(
        f"ratio{stem}",
        f"{name} against the share of labeled images{suffix}",
        alt,
        lambda canvas: plotting.draw_ratio(canvas, lines, looks, study, reference),
        caption=caption,
    )


def _difference(write: Write, study: Study, looks: Looks) -> Iterator[StudyFigure]:
    rows = [cell for cell in study.cells if cell.difference is not None]
    if rows:
        parts = _each(rows, lambda cell: difference(cell.difference))
        yield write(
            "difference",
            f"Difference of {study.metric_name} to {study.baseline}",
            f"Difference to {study.baseline} in percentage points, 95 % interval in brackets. {parts}",
            lambda canvas: plotting.draw_difference(canvas, rows, looks),
            _rows_size(rows),
            "Paired by seed and labeled images, with 95 % confidence intervals; hollow where a single pair has none.",
        )


def _classes(write: Write, study: Study, dataset: str, members: Sequence[Cell]) -> Iterator[StudyFigure]:
    """Write the heat map of the classes of a dataset."""
    cells = [cell for cell in members if cell.by_class]
    if not (cells and (names := study.classes_of(cells))):
        return
    suffix = study.suffix(dataset)

    def extremes(cell: Cell) -> str:
        known = {name: each.mean for name, each in cell.by_class.items() if each.mean is not None}
        best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        return f"highest {best} {percent(known[best])}, lowest {worst} {percent(known[worst])}"

    parts = _each([cell for cell in cells if any(each.n for each in cell.by_class.values())], extremes)
    chosen = study.class_rows(cells)
    note = chosen.note("results.csv")
    yield write(
        f"classes-{_stem(dataset)}" if suffix else "classes",
        f"{study.names.by_class.name} of each class on the validation images (%){suffix}",
        f"Heat map of the {study.names.by_class.name} of {len(names)} classes in percent. {parts}",
        lambda canvas: plotting.draw_classes(canvas, cells, chosen.names),
        (1.6 + 0.78 * len(cells), FRAME + 0.29 * len(chosen.names)),
        f"{note[:1].upper()}{note[1:]}." if note else "",
    )


def _curve_figures(
    write: Write, study: Study, name: str, drawn: Mapping[str, Sequence[RunCurves]], looks: Looks
) -> Iterator[StudyFigure]:
    def lines(part: str) -> Lines:
        found = {
            key: list(filter(None, (getattr(each, part) for each in runs))) for key, runs in drawn.items()
        }
        return {key: parts for key, parts in found.items() if parts}

    suffix = "" if name == ALL else f", {name}"
    if scores := lines("score"):
        yield write(
            f"learning-{_stem(name)}",
            f"Learning curves{suffix}",
            _curves_alt(f"{study.names.primary.name} on the validation images", scores),
            lambda canvas: plotting.draw_learning(canvas, scores, looks, study.names.primary.name),
        )
    coverage, accuracy = lines("coverage"), lines("accuracy")
    if coverage:
        yield write(
            f"pseudo-{_stem(name)}",
            f"Pseudo-labels{suffix}",
            f"{_curves_alt('Coverage', coverage)} {_curves_alt('Accuracy', accuracy)}".strip(),
            lambda canvas: plotting.draw_pseudo(canvas, coverage, accuracy, looks),
            (WIDTH, HEIGHT + 1.3),
        )


def _costs(write: Write, study: Study, looks: Looks) -> StudyFigure:
    def costs(cell: Cell) -> str:
        found = {label: quantity(cell.costs[name], factor) for name, (label, factor) in COSTS.items()}
        return ", ".join(f"{text} {label}" for label, text in found.items())

    return write(
        "cost",
        "Throughput, time and memory of training",
        f"Costs of training. {_each(study.filled, costs)}",
        lambda canvas: plotting.draw_costs(canvas, study.filled, looks),
        (WIDTH + 2.2, _rows_size(study.filled)[1]),
    )


def _curves_alt(what: str, lines: Lines) -> str:
    """Describe the first and last mean of each line, with their iterations."""
    means = {name: mean_curve(members) for name, members in lines.items()}
    parts = [
        f"{name}: {percent(mean.values[0])} at iteration {mean.iterations[0]}, "
        f"{percent(mean.values[-1])} at {mean.iterations[-1]}"
        for name, mean in means.items()
        if mean
    ]
    return f"{what} in percent over the iterations. {'; '.join(parts)}." if parts else ""


def _each(cells: Sequence[Cell], text: Callable[[Cell], str]) -> str:
    return f"{'; '.join(f'{cell.label}: {text(cell)}' for cell in cells)}."


def _rows_size(rows: Sequence[Cell]) -> tuple[float, float]:
    return WIDTH, FRAME + ROW * len(rows)


def _stem(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name.replace("/", "of")).strip("-.") or "all"


def _write(
    folder: Path,
    name: str,
    title: str,
    alt: str,
    draw: Callable[[Figure], None],
    size: tuple[float, float] = (WIDTH, HEIGHT),
    caption: str = "",
) -> StudyFigure:
    """Write a figure that is drawn into an empty canvas of this size in inches, once for each style."""
    paths = {"light": folder / f"{name}.png", "dark": folder / f"{name}-dark.png"}
    for style, path in paths.items():
        with matplotlib.style.context(STYLES[style]):
            canvas = Figure(figsize=size, layout="constrained")
            draw(canvas)
            # Without the name and version of matplotlib, equal pictures are equal files.
            with replacing(path) as file:
                canvas.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return StudyFigure(name, paths["light"], title, alt, paths["dark"], caption)
