"""Cells that are below a method without training, and reports and comparisons that hold runs of one."""

import csv
import json
from pathlib import Path

import pytest
from written_runs import write_probe, write_run

from semiseg.cli import main
from semiseg.errors import UserError
from semiseg.report.aggregate import study
from semiseg.report.figures import write_figures
from semiseg.report.page import markdown, page
from semiseg.report.records import collect
from semiseg.report.study import Cell, Study
from semiseg.report.tables import runs_csv, summary_table
from semiseg.report.upload import cell_rows, run_rows

SUPERVISED = (0.50, 0.52, 0.54)
PROBE = (0.44, 0.45, 0.46)
CPS = (0.40, 0.46, 0.41)
ST = (0.34, 0.355, 0.355)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three methods and the probe at one ratio; cps is unsurely below the probe, st surely."""
    for seed, scores in enumerate(zip(SUPERVISED, CPS, ST, PROBE, strict=True)):
        for method, miou in zip(("supervised", "cps", "st"), scores, strict=False):
            write_run(tmp_path / f"{method}-{seed}", miou, method=method, seed=seed)
        write_probe(tmp_path / f"probe-{seed}", scores[-1], seed=seed)
    write_run(tmp_path / "full", 0.7, split="full")
    return tmp_path


def made(folder: Path, **options: object) -> Study:
    return study(collect([folder]), **options)  # type: ignore[arg-type]


def cell(found: Study, *key: str) -> Cell:
    return next(each for each in found.cells if tuple(each.key.values()) == key)


def test_each_cell_is_compared_with_the_probe_by_seed_and_images(runs: Path) -> None:
    found = made(runs)
    assert (found.baseline, found.floor) == ("supervised", "probe")
    assert [each.label for each in found.cells] == [
        "supervised 1/8",
        "supervised full",
        "probe 1/8",
        "cps 1/8",
        "st 1/8",
    ]
    cps = cell(found, "cps", "1/8").floor
    # Differences -0.04, 0.01, -0.05: mean -0.0266667, s = 0.0321455, t(0.975, 2) = 4.30265.
    assert cps is not None
    assert (cps.pairs, cps.below, cps.mean) == (3, 2, pytest.approx(-0.0266667, abs=1e-6))
    assert (cps.low, cps.high) == (pytest.approx(-0.1065206, abs=1e-5), pytest.approx(0.0531873, abs=1e-5))
    assert {each.label for each in found.cells if each.below_floor} == {"cps 1/8", "st 1/8"}
    assert cell(found, "probe", "1/8").floor is None
    assert cell(found, "supervised", "full").floor is None
    above = cell(found, "supervised", "1/8").floor
    assert above is not None
    assert above.mean == pytest.approx(0.07)


def test_supervised_with_settings_for_the_dataset_is_the_usual_baseline(tmp_path: Path) -> None:
    for method in ("supervised_shapes", "supervised_contrast", "fixmatch_shapes"):
        write_run(tmp_path / method, 0.5, method=method, seed=0)
    assert made(tmp_path).baseline == "supervised_shapes"
    write_run(tmp_path / "plain", 0.5, method="supervised", seed=0)
    assert made(tmp_path).baseline == "supervised"


def test_the_probe_has_a_difference_to_the_baseline_and_no_notes_about_its_length(runs: Path) -> None:
    found = made(runs)
    probe = cell(found, "probe", "1/8")
    assert probe.difference is not None
    assert probe.difference.mean == pytest.approx(-0.07)
    assert all(each.notes == () for each in found.cells)
    assert found.notes == ()
    gap = cell(found, "cps", "1/8").gap_closed
    assert gap is not None
    assert gap.full == pytest.approx(0.7)


CPS_BELOW = (
    "cps 1/8: below probe in 2 of 3 runs, −2.7 on average; the interval [−10.7, +5.3] includes 0, so that 3 pairs "
    "do not tell them apart"
)
ST_BELOW = "st 1/8: below probe in 3 of 3 runs, −10.0 on average, interval [−11.2, −8.8]"


def test_text_page_and_terminal_say_which_cells_are_below_and_how_surely(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(runs)]) == 0
    terminal = capsys.readouterr().out.splitlines()
    text = (runs / "report" / "report.md").read_text()
    html = (runs / "report" / "report.html").read_text()
    for sentence in (CPS_BELOW, ST_BELOW):
        assert sentence in terminal
        assert f"- {sentence}.\n" in text
        name, _, rest = sentence.partition(":")
        assert f"<li><b>{name}</b>:{rest}.</li>" in html
    assert any(line.endswith("−2.7 [−10.7, +5.3] below") for line in terminal)
    assert "| −10.0 [−11.2, −8.8] below |" in text
    assert html.count("<b>below the floor</b>") == 2
    assert not any("supervised 1/8" in line for line in terminal)


def test_a_page_whose_cells_are_all_above_says_it_in_one_sentence(tmp_path: Path) -> None:
    write_run(tmp_path / "supervised", 0.5)
    write_probe(tmp_path / "probe", 0.4)
    found = made(tmp_path)
    assert "No compared cell is below the floor, probe." in page(found)
    assert "Below the floor" not in markdown(found, [], tmp_path)


def test_a_single_pair_tells_nothing_about_the_spread(tmp_path: Path) -> None:
    write_run(tmp_path / "supervised", 0.4)
    write_probe(tmp_path / "probe", 0.5)
    text = markdown(made(tmp_path), [], tmp_path)
    assert "below probe in the only pair, −10.0, which tells nothing about the spread." in text


def test_the_floor_is_chosen_like_the_baseline_and_can_be_turned_off(runs: Path, tmp_path: Path) -> None:
    assert made(runs, floor="none").floor is None
    assert "to the floor" not in page(made(runs, floor="none"))
    other = made(runs, floor="st")
    assert cell(other, "probe", "1/8").floor is not None
    assert cell(other, "st", "1/8").floor is None
    for found, says in ((made(runs), True), (other, False)):
        assert ("trains no network" in page(found)) is says
        assert ("trains no network" in markdown(found, [], tmp_path)) is says
    # As the baseline, the probe needs no column of its own beside the differences to it.
    asked = made(runs, baseline="probe")
    assert (asked.baseline, asked.floor) == ("probe", None)
    assert cell(asked, "cps", "1/8").difference == cell(made(runs), "cps", "1/8").floor
    assert made(runs, by=["split"]).floor is None
    for options, words in (
        ({"floor": "prob"}, "--floor=prob: no run is of this method. Did you mean probe"),
        (
            {"floor": "probe", "by": ["split"]},
            "--floor=probe: methods are compared, so that --by needs the key",
        ),
    ):
        with pytest.raises(UserError) as caught:
            made(runs, **options)
        assert words in str(caught.value)


def test_without_a_baseline_there_still_is_a_floor(tmp_path: Path) -> None:
    write_run(tmp_path / "cps", 0.4, method="cps")
    write_probe(tmp_path / "probe", 0.5)
    found = made(tmp_path)
    assert (found.baseline, found.floor) == (None, "probe")
    assert cell(found, "cps", "1/8").below_floor


@pytest.mark.parametrize(
    ("more", "note"),
    [
        (
            {"config": {"backbone.name": "resnet18"}},
            "not compared with the floor probe, which differs in backbone.name",
        ),
        (
            {"config": {"method.probe.backbone": {"name": "resnet18"}}},
            "not compared with the floor probe, which differs in backbone.name",
        ),
        ({"seed": 5}, "no run shares seed and labeled images with one of the floor probe"),
        ({"split": "1/4"}, None),
    ],
)
def test_what_is_not_compared_is_told_unless_no_probe_was_run(
    tmp_path: Path, more: dict[str, object], note: str | None
) -> None:
    write_run(tmp_path / "cps", 0.4, method="cps")
    write_probe(tmp_path / "probe", 0.5, **more)
    found = cell(made(tmp_path), "cps", "1/8")
    assert found.floor is None
    assert found.notes == (() if note is None else (note,))


def test_keys_of_the_method_alone_do_not_forbid_the_comparison(tmp_path: Path) -> None:
    settings = {"method.weight": 2.0, "trainer.unlabeled_batch_size": 4}
    write_run(tmp_path / "cps", 0.4, method="cps", config=settings)
    write_probe(tmp_path / "probe", 0.5, config={"method.scales": [0.5, 1.0]})
    found = cell(made(tmp_path), "cps", "1/8")
    assert found.below_floor
    assert found.notes == ()


def test_settings_of_methods_have_the_probe_of_the_other_keys(runs: Path) -> None:
    write_run(runs / "heavy", 0.3, method="cps", config={"method.weight": 2})
    found = made(runs, by=["method", "method.weight", "split"])
    assert cell(found, "cps", "–", "1/8").below_floor
    assert cell(found, "cps", "2", "1/8").below_floor


def test_runs_without_training_alone_make_a_whole_report(tmp_path: Path) -> None:
    for seed in range(2):
        write_probe(tmp_path / "runs" / f"probe-{seed}", 0.4 + seed / 100, seed=seed)
    write_probe(tmp_path / "runs" / "untimed", 0.4, seed=2, summary={"wall_s": None})
    assert main(["report", str(tmp_path / "runs")]) == 0
    folder = tmp_path / "runs" / "report"
    text = (folder / "report.md").read_text()
    assert "| probe | 1/8 | 3 | 40.3 ± 0.6 | 0: 40.0, 1: 41.0, 2: 40.0 |" in text
    assert "| probe | 1/8 | 0 ± 0 | – | 0.05 ± 0 | – | – | – |" in text
    assert "learning" not in {path.name.split("-")[0] for path in (folder / "figures").iterdir()}
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [(row["iterations"], row["train_images_per_s"], row["best_iteration"]) for row in rows] == [
        ("0", "", "")
    ] * 3
    assert 'id="learning"' not in (folder / "report.html").read_text()


def test_figures_show_the_probe_where_it_has_numbers(runs: Path, tmp_path: Path) -> None:
    alt = {each.name: each.alt for each in write_figures(made(runs), (), tmp_path / "figures")}
    assert "probe 1/8: 45.0 ± 1.0" in alt["ratio"] if "ratio" in alt else alt["scores"]
    assert "probe 1/8: – images per second, 0.05 ± 0 minutes" in alt["cost"]


def test_tables_for_other_programs_have_the_floor(runs: Path) -> None:
    found = made(runs)
    head, rows = cell_rows(found)
    table = {row[0]: dict(zip(head, row, strict=True)) for row in rows if row[1] == "1/8"}
    assert table["st"]["floor"] == pytest.approx(-0.1)
    assert table["st"]["floor_low"] < -0.1 < table["st"]["floor_high"]
    assert (table["st"]["floor_pairs"], table["probe"]["floor"]) == (3, None)
    names, lines = run_rows(found)
    probe = next(line for line in lines if line[names.index("method")] == "probe")
    assert probe[names.index("iterations")] == 0
    assert probe[names.index("train_images_per_s")] is None
    assert "probe" in runs_csv(found)
    assert summary_table(found).head[-1] == "to the floor, probe"


def test_a_run_without_training_is_compared_with_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = write_run(tmp_path / "a", 0.5), write_probe(tmp_path / "b", 0.4)
    assert main(["compare", str(a), str(b), "--no-images", "-o", str(tmp_path / "out")]) == 0
    screen = capsys.readouterr().out
    assert "Caution" not in screen
    results = {
        each["name"]: each
        for each in json.loads((tmp_path / "out" / "comparison.json").read_text())["results"]
    }
    assert (results["iterations"]["a"], results["iterations"]["b"]) == (100, 0)
    assert results["train_images_per_s"]["b"] is None
    assert results["miou"]["change"] == pytest.approx(-0.1)
