"""Reports of several datasets: rows, figures and class tables of each dataset by itself."""

from pathlib import Path

import pytest
from written_runs import write_run

from semiseg.report.aggregate import study
from semiseg.report.figures import write_figures
from semiseg.report.page import markdown, page
from semiseg.report.records import collect
from semiseg.report.study import panel_starts, panels

CLASSES = {"roads": ("road", "car"), "plants": ("soil", "crop")}
SPLITS = {"roads": ("1/16", "1/4"), "plants": ("1/8",)}
FRACTIONS = {"1/16": 1 / 16, "1/8": 1 / 8, "1/4": 1 / 4}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for dataset, classes in CLASSES.items():
        for split in SPLITS[dataset]:
            for method in ("cps", "supervised"):
                iou = dict.fromkeys(classes, 0.5)
                summary = {"iou": iou, "iou_test": iou, "split_fraction": FRACTIONS[split]}
                name = f"{dataset}-{method}-{split.replace('/', 'of')}"
                config = {"dataset.name": dataset}
                write_run(
                    folder / name,
                    method=method,
                    split=split,
                    labeled=f"{dataset} {split}",
                    config=config,
                    summary=summary,
                )
    return folder


def test_rows_of_a_dataset_and_a_split_follow_each_other_unless_asked(runs: Path) -> None:
    found = study(collect([runs]))
    assert [cell.label for cell in found.cells] == [
        "plants 1/8 supervised",
        "plants 1/8 cps",
        "roads 1/16 supervised",
        "roads 1/16 cps",
        "roads 1/4 supervised",
        "roads 1/4 cps",
    ]
    assert found.flagged == ()
    assert panel_starts(found.cells) == [2, 4]
    assert page(found).count('<tr class="start">') == 4
    asked = study(collect([runs]), by=("dataset", "method", "split"))
    assert panel_starts(asked.cells) == []
    one = study([run for run in collect([runs]) if run.option("dataset") == "roads"])
    assert one.by == ("method", "split")


def test_panels_of_a_dataset_are_together(runs: Path) -> None:
    found = study(collect([runs]), by=("dataset", "method", "split"))
    assert list(panels(found.cells)) == ["plants 1/8", "roads 1/16", "roads 1/4"]


def test_class_tables_hold_the_classes_and_cells_of_one_dataset(runs: Path) -> None:
    found = study(collect([runs]))
    assert "| dataset | split | method | soil | crop |" in (text := markdown(found, [], runs))
    assert "| dataset | split | method | road | car |" in text
    assert "## IoU by class, validation images, plants\n" in text
    html = page(found)
    assert 'aria-label="IoU on the validation images, roads"' in html
    table = html.split('aria-label="IoU on the test images, plants"')[1].split("</table>")[0]
    assert "soil" in table
    assert "road" not in table
    assert "1/8 cps" in table


def test_each_dataset_has_its_figures(runs: Path, tmp_path: Path) -> None:
    figures = {each.name: each for each in write_figures(study(collect([runs])), (), tmp_path)}
    names = ["scores-plants", "ratio-roads", "difference", "classes-plants", "classes-roads", "cost"]
    assert list(figures) == names
    assert figures["ratio-roads"].title.endswith(", roads")
    assert "plants" not in figures["ratio-roads"].alt
    assert "2 classes" in figures["classes-plants"].alt


def test_a_method_looks_alike_in_all_datasets(runs: Path) -> None:
    found = study(collect([runs]))
    assert {cell.look for cell in found.cells} == {"supervised", "cps"}
    assert {cell.within_dataset for cell in found.datasets["plants"]} == {"1/8 supervised", "1/8 cps"}
