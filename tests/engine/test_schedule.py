"""Golden values of the published schedules."""

import pytest

from semiseg.engine.schedule import Cosine, Poly
from semiseg.errors import UserError


@pytest.mark.golden("CPS and CAC schedules")
@pytest.mark.parametrize(
    ("base", "total", "step", "expected"),
    [
        # ST++: the rate set after t steps is the one that 0-based step t runs with.
        (0.001, 3280, 0, 0.001),
        (0.001, 3280, 1, 0.0009997256056),
        (0.001, 3280, 1640, 0.0005358867313),
        (0.001, 3280, 3279, 6.850362296e-07),
        (0.004, 5520, 1, 0.00399934782),
        (0.004, 5520, 2760, 0.002143546925),
        (0.004, 5520, 5519, 1.715200211e-06),
        # CAC and CPS.
        (0.01, 92560, 1, 0.009999902765721),
        (0.01, 92560, 1157, 0.009887429363103),
        (0.01, 92560, 46280, 0.005358867312681),
        (0.01, 92560, 92559, 3.39015058e-7),
        (0.01, 39338, 1, 0.009999771213294),
        (0.01, 39338, 39337, 7.322661e-7),
        (0.02, 44525, 1, 0.019999595732281),
    ],
)
def test_poly_equals_the_published_rates(base: float, total: int, step: int, expected: float) -> None:
    assert base * Poly().factor(step, total) == pytest.approx(expected, rel=1e-6)


def test_cosine_starts_at_one_and_ends_near_its_floor() -> None:
    schedule = Cosine(floor=0.1)
    assert schedule.factor(0, 100) == pytest.approx(1.0)
    assert schedule.factor(50, 100) == pytest.approx(0.55)
    assert schedule.factor(99, 100) == pytest.approx(0.1, abs=1e-3)


def test_cosine_rises_linearly_during_the_warm_up() -> None:
    schedule = Cosine(warmup=0.1)
    assert [schedule.factor(step, 40) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_values_out_of_range_are_named() -> None:
    with pytest.raises(UserError, match=r"^power=-1"):
        Poly(power=-1)
    with pytest.raises(UserError, match=r"^warmup=2"):
        Cosine(warmup=2)
    with pytest.raises(UserError, match=r"^floor=nan"):
        Cosine(floor=float("nan"))
