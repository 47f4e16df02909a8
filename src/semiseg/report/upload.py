"""Upload of a report as one run of wandb: tables, scores over the labeled share, figures."""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semiseg.errors import UserError
from semiseg.report.comparable import grouped
from semiseg.report.study import Cell, Study, StudyFigure
from semiseg.report.tables import runs_csv
from semiseg.track.wandb_run import LONGEST_TAG, error_line, start

INIT_TIMEOUT, CLOSE_TIMEOUT = 60.0, 300.0
"""Seconds that wandb may take to start, and to send everything."""

Rows = tuple[list[str], list[list[Any]]]
"""Names of the columns, and rows of as many values."""


def upload(
    study: Study, figures: Sequence[StudyFigure], folder: Path, project: str, entity: str | None, mode: str
) -> None:
    """Log a report as one run of job type "report", and print its address.

    Args:
        study: Study that the report shows.
        figures: Figures of the report, as files.
        folder: Folder of the report; gets ``wandb/``.
        project: Project of wandb.
        entity: User or team; ``None`` takes the default of the account.
        mode: Mode: "offline", or "online", which becomes "offline" without an account or a server.

    Raises:
        UserError: wandb failed; the report's own files are not touched.
    """
    arguments = {
        "project": project,
        "entity": entity,
        "job_type": "report",
        "name": f"report {folder.resolve().parent.name}",
        "tags": _tags(study),
        "config": {
            "by": list(study.by),
            "metric": study.metric,
            "baseline": study.baseline,
            "floor": study.floor,
        },
        "dir": str(folder),
    }
    try:
        wandb, run = start(mode, arguments, _warn, INIT_TIMEOUT, CLOSE_TIMEOUT)
        run.log(_content(wandb, study, figures))
        run.summary.update(
            {"cells": len(study.cells), "runs": len(study.runs), "flagged": len(study.flagged)}
        )
        place = run.url or f"{run.settings.sync_dir}; `wandb sync` sends it"
        run.finish(exit_code=0)
    except Exception as error:  # wandb raises anything
        raise UserError(
            f"The report could not be logged to wandb ({error_line(error)}). All of it is in {folder}."
        ) from error
    print(f"Logged to wandb: {place}")


def cell_rows(study: Study) -> Rows:
    """Return the cells with mean, sample standard deviation, paired differences and closed gap, as shares 0-1."""
    paired, gap = ("mean", "low", "high", "pairs"), ("mean", "low", "high")
    head = [*study.by, "split_fraction", "n", study.metric, "std"]
    for group, names in (("difference", paired), ("gap_closed", gap), ("floor", paired)):
        head += [group if name == "mean" else f"{group}_{name}" for name in names]
    rows: list[list[Any]] = []
    for cell in study.cells:
        score = cell.scores[study.metric]
        compared = [getattr(cell.difference, name, None) for name in paired]
        compared += [getattr(cell.gap_closed, name, None) for name in gap]
        compared += [getattr(cell.floor, name, None) for name in paired]
        rows.append([*cell.key.values(), cell.fraction, score.n, score.mean, score.std, *compared])
    return head, rows


def run_rows(study: Study) -> Rows:
    """Return the lines of ``results.csv``, in which a column of numbers has ``None`` for missing ones."""
    # Read back from the text of the file, so that the table and the file never differ.
    head, *lines = csv.reader(io.StringIO(runs_csv(study)))
    columns = [_typed(column) for column in zip(*lines, strict=True)]
    return head, [list(row) for row in zip(*columns, strict=True)]


def _content(wandb: Any, study: Study, figures: Sequence[StudyFigure]) -> dict[str, Any]:
    content = {
        f"report/{name}": wandb.Table(columns=head, data=rows)
        for name, (head, rows) in (("cells", cell_rows(study)), ("runs", run_rows(study)))
    }
    groups = grouped(study.cells, lambda cell: cell.line)
    lines = {name: points for name, cells in groups.items() if (points := _points(cells, study.metric))}
    if lines:
        content["report/over_split_fraction"] = wandb.plot.line_series(
            [[x for x, _ in points] for points in lines.values()],
            [[y for _, y in points] for points in lines.values()],
            keys=list(lines),
            title=f"{study.metric_name}, mean over seeds",
            xname="split_fraction",
        )
    for figure in figures:
        content[f"figures/{figure.name}"] = wandb.Image(str(figure.path), caption=figure.title)
    return content


def _points(cells: Sequence[Cell], metric: str) -> list[tuple[float, float]]:
    found = [(cell.fraction, cell.scores[metric].mean) for cell in cells]
    return sorted((x, y) for x, y in found if x is not None and y is not None)


def _tags(study: Study) -> list[str]:
    words = ["report", *(str(run.option("dataset")) for run in study.runs)]
    return [word[:LONGEST_TAG] for word in dict.fromkeys(words)]


def _typed(column: Sequence[str]) -> list[Any]:
    try:
        return [float(text) if text else None for text in column]
    except ValueError:
        return list(column)


def _warn(reason: str) -> None:
    print(f"semiseg: wandb: {reason}.", file=sys.stderr)
