"""Statistics against numbers that were computed by hand and tables of Student's distribution."""

import math

import pytest

from semiseg.report.statistics import paired, score, student_quantile


def test_mean_and_sample_standard_deviation() -> None:
    found = score([0.40, 0.44, 0.48])
    # Deviations -0.04, 0, 0.04: variance 0.0032 / 2.
    assert found.mean == pytest.approx(0.44)
    assert found.std == pytest.approx(0.04)
    assert found.n == 3


def test_one_value_has_no_spread_and_none_no_mean() -> None:
    assert (score([0.4]).mean, score([0.4]).std, score([0.4]).n) == (0.4, None, 1)
    assert (score([]).mean, score([]).std, score([]).n) == (None, None, 0)


def test_missing_and_not_finite_values_do_not_count() -> None:
    found = score([0.2, None, math.nan, 0.4])
    assert found.values == (0.2, None, None, 0.4)
    assert found.mean == pytest.approx(0.3)
    assert found.n == 2


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042)],
)
def test_quantiles_are_those_of_the_printed_table(degrees: int, quantile: float) -> None:
    assert student_quantile(0.975, degrees) == pytest.approx(quantile, abs=5e-4)


def test_quantiles_approach_the_normal_distribution() -> None:
    assert student_quantile(0.975, 100_000) == pytest.approx(1.95996, abs=1e-4)
    assert student_quantile(0.95, 2) == pytest.approx(2.920, abs=5e-4)


@pytest.mark.parametrize(("probability", "degrees"), [(0.5, 3), (1.0, 3), (0.975, 0)])
def test_there_is_no_quantile_out_of_range(probability: float, degrees: int) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        student_quantile(probability, degrees)


def test_paired_difference_with_its_interval() -> None:
    found = paired([(0.44, 0.40), (0.46, 0.44), (0.50, 0.44)])
    # Differences 0.04, 0.02, 0.06: mean 0.04, s 0.02, and 4.30265 * 0.02 / sqrt(3) = 0.0496827.
    assert found is not None
    assert (found.mean, found.std, found.pairs) == (pytest.approx(0.04), pytest.approx(0.02), 3)
    assert found.low == pytest.approx(0.04 - 0.0496827, abs=1e-7)
    assert found.high == pytest.approx(0.04 + 0.0496827, abs=1e-7)


def test_a_difference_of_one_pair_has_no_interval() -> None:
    found = paired([(0.44, 0.40)])
    assert found is not None
    assert (found.mean, found.low, found.high, found.std) == (pytest.approx(0.04), None, None, None)
    assert paired([]) is None


def test_equal_differences_have_an_interval_of_no_width() -> None:
    found = paired([(0.50, 0.40), (0.60, 0.50)])
    assert found is not None
    assert found.low == pytest.approx(found.high)
