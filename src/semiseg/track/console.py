"""Progress of a run for the user: a bar on a terminal, plain lines elsewhere, a table at the end."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from semiseg.class_rows import class_rows
from semiseg.contracts.score_names import MetricName, ScoreNames, absent_remark
from semiseg.contracts.tracking import Sample
from semiseg.output import duration


class ConsoleTracker:
    """Shows step of the recipe, iteration, remaining time of the step, loss and the primary score.

    Args:
        primary: name of the primary score.
        stages: number of steps of the recipe; ``None`` shows no total.
        console: console to print to; ``None`` prints to standard output.
    """

    def __init__(
        self, primary: MetricName, stages: int | None = None, console: Console | None = None
    ) -> None:
        self._console = console or Console(highlight=False)
        self._formats = _formats(primary)
        self._stages = stages
        self._stage = ""
        self._total = 0
        self._completed = 0
        self._first: tuple[float, int] | None = None
        self._shown: dict[str, str] = {}
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[values]}"),
                console=self._console,
                expand=True,
            )
            self._bar.start()

    def start_stage(self, name: str, index: int, total_iterations: int) -> None:
        """Begin a new bar, or print a line."""
        self._finish_stage()
        number = f"{index + 1}/{self._stages}" if self._stages else f"{index + 1}"
        self._stage, self._total = f"[{number}] {name}", total_iterations
        self._completed, self._first, self._shown = 0, None, {}
        if self._bar is None:
            self._console.print(self._stage, markup=False)
        else:
            escaped = self._stage.replace("[", r"\[")
            self._task = self._bar.add_task(escaped, total=total_iterations or None, values="")

    def progress(self, completed: int) -> None:
        """Move the bar."""
        self._completed = completed
        if self._first is None:
            self._first = time.monotonic(), completed
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=completed)

    def log(self, values: Mapping[str, float | None], step: int) -> None:
        """Show loss, score and speed; without a terminal as a line a call."""
        self._shown |= self._readable(values)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, values="  ".join(self._shown.values()))
            return
        self._console.print(self._line(), markup=False, soft_wrap=True)

    def images(self, key: str, samples: Sequence[Sample], step: int) -> None:
        """Nothing to show."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """End the last stage's bar, so that the final table stands below it (see ``render_summary``)."""
        self._finish_stage()

    def close(self, status: str) -> None:
        """Remove the bar."""
        self._finish_stage()
        if self._bar is not None:
            self._bar.stop()

    def _finish_stage(self) -> None:
        if self._bar is None or self._task is None:
            return
        self._bar.remove_task(self._task)
        self._task = None
        self._bar.print(self._line(), markup=False)

    def _readable(self, values: Mapping[str, float | None]) -> dict[str, str]:
        """Choose and format the values that a line shows, in its order."""
        found = {key: (text, values.get(key)) for key, text in self._formats.items()}
        return {key: text.format(value) for key, (text, value) in found.items() if value is not None}

    def _line(self) -> str:
        parts = [self._stage]
        if self._total:
            parts.append(f"{self._completed}/{self._total}")
        if self._completed < self._total:
            parts.append(f"eta {self._remaining()}")
        return "  ".join([*parts, *self._shown.values()])

    def _remaining(self) -> str:
        if self._first is None or self._completed <= self._first[1]:
            return "-:--"
        elapsed = time.monotonic() - self._first[0]
        return duration(elapsed / (self._completed - self._first[1]) * (self._total - self._completed))


def score_table(
    scores: Mapping[str, Any], names: ScoreNames, more: dict[str, float | None], place: str = "summary.json"
) -> str:
    """Return a table of shares in percent as plain lines, with a dash where there is no value.

    Args:
        scores: scores under their keys, those of the classes by class name; pixel counts become shares of all.
        names: keys and names of the scores.
        more: further lines at the end, by name.
        place: file that holds the scores of all classes, of which a table of many shows the highest and lowest.
    """
    columns = {f"{each.name} %": scores[each.key] for each in names.of_each_class if each.key in scores}
    for each in names.pixel_counts:
        if counts := scores.get(each.key):
            whole = max(sum(counts.values()), 1)
            columns[f"{each.name} %"] = {name: count / whole for name, count in counts.items()}
    totals = {each.name: scores.get(each.key) for each in names.totals} | more
    chosen = class_rows({name: [value] for name, value in scores[names.by_class.key].items()})
    classes = chosen.names
    width = max(len(name) for name in (*classes, *totals, "class"))
    widths = [max(len(head), 6) for head in columns]

    def row(name: str, values: Sequence[float | None]) -> str:
        texts = ["-" if value is None else f"{100 * value:.2f}" for value in values]
        ends = (f"{text:>{size}}" for text, size in zip(texts, widths, strict=False))
        return "  ".join([f"{name:<{width}}", *ends])

    heads = "  ".join(f"{head:>{size}}" for head, size in zip(columns, widths, strict=True))
    rule = "-" * (width + sum(widths) + 2 * len(widths))
    rows = [row(name, [column.get(name) for column in columns.values()]) for name in classes]
    ends = [row(name, [value]) for name, value in totals.items()]
    hidden = [f"({note})"] if (note := chosen.note(place)) else []
    return "\n".join([f"{'class':<{width}}  {heads}", rule, *rows, *hidden, rule, *ends])


def render_summary(summary: Mapping[str, Any], run_dir: Path) -> str:
    """Return the text printed at the end of a run: scores of each class and of all, and the places of the files.

    Args:
        summary: content of ``summary.json``.
        run_dir: the run directory.
    """
    names = ScoreNames.of(summary)
    primary = names.primary
    test = {f"{primary.name} on test": summary[primary.test]} if primary.test in summary else {}
    remarks = [absent_remark(summary, names), absent_remark(summary, names, "test", "_test")]
    return "\n".join(
        [
            "",
            score_table(summary, names, test, str(run_dir / "summary.json")),
            *(f"Note: {remark}." for remark in remarks if remark),
            *(f"Note: {warning}." for warning in summary.get("trust", {}).get("warnings", ())),
            f"Run directory: {run_dir}",
            f"Pictures (image, truth, prediction, confidence): {run_dir / 'samples'}",
        ]
    )


def _formats(primary: MetricName) -> dict[str, str]:
    """Formats of the values that a line shows, in its order."""
    return {
        "train/loss": "loss {:.4f}",
        f"val/{primary.key}": f"{primary.name} {{:.4f}}",
        f"pseudo/{primary.key}": f"pseudo-label {primary.name} {{:.4f}}",
        "time/images_per_s": "{:.1f} images/s",
    }
