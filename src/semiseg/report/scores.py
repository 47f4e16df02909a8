"""Scores: their names, means, differences and intervals, and the text that people read.

Scores are shares between 0 and 1 as in ``summary.json``; only texts for people are in percent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

from semiseg.contracts.score_names import ScoreNames

CONFIDENCE = 0.95
NONE = "–"


class Score(NamedTuple):
    """Names of a score in ``summary.json``.

    Args:
        key: Key of the score.
        name: Name for people.
        compared: Name in comparisons of two runs.
        column: Name of an additional column of a study; empty where the score has none.
    """

    key: str
    name: str
    compared: str
    column: str = ""


COSTS = {
    "train_images_per_s": ("images per second", 1.0),
    "wall_s": ("minutes", 1 / 60),
    "memory_gib": ("peak memory (GiB)", 1.0),
}
"""Costs that are shown: the label, and the factor of values."""


@dataclass(frozen=True)
class Average:
    """A quantity over the runs of a cell.

    Args:
        values: Value of each run, in the order of ``Cell.runs``; ``None`` where a run has none.
        mean: Mean of the known values; ``None`` where there are none.
        std: Sample standard deviation (n - 1); ``None`` for fewer than two.
        n: Number of known values.
    """

    values: tuple[float | None, ...]
    mean: float | None
    std: float | None
    n: int


@dataclass(frozen=True)
class Paired:
    """Mean difference to the baseline, or to the floor, over runs with the same seed and the same labeled images.

    Args:
        mean: Mean of the differences, a share.
        low: Lower end of the 95 % confidence interval; ``None`` for one pair.
        high: Upper end.
        pairs: Number of pairs.
        std: Sample standard deviation of the differences; ``None`` for one pair.
        below: Number of pairs with a difference below 0.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int
    std: float | None = None
    below: int = 0


@dataclass(frozen=True)
class GapClosed:
    """Share of the way from the baseline at this ratio to the baseline with all labels.

    Args:
        mean: 0 is the baseline at this ratio, 1 all labels.
        low: Lower end of the interval of the paired difference, on this scale; ``None`` for one pair.
        high: Upper end.
        baseline: Mean of the baseline at this ratio over the pairs, a share.
        full: Mean of the baseline with all labels, a share.
    """

    mean: float
    low: float | None
    high: float | None
    baseline: float
    full: float


def average(values: Sequence[float | None]) -> Average:
    """Return mean and sample standard deviation (n - 1) of the finite values; others become ``None``."""
    kept = tuple(value if value is not None and math.isfinite(value) else None for value in values)
    known = [value for value in kept if value is not None]
    std = stdev(known) if len(known) > 1 else None
    return Average(kept, fmean(known) if known else None, std, len(known))


def paired(pairs: Sequence[tuple[float, float]]) -> Paired | None:
    """Return the mean of first minus second with its confidence interval by Student's distribution.

    The interval is mean ± t(0.975, n - 1) · s / √n with the sample standard deviation s of the differences.

    Args:
        pairs: (value, baseline) of each seed and partition.

    Returns:
        ``None`` without pairs; without an interval for one pair.
    """
    found = average([value - base for value, base in pairs])
    below = sum(value < base for value, base in pairs)
    if found.mean is None or found.std is None:
        return None if found.mean is None else Paired(found.mean, None, None, found.n, below=below)
    # Imported only now: it takes a moment, which help and mistakes need not.
    from scipy.special import stdtrit

    half = float(stdtrit(found.n - 1, (1 + CONFIDENCE) / 2)) * found.std / math.sqrt(found.n)
    return Paired(found.mean, found.mean - half, found.mean + half, found.n, found.std, below)


def scores_of(names: ScoreNames) -> dict[str, Score]:
    """Return the scores of all classes together that ``summary.json`` holds, by key; the primary one first."""
    primary = names.primary
    scores = [
        Score(primary.key, primary.name, f"{primary.name}, reported network"),
        Score(
            primary.best, f"{primary.name} of the best checkpoint", f"{primary.name}, best network", "best"
        ),
        Score(
            primary.last, f"{primary.name} of the last checkpoint", f"{primary.name}, last network", "last"
        ),
        Score(primary.test, f"{primary.name} on the test images", f"{primary.name} on test images", "test"),
        *(Score(each.key, each.name, each.name) for each in names.secondary),
        *(
            Score(each.test, f"{each.name} on the test images", f"{each.name} on test images")
            for each in names.secondary
        ),
    ]
    return {score.key: score for score in scores}


def tables_of(names: ScoreNames) -> tuple[str, ...]:
    """Return the keys of the scores by class in ``summary.json``: of each score on validation and on test images."""
    return tuple(key for each in names.of_each_class for key in (each.key, each.test))


def metric_name(metric: str, names: ScoreNames) -> str:
    """Return the name of a score, for example "mIoU" or "IoU of road on the test images"."""
    group, _, name = metric.partition("/")
    if name:
        known = {each.key: each.name for each in names.of_each_class}
        known |= {each.test: each.name for each in names.of_each_class}
        on_test = " on the test images" if group.endswith("_test") else ""
        return f"{known.get(group, group)} of {name}{on_test}"
    scores = scores_of(names)
    return scores[metric].name if metric in scores else metric


def percent(value: float | None, decimals: int = 1) -> str:
    """Write a share in percent, without the sign."""
    return NONE if value is None else f"{value * 100:.{decimals}f}"


def points(value: float) -> str:
    """Write a difference of shares in percentage points with its sign; minus is the typographic one."""
    text = f"{value * 100:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def mean_std(score: Average | None) -> str:
    """Write mean and standard deviation, for example "44.1 ± 0.6"; the mean alone for one value."""
    if score is None or score.mean is None:
        return NONE
    return percent(score.mean) + ("" if score.std is None else f" ± {percent(score.std)}")


def interval(low: float | None, high: float | None) -> str:
    """Write a confidence interval in percentage points, for example "[−0.2, +2.6]"; empty where there is none."""
    return "" if low is None or high is None else f"[{points(low)}, {points(high)}]"


def difference(found: Paired | None) -> str:
    """Write a paired difference with its interval."""
    return NONE if found is None else f"{points(found.mean)} {interval(found.low, found.high)}".strip()


def ends(found: tuple[float, float] | None) -> str:
    """Write the lowest and the highest of some differences."""
    return NONE if found is None else f"{points(found[0])} to {points(found[1])}"


def multiple(value: float | None) -> str:
    """Write a ratio with two digits, for example "2.4 ×"."""
    return NONE if value is None else f"{_digits(value, 2)} ×"


def gap_closed(found: GapClosed | None) -> str:
    """Write the share of the gap that is closed, in percent, with its interval."""
    if found is None:
        return NONE
    ends = "" if found.low is None else f" [{_whole(found.low)}, {_whole(found.high)}]"
    return f"{_whole(found.mean)} %{ends}"


def quantity(score: Average | None, factor: float = 1.0) -> str:
    """Write mean and standard deviation of a cost with three digits."""
    if score is None or score.mean is None:
        return NONE
    return _digits(score.mean * factor) + ("" if score.std is None else f" ± {_digits(score.std * factor)}")


def _whole(value: float | None) -> str:
    text = percent(value, 0)
    return "0" if text == "-0" else text.replace("-", "−")


def _digits(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"
