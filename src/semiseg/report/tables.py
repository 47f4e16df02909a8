"""Tables for the terminal, the main table of a study, and all runs as CSV."""

import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from semiseg.report.aggregate import PSEUDO, RUN_COSTS
from semiseg.report.comparable import PLAIN, known_values
from semiseg.report.floor import floor_difference
from semiseg.report.records import RunRecord, logged
from semiseg.report.scores import (
    NONE,
    Average,
    difference,
    ends,
    gap_closed,
    mean_std,
    multiple,
    percent,
    tables_of,
)
from semiseg.report.standings import standings
from semiseg.report.study import Flagged, Study

NAMES = ("method", "dataset", "backbone", "model")
UNLIMITED = 100_000
RULE = Box("    \n    \n----\n    \n    \n    \n    \n    \n", ascii=True)


@dataclass(frozen=True)
class TextTable:
    """Rows of text.

    Args:
        head: Names of the columns.
        rows: Rows of as many cells each.
        title: Heading above a rule; a table without one has no rule.
        numbers: Whether all columns but the first hold numbers.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    numbers: bool = False

    def text(self) -> str:
        """Return the table as text: folded to the width of a terminal, or at full width for a file or pipe."""
        console = Console(width=None if sys.stdout.isatty() else UNLIMITED, highlight=False)
        gap = 1 if self.title else 2
        grid = Table(
            box=RULE if self.title else None, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0)
        )
        for index, name in enumerate(self.head):
            grid.add_column(
                Text(name), justify="right" if self.numbers and index else "left", overflow="fold"
            )
        for row in self.rows:
            grid.add_row(*map(Text, row))
        with console.capture() as laid:
            if self.title:
                console.print(Text(self.title, "bold"))
            console.print(grid)
        return "\n".join(line.rstrip() for line in laid.get().splitlines())


def summary_table(study: Study) -> TextTable:
    """Return the main table of a study: one row for each cell, with its score and its differences to the baseline and
    the floor.
    """
    head = [*study.by, "n", study.metric_name, "each seed"]
    rows = []
    for cell in study.cells:
        score = cell.scores[study.metric]
        compared = [difference(cell.difference), gap_closed(cell.gap_closed)] if study.baseline else []
        compared += [floor_difference(cell.floor)] if study.floor else []
        rows.append([*cell.key.values(), str(score.n), mean_std(score), seeds(cell.runs, score), *compared])
    head += [f"to {study.baseline}", "gap closed"] if study.baseline else []
    head += [f"to the floor, {study.floor}"] if study.floor else []
    return TextTable(head, rows)


def standings_table(study: Study) -> TextTable | None:
    """Return how each method stands over all settings; ``None`` for a study of one setting."""
    found = standings(study)
    if not found:
        return None
    head = [
        "method",
        *(standing_columns(study) if study.baseline else []),
        *(["below the floor"] if study.floor else []),
    ]
    rows = []
    for each in found:
        row = [each.name]
        if study.baseline:
            counts = (len(each.differences), each.above, each.below, each.neither)
            row += [str(count) if each.differences else NONE for count in counts]
            row += [difference(each.mean), ends(each.ends), multiple(each.time)]
        if study.floor:
            row.append(f"{each.below_floor} of {len(each.floors)}" if each.floors else NONE)
        rows.append(row)
    return TextTable(head, rows, "Over all settings")


def standing_columns(study: Study) -> list[str]:
    """Return the names of the columns that compare a standing with the baseline."""
    counts = ["settings", f"above {study.baseline}", f"below {study.baseline}", "neither"]
    return [*counts, "mean difference", "lowest to highest", f"time, {study.baseline} = 1"]


def seeds(runs: Iterable[RunRecord], score: Average) -> str:
    """Write the value of each run after its seed, for example "0: 44.1, 1: 43.2"."""
    return ", ".join(f"{run.seed}: {percent(value)}" for run, value in zip(runs, score.values, strict=True))


def runs_csv(study: Study) -> str:
    """Return the runs of a study as CSV text with a header line.

    Scores are shares between 0 and 1 as in ``summary.json``, times are seconds, memory is GiB; unknown values are
    empty. Columns: ``docs/report.md``.
    """
    runs = sorted(study.every_run(), key=lambda each: each[1].path)
    rows = [_csv_row(study, run, flagged) for _, run, flagged in runs]
    columns = dict.fromkeys(name for row in rows for name in row)
    return csv_text(list(columns), ({name: _plain(each) for name, each in row.items()} for row in rows))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as CSV text with a header line; values that a row lacks are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _csv_row(study: Study, run: RunRecord, flagged: Flagged | None) -> dict[str, Any]:
    results, journal = run.results, logged(run)
    counts, hashes = results.get("split_counts") or {}, results.get("split_sha256") or {}
    return {
        **known_values(run, list(dict.fromkeys([*study.by, *NAMES, *PLAIN]))),
        "averaged": "yes" if flagged is None or flagged.averaged else "no",
        "state": run.state,
        "flags": "; ".join(f"{flag.kind}: {flag.text}" for flag in flagged.flags) if flagged else "",
        "split_fraction": results.get("split_fraction"),
        "labeled": counts.get("labeled"),
        "unlabeled": counts.get("unlabeled"),
        "labeled_sha256": hashes.get("labeled"),
        **{
            name: run.value(name)
            for name in dict.fromkeys([study.metric, *(score.key for score in study.scores)])
        },
        "best_iteration": results.get("best_iteration"),
        **{name: journal.get(name, run.value(name)) for name in RUN_COSTS},
        **{name: journal.get(name) for name in PSEUDO},
        **{
            f"{group}/{name}": run.value(f"{group}/{name}")
            for group in tables_of(study.names)
            for name in study.classes
        },
        "device": results.get("device"),
        "threads": results.get("threads"),
        "code": run.code if run.env else "",
        "path": str(run.path),
    }


def _plain(found: Any) -> Any:
    """Write whole numbers without a point."""
    return int(found) if isinstance(found, float) and found.is_integer() else found
