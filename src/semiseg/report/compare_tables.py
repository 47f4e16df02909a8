"""A comparison as tables, for the terminal and for ``comparison.md``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semiseg.errors import shown
from semiseg.report.compare_facts import Difference, Pair
from semiseg.report.markdown import escaped

ABSENT = "-"
WIDEST = 48


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _whole(value: float) -> str:
    return f"{value:.0f}"


QUANTITIES: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "miou": ("mIoU, reported network, %", _percent),
    "miou_best": ("mIoU, best network, %", _percent),
    "miou_last": ("mIoU, last network, %", _percent),
    "miou_test": ("mIoU on test images, %", _percent),
    "accuracy": ("pixel accuracy, %", _percent),
    "best_iteration": ("iteration of the best", _whole),
    "iterations": ("iterations in all", _whole),
    "split_fraction": ("labeled share, %", _percent),
    "train_images_per_s": ("training images/s", lambda value: f"{value:.1f}"),
    "wall_s": ("duration, s", _whole),
}
"""Name for people and format of each of ``compare_facts.RESULTS``."""


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading.

    Args:
        title: the heading.
        head: names of the columns.
        rows: as many cells each.
        numbers: whether all columns but the first hold numbers.
    """

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: bool = False

    def text(self) -> str:
        """Lay the table out with aligned columns; long cells are cut."""
        lines = [tuple(_cut(cell) for cell in row) for row in (self.head, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        laid = []
        for line in lines:
            cells = [
                cell.rjust(width) if self.numbers and index else cell.ljust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            laid.append("  ".join(cells).rstrip())
        return "\n".join([self.title, laid[0], "-" * (sum(widths) + 2 * len(widths) - 2), *laid[1:]])

    def markdown(self) -> str:
        """Lay the table out for Markdown, cells whole."""
        rule = ["---", *("---:" if self.numbers else "---" for _ in self.head[1:])]
        rows = [self.head, rule, *self.rows]
        lines = ["| " + " | ".join(map(escaped, row)) + " |" for row in rows]
        return "\n".join([f"## {self.title}", "", *lines])


def difference_table(title: str, found: Sequence[Difference]) -> Table:
    """Show values that differ."""
    return Table(title, ("", "A", "B"), [(each.key, _value(each.a), _value(each.b)) for each in found])


def result_table(pairs: Sequence[Pair]) -> Table:
    """Show the numbers of both summaries."""
    rows = []
    for pair in pairs:
        name, text = QUANTITIES[pair.name]
        rows.append((name, *_numbers(pair, text)))
    return Table("Results", ("", "A", "B", "B - A"), rows, numbers=True)


def class_table(title: str, pairs: Sequence[Pair]) -> Table:
    """Show the IoU of each class in percent."""
    rows = [(pair.name, *_numbers(pair, _percent)) for pair in pairs]
    return Table(title, ("class", "A", "B", "B - A"), rows, numbers=True)


def share(value: float | None) -> str:
    """A share in percent, a dash where there is none."""
    return ABSENT if value is None else _percent(value)


def _numbers(pair: Pair, text: Callable[[float], str]) -> tuple[str, str, str]:
    a, b = (ABSENT if value is None else text(value) for value in (pair.a, pair.b))
    if pair.change is None:
        return a, b, ABSENT
    change = text(pair.change)
    return a, b, f"+{change}" if pair.change > 0 else change


def _value(value: Any) -> str:
    return ABSENT if value is None else shown(value)


def _cut(cell: str) -> str:
    return cell if len(cell) <= WIDEST else cell[: WIDEST - 3] + "..."
