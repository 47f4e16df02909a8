"""Drawing of figures: lines over ratios and iterations, rows of cells, heat maps; for light and dark pages."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from semiseg.report.records import Curve, mean_curve
from semiseg.report.scores import COSTS, Average, percent
from semiseg.report.study import SPLIT_KEY, Cell, Study, panel_starts

STYLES = {
    name: [Path(__file__).parent / "templates" / f"{part}.mplstyle" for part in ("figures", name)]
    for name in ("light", "dark")
}
"""Style files of matplotlib for light and for dark pages."""

COLORS = 6
"""Number of colors of lines, that of the text not counted."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
PERCENT = 100
BAND, FAINT, STRONG = 0.16, 0.4, 0.55
LEGEND_COLUMNS = 3


Lines = Mapping[str, Sequence[Curve]]
"""Curves of the runs of each line."""

Looks = Mapping[str, Mapping[str, Any]]
"""Options of ``line_look`` by ``Cell.look``; for learning curves by column."""


def line_look(index: int) -> dict[str, Any]:
    """Return options of matplotlib that distinguish a line even without color; line 0 has the color of the text."""
    color = f"C{(index - 1) % COLORS + 1 if index else 0}"
    return {"color": color, "marker": MARKERS[index % len(MARKERS)], "ls": DASHES[index % len(DASHES)]}


def draw_ratio(
    canvas: Figure, lines: Mapping[str, Sequence[Cell]], looks: Looks, study: Study, reference: float | None
) -> None:
    """Draw means over the share of labeled images, with each seed as a dot and bands of one standard deviation.

    Args:
        canvas: Empty figure.
        lines: Cells with runs and a fraction, by look.
        looks: Looks of the lines.
        study: Study whose score is drawn.
        reference: Mean of the baseline with all labels, drawn across as a dotted line; ``None`` draws none.
    """
    axes = canvas.subplots()
    for name, cells in lines.items():
        ordered = sorted(cells, key=lambda cell: cell.fraction or 0)
        color = looks[name]["color"]
        for cell in ordered:
            seeds = _known(cell.scores[study.metric], PERCENT)
            axes.plot(
                np.full(len(seeds), cell.fraction), seeds, "o", color=color, ms=3, alpha=FAINT, zorder=3
            )
        x = np.array([cell.fraction for cell in ordered], float)
        averages = [cell.scores[study.metric] for cell in ordered]
        # A missing value becomes NaN, which matplotlib does not draw.
        mean, std = np.array([(each.mean, each.std) for each in averages], float).T * PERCENT
        axes.plot(x, mean, label=name, zorder=4, **looks[name])
        axes.fill_between(x, mean - std, mean + std, color=color, alpha=BAND, lw=0)
    if reference is not None:
        axes.axhline(reference * PERCENT, color="C0", lw=0.8, ls=(0, (2, 3)))
    _ratio_ticks(axes, [cell for cells in lines.values() for cell in cells])
    axes.set_xlabel("labeled images")
    axes.set_ylabel(f"{study.metric_name} (%)")
    _legend(canvas, axes)


def draw_learning(canvas: Figure, lines: Lines, looks: Looks, score: str) -> None:
    """Draw the primary score, by its name, over the iterations: each run thin, their mean thick."""
    axes = canvas.subplots()
    _draw_curves(axes, lines, looks)
    axes.set_xlabel("iteration of the whole run")
    axes.set_ylabel(f"validation {score} (%)")
    _legend(canvas, axes)


def draw_pseudo(canvas: Figure, coverage: Lines, accuracy: Lines, looks: Looks) -> None:
    """Draw coverage above and accuracy below, over the same iterations; accuracy may lack some lines."""
    upper, lower = canvas.subplots(2, 1, sharex=True)
    _draw_curves(upper, coverage, looks)
    _draw_curves(lower, accuracy, looks)
    upper.set_ylabel("coverage (%)")
    lower.set_ylabel("pixel accuracy (%)")
    lower.set_xlabel("iteration of the whole run")
    upper.set_ylim(-4, 104)
    _legend(canvas, upper)


def draw_averages(
    axes: Axes, cells: Sequence[Cell], looks: Looks, averages: Sequence[Average], factor: float, label: str
) -> None:
    """Draw means with their standard deviations and each seed, one row for each cell.

    Args:
        axes: Empty axes.
        cells: Cells of the rows.
        looks: Looks of the lines.
        averages: Averages of the cells.
        factor: Factor of all values.
        label: Label of the horizontal axis.
    """
    for position, (cell, average) in enumerate(zip(cells, averages, strict=True)):
        if average.mean is None:
            continue
        color = looks[cell.look]["color"]
        seeds = _known(average, factor)
        if len(seeds) > 1:
            axes.plot(seeds, [position] * len(seeds), "o", color=color, ms=3.5, alpha=FAINT, zorder=3)
        if average.std is not None:
            ends = [(average.mean - average.std) * factor, (average.mean + average.std) * factor]
            axes.plot(ends, [position] * 2, color=color, lw=2)
        axes.plot(average.mean * factor, position, ms=8, zorder=4, **looks[cell.look])
    _rows(axes, cells, label)


