"""Cells, differences to the baseline and the gap that is closed, against numbers computed by hand."""

from pathlib import Path

import pytest
from written_runs import write_run

from semiseg.errors import UserError
from semiseg.report.aggregate import study
from semiseg.report.page import page
from semiseg.report.records import collect
from semiseg.report.study import Cell, Study

SUPERVISED = (0.40, 0.44, 0.44)
CPS = (0.44, 0.46, 0.50)
FULL = (0.60, 0.62)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed, (supervised, cps) in enumerate(zip(SUPERVISED, CPS, strict=True)):
        write_run(tmp_path / f"supervised-{seed}", supervised, seed=seed)
        write_run(tmp_path / f"cps-{seed}", cps, method="cps", seed=seed)
    for seed, full in enumerate(FULL):
        write_run(tmp_path / f"full-{seed}", full, split="full", seed=seed)
    return tmp_path


def made(folder: Path, **options: object) -> Study:
    return study(collect([folder]), **options)  # type: ignore[arg-type]


def cell(found: Study, *key: str) -> Cell:
    return next(each for each in found.cells if tuple(each.key.values()) == key)


def test_cells_hold_mean_spread_and_each_seed(runs: Path) -> None:
    found = made(runs)
    assert [each.label for each in found.cells] == ["supervised 1/8", "supervised full", "cps 1/8"]
    miou = cell(found, "cps", "1/8").scores["miou"]
    assert miou.values == CPS
    assert miou.mean == pytest.approx(1.4 / 3)
    # Deviations -0.0266667, -0.0066667, 0.0333333: variance 0.0018667 / 2.
    assert miou.std == pytest.approx(0.0305505, abs=1e-7)
    assert miou.n == 3
    assert found.flagged == ()
    assert found.classes == ("road", "car")
    assert cell(found, "cps", "1/8").by_class["car"].mean == pytest.approx(1.4 / 3 - 0.1)
    assert cell(found, "cps", "1/8").by_class_test["road"].mean == pytest.approx(1.4 / 3 + 0.1)
    assert cell(found, "cps", "1/8").scores["miou_last"].mean == pytest.approx(1.4 / 3 - 0.02)
    assert (cell(found, "cps", "1/8").fraction, cell(found, "supervised", "full").fraction) == (0.125, 1.0)


def test_the_difference_is_paired_over_shared_seeds_and_splits(runs: Path) -> None:
    difference = cell(made(runs), "cps", "1/8").difference
    # Differences 0.04, 0.02, 0.06: s = 0.02 and t(0.975, 2) = 4.30265.
    assert difference is not None
    assert difference.pairs == 3
    assert difference.mean == pytest.approx(0.04)
    assert (difference.low, difference.high) == (
        pytest.approx(-0.0096827, abs=1e-7),
        pytest.approx(0.0896827, abs=1e-7),
    )


def test_only_runs_with_the_same_seed_and_the_same_labeled_images_are_pairs(runs: Path) -> None:
    write_run(runs / "cps-3", 0.9, method="cps", seed=3)
    write_run(runs / "cps-0-b", 0.9, method="cps", seed=0, split_id="7")
    difference = cell(made(runs), "cps", "1/8").difference
    assert difference is not None
    assert (difference.pairs, difference.mean) == (3, pytest.approx(0.04))


def test_the_gap_that_is_closed_is_the_difference_over_the_distance_to_all_labels(runs: Path) -> None:
    gap = cell(made(runs), "cps", "1/8").gap_closed
    # Supervised at 1/8: 1.28 / 3; with all labels 0.61: a distance of 0.1833333.
    assert gap is not None
    assert (gap.baseline, gap.full) == (pytest.approx(0.4266667), pytest.approx(0.61))
    assert gap.mean == pytest.approx(0.04 / 0.1833333, abs=1e-6)
    assert gap.low == pytest.approx(-0.0096827 / 0.1833333, abs=1e-6)


