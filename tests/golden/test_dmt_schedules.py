"""Lengths, rates and evaluations of DMT's fits against those of the published scripts."""

import pytest

from semiseg.contracts.feeding import Budget
from semiseg.data.epochs import labeled, unlabeled_and_labeled
from semiseg.data.geometry import RandomCrop
from semiseg.data.pseudo import PseudoLabels
from semiseg.data.views import Weak
from semiseg.engine.moments import is_candidate
from semiseg.engine.schedule import Poly

pytestmark = pytest.mark.golden("DMT schedules")

VIEW = Weak(RandomCrop(16))


def ids(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


@pytest.mark.parametrize(
    ("images", "epochs", "per_epoch", "total"),
    [
        (530, 134, 67, 8978),
        (80, 300, 10, 3000),
        (211, 134, 27, 3618),
        (168, 134, 21, 2814),
        (1464, 85, 183, 15555),
        (10582, 30, 1323, 39690),
        (371, 170, 47, 7990),
    ],
)
def test_iterations_of_the_baselines(images: int, epochs: int, per_epoch: int, total: int) -> None:
    streams = labeled(ids("l", images), VIEW, 8, Budget(epochs=epochs), last="short")
    assert (streams.iterations_per_epoch, streams.iterations) == (per_epoch, total)
    rest = images % 8 or 8
    assert len(streams.items("labeled", 0, "baseline-a", per_epoch - 1)) == rest


@pytest.mark.parametrize(
    ("unlabeled", "known", "batch", "epochs", "total"),
    [
        (10052, 530, (7, 1), 4, 5744),
        (10482, 100, (7, 1), 4, 5992),
        (9118, 1464, (7, 1), 5, 6515),
        (2604, 371, (6, 2), 10, 4340),
        (10371, 211, (7, 1), 4, 5928),
        (10371, 211, (7, 1), 20, 29640),
    ],
)
def test_iterations_of_the_phases(
    unlabeled: int, known: int, batch: tuple[int, int], epochs: int, total: int
) -> None:
    streams = unlabeled_and_labeled(
        PseudoLabels("store", ids("u", unlabeled)),
        ids("l", known),
        VIEW,
        unlabeled_batch_size=batch[0],
        batch_size=batch[1],
        budget=Budget(epochs=epochs),
    )
    assert streams.iterations == total
    sizes = [len(streams.items(name, 0, "phase-1-a", 0)) for name in ("pseudo", "labeled")]
    assert tuple(sizes) == batch


@pytest.mark.parametrize(
    ("total", "every", "first", "last"),
    [
        (8978, 220, [219, 439, 659], [8799, 8977]),
        (3000, 100, [99, 199, 299], [2899, 2999]),
        (5744, 500, [499, 999, 1499], [5499, 5743]),
        (7990, 350, [349, 699, 1049], [7699, 7989]),
        (4340, 300, [299, 599, 899], [4199, 4339]),
    ],
)
def test_evaluations_come_one_step_early(total: int, every: int, first: list[int], last: list[int]) -> None:
    steps = [step for step in range(total + 1) if is_candidate(step, total, every, early=True)]
    assert (steps[:3], steps[-2:]) == (first, last)
    assert total not in steps


@pytest.mark.parametrize("total", [8978, 5744, 4340])
def test_rates_begin_anew_in_every_fit(total: int) -> None:
    rates = [0.002 * Poly(power=0.9).factor(step, total) for step in (0, total // 2, total - 1)]
    assert rates == pytest.approx([0.002, 0.002 * 0.5**0.9, 0.002 * (1 / total) ** 0.9], rel=1e-12)