def _rows(axes: Axes, cells: Sequence[Cell], label: str) -> None:
    axes.set_yticks(range(len(cells)), [cell.label for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    for start in panel_starts(cells):
        axes.axhline(start - 0.5, color=rcParams["grid.color"], lw=0.8)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(label)


def draw_difference(canvas: Figure, cells: Sequence[Cell], looks: Looks) -> None:
    """Draw differences to the baseline with their confidence intervals, one row for each cell with a difference."""
    axes = canvas.subplots()
    axes.axvline(0, color="C0", lw=1)
    for position, cell in enumerate(cells):
        found, color = cell.difference, looks[cell.look]["color"]
        assert found is not None
        if found.low is not None and found.high is not None:
            axes.plot([found.low * PERCENT, found.high * PERCENT], [position] * 2, color=color, lw=2)
            for end in (found.low, found.high):
                axes.plot(end * PERCENT, position, "|", color=color, ms=9, mew=2)
        # Hollow where one pair alone has no interval.
        filled = color if found.low is not None else rcParams["axes.facecolor"]
        point = {"ms": 8, "mfc": filled, "mew": 1.6, "zorder": 4}
        axes.plot(found.mean * PERCENT, position, **{**looks[cell.look], **point})
    _rows(axes, cells, "percentage points")


def draw_classes(canvas: Figure, cells: Sequence[Cell], classes: Sequence[str]) -> None:
    """Draw the score of each class (rows) in each cell (columns) as a heat map with its numbers."""
    axes = canvas.subplots()
    means = [
        [cell.by_class[name].mean if name in cell.by_class else None for cell in cells] for name in classes
    ]
    shades = LinearSegmentedColormap.from_list(
        "iou", [rcParams["axes.facecolor"], rcParams["patch.facecolor"]]
    )
    shown = np.ma.masked_invalid(np.array(means, float).reshape(len(classes), len(cells)))
    axes.pcolormesh(shown, cmap=shades, vmin=0, vmax=1 / STRONG, edgecolors=rcParams["axes.facecolor"])
    for row, values in enumerate(means):
        for column, value in enumerate(values):
            axes.text(column + 0.5, row + 0.5, percent(value, 0), ha="center", va="center")
    axes.set_xticks(np.arange(len(cells)) + 0.5, [cell.within_dataset.replace(" ", "\n") for cell in cells])
    axes.set_yticks(np.arange(len(classes)) + 0.5, classes)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def draw_costs(canvas: Figure, cells: Sequence[Cell], looks: Looks) -> None:
    """Draw ``COSTS`` side by side, one row for each cell."""
    panels = canvas.subplots(1, len(COSTS), sharey=True)
    for axes, (name, (label, factor)) in zip(panels, COSTS.items(), strict=True):
        draw_averages(axes, cells, looks, [cell.costs[name] for cell in cells], factor, label)
        axes.margins(x=0.1)
        # A little left of 0, or else half the marker of a method that takes nearly no time would be cut off.
        axes.set_xlim(left=-0.04 * axes.get_xlim()[1])


def _draw_curves(axes: Axes, lines: Lines, looks: Looks) -> None:
    for name, parts in lines.items():
        color = looks[name]["color"]
        for part in parts if len(parts) > 1 else ():
            for x, y in _pieces(part):
                axes.plot(x, y, "-" if part.joined else "o", color=color, lw=0.8, ms=2.5, alpha=FAINT)
        mean = mean_curve(parts)
        # A legend entry, also where the runs share no iteration.
        line = {**looks[name], "ls": "-" if mean.joined else "", "ms": 5}
        axes.plot([], [], label=name, **line)
        every = max(len(mean.values) // 12, 1)
        for x, y in _pieces(mean):
            axes.plot(x, y, markevery=every, zorder=4, **line)


def _pieces(curve: Curve) -> Iterator[tuple[list[int], list[float]]]:
    """Yield iterations and percentages of each stage, since no line may join two stages."""
    points = zip(curve.stages, curve.iterations, curve.values, strict=True)
    for _, stretch in groupby(points, key=lambda point: point[0]):
        _, iterations, values = zip(*stretch, strict=True)
        yield list(iterations), [value * PERCENT for value in values]


def _known(average: Average, factor: float) -> list[float]:
    return [value * factor for value in average.values if value is not None]


def _ratio_ticks(axes: Axes, cells: Sequence[Cell]) -> None:
    """Set a tick for each ratio, named as its split, with the number of images where all runs have the same."""
    axes.set_xscale("log")
    names: dict[float, str] = {}
    for cell in cells:
        assert cell.fraction is not None
        counts = {(run.results.get("split_counts") or {}).get("labeled") for run in cell.runs}
        count = counts.pop() if len(counts) == 1 else None
        name = cell.key.get(SPLIT_KEY) or f"{cell.fraction:.3g}"
        names.setdefault(cell.fraction, f"{name}\n({count})" if count is not None else name)
    axes.set_xticks(list(names), list(names.values()))
    axes.minorticks_off()


def _legend(canvas: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside lower center", ncols=LEGEND_COLUMNS, handlelength=2.6)
