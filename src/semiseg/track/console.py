"""Progress of a run for the user: a bar on a terminal, plain lines elsewhere, a table at the end."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from semiseg.contracts.tracking import Sample
from semiseg.output import duration


class ConsoleTracker:
    """Shows step of the recipe, iteration, remaining time of the step, loss and mIoU.

    Args:
        stages: number of steps of the recipe; ``None`` shows no total.
        console: console to print to; ``None`` prints to standard output.
    """

    def __init__(self, stages: int | None = None, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
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
        """Show loss, mIoU and speed; without a terminal as a line a call."""
        self._shown |= _readable(values)
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


def iou_table(iou: Mapping[str, float | None], totals: Mapping[str, float | None]) -> str:
    """Return a table of shares in percent as plain lines, with a dash where there is no value.

    Args:
        iou: IoU by class name.
        totals: values below them, for example mIoU, by name.
    """
    width = max(len(name) for name in (*iou, *totals, "class"))

    def row(name: str, value: float | None) -> str:
        return f"{name:<{width}}  {'-' if value is None else f'{100 * value:.2f}':>6}"

    rule = "-" * (width + 8)
    rows = [row(name, value) for name, value in iou.items()]
    return "\n".join(
        [f"{'class':<{width}}   IoU %", rule, *rows, rule, *(row(*item) for item in totals.items())]
    )


def render_summary(summary: Mapping[str, Any], run_dir: Path) -> str:
    """Return the text printed at the end of a run: IoU of each class, mIoU, and the places of the files.

    Args:
        summary: content of ``summary.json``.
        run_dir: the run directory.
    """
    totals = {"mIoU": summary["miou"], "pixel accuracy": summary["accuracy"]}
    if "miou_test" in summary:
        totals["mIoU on test"] = summary["miou_test"]
    return "\n".join(
        [
            "",
            iou_table(summary["iou"], totals),
            f"Run directory: {run_dir}",
            f"Pictures (image, truth, prediction, confidence): {run_dir / 'samples'}",
        ]
    )


def _readable(values: Mapping[str, float | None]) -> dict[str, str]:
    """Choose and format the values that a line shows, in its order."""
    formats = {
        "train/loss": "loss {:.4f}",
        "val/miou": "mIoU {:.4f}",
        "pseudo/miou": "pseudo-label mIoU {:.4f}",
        "time/images_per_s": "{:.1f} images/s",
    }
    found = {key: (text, values.get(key)) for key, text in formats.items()}
    return {key: text.format(value) for key, (text, value) in found.items() if value is not None}
