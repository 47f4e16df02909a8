"""What the checks before training found to limit the numbers is on the page, in Markdown and beside the results."""

from pathlib import Path
from typing import Any

import pytest
from written_runs import write_run

from semiseg.report.aggregate import study
from semiseg.report.limits import limited_runs, limits
from semiseg.report.page import markdown, page
from semiseg.report.records import collect
from semiseg.report.study import Study

FINDINGS: dict[str, Any] = {
    "missing_classes": {"labeled": [], "val": ["car"]},
    "without_labels": {},
    "labeled_share": 0.935,
    "copies": [{"first": "unlabeled", "second": "val", "equal": 3, "near": 1, "examples": [["a<b>", "c"]]}],
    "shared_groups": {"p07": {"train": 5, "val": 2}},
    "without_group": 0,
    "placeholder_names": True,
    "skipped_files": 2,
    "unmeasured": ["no validation image holds car: mIoU is over 1 of 2 classes"],
    "warnings": ["4 of 9 validation images are equal or nearly equal to unlabeled ones: a<b> and c"],
    "notes": ["class names are placeholders: class_0, class_1"],
}


@pytest.fixture
def found(tmp_path: Path) -> Study:
    for seed in range(2):
        write_run(tmp_path / f"limited-{seed}", seed=seed, summary={"trust": FINDINGS})
    write_run(tmp_path / "good", method="cps", summary={"trust": {"labeled_share": 1.0}})
    write_run(tmp_path / "earlier", method="st")
    return study(collect([tmp_path]))


def test_each_sentence_is_told_once_with_its_runs(found: Study) -> None:
    told = [(each.text, each.warning, len(each.runs)) for each in limits(found.finished)]
    assert told == [
        (FINDINGS["unmeasured"][0], True, 2),
        (FINDINGS["warnings"][0], True, 2),
        (FINDINGS["notes"][0], False, 2),
    ]


def test_runs_of_earlier_versions_have_no_findings(found: Study) -> None:
    assert [each.run.path.name for each in limited_runs(found.finished)] == ["limited-0", "limited-1", "good"]


def test_the_page_shows_findings_of_each_run(found: Study) -> None:
    text = page(found)
    section = text[text.index('<section id="trust">') : text.index('<section id="classes">')]
    for expected in (
        "What limits these numbers",
        "no validation image holds car: mIoU is over 1 of 2 classes",
        "a&lt;b&gt; and c",
        "class names are placeholders",
        "93.5",
        "validation: car",
        "4 validation like unlabeled",
        "p07: 5 train, 2 val",
        "1 of 4 runs stored no findings",
    ):
        assert expected in section
    assert "a<b>" not in text


def test_results_with_warnings_are_marked(found: Study) -> None:
    told = (FINDINGS["unmeasured"][0], FINDINGS["warnings"][0])
    assert {cell.key["method"]: cell.limits for cell in found.cells} == {
        "supervised": told,
        "cps": (),
        "st": (),
    }
    assert page(found).count('href="#trust" title') == 1
    assert "warned of supervised 1/8: <a" in page(found)


def test_markdown_tells_them_too(found: Study, tmp_path: Path) -> None:
    text = markdown(found, [], tmp_path)
    assert "## What limits these numbers" in text
    assert "- Warning (2 runs): no validation image holds car" in text


def test_reports_without_findings_have_no_section(tmp_path: Path) -> None:
    write_run(tmp_path / "earlier")
    found = study(collect([tmp_path]))
    assert 'id="trust"' not in page(found)
    assert "limits these" not in markdown(found, [], tmp_path)
