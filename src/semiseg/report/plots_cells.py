"""Figures with one row or column a cell: differences, classes, costs."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas

from semiseg.report.model import Cell, Score
from semiseg.report.plots_style import Look, Theme

PERCENT = 100
FAINT = 0.4
STRONG = 0.55


def draw_scores(
    canvas: Canvas, theme: Theme, cells: Sequence[Cell], look: Sequence[Look], metric: str, label: str
) -> None:
    """Draw the mean of each cell with its standard deviation and each seed, one row a cell."""
    axes = canvas.subplots()
    _points(axes, theme, [cell.scores[metric] for cell in cells], look, PERCENT)
    _rows(axes, cells)
    axes.set_xlabel(label)


def draw_difference(
    canvas: Canvas, theme: Theme, cells: Sequence[Cell], look: Sequence[Look], label: str
) -> None:
    """Draw differences to the baseline with their confidence intervals, one row a cell that has one."""
    axes = canvas.subplots()
    axes.axvline(0, color=theme.text, lw=1)
    for position, (cell, its) in enumerate(zip(cells, look, strict=True)):
        found = cell.difference
        assert found is not None
        color, mean = its.color(theme), found.mean * PERCENT
        if found.low is not None and found.high is not None:
            axes.plot([found.low * PERCENT, found.high * PERCENT], [position] * 2, color=color, lw=2)
            for end in (found.low, found.high):
                axes.plot(end * PERCENT, position, "|", color=color, ms=9, mew=2)
        # Hollow where one pair tells nothing of the spread.
        filled = color if found.low is not None else theme.page
        axes.plot(mean, position, its.marker, color=color, ms=8, mfc=filled, mew=1.6, zorder=4)
    _rows(axes, cells)
    axes.set_xlabel(label)


def draw_classes(canvas: Canvas, theme: Theme, cells: Sequence[Cell], classes: Sequence[str]) -> None:
    """Draw the IoU of each class (rows) in each cell (columns) as a heat map with its numbers."""
    axes = canvas.subplots()
    table = np.array([[_mean(cell.iou.get(name)) for cell in cells] for name in classes], float).reshape(
        len(classes), len(cells)
    )
    shades = LinearSegmentedColormap.from_list("iou", [theme.page, theme.deep])
    axes.pcolormesh(np.ma.masked_invalid(table), cmap=shades, vmin=0, vmax=1 / STRONG, edgecolors=theme.page)
    for row, column in np.ndindex(table.shape):
        value = table[row, column]
        text = "–" if np.isnan(value) else f"{value * PERCENT:.0f}"
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center")
    axes.set_xticks(np.arange(len(cells)) + 0.5, [cell.label.replace(" ", "\n") for cell in cells])
    axes.set_yticks(np.arange(len(classes)) + 0.5, classes)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def draw_costs(
    canvas: Canvas,
    theme: Theme,
    cells: Sequence[Cell],
    look: Sequence[Look],
    costs: Mapping[str, tuple[str, float]],
) -> None:
    """Draw some costs side by side, one row a cell.

    Args:
        canvas: an empty figure.
        theme: its colors.
        cells: the rows.
        look: of each row.
        costs: by key of ``Cell.costs``: the label of its axis, and what to multiply values with.
    """
    panels = canvas.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axes, (name, (label, factor)) in zip(panels, costs.items(), strict=True):
        _points(axes, theme, [cell.costs.get(name) for cell in cells], look, factor)
        _rows(axes, cells)
        axes.set_xlabel(label)
        axes.margins(x=0.1)
        axes.set_xlim(left=0)


def _points(
    axes: Axes, theme: Theme, scores: Sequence[Score | None], look: Sequence[Look], factor: float
) -> None:
    for position, (score, its) in enumerate(zip(scores, look, strict=True)):
        if score is None or score.mean is None:
            continue
        color = its.color(theme)
        seeds = [value * factor for value in score.values if value is not None]
        if len(seeds) > 1:
            axes.plot(seeds, [position] * len(seeds), "o", color=color, ms=3.5, alpha=FAINT, zorder=3)
        if score.std is not None:
            ends = [(score.mean - score.std) * factor, (score.mean + score.std) * factor]
            axes.plot(ends, [position] * 2, color=color, lw=2)
        axes.plot(score.mean * factor, position, its.marker, color=color, ms=8, zorder=4)


def _rows(axes: Axes, cells: Sequence[Cell]) -> None:
    axes.set_yticks(range(len(cells)), [cell.label for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _mean(score: Score | None) -> float:
    return np.nan if score is None or score.mean is None else score.mean
