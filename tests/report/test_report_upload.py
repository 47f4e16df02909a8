"""``semiseg report --wandb``: one offline run that holds the tables, the curve and the figures."""

import json

import pytest
from PIL import Image
from written_runs import write_run

from semiseg.errors import UserError
from semiseg.report.aggregate import study
from semiseg.report.records import collect
from semiseg.report.study import StudyFigure
from semiseg.report.upload import cell_rows, run_rows, upload

SCORES = {
    "supervised": {"1/8": (0.50, 0.52), "1/4": (0.60, 0.62)},
    "cps": {"1/8": (0.53, 0.57), "1/4": (0.61, 0.65)},
}
FRACTIONS = {"1/8": 0.125, "1/4": 0.25}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for method, splits in SCORES.items():
        for split, values in splits.items():
            for seed, miou in enumerate(values):
                name = f"{method}-{split.replace('/', 'of')}-{seed}"
                summary = {"split_fraction": FRACTIONS[split]}
                write_run(folder / name, miou, method=method, split=split, seed=seed, summary=summary)
    write_run(folder / "broken", method="cps", split="1/8", seed=2, state="failed", error="full disk")
    return study(collect([folder]), ("method", "split"), "miou", "supervised")


def test_cells_as_rows(found):
    head, rows = cell_rows(found)
    assert head[:6] == ["method", "split", "split_fraction", "n", "miou", "std"]
    table = {(row[0], row[1]): dict(zip(head, row, strict=True)) for row in rows}
    cell = table["cps", "1/8"]
    assert (cell["split_fraction"], cell["n"]) == (0.125, 2)
    assert cell["miou"] == pytest.approx(0.55)
    assert cell["difference"] == pytest.approx(0.04)
    assert cell["difference_low"] < 0.04 < cell["difference_high"]
    assert cell["difference_pairs"] == 2
    assert table["supervised", "1/4"]["difference"] is None
    assert cell["gap_closed"] is None


def test_runs_as_rows(found):
    head, rows = run_rows(found)
    assert len(rows) == 9
    table = [dict(zip(head, row, strict=True)) for row in rows]
    (broken,) = [row for row in table if row["state"] == "failed"]
    assert broken["averaged"] == "no"
    assert broken["miou"] is None
    assert sorted(row["miou"] for row in table if row["miou"] is not None)[0] == 0.5
    assert {row["split"] for row in table} == {"1/8", "1/4"}


@pytest.mark.slow
def test_one_offline_run(found, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    folder = tmp_path / "study" / "report"
    folder.mkdir(parents=True)
    picture = folder / "ratio.png"
    Image.new("RGB", (20, 10)).save(picture)
    figures = [StudyFigure("ratio", picture, "mIoU over labels", "two lines", picture)]
    upload(found, figures, folder, "mine", None, "offline")
    output = capsys.readouterr()
    assert "wandb sync" in output.out
    assert output.err == ""
    (run,) = (folder / "wandb").glob("offline-run-*")
    tables = run / "files" / "media" / "table" / "report"
    (cells,) = tables.glob("cells_*.table.json")
    head, rows = cell_rows(found)
    assert json.loads(cells.read_text())["columns"] == head
    assert json.loads(cells.read_text())["data"] == rows
    (curve,) = tables.glob("over_split_fraction_table_*.table.json")
    points = {(line, x): y for x, line, y in json.loads(curve.read_text())["data"]}
    assert set(points) == {(method, x) for method in SCORES for x in FRACTIONS.values()}
    assert points["cps", 0.25] == pytest.approx(0.63)
    assert len(list(tables.glob("runs_*.table.json"))) == 1
    assert len(list((run / "files" / "media" / "images" / "figures").glob("ratio_*.png"))) == 1


def test_a_failure_of_wandb_is_told(found, tmp_path, monkeypatch):
    def broken(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr("semiseg.report.upload.start", broken)
    with pytest.raises(
        UserError, match=r"could not be logged to wandb \(OSError: disk full\). All of it is in"
    ):
        upload(found, [], tmp_path, "mine", None, "offline")
