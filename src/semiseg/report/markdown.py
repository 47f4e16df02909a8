"""The report as Markdown: tables, pictures by their files, and what is to be known about runs."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from semiseg.report.model import Figure, Flagged, Score, Study
from semiseg.report.wording import (
    COSTS,
    METRICS,
    NONE,
    difference,
    gap_closed,
    mean_std,
    metric_name,
    percent,
    quantity,
    seeds,
)

SIDE_BY_SIDE = ("miou_best", "miou_last", "miou_test", "accuracy")


def render(study: Study, figures: Sequence[Figure], folder: Path) -> str:
    """Write a study as Markdown.

    Args:
        study: what is shown.
        figures: pictures that lie in ``folder`` or below.
        folder: where the text will be stored; links are relative to it.
    """
    parts = [
        f"# {metric_name(study.metric)} by {', '.join(study.by)}",
        _head(study),
        _results(study),
        "## Checkpoints and images\n\n" + _checkpoints(study),
        _classes("IoU by class, validation images", study, [cell.iou for cell in study.cells]),
        _classes("IoU by class, test images", study, [cell.iou_test for cell in study.cells]),
        "## Work and pseudo-labels\n\n" + _costs(study),
        _pictures(figures, folder),
        _flagged(study.flagged),
        _notes(study),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars in texts are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(escaped, line)) + " |" for line in lines)


def _head(study: Study) -> str:
    left_out = sum(not flagged.averaged for flagged in study.flagged)
    cells = sum(bool(cell.runs) for cell in study.cells)
    text = (
        f"{_count(len(study.runs))} in {cells} {'cell' if cells == 1 else 'cells'}; scores in percent, "
        "mean ± standard deviation (n - 1) over seeds."
    )
    if left_out:
        text += f" Not averaged, see [Flagged runs](#flagged-runs): {_count(left_out)}."
    if study.baseline:
        text += (
            f" Differences to {study.baseline} are in percentage points, paired over runs with the same seed and the "
            "same labeled images, with their 95 % confidence interval by Student's t. "
            f"Gap closed: this difference as a share of the distance between {study.baseline} at this ratio and with "
            "all labels."
        )
    return text


def _count(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"


def _results(study: Study) -> str:
    head = [*study.by, "n", metric_name(study.metric), "each seed"]
    published = any(cell.published for cell in study.cells)
    if study.baseline:
        head += [f"difference to {study.baseline}", "pairs", "gap closed"]
    if published:
        head.append("published")
    rows = []
    for cell in study.cells:
        score = cell.scores[study.metric]
        row = [*cell.key.values(), str(score.n), mean_std(score), seeds(cell.runs, score) or NONE]
        if study.baseline:
            pairs = str(cell.difference.pairs) if cell.difference else NONE
            row += [difference(cell.difference), pairs, gap_closed(cell.gap_closed)]
        if published:
            row.append(
                "; ".join(f"{percent(each.value, 2)} ({each.source})" for each in cell.published) or NONE
            )
        rows.append(row)
    return table(head, rows)


def _checkpoints(study: Study) -> str:
    shown = [name for name in SIDE_BY_SIDE if any(cell.scores[name].n for cell in study.cells)]
    rows = [[*cell.key.values(), *(mean_std(cell.scores[name]) for name in shown)] for cell in study.cells]
    return table([*study.by, *(METRICS[name] for name in shown)], rows)


def _classes(title: str, study: Study, scores: Sequence[Mapping[str, Score]]) -> str:
    names = [name for name in study.classes if any(name in found for found in scores)]
    if not names:
        return ""
    rows = [
        [*cell.key.values(), *(percent(own[name].mean) if name in own else NONE for name in names)]
        for cell, own in zip(study.cells, scores, strict=True)
        if cell.runs
    ]
    return f"## {title}\n\n" + table([*study.by, *names], rows)


def _costs(study: Study) -> str:
    head = ["iterations", *(label for label, _ in COSTS.values()), "pseudo-label coverage", "their accuracy"]
    rows = []
    for cell in study.cells:
        if cell.runs:
            costs = [quantity(cell.costs.get(name), factor) for name, (_, factor) in COSTS.items()]
            pseudo = [mean_std(cell.pseudo.get(f"pseudo/{name}")) for name in ("coverage", "accuracy")]
            rows.append([*cell.key.values(), quantity(cell.costs.get("iterations")), *costs, *pseudo])
    return table([*study.by, *head], rows)


def _pictures(figures: Sequence[Figure], folder: Path) -> str:
    pictures = [
        f"### {figure.title}\n\n![{_bracketed(figure.alt)}](<{Path(os.path.relpath(figure.path, folder)).as_posix()}>)"
        for figure in figures
    ]
    return "\n\n".join(["## Pictures", *pictures]) if pictures else ""


def _flagged(flagged: Sequence[Flagged]) -> str:
    if not flagged:
        return ""
    rows = [
        [
            str(each.run.path),
            " ".join(each.key.values()) or NONE,
            "yes" if each.averaged else "no",
            "; ".join(f"{flag.kind}: {flag.text}" for flag in each.flags),
        ]
        for each in flagged
    ]
    return "## Flagged runs\n\n" + table(["run", "cell", "averaged", "why"], rows)


def _notes(study: Study) -> str:
    notes = [*study.notes, *(f"{cell.label}: {note}." for cell in study.cells for note in cell.notes)]
    return "## Notes\n\n" + "\n".join(f"- {escaped(note)}" for note in notes) if notes else ""


def escaped(text: str) -> str:
    """Text of one line without signs that Markdown would take for its own."""
    return re.sub(r"([|<*_`])", r"\\\1", " ".join(text.split()))


def _bracketed(text: str) -> str:
    return re.sub(r"([\[\]\\])", r"\\\1", " ".join(text.split()))
