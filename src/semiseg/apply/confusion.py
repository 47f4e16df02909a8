"""The confusion matrix of an evaluation, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from semiseg.files import replacing, write_csv

CORNER = "true class / predicted"
NUMBERED = 40
"""Largest number of classes at which the cells have room for numbers."""
DARK = 0.55
SHADES = LinearSegmentedColormap.from_list("share", ["#ffffff", "#0072b2"])


def write_table(path: Path, confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> None:
    """Write pixel counts as CSV: one true class a row, one predicted class a column."""
    rows = ([name, *row] for name, row in zip(classes, confusion, strict=True))
    write_csv(path, [[CORNER, *classes], *rows])


def write_picture(path: Path, confusion: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> None:
    """Draw as PNG what share of each true class is predicted as which class, in percent."""
    counts = np.array(confusion, float)
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    side = 0.42 * len(classes)
    margin = 0.09 * max(map(len, classes))
    with rc_context({"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False}):
        figure = Figure((side + margin + 1.0, side + margin + 1.2), dpi=110, layout="constrained")
        axes = figure.subplots()
        axes.imshow(np.ma.masked_invalid(shares), cmap=SHADES, vmin=0, vmax=1, aspect="equal")
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("predicted")
        axes.set_ylabel("true class")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if len(classes) <= NUMBERED:
            for (row, column), share in np.ndenumerate(shares):
                text = "–" if np.isnan(share) else f"{100 * share:.0f}" if share >= 0.005 else ""
                color = "white" if share > DARK else "#1f2328"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
        figure.suptitle(title, fontsize=9)
        with replacing(path) as file:
            figure.savefig(file, format="png")
