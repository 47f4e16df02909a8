"""Pairs of runs: one of a cell, and one of another method with the same seed and labeled images."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from semiseg.report.comparable import METHOD, of_method, pair_key
from semiseg.report.records import RunRecord
from semiseg.report.scores import Paired, paired
from semiseg.report.study import Cell


class Pair(NamedTuple):
    """Scores of two runs with the same seed and labeled images, as shares.

    Args:
        run: Run of the compared cell.
        score: Its score.
        other: Score of the run that it is compared with.
    """

    run: RunRecord
    score: float
    other: float


def cells_of(method: str, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells of a method that have runs."""
    return [cell for cell in cells if cell.key.get(METHOD) == method and cell.runs]


def at(cells: Sequence[Cell], key: Mapping[str, str]) -> list[Cell]:
    """Return cells with the same values; settings of the method count only if one of the cells has them too."""
    found = [
        cell for cell in cells if all(cell.key[name] == key[name] for name in key if not of_method(name))
    ]
    alike = [cell for cell in found if {**cell.key, METHOD: ""} == {**key, METHOD: ""}]
    return alike or found


def pairs(cell: Cell, other: Cell, metric: str) -> list[Pair]:
    """Return the pairs of two cells in which both runs have the score, in the order of ``cell.runs``."""
    # Pairs share seed and images, so that what a partition makes easy or hard cancels out.
    known = {pair_key(run): score for run, score in zip(other.runs, other.scores[metric].values, strict=True)}
    own = zip(cell.runs, cell.scores[metric].values, strict=True)
    return [
        Pair(run, score, base)
        for run, score in own
        if score is not None and (base := known.get(pair_key(run))) is not None
    ]


def difference_of(found: Sequence[Pair]) -> Paired | None:
    """Return the mean difference of pairs with its interval; ``None`` without pairs."""
    return paired([(each.score, each.other) for each in found])
