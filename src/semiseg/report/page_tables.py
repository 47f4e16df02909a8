"""The tables of the page: results, classes, costs, and every run."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from semiseg.report.collect import RunRecord
from semiseg.report.facts import code_version
from semiseg.report.keys import ratio
from semiseg.report.model import Cell, Score, Study
from semiseg.report.page_elements import Entry, Html, element, joined, table
from semiseg.report.wording import (
    COSTS,
    NONE,
    gap_closed,
    interval,
    mean_std,
    metric_name,
    percent,
    points,
    quantity,
)

SIDE_BY_SIDE = {"miou_best": "best", "miou_last": "last", "miou_test": "test"}
SHADE = 0.55
LAST = 1e300


def results(study: Study) -> Html:
    """One row a cell: the score, each seed, the other scores, difference and gap."""
    beside = {
        name: label
        for name, label in SIDE_BY_SIDE.items()
        if name != study.metric and any(cell.scores[name].n for cell in study.cells)
    }
    head = [*study.by, "n", metric_name(study.metric), "each seed", *beside.values()]
    if study.baseline:
        head += [f"difference to {study.baseline}", "gap closed"]
    rows = []
    for cell in study.cells:
        score = cell.scores[study.metric]
        row = [
            *_key(cell.key),
            Entry(str(score.n), score.n),
            Entry(mean_std(score), _sort(score.mean), kind="main"),
            Entry(_seeds(cell, score), score.n),
            *(Entry(mean_std(cell.scores[name]), _sort(cell.scores[name].mean)) for name in beside),
        ]
        rows.append([*row, _difference(cell), _gap(cell)] if study.baseline else row)
    return table("Results", head, rows, headings=len(study.by))


def classes(study: Study, scores: Sequence[Mapping[str, Score]], label: str) -> Html:
    """A heat map as a table: one row a class, one column a cell.

    Args:
        study: gives the classes and the cells.
        scores: by class, of each cell of the study.
        label: name of the table.
    """
    shown = [(cell, found) for cell, found in zip(study.cells, scores, strict=True) if found]
    rows = []
    for name in study.classes:
        entries = [_shaded(found.get(name)) for _, found in shown]
        rows.append([Entry(name), *entries])
    return table(label, ["class", *(cell.label for cell, _ in shown)], rows, kind="heat")


def costs(study: Study) -> Html:
    """One row a cell: iterations, throughput, time and memory, with a bar for each."""
    cells = [cell for cell in study.cells if cell.runs]
    head = [*study.by, "iterations", *(label for label, _ in COSTS.values())]
    rows = [
        [
            *_key(cell.key),
            _iterations(cell),
            *(
                _quantity(cell.costs.get(name), factor, _highest(cells, name))
                for name, (_, factor) in COSTS.items()
            ),
        ]
        for cell in cells
    ]
    return table("Costs of training", head, rows, headings=len(study.by))


def published(study: Study) -> Html:
    """One row a published number, ours beside it."""
    rows = [
        [
            *_key(cell.key),
            Entry(mean_std(cell.scores[study.metric]), _sort(cell.scores[study.metric].mean), kind="main"),
            Entry(percent(each.value, 2), each.value),
            Entry(each.source),
            Entry(each.preset),
        ]
        for cell in study.cells
        for each in cell.published
    ]
    head = [*study.by, "here", "published", "source", "preset"]
    return table("Published numbers", head, rows, headings=len(study.by))


def flagged(study: Study) -> Html:
    """Each run that is left out, or that is averaged in spite of a difference, with its reasons."""
    names = _names(study)
    return element(
        "ul",
        (
            element(
                "li",
                element("b", names[each.run.path]),
                f" ({' '.join(each.key.values()) or 'no config'}), {'averaged' if each.averaged else 'not averaged'}",
                element(
                    "ul", (element("li", element("b", flag.kind), f": {flag.text}") for flag in each.flags)
                ),
            )
            for each in study.flagged
        ),
        class_="flags",
    )


def every_run(study: Study) -> Html:
    """One row a run, averaged or not."""
    names = _names(study)
    spare = {each.run.path: each for each in study.flagged}
    members = [(cell.key, run) for cell in study.cells for run in cell.runs]
    members += [(each.key, each.run) for each in study.flagged if not each.averaged]
    head = [
        "run",
        *study.by,
        "seed",
        "partition",
        "state",
        "averaged",
        *SIDE_BY_SIDE.values(),
        "iterations",
        "code",
    ]
    rows = []
    for key, run in members:
        summary = run.summary or {}
        counted = run.path not in spare or spare[run.path].averaged
        rows.append(
            [
                Entry(names[run.path]),
                *(_key(key) or [Entry(NONE) for _ in study.by]),
                _plain(run.config.get("seed")),
                Entry(_partition(run)),
                Entry(run.state),
                Entry("yes" if counted else "no"),
                *(Entry(percent(summary.get(name)), _sort(summary.get(name))) for name in SIDE_BY_SIDE),
                _plain(summary.get("iterations")),
                Entry(code_version(run) if run.env else NONE),
            ]
        )
    return table("Every run", head, rows)


def _names(study: Study) -> dict[Path, str]:
    """Paths of all runs below the folder that holds them; names of folders alone may be moments."""
    paths = {run.path: run.path.resolve() for run in (*study.runs, *(each.run for each in study.flagged))}
    top = os.path.commonpath([path.parent for path in paths.values()])
    return {path: whole.relative_to(top).as_posix() for path, whole in paths.items()}


def _key(key: Mapping[str, str]) -> list[Entry]:
    return [Entry(value, _sort(ratio(value)) if ratio(value) is not None else None) for value in key.values()]


def _seeds(cell: Cell, score: Score) -> Html:
    pairs = zip(cell.runs, score.values, strict=True)
    return element(
        "span",
        (
            element(
                "span", element("small", f"{run.config.get('seed', '?')}: "), percent(value), class_="seed"
            )
            for run, value in pairs
        ),
        class_="seeds",
    )


def _difference(cell: Cell) -> Entry:
    found = cell.difference
    if found is None:
        return Entry(NONE, _sort(None))
    text = f"{found.pairs} pair{'s' if found.pairs > 1 else ''}"
    ends = interval(found.low, found.high)
    hint = element("small", f"{ends}, {text}" if ends else f"{text}, no interval", class_="hint")
    return Entry(joined(points(found.mean), hint), found.mean)


def _gap(cell: Cell) -> Entry:
    found = cell.gap_closed
    if found is None:
        return Entry(NONE, _sort(None))
    mean, _, ends = gap_closed(found).partition(" [")
    hint = element("small", f"[{ends}", class_="hint") if ends else ""
    return Entry(joined(mean, hint), found.mean)


def _shaded(score: Score | None) -> Entry:
    if score is None or score.mean is None:
        return Entry(NONE, _sort(None))
    return Entry(percent(score.mean), score.mean, style=f"--shade:{score.mean * SHADE:.3f}")


def _quantity(score: Score | None, factor: float, highest: float | None) -> Entry:
    if score is None or score.mean is None or not highest:
        return Entry(NONE, _sort(None))
    share = f"--bar:{100 * score.mean / highest:.0f}%"
    return Entry(quantity(score, factor), score.mean, style=share, kind="bar")


def _iterations(cell: Cell) -> Entry:
    score = cell.costs.get("iterations")
    return Entry(NONE, _sort(None)) if score is None or score.mean is None else _plain(round(score.mean))


def _highest(cells: Sequence[Cell], name: str) -> float | None:
    return max((score.mean for cell in cells if (score := cell.costs.get(name)) and score.mean), default=None)


def _partition(run: RunRecord) -> str:
    hashes = (run.summary or {}).get("split_sha256") or {}
    names = [str(run.config.get(key, NONE)) for key in ("split_family", "split_id")]
    return " ".join([*names, str(hashes["labeled"])[:8]] if "labeled" in hashes else names)


def _plain(value: object) -> Entry:
    return Entry(
        NONE if value is None else str(value), _sort(value if isinstance(value, int | float) else None)
    )


def _sort(value: float | None) -> float | str:
    """What a column is sorted by; what is missing comes last in any order."""
    if value is None:
        return ""
    return value if math.isfinite(value) else LAST