def test_the_baseline_of_the_gap_is_that_of_the_pairs_alone(runs: Path) -> None:
    write_run(runs / "supervised-9", 0.1, seed=9)
    gap = cell(made(runs), "cps", "1/8").gap_closed
    assert gap is not None
    assert gap.baseline == pytest.approx(0.4266667)


def test_there_is_no_gap_where_all_labels_do_not_help(tmp_path: Path) -> None:
    write_run(tmp_path / "supervised", 0.5)
    write_run(tmp_path / "full", 0.5, split="full")
    write_run(tmp_path / "cps", 0.6, method="cps")
    found = cell(made(tmp_path), "cps", "1/8")
    assert found.difference is not None
    assert found.gap_closed is None
    assert "all labels do not help supervised" in found.notes[-1]


def test_another_baseline_and_another_metric(runs: Path) -> None:
    found = made(runs, baseline="cps", metric="iou_test/car")
    against = cell(found, "supervised", "1/8")
    assert against.difference is not None
    assert against.difference.mean == pytest.approx(-0.04)
    assert against.scores["iou_test/car"].mean == pytest.approx(1.28 / 3 - 0.1)
    assert cell(found, "cps", "1/8").difference is None


def test_cells_by_any_key_of_the_config(runs: Path) -> None:
    write_run(runs / "other", 0.7, method="cps", seed=0, config={"optimizer.lr": 0.1})
    found = made(runs, by=["optimizer.lr", "method", "split"])
    assert [each.label for each in found.cells] == [
        "0.01 supervised 1/8",
        "0.01 supervised full",
        "0.01 cps 1/8",
        "0.1 cps 1/8",
    ]
    assert cell(found, "0.1", "cps", "1/8").notes == ("no averaged run of supervised to compare with",)


def test_ratios_are_ordered_by_size_and_full_comes_last(tmp_path: Path) -> None:
    for split in ("full", "1/4", "1/16", "1/8"):
        write_run(tmp_path / split.replace("/", "of"), split=split)
    assert [each.key["split"] for each in made(tmp_path).cells] == ["1/16", "1/8", "1/4", "full"]


@pytest.mark.parametrize(
    ("config", "evaluator", "key"),
    [
        ({"backbone.name": "resnet18"}, {}, "backbone.name"),
        ({}, {"scales": [0.5]}, "evaluator.scales"),
    ],
)
def test_cells_of_other_networks_or_evaluators_are_not_compared(
    tmp_path: Path, config: dict[str, object], evaluator: dict[str, object], key: str
) -> None:
    write_run(tmp_path / "supervised", 0.5)
    write_run(tmp_path / "cps", 0.6, method="cps", config=config, evaluator=evaluator)
    found = cell(made(tmp_path), "cps", "1/8")
    assert found.difference is None
    assert found.notes == (f"not compared with supervised, which differs in {key}",)


def test_other_settings_than_the_baselines_are_told(tmp_path: Path) -> None:
    write_run(tmp_path / "supervised", 0.5)
    config = {"optimizer.lr": 0.1, "method.weight": 2.0, "trainer.unlabeled_batch_size": 4}
    write_run(tmp_path / "cps", 0.6, method="cps", config=config)
    found = cell(made(tmp_path), "cps", "1/8")
    assert found.difference is not None
    assert found.notes == ("other settings than supervised (its own in brackets): optimizer.lr=0.1 (0.01)",)


def test_another_length_than_the_baselines_is_told(tmp_path: Path) -> None:
    write_run(tmp_path / "supervised", 0.5)
    write_run(tmp_path / "cps", 0.6, method="cps", iterations=400)
    (note,) = cell(made(tmp_path), "cps", "1/8").notes
    assert note == "other settings than supervised (its own in brackets): iterations=400 (100)"


