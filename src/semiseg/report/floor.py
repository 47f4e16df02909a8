"""Comparison of cells with the floor: a method that trains no network, which training should exceed."""

from collections.abc import Sequence
from dataclasses import replace

from semiseg.report.comparable import METHOD, first_few, not_comparable
from semiseg.report.pairing import at, cells_of, difference_of, pairs
from semiseg.report.scores import Paired, difference, interval, points
from semiseg.report.study import Cell


def held_to_floor(cells: Sequence[Cell], floor: str | None, metric: str) -> list[Cell]:
    """Add differences to the floor, and notes where it cannot be compared with.

    A cell whose settings no run of the floor has gets no note: a floor need not be measured everywhere.

    Args:
        cells: Cells with scores.
        floor: Value of the key "method" of the cells that are the floor; ``None`` returns the cells as they are.
        metric: Key of the score.
    """
    if floor is None:
        return list(cells)
    floors = cells_of(floor, cells)
    return [
        _held(cell, floors, floor, metric) if cell.runs and cell.key[METHOD] != floor else cell
        for cell in cells
    ]


def floor_difference(found: Paired | None) -> str:
    """Write a difference to the floor; a negative one is marked by a word, since signs are easily overlooked."""
    return f"{difference(found)} below" if found is not None and found.mean < 0 else difference(found)


def below_floor(found: Paired, floor: str) -> str:
    """Say of a cell whose mean difference to the floor is negative how sure that is, without full stop."""
    start = f"below {floor} in {found.below} of {found.pairs} runs, {points(found.mean)} on average"
    if found.low is None or found.high is None:
        return f"below {floor} in the only pair, {points(found.mean)}, which tells nothing about the spread"
    ends = interval(found.low, found.high)
    if found.high < 0:
        return f"{start}, interval {ends}"
    return f"{start}; the interval {ends} includes 0, so that {found.pairs} pairs do not tell them apart"


def _held(cell: Cell, floors: Sequence[Cell], name: str, metric: str) -> Cell:
    alike = at(floors, cell.key)
    if not alike:
        return cell
    if len(alike) > 1:
        return _noted(cell, f"several cells of the floor {name}, and none with its values to compare with")
    if unlike := first_few(not_comparable(cell.runs[0], alike[0].runs[0])):
        return _noted(cell, f"not compared with the floor {name}, which differs in {unlike}")
    found = difference_of(pairs(cell, alike[0], metric))
    if found is None:
        return _noted(cell, f"no run shares seed and labeled images with one of the floor {name}")
    return replace(cell, floor=found)


def _noted(cell: Cell, note: str) -> Cell:
    return replace(cell, notes=(*cell.notes, note))
