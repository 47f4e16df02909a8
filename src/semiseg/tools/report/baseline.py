"""Cells against the baseline: paired differences, and the share of the gap to all labels that is closed."""

from collections.abc import Sequence
from dataclasses import replace

from semiseg.config.faults import shown
from semiseg.tools.report.facts import differences, facts, level
from semiseg.tools.report.flags import pair_key
from semiseg.tools.report.model import Cell, GapClosed, Paired
from semiseg.tools.report.statistics import paired

FULL = "full"
SAME_NETWORK = ("backbone.", "model.")
"""Settings in which a cell and its baseline have to agree; a method brings others of its own."""

OF_METHOD = ("method.", "trainer.unlabeled_batch_size")
SHOWN_KEYS = 4


def compared(cells: Sequence[Cell], baseline: str | None, metric: str) -> list[Cell]:
    """Add differences to the baseline, the gap that is closed, and what limits them.

    Args:
        cells: with scores.
        baseline: value of the key "method" of the cells to compare with; None returns the cells as they are.
        metric: name of the score.
    """
    if baseline is None:
        return list(cells)
    known = {tuple(cell.key.items()): cell for cell in cells}

    def at(cell: Cell, **other: str) -> Cell | None:
        return known.get(tuple({**cell.key, **other}.items())) if other.keys() <= cell.key.keys() else None

    done = []
    for cell in cells:
        if cell.key["method"] == baseline or not cell.runs:
            done.append(cell)
            continue
        base = at(cell, method=baseline)
        full = at(cell, method=baseline, split=FULL)
        done.append(_against(cell, base, full, metric, baseline))
    return done


def _against(cell: Cell, base: Cell | None, full: Cell | None, metric: str, name: str) -> Cell:
    if base is None or not base.runs:
        return _noted(cell, f"no averaged run of {name} to compare with")
    if unlike := _not_comparable(cell, base):
        return _noted(cell, f"not compared with {name}, which differs in {unlike}")
    cell = _noted(cell, *_other_settings(cell, base, name))
    scores = {pair_key(run): score for run, score in zip(base.runs, base.scores[metric].values, strict=True)}
    own = zip(map(pair_key, cell.runs), cell.scores[metric].values, strict=True)
    pairs = [
        (score, other) for key, score in own if score is not None and (other := scores.get(key)) is not None
    ]
    difference = paired(pairs)
    if difference is None:
        return _noted(cell, f"no run shares seed and labeled images with one of {name}")
    cell = replace(cell, difference=difference)
    if full is None or full is base or full.scores[metric].mean is None:
        return cell
    if unlike := _not_comparable(cell, full):
        return _noted(cell, f"{name} with all labels differs in {unlike}")
    supervised = sum(other for _, other in pairs) / len(pairs)
    gap = _gap(difference, supervised, full.scores[metric].mean)
    return (
        replace(cell, gap_closed=gap)
        if gap
        else _noted(cell, f"all labels do not help {name}: no gap to close")
    )


def _gap(difference: Paired, supervised: float, full: float | None) -> GapClosed | None:
    """Divide a difference by the distance of the two baselines; None where all labels are not better."""
    if full is None or full <= supervised:
        return None
    distance = full - supervised

    def scaled(share: float | None) -> float | None:
        return None if share is None else share / distance

    low, high, std = map(scaled, (difference.low, difference.high, difference.std))
    return GapClosed(difference.mean / distance, low, high, supervised, full, std)


def _not_comparable(cell: Cell, other: Cell) -> str:
    """Keys in which two cells may not differ if their scores are to be compared; "" if they do not."""
    own, theirs = facts(cell.runs[0]), facts(other.runs[0])
    level((own, theirs))
    unlike = [each for kind in ("dataset", "evaluator") for each in differences(own[kind], theirs[kind])]
    unlike += [
        each for each in differences(own["settings"], theirs["settings"]) if each[0].startswith(SAME_NETWORK)
    ]
    return _listed([key for key, *_ in unlike])


def _other_settings(cell: Cell, base: Cell, name: str) -> list[str]:
    unlike = differences(facts(cell.runs[0])["settings"], facts(base.runs[0])["settings"])
    told = [
        f"{key}={shown(own)} ({shown(theirs)})"
        for key, own, theirs in unlike
        if key not in cell.key and not key.startswith(OF_METHOD)
    ]
    return [f"other settings than {name} (its own in brackets): {_listed(told)}"] if told else []


def _listed(words: Sequence[str]) -> str:
    more = len(words) - SHOWN_KEYS
    return ", ".join(words[:SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")


def _noted(cell: Cell, *notes: str) -> Cell:
    return replace(cell, notes=(*cell.notes, *notes))