def test_cells_by_a_setting_of_the_method_share_the_baseline(runs: Path) -> None:
    for seed in range(3):
        write_run(runs / f"heavy-{seed}", 0.5, method="cps", seed=seed, config={"method.weight": 2})
    found = made(runs, by=["method", "method.weight", "split"])
    light, heavy = (cell(found, "cps", weight, "1/8") for weight in ("–", "2"))
    assert light.difference is not None
    assert heavy.difference is not None
    assert (light.difference.mean, heavy.difference.mean) == (pytest.approx(0.04), pytest.approx(0.22 / 3))
    assert heavy.gap_closed is not None
    again = made(runs, by=["method", "method.weight", "split"], baseline="cps")
    (note,) = cell(again, "supervised", "–", "full").notes
    assert note == "no averaged run of cps to compare with"
    write_run(runs / "medium", 0.5, method="cps", config={"method.weight": 1.5})
    write_run(runs / "st", 0.5, method="st", config={"method.weight": 3})
    again = made(runs, by=["method", "method.weight", "split"], baseline="cps")
    (note,) = cell(again, "st", "3", "1/8").notes
    assert note == "several cells of cps, and none with its values to compare with"


def test_cells_that_are_not_measured_alike_are_told_without_a_baseline_too(tmp_path: Path) -> None:
    write_run(tmp_path / "st", 0.5, method="st")
    write_run(tmp_path / "cps", 0.6, method="cps", evaluator={"scales": [0.5]})
    found = made(tmp_path)
    assert found.baseline is None
    assert found.notes == (
        "Scores on shapes cannot be compared across these groups, which differ in evaluator.scales: "
        "cps 1/8; st 1/8.",
    )
    assert "no highest mean, since the cells differ in evaluator.scales" in page(found)


def test_runs_of_a_cell_that_start_from_several_networks_are_told(runs: Path) -> None:
    for seed, start in enumerate(("a", "b", "b")):
        config = {"init_from": f"runs/{start}", "init_sha256": start}
        write_run(runs / f"tuned-{seed}", method="st", seed=seed, config=config)
    notes = cell(made(runs), "st", "1/8").notes
    assert "its runs start from 2 different networks (init_from)" in notes


def test_costs_and_pseudo_labels_come_from_summary_and_journal(tmp_path: Path) -> None:
    journal = (
        {"iteration": 5, "stage": "teacher", "time/memory_gib": 2.0, "pseudo/accuracy": 0.5},
        {"iteration": 9, "stage": "label", "pseudo/coverage": 0.8, "pseudo/accuracy": 0.7},
        {"iteration": 9, "stage": "student", "time/memory_gib": 1.5, "pseudo/accuracy": 0.6},
    )
    write_run(tmp_path / "run", method="st", metrics=journal)
    found = cell(made(tmp_path), "st", "1/8")
    assert {name: score.mean for name, score in found.costs.items()} == {
        "iterations": 100,
        "train_images_per_s": 10.0,
        "wall_s": 60.0,
        "memory_gib": 2.0,
    }
    assert {name: score.mean for name, score in found.pseudo.items()} == {
        "pseudo/coverage": 0.8,
        "pseudo/accuracy": 0.7,
    }


def test_versions_and_devices_that_averaged_runs_differ_in_are_told(runs: Path) -> None:
    write_run(runs / "st", method="st", version="2.0", summary={"threads": 4})
    notes = made(runs).notes
    assert notes == (
        "The averaged runs are of different versions of semiseg: 1.0 in 8; 2.0 in 1.",
        "The averaged runs are of different devices: cpu, 1 threads in 8; cpu, 4 threads in 1.",
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": ["methods"]}, "--by=methods: no run has this key. Did you mean method"),
        ({"metric": "miou_tset"}, "--metric=miou_tset: no run has it. Did you mean miou_test"),
        ({"metric": "iou/cat"}, "Did you mean iou/car"),
        ({"baseline": "cpss"}, "--baseline=cpss: no run is of this method. Did you mean cps"),
        ({"baseline": "cps", "by": ["split"]}, "--by needs the key method"),
        ({"by": []}, "--by is empty"),
    ],
)
def test_what_no_run_has_is_refused(runs: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as caught:
        made(runs, **options)
    assert words in str(caught.value)
