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


@pytest.mark.golden("UniMatch schedule")
@pytest.mark.parametrize(
    ("base", "total", "index", "expected"),
    [
        (0.001, 1311 * 80, 0, 0.001),
        (0.001, 1311 * 80, 1, 0.0009999914187602112),
        (0.001, 1311 * 80, 52440, 0.0005358867313),
        (0.001, 1311 * 80, 1311 * 80 - 2, 5.653320213e-08),
        (0.001, 1311 * 80, 1311 * 80 - 1, 3.029539290e-08),
        (5e-6, 655 * 60, 1, 4.999885496e-06),
        (5e-6, 655 * 60, 19650, 2.679433656e-06),
        (5e-6, 655 * 60, 655 * 60 - 2, 6.838230018e-10),
        (5e-6, 655 * 60, 655 * 60 - 1, 3.664516732e-10),
        # U2PL sets the same rates before the step.
        (0.001, 570 * 80, 2, 9.999605262e-4),
        (0.001, 570 * 80, 570, 9.887429363e-4),
        (0.001, 570 * 80, 45599, 6.411086575e-8),
    ],
)
def test_a_lagged_rate_is_that_of_the_step_before(
    base: float, total: int, index: int, expected: float
) -> None:
    # UniMatch computes it from the 0-based index of the step just done: the next step runs with it.
    assert base * Poly(lr_index="lagged").factor(index + 1, total) == pytest.approx(expected, rel=1e-9)
    assert base * Poly(lr_index="exact").factor(index, total) == pytest.approx(expected, rel=1e-9)
    assert Poly() == Poly(lr_index="exact")


@pytest.mark.golden("UniMatch schedule")
def test_the_first_two_steps_of_a_lagged_schedule_run_at_the_base_rate() -> None:
    used = [0.02 * Poly(lr_index="lagged").factor(step, 16) for step in range(6)]
    after = [0.02, 0.01887140106, 0.01773524709, 0.01659094136, 0.01543779013]
    assert used == pytest.approx([0.02, *after], rel=1e-9)
    last = Poly(lr_index="lagged").factor(15, 16)
    assert last == pytest.approx((2 / 16) ** 0.9)
    cosine = Cosine(lr_index="lagged", warmup=0.1)
    assert [cosine.factor(step, 40) for step in range(5)] == pytest.approx([0.25, 0.25, 0.5, 0.75, 1.0])


@pytest.mark.golden("CutMix-Seg schedules")
def test_rates_of_cutmix_seg() -> None:
    steps = (0, 1, 2, 10, 19)
    poly = [0.1 * Poly().factor(step, 20) for step in steps]
    assert poly == pytest.approx([0.1, 0.09548853816, 0.09095325761, 0.05358867313, 0.006746414238], rel=1e-9)
    cosine = [0.1 * Cosine().factor(step, 20) for step in steps]
    expected = [0.1, 0.09938441703, 0.09755282581, 0.05, 0.0006155829702]
    assert cosine == pytest.approx(expected, rel=1e-9)
