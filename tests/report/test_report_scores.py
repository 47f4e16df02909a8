"""Statistics against numbers that were computed by hand and tables of Student's distribution."""

import math

import pytest

from semiseg.report.scores import average, paired


def test_mean_and_sample_standard_deviation() -> None:
    found = average([0.40, 0.44, 0.48])
    # Deviations -0.04, 0, 0.04: variance 0.0032 / 2.
    assert found.mean == pytest.approx(0.44)
    assert found.std == pytest.approx(0.04)
    assert found.n == 3


def test_one_value_has_no_spread_and_none_no_mean() -> None:
    assert (average([0.4]).mean, average([0.4]).std, average([0.4]).n) == (0.4, None, 1)
    assert (average([]).mean, average([]).std, average([]).n) == (None, None, 0)


def test_missing_and_not_finite_values_do_not_count() -> None:
    found = average([0.2, None, math.nan, 0.4])
    assert found.values == (0.2, None, None, 0.4)
    assert found.mean == pytest.approx(0.3)
    assert found.n == 2


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [
        (1, 12.706204736175),
        (2, 4.302652729749),
        (3, 3.182446305284),
        (4, 2.776445105198),
        (5, 2.570581835636),
        (9, 2.262157162798),
        (30, 2.042272456301),
        (99_999, 1.959987707775),
    ],
)
def test_intervals_are_those_of_the_printed_table(degrees: int, quantile: float) -> None:
    n = degrees + 1
    found = paired([(float(number % 2), 0.0) for number in range(n)])
    assert found is not None
    assert found.std is not None
    assert found.high is not None
    assert (found.high - found.mean) * math.sqrt(n) / found.std == pytest.approx(quantile, abs=1e-9)


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
