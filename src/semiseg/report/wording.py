"""How numbers and their names are written for people: scores in percent, one decimal."""

from collections.abc import Iterable

from semiseg.report.collect import RunRecord
from semiseg.report.model import GapClosed, Paired, Score

NONE = "–"
METRICS = {
    "miou": "mIoU",
    "miou_best": "mIoU of the best checkpoint",
    "miou_last": "mIoU of the last checkpoint",
    "miou_test": "mIoU on the test images",
    "accuracy": "pixel accuracy",
}
COSTS = {
    "train_images_per_s": ("images per second", 1.0),
    "wall_s": ("minutes", 1 / 60),
    "memory_gib": ("peak memory (GiB)", 1.0),
}
"""Costs that are shown: the label, and what to multiply values with."""


def metric_name(metric: str) -> str:
    """Name of a score, for example "mIoU" or "IoU of road on the test images"."""
    group, _, name = metric.partition("/")
    if group == "iou_test":
        return f"IoU of {name} on the test images"
    return f"IoU of {name}" if name else METRICS.get(metric, metric)


def percent(value: float | None, decimals: int = 1) -> str:
    """A share in percent without the sign."""
    return NONE if value is None else f"{value * 100:.{decimals}f}"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign; a true minus."""
    text = f"{value * 100:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def mean_std(score: Score | None, decimals: int = 1) -> str:
    """Mean and standard deviation, for example "44.1 ± 0.6"; the mean alone for one value."""
    if score is None or score.mean is None:
        return NONE
    spread = "" if score.std is None else f" ± {percent(score.std, decimals)}"
    return percent(score.mean, decimals) + spread


def interval(low: float | None, high: float | None) -> str:
    """A confidence interval in percentage points, for example "[−0.2, +2.6]"; empty where there is none."""
    return "" if low is None or high is None else f"[{points(low)}, {points(high)}]"


def difference(found: Paired | None) -> str:
    """A paired difference with its interval."""
    return NONE if found is None else f"{points(found.mean)} {interval(found.low, found.high)}".strip()


def gap_closed(found: GapClosed | None) -> str:
    """The share of the gap that is closed, in percent, with its interval."""
    if found is None:
        return NONE
    ends = "" if found.low is None else f" [{_whole(found.low)}, {_whole(found.high)}]"
    return f"{_whole(found.mean)} %{ends}"


def quantity(score: Score | None, factor: float = 1.0) -> str:
    """Mean and standard deviation of a cost, with three digits."""
    if score is None or score.mean is None:
        return NONE
    spread = "" if score.std is None else f" ± {_digits(score.std * factor)}"
    return _digits(score.mean * factor) + spread


def seeds(runs: Iterable[RunRecord], score: Score) -> str:
    """The value of each run behind its seed, for example "0: 44.1, 1: 43.2"."""
    pairs = zip(runs, score.values, strict=True)
    return ", ".join(f"{run.config.get('seed', '?')}: {percent(value)}" for run, value in pairs)


def _whole(value: float | None) -> str:
    return NONE if value is None else f"{value * 100:.0f}".replace("-", "−")


def _digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
