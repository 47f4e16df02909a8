"""The reliability curve of an evaluation, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from semiseg.files import replacing, write_csv

BAR, GAP = "#0072b2", "#d55e00"


def write_reliability(folder: Path, curve: Sequence[Mapping[str, Any]], title: str) -> None:
    """Write ``reliability.csv`` and ``reliability.png``: accuracy of the pixels by their confidence.

    Args:
        folder: existing folder.
        curve: bins of ``CalibrationBins.compute``, equally wide from confidence 0 to 1.
        title: title of the picture.
    """
    columns = ("pixels", "confidence", "accuracy")
    edges = [(index / len(curve), (index + 1) / len(curve)) for index in range(len(curve))]
    rows = (
        [f"{low:.4f}", f"{high:.4f}", *("" if each[key] is None else each[key] for key in columns)]
        for (low, high), each in zip(edges, curve, strict=True)
    )
    write_csv(folder / "reliability.csv", [["above", "up to", *columns], *rows])
    filled = [(low, high, each) for (low, high), each in zip(edges, curve, strict=True) if each["pixels"]]
    whole = max(sum(each["pixels"] for each in curve), 1)
    with rc_context({"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False}):
        figure = Figure((4.6, 5.4), dpi=110, layout="constrained")
        accuracy, share = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        for low, high, each in filled:
            accuracy.bar(low, each["accuracy"], high - low, align="edge", color=BAR, ec="white", lw=0.5)
            accuracy.plot([each["confidence"]] * 2, [each["accuracy"], each["confidence"]], color=GAP, lw=1.5)
            share.bar(low, each["pixels"] / whole, high - low, align="edge", color=BAR, ec="white", lw=0.5)
        accuracy.plot([0, 1], [0, 1], color="#57606a", lw=1, ls="--")
        accuracy.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy (line: gap to the mean confidence)")
        share.set(xlabel="confidence of the predicted class", ylabel="share of pixels")
        for axes in (accuracy, share):
            axes.spines[["top", "right"]].set_visible(False)
        figure.suptitle(title, fontsize=9)
        with replacing(folder / "reliability.png") as file:
            figure.savefig(file, format="png")
