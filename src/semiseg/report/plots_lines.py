"""Figures with lines: scores against label ratios, and numbers over the iterations."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from semiseg.report.curves import Curve, mean_curve
from semiseg.report.groups import SPLIT
from semiseg.report.model import Cell
from semiseg.report.plots_style import Look, Theme

PERCENT = 100
BAND = 0.16
FAINT = 0.4
LEGEND_COLUMNS = 3


def draw_ratio(
    canvas: Canvas,
    theme: Theme,
    lines: Mapping[str, Sequence[Cell]],
    look: Mapping[str, Look],
    metric: str,
    label: str,
    reference: float | None,
) -> None:
    """Draw means over the share of labeled images, with each seed as a dot and bands of one standard deviation.

    Args:
        canvas: an empty figure.
        theme: its colors.
        lines: cells with runs and a fraction, by line.
        look: by line.
        metric: name of the score.
        label: of the vertical axis.
        reference: mean of the baseline with all labels, drawn across as a dotted line; None for none.
    """
    axes = canvas.subplots()
    for name, cells in lines.items():
        ordered = sorted(cells, key=lambda cell: cell.fraction or 0)
        color, shape = look[name].color(theme), look[name].marker
        for cell in ordered:
            seeds = [value * PERCENT for value in cell.scores[metric].values if value is not None]
            axes.plot(
                np.full(len(seeds), cell.fraction), seeds, "o", color=color, ms=3, alpha=FAINT, zorder=3
            )
        x = np.array([cell.fraction for cell in ordered], float)
        mean, std = (_scores(ordered, metric, part) for part in ("mean", "std"))
        axes.plot(x, mean, ls=look[name].dash, marker=shape, color=color, label=name, zorder=4)
        axes.fill_between(x, mean - std, mean + std, color=color, alpha=BAND, lw=0)
    if reference is not None:
        axes.axhline(reference * PERCENT, color=theme.text, lw=0.8, ls=(0, (2, 3)))
    _ratio_ticks(axes, [cell for cells in lines.values() for cell in cells])
    axes.set_xlabel("labeled images")
    axes.set_ylabel(label)
    _legend(canvas, axes)


def draw_learning(
    canvas: Canvas, theme: Theme, lines: Mapping[str, Sequence[Curve]], look: Mapping[str, Look]
) -> None:
    """Draw the mIoU on the validation images over the iterations: each run thin, their mean thick.

    Args:
        canvas: an empty figure.
        theme: its colors.
        lines: curves of the runs of each line.
        look: by line.
    """
    axes = canvas.subplots()
    _draw_curves(axes, theme, lines, look)
    axes.set_xlabel("iteration of the whole run")
    axes.set_ylabel("validation mIoU (%)")
    _legend(canvas, axes)


def draw_pseudo(
    canvas: Canvas,
    theme: Theme,
    coverage: Mapping[str, Sequence[Curve]],
    accuracy: Mapping[str, Sequence[Curve]],
    look: Mapping[str, Look],
) -> None:
    """Draw coverage above and accuracy below, over the same iterations.

    Args:
        canvas: an empty figure.
        theme: its colors.
        coverage: curves of the runs of each line.
        accuracy: the same lines; may lack some.
        look: by line.
    """
    upper, lower = canvas.subplots(2, 1, sharex=True)
    _draw_curves(upper, theme, coverage, look)
    _draw_curves(lower, theme, accuracy, look)
    upper.set_ylabel("coverage (%)")
    lower.set_ylabel("pixel accuracy (%)")
    lower.set_xlabel("iteration of the whole run")
    upper.set_ylim(-4, 104)
    _legend(canvas, upper)


def _draw_curves(
    axes: Axes, theme: Theme, lines: Mapping[str, Sequence[Curve]], look: Mapping[str, Look]
) -> None:
    for name, parts in lines.items():
        color, shape = look[name].color(theme), look[name].marker
        several = len(parts) > 1
        for part in parts if several else ():
            for x, y in _pieces(part):
                axes.plot(x, y, "-" if part.joined else "o", color=color, lw=0.8, ms=2.5, alpha=FAINT)
        mean = mean_curve(parts)
        # A legend entry, also where the runs share no iteration.
        line: dict[str, Any] = {"ls": "-" if mean.joined else "", "marker": shape, "ms": 5, "color": color}
        axes.plot([], [], label=name, **line)
        every = max(len(mean.values) // 12, 1)
        for x, y in _pieces(mean):
            axes.plot(x, y, markevery=every, zorder=4, **line)


def _pieces(curve: Curve) -> Iterator[tuple[list[int], list[float]]]:
    """Iterations and percentages of each stretch of one stage."""
    start = 0
    for end in range(1, len(curve.values) + 1):
        if end == len(curve.values) or curve.stages[end] != curve.stages[start]:
            yield (
                list(curve.iterations[start:end]),
                [value * PERCENT for value in curve.values[start:end]],
            )
            start = end


def _scores(cells: Sequence[Cell], metric: str, part: str) -> np.ndarray:
    values = [getattr(cell.scores[metric], part) for cell in cells]
    return np.array([np.nan if value is None else value * PERCENT for value in values], float)


def _ratio_ticks(axes: Axes, cells: Sequence[Cell]) -> None:
    """One tick a ratio, named as the split is, with the number of images where it is the same in all runs."""
    axes.set_xscale("log")
    names: dict[float, str] = {}
    for cell in cells:
        assert cell.fraction is not None
        counts = {((run.summary or {}).get("split_counts") or {}).get("labeled") for run in cell.runs}
        count = counts.pop() if len(counts) == 1 else None
        name = cell.key.get(SPLIT) or f"{cell.fraction:.3g}"
        names.setdefault(cell.fraction, f"{name}\n({count})" if count is not None else name)
    axes.set_xticks(list(names), list(names.values()))
    axes.minorticks_off()


def _legend(canvas: Canvas, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside lower center", ncols=LEGEND_COLUMNS, handlelength=2.6)
