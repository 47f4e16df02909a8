"""Comparison of cells with the baseline: paired differences, share of the gap that is closed, and notes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from semiseg.report.comparable import (
    FULL,
    MEASURE,
    METHOD,
    facts,
    first_few,
    grouped,
    measured_otherwise,
    not_comparable,
    other_settings,
    spelled,
)
from semiseg.report.pairing import at, cells_of, difference_of, pairs
from semiseg.report.records import RunRecord
from semiseg.report.scores import GapClosed, Paired
from semiseg.report.study import SPLIT_KEY, Cell, Flagged


def compared(cells: Sequence[Cell], baseline: str | None, metric: str) -> list[Cell]:
    """Add differences to the baseline, the share of the gap that is closed, and notes about their limits.

    Args:
        cells: Cells with scores.
        baseline: Value of the key "method" of the cells to compare with; ``None`` returns the cells as they are.
        metric: Key of the score.
    """
    if baseline is None:
        return list(cells)
    bases = cells_of(baseline, cells)
    return [
        _against(cell, bases, metric, baseline) if cell.runs and cell.key[METHOD] != baseline else cell
        for cell in cells
    ]


def study_notes(cells: Sequence[Cell], flagged: Sequence[Flagged]) -> tuple[str, ...]:
    """Describe in sentences the limits of a study.

    Args:
        cells: Cells of the study, compared.
        flagged: Flagged runs of the study.
    """
    shown = [cell for cell in cells if cell.runs]
    return (*_other_code(flagged), *_other_measures(shown), *_other_machines(shown))


def _against(cell: Cell, bases: Sequence[Cell], metric: str, name: str) -> Cell:
    alike = at(bases, cell.key)
    if len(alike) != 1:
        many = f"several cells of {name}, and none with its values" if alike else f"no averaged run of {name}"
        return _noted(cell, f"{many} to compare with")
    (base,) = alike
    if unlike := first_few(not_comparable(cell.runs[0], base.runs[0])):
        return _noted(cell, f"not compared with {name}, which differs in {unlike}")
    if others := [each for each in other_settings(cell.runs[0], base.runs[0]) if each[0] not in cell.key]:
        cell = _noted(cell, f"other settings than {name} (its own in brackets): {spelled(others)}")
    found = pairs(cell, base, metric)
    difference = difference_of(found)
    if difference is None:
        return _noted(cell, f"no run shares seed and labeled images with one of {name}")
    cell = replace(cell, difference=difference)
    full = at(bases, {**cell.key, SPLIT_KEY: FULL}) if SPLIT_KEY in cell.key else []
    if len(full) != 1 or full[0] is base or (most := full[0].scores[metric].mean) is None:
        return cell
    if unlike := first_few(not_comparable(cell.runs[0], full[0].runs[0])):
        return _noted(cell, f"{name} with all labels differs in {unlike}")
    # Over the pairs, not over all runs of the baseline: the difference above is theirs too.
    supervised = sum(each.other for each in found) / len(found)
    if most <= supervised:
        return _noted(cell, f"all labels do not help {name}: no gap to close")
    return replace(cell, gap_closed=_gap(difference, supervised, most))


def _gap(difference: Paired, supervised: float, full: float) -> GapClosed:
    """Divide a difference by the distance between the two baselines."""
    distance = full - supervised
    low, high = (None if end is None else end / distance for end in (difference.low, difference.high))
    return GapClosed(difference.mean / distance, low, high, supervised, full)


def _noted(cell: Cell, *notes: str) -> Cell:
    return replace(cell, notes=(*cell.notes, *notes))


def _other_code(flagged: Sequence[Flagged]) -> Iterator[str]:
    """Say how many runs are left out for their code alone, which the user may know to compute the same."""
    count = sum(not each.averaged and {flag.kind for flag in each.flags} == {"code"} for each in flagged)
    if count:
        runs = "1 run is" if count == 1 else f"{count} runs are"
        yield f"{runs} left out for other code alone; --mix code averages over it."


def _other_measures(cells: Sequence[Cell]) -> Iterator[str]:
    """Name cells of one dataset that a report shows together, but whose scores cannot be compared."""
    for name, members in grouped(cells, lambda cell: str(cell.runs[0].option("dataset"))).items():
        if keys := measured_otherwise([cell.runs[0] for cell in members]):
            alike = grouped(members, partial(_measures, keys))
            parts = "; ".join(", ".join(cell.label for cell in same) for same in alike.values())
            unlike = ", ".join(keys)
            yield f"Scores on {name} cannot be compared across these groups, which differ in {unlike}: {parts}."


def _measures(keys: Sequence[str], cell: Cell) -> str:
    found = facts(cell.runs[0])
    return str([found[kind].get(key) for kind in MEASURE for key in keys])


def _other_machines(cells: Sequence[Cell]) -> Iterator[str]:
    """Name differences of averaged runs that change the last digits of scores, or times alone."""
    kinds = {
        "versions of semiseg": lambda run: run.code,
        "versions of torch": lambda run: str((run.env.get("packages") or {}).get("torch")),
        "devices": _device,
    }
    for name, of in kinds.items():
        counts = Counter(of(run) for cell in cells for run in cell.runs)
        if len(counts) > 1:
            parts = "; ".join(f"{each} in {number}" for each, number in counts.most_common())
            yield f"The averaged runs are of different {name}: {parts}."


def _device(run: RunRecord) -> str:
    device = str(run.results.get("device"))
    if "cuda" in device:
        return ", ".join(run.env.get("gpus") or [])
    return f"{device}, {run.results.get('threads')} threads"
