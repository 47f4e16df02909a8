"""Tables of datasets with many classes: the highest, the most changed and the lowest, and where all are."""

import csv
import io
import json
from pathlib import Path

import pytest
from written_runs import write_run

from semiseg.class_rows import EACH, MOST, class_rows
from semiseg.contracts.score_names import MetricName, ScoreNames
from semiseg.report.aggregate import study
from semiseg.report.compare import compare, tables
from semiseg.report.page import markdown, page
from semiseg.report.records import collect, read_run
from semiseg.report.tables import runs_csv
from semiseg.track.console import render_summary, score_table

NAMES = ScoreNames(MetricName("miou", "mIoU"), MetricName("iou", "IoU"))
MANY = {f"class_{number:03d}": number / 150 for number in range(150)}


def test_few_classes_are_shown_whole() -> None:
    few = {f"c{number}": [0.5, None] for number in range(MOST)}
    found = class_rows(few)
    assert found.names == tuple(few)
    assert found.note("x") == ""
    assert class_rows({}).names == ()


def test_many_classes_are_ranked() -> None:
    scores = {name: [value, value] for name, value in MANY.items()}
    scores["class_070"] = [0.2, 0.7]
    scores["class_071"] = [0.7, 0.3]
    scores["class_149"] = [1.0, 0.97]
    scores["class_100"] = [None, None]
    found = class_rows(scores)
    assert found.names[:2] == ("class_148", "class_149")
    assert found.names[EACH : EACH + 2] == ("class_070", "class_071")
    assert found.names[-1] == "class_000"
    assert len(found.names) == len({*found.names}) == 2 * EACH + 2
    assert found.note("results.csv") == (
        "128 of 150 classes are not shown here, only the 10 highest, the 3 most changed and the 10 lowest; "
        "all are in results.csv"
    )


def test_classes_without_a_score_are_hidden_and_counted() -> None:
    found = class_rows({name: [None] for name in MANY} | {"class_003": [0.1]})
    assert found.names == ("class_003",)
    assert found.hidden == 149


def test_the_table_of_a_run_says_where_the_others_are(tmp_path: Path) -> None:
    scores = {"iou": MANY, "miou": 0.5}
    lines = score_table(scores, NAMES, {}, "eval-val.json").splitlines()
    assert len(lines) == 2 + 2 * EACH + 3
    assert lines[2].split() == ["class_149", "99.33"]
    assert lines[-3] == (
        "(130 of 150 classes are not shown here, only the 10 highest and the 10 lowest; all are in eval-val.json)"
    )
    assert f"all are in {tmp_path / 'summary.json'}" in render_summary(scores, tmp_path)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    better = MANY | {"class_075": 0.9}
    for method, scores in (("supervised", MANY), ("cps", better)):
        write_run(tmp_path / method, method=method, summary={"iou": scores, "iou_test": {}}, seed=0)
    return tmp_path


def test_the_report_shows_some_and_the_csv_all(runs: Path) -> None:
    found = study(collect([runs]))
    note = "129 of 150 classes are not shown here, only the 10 highest, the 1 most changed and the 10 lowest"
    assert found.class_rows(found.cells).names[EACH] == "class_075"
    text = page(found)
    assert f"{note}; all are in results.csv and in the table below." in text
    assert "All 150 classes" in text
    head = next(iter(csv.reader(io.StringIO(runs_csv(found)))))
    assert all(f"iou/{name}" in head for name in MANY)


def test_the_markdown_of_a_report_stays_narrow(runs: Path) -> None:
    text = markdown(study(collect([runs])), (), runs)
    assert r"class\_075" in text
    assert r"class\_060" not in text
    assert "all are in results.csv." in text


def test_a_comparison_shows_what_has_changed(runs: Path) -> None:
    found = compare(read_run(runs / "supervised"), read_run(runs / "cps"))
    (classes,) = (each for each in tables(found) if each.title.startswith("IoU on the validation"))
    assert len(classes.rows) == 2 * EACH + 1
    assert classes.rows[EACH][0] == "class_075"
    assert (
        "only the 10 highest, the 1 most changed and the 10 lowest; all are in comparison.json"
        in classes.title
    )
    assert json.dumps([pair.name for pair in found.classes]).count("class_") == 150
