"""Means, spreads and confidence intervals of a few numbers; plain Python, no library of statistics."""

import math
from collections.abc import Sequence

from semiseg.report.model import Paired, Score

CONFIDENCE = 0.95


def score(values: Sequence[float | None]) -> Score:
    """Mean and sample standard deviation (n - 1) of the values that there are."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    kept = tuple(value if value is not None and math.isfinite(value) else None for value in values)
    mean = math.fsum(known) / len(known) if known else None
    return Score(kept, mean, sample_std(known), len(known))


def sample_std(values: Sequence[float]) -> float | None:
    """Standard deviation with n - 1; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))


def paired(pairs: Sequence[tuple[float, float]]) -> Paired | None:
    """Mean of first minus second with its confidence interval by Student's distribution.

    The interval is mean ± t(0.975, n - 1) · s / √n with the sample standard deviation s of the differences.

    Args:
        pairs: (value, baseline) of each seed and partition.

    Returns:
        None without pairs; without an interval for one pair.
    """
    if not pairs:
        return None
    differences = [value - base for value, base in pairs]
    n = len(differences)
    mean = math.fsum(differences) / n
    std = sample_std(differences)
    if std is None:
        return Paired(mean, None, None, n)
    half = student_quantile((1 + CONFIDENCE) / 2, n - 1) * std / math.sqrt(n)
    return Paired(mean, mean - half, mean + half, n, std)


def student_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t distribution.

    Args:
        probability: above 0.5 and below 1.
        degrees: degrees of freedom, a whole number from 1.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0.5 < probability < 1 or degrees < 1:
        raise ValueError(f"no quantile for probability {probability} and {degrees} degrees of freedom")
    central = 2 * probability - 1
    low, high = 0.0, math.pi / 2
    # So many halvings leave an error below that of the arithmetic.
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _central(middle, degrees) < central else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _central(angle: float, degrees: int) -> float:
    """Probability of -t..t for t = √degrees · tan(angle), by the finite sum for whole degrees of freedom."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(2 + odd, degrees, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
