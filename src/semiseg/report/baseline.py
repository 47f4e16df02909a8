"""Cells against the baseline: paired differences, and the share of the gap to all labels that is closed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from semiseg.errors import shown
from semiseg.report.facts import differences, facts, measured_otherwise
from semiseg.report.flags import pair_key
from semiseg.report.keys import METHOD, of_method
from semiseg.report.model import Cell, GapClosed, Paired
from semiseg.report.statistics import paired

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
    known = [cell for cell in cells if cell.key["method"] == baseline and cell.runs]
    done = []
    for cell in cells:
        if cell.key["method"] == baseline or not cell.runs:
            done.append(cell)
            continue
        bases = _at(known, cell.key)
        full = _at(known, {**cell.key, "split": FULL}) if "split" in cell.key else []
        if len(bases) == 1:
            cell = _against(cell, bases[0], full[0] if len(full) == 1 else None, metric, baseline)
        else:
            many = (
                f"several cells of {baseline}, and none with its values"
                if bases
                else f"no averaged run of {baseline}"
            )
            cell = _noted(cell, f"{many} to compare with")
        done.append(cell)
    return done


def _at(cells: Sequence[Cell], key: Mapping[str, str]) -> list[Cell]:
    """Cells with the same values; settings of the method count where one of the cells has them too."""
    found = [
        cell for cell in cells if all(cell.key[name] == key[name] for name in key if not of_method(name))
    ]
    alike = [cell for cell in found if {**cell.key, METHOD: ""} == {**key, METHOD: ""}]
    return alike or found


def _against(cell: Cell, base: Cell, full: Cell | None, metric: str, name: str) -> Cell:
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

    return GapClosed(
        difference.mean / distance, scaled(difference.low), scaled(difference.high), supervised, full
    )


def _not_comparable(cell: Cell, other: Cell) -> str:
    """Keys in which two cells may not differ if their scores are to be compared; "" if they do not."""
    runs = cell.runs[0], other.runs[0]
    unlike = differences(*(facts(run)["settings"] for run in runs))
    return _listed([*measured_otherwise(runs), *(key for key, *_ in unlike if key.startswith(SAME_NETWORK))])


def _other_settings(cell: Cell, base: Cell, name: str) -> list[str]:
    own, theirs = facts(cell.runs[0]), facts(base.runs[0])
    unlike = [each for kind in ("iterations", "settings") for each in differences(own[kind], theirs[kind])]
    told = [
        f"{key}={shown(mine)} ({shown(its)})"
        for key, mine, its in unlike
        if key not in cell.key and not key.startswith(OF_METHOD)
    ]
    return [f"other settings than {name} (its own in brackets): {_listed(told)}"] if told else []


def _listed(words: Sequence[str]) -> str:
    more = len(words) - SHOWN_KEYS
    return ", ".join(words[:SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")


def _noted(cell: Cell, *notes: str) -> Cell:
    return replace(cell, notes=(*cell.notes, *notes))
