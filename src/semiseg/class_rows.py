"""Which classes a table for people shows where a dataset has too many for one screen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MOST = 40
"""Largest number of classes that tables show whole."""

EACH = 10
"""Number of the highest, of the lowest and of the most changed classes that are shown of more."""


@dataclass(frozen=True)
class ClassRows:
    """Classes that a table shows.

    Args:
        names: their names; all in the given order, or the highest, the most changed and the lowest.
        hidden: number of the others.
        kinds: what is shown of them, in words; empty where all are.
    """

    names: tuple[str, ...]
    hidden: int = 0
    kinds: str = ""

    def note(self, place: str) -> str:
        """Say how many classes are not shown and where all are; empty where none is hidden."""
        total = self.hidden + len(self.names)
        return (
            f"{self.hidden} of {total} classes are not shown here, only {self.kinds}; all are in {place}"
            * bool(self.hidden)
        )


def class_rows(scores: Mapping[str, Sequence[float | None]]) -> ClassRows:
    """Choose the classes that a table shows: up to 40 all of them, of more the highest, most changed and lowest.

    Args:
        scores: by class, its score in each column that is compared. High and low are judged by the mean, change by the
            difference of the largest and the smallest; ``None`` is no score.
    """
    if len(scores) <= MOST:
        return ClassRows(tuple(scores))
    known = {name: [each for each in row if each is not None] for name, row in scores.items()}
    means = {name: sum(row) / len(row) for name, row in known.items() if row}
    ranked = sorted(means, key=lambda name: -means[name])
    low = ranked[EACH:][-EACH:]
    high = ranked[:EACH]
    changes = {name: max(known[name]) - min(known[name]) for name in ranked if len(known[name]) > 1}
    by_change = sorted(changes, key=lambda name: -changes[name])
    changed = [name for name in by_change[:EACH] if changes[name] > 0]
    middle = [name for name in changed if name not in {*high, *low}]
    shown = (*high, *middle, *low)
    kinds = f"the {len(high)} highest and the {len(low)} lowest"
    if changed:
        kinds = f"the {len(high)} highest, the {len(changed)} most changed and the {len(low)} lowest"
    return ClassRows(shown, len(scores) - len(shown), kinds)
