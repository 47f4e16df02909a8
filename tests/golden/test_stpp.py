"""ST++ against numbers recorded from its published code: stability, schedule, and what an epoch is made of."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semiseg.contracts.feeding import Budget
from semiseg.data.epochs import labeled, mixed
from semiseg.data.pseudo import PseudoLabels
from semiseg.data.streams import Streams
from semiseg.engine.moments import snapshot_steps
from semiseg.engine.schedule import Poly
from semiseg.methods.stpp import SelfTraining
from semiseg.pseudo import stability_score


@pytest.mark.golden("ST++ stability")
def test_stability_score() -> None:
    y, x = torch.meshgrid(torch.arange(30), torch.arange(40), indexing="ij")
    a, b, c = x // 10 % 3, (x // 10 + (y > 15)) % 3, x // 9 % 4
    zero = torch.zeros_like(a)
    assert stability_score([a, b, c]).item() == pytest.approx(0.357521874362, abs=1e-11)
    assert stability_score([a, c]).item() == pytest.approx(0.490151515152, abs=1e-11)
    assert stability_score([b, c]).item() == pytest.approx(0.224892233572, abs=1e-11)
    assert stability_score([c, c, c]) == 1
    assert stability_score([a, b, zero]).item() == pytest.approx(0.147222222222, abs=1e-11)
    assert stability_score([a, zero]).item() == pytest.approx(1 / 6, abs=1e-11)
    assert stability_score([b, zero]).item() == pytest.approx(0.127777777778, abs=1e-11)


@pytest.mark.golden("ST++ stability")
@pytest.mark.parametrize(("unlabeled", "reliable"), [(9920, 4960), (10399, 5199)])
def test_half_of_the_images_is_reliable(unlabeled: int, reliable: int) -> None:
    scores = {str(index): (index * 37 % 101) / 100 for index in range(unlabeled)}
    ranking = SelfTraining().split_by_stability(scores)
    assert (len(ranking["reliable"]), len(ranking["rest"])) == (reliable, unlabeled - reliable)
    order = ranking["reliable"] + ranking["rest"]
    assert order == sorted(order, key=lambda name: (-scores[name], int(name)))


@pytest.mark.golden("ST++ stability")
@pytest.mark.parametrize(("epochs", "expected"), [(80, [26, 53, 80]), (240, [80, 160, 240]), (3, [1, 2, 3])])
def test_epochs_of_the_snapshots(epochs: int, expected: list[int]) -> None:
    steps = snapshot_steps(SelfTraining().snapshots, Streams({}, epochs * 11, 11))
    assert [step / 11 for step in steps] == expected


@pytest.mark.golden("ST++ schedule")
@pytest.mark.parametrize(
    ("lr", "total", "rates"),
    [
        (0.001, 3280, {1: 0.0009997256056, 1640: 0.0005358867313, 3279: 6.850362296e-07, 3280: 0}),
        (0.004, 5520, {1: 0.00399934782, 2760: 0.002143546925, 5519: 1.715200211e-06, 5520: 0}),
    ],
)
def test_schedule(lr: float, total: int, rates: dict[int, float]) -> None:
    for step, rate in rates.items():
        assert lr * Poly().factor(step, total) == pytest.approx(rate, rel=1e-9, abs=1e-15)


# setting, labeled, unlabeled, iterations of an epoch of the teacher, of the last student, of the student of
# the reliable half; batches of 16.
EPOCHS = [
    ("92", 92, 10490, 11, 1316, 661),
    ("183", 183, 10399, 22, 1301, 656),
    ("366", 366, 10216, 22, 1279, 639),
    ("732", 732, 9850, 45, 1256, 628),
    ("1464", 1464, 9118, 91, 1210, 650),
    ("1/16", 662, 9920, 41, 1240, 641),
    ("1/8", 1323, 9259, 82, 1157, 620),
    ("1/4", 2645, 7937, 165, 1157, 578),
    ("city 1/30", 100, 2875, 12, 360, 183),
    ("city 1/8", 372, 2603, 23, 325, 174),
    ("city 1/4", 744, 2231, 46, 278, 162),
]


@pytest.mark.golden("ST++ lists and epochs")
@pytest.mark.parametrize("row", EPOCHS, ids=lambda row: row[0].replace(" ", "_"))
def test_iterations_of_an_epoch(row: tuple[str, int, int, int, int, int]) -> None:
    _, known, unknown, teacher, student, intermediate = row
    ids = [f"l{index}" for index in range(known)]
    others = {f"u{index}": index / unknown for index in range(unknown)}
    method = SelfTraining()
    ranking = method.split_by_stability(others)
    halves = [PseudoLabels("nowhere", ranking[part]) for part in ("reliable", "rest")]
    view: Any = None
    budget = Budget(epochs=1)
    assert labeled(ids, view, 16, budget, method.double_below).iterations == teacher
    assert mixed(ids, halves, view, view, 16, budget).iterations == student
    assert mixed(ids, halves[:1], view, view, 16, budget).iterations == intermediate


@pytest.mark.golden("ST++ lists and epochs")
@pytest.mark.parametrize(("known", "entries"), [(92, 184), (183, 366), (100, 200), (200, 200), (366, 366)])
def test_short_lists_of_the_teacher_are_doubled(known: int, entries: int) -> None:
    view: Any = None
    streams = labeled(
        [str(index) for index in range(known)], view, 16, Budget(epochs=1), SelfTraining().double_below
    )
    assert streams.streams["labeled"].entries == entries


# folder, labeled, unlabeled, SHA-1 of the sorted labeled stems (Cityscapes: up to the kind of file) joined by
# LF (first 12 digits).
PARTITIONS = [
    ("pascal/1_16/split_0", 662, 9920, "e7d3f5c0f08b"),
    ("pascal/1_16/split_1", 662, 9920, "a305e0c23da9"),
    ("pascal/1_16/split_2", 662, 9920, "0a12f423b588"),
    ("pascal/1_8/split_0", 1323, 9259, "c62365df1f6a"),
    ("pascal/1_4/split_0", 2645, 7937, "7ce9effcfa81"),
    ("pascal/92/split_0", 92, 10490, "84057fcd0e49"),
    ("pascal/92/split_2", 92, 10490, "3ff3233286e9"),
    ("pascal/183/split_0", 183, 10399, "4e6f730e249c"),
    ("pascal/366/split_0", 366, 10216, "2a4c7848b107"),
    ("pascal/732/split_0", 732, 9850, "9b3141cdf7af"),
    ("pascal/1.4k", 1464, 9118, "6ed871ae2d09"),
    ("cityscapes/1_30/split_0", 100, 2875, "8853fbfd7bd1"),
    ("cityscapes/1_8/split_0", 372, 2603, "77d9265166af"),
    ("cityscapes/1_4/split_0", 744, 2231, "e3f8aa37d541"),
]


@pytest.mark.golden("ST++ lists and epochs")
@pytest.mark.parametrize("row", PARTITIONS, ids=lambda row: row[0])
def test_published_lists(row: tuple[str, int, int, str], shared_data: Callable[[str], Path]) -> None:
    folder, known, unknown, digest = row
    lists = shared_data("published_splits/stpp")
    stems, others = (
        {
            Path(line.split()[0]).stem.removesuffix("_leftImg8bit")
            for line in (lists / folder / name).read_text().splitlines()
            if line.strip()
        }
        for name in ("labeled.txt", "unlabeled.txt")
    )
    assert (len(stems), len(others)) == (known, unknown)
    assert not stems & others
    assert hashlib.sha1("\n".join(sorted(stems)).encode()).hexdigest()[:12] == digest
