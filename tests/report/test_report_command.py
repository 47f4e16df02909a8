"""``semiseg report``: the files it writes, the folders it refuses, the mistakes it names."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from written_runs import write_run

from semiseg.cli import main
from semiseg.cli.report import usual_folder
from semiseg.errors import UserError
from semiseg.report.aggregate import study
from semiseg.report.page import claim, markdown
from semiseg.report.records import collect
from semiseg.report.tables import TextTable, runs_csv

FILES = {"report.html", "report.md", "results.csv", "report.json", "figures"}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path) -> Path:
    """Two methods, two seeds, all labels, a failed job, one of other code; a run that really was trained."""
    folder = tmp_path_factory.mktemp("sweep")
    for seed in range(2):
        write_run(folder / f"supervised-{seed}", 0.40 + seed / 100, seed=seed)
        write_run(folder / f"cps-{seed}", 0.45 + seed / 50, method="cps", seed=seed)
    write_run(folder / "full", 0.60, split="full")
    write_run(folder / "cps-2", method="cps", seed=2, state="failed", error="a | b <i>\nof *many*")
    write_run(folder / "cps-3", 0.9, method="cps", seed=3, version="0.9")
    shutil.copytree(tiny_run, folder / "trained")
    return folder


def test_one_folder_holds_page_text_table_and_pictures(shown) -> None:
    folder = shown.page.parent
    assert {path.name for path in folder.iterdir()} == FILES
    assert "<html" in shown.page.read_text()
    pictures = re.findall(r"!\[.+\]\(<(.+)>\)", (folder / "report.md").read_text())
    assert len(pictures) == len(shown.figures)
    kinds = {".png": b"\x89PNG", ".jpg": b"\xff\xd8"}
    assert all((folder / name).read_bytes().startswith(kinds[Path(name).suffix]) for name in pictures)
    names = json.loads((folder / "report.json").read_text())["figures"]
    assert set(names) == {path.name for path in (folder / "figures").iterdir()}


def test_the_text_has_the_numbers_and_the_flags(sweep: Path) -> None:
    lines = markdown(study(collect([sweep])), [], sweep).splitlines()
    row = next(line for line in lines if line.startswith("| cps | 1/8 | 2 |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    # Differences 0.05 and 0.06: mean 5.5 points, half width 12.7062 * 0.707107 / sqrt(2) = 6.35 points; the gap is
    # 60 - 40.5 = 19.5 points wide.
    assert cells[2:] == ["2", "46.0 ± 1.4", "0: 45.0, 1: 47.0", "+5.5 [−0.9, +11.9]", "2", "28 % [−4, 61]"]
    assert any("state: failed: a \\| b \\<i> of \\*many\\*" in line for line in lines)
    assert any("code: code=0.9 (averaged: 1.0)" in line for line in lines)


def test_the_table_has_a_line_for_each_run(sweep: Path) -> None:
    lines = runs_csv(study(collect([sweep]))).splitlines()
    rows = {Path(row["path"]).name: row for row in csv.DictReader(lines)}
    assert set(rows) == {path.name for path in sweep.iterdir() if (path / "run.yaml").exists()}
    assert {name for name, row in rows.items() if row["averaged"] == "no"} == {"cps-2", "cps-3"}
    one = rows["cps-1"]
    found = [one[name] for name in ("method", "split", "seed", "iterations", "code")]
    assert found == ["cps", "1/8", "1", "100", "1.0"]
    scores = [float(one[name]) for name in ("miou", "miou_test", "iou/car")]
    assert scores == pytest.approx([0.47, 0.42, 0.37])
    assert (rows["cps-2"]["state"], rows["cps-2"]["miou"]) == ("failed", "")
    trained = json.loads((sweep / "trained" / "summary.json").read_text())
    assert float(rows["trained"]["miou"]) == trained["miou"]
    assert float(rows["trained"]["memory_gib"]) > 0


def test_the_terminal_shows_the_table_and_what_is_left_out(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--by", "method", "--mix", "code,settings", "-o", str(tmp_path)]
    assert main(["report", str(sweep), *words]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^method +n +mIoU +each seed +to supervised +gap closed$", text, re.M)
    assert re.search(r"^cps +3 +60\.7 ± 25\.4 +0: 45\.0, 1: 47\.0, 3: 90\.0", text, re.M)
    assert re.search(r"^not averaged: .*cps-2 \(failed: a \| b", text, re.M)
    assert re.search(r"^averaged in spite of: .*cps-3 \(code\)$", text, re.M)
    assert re.search(r"^not averaged: .*full \(split\)$", text, re.M)


def test_a_report_replaces_a_report_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    for name in ("mine.png", "ratio.png"):
        (out / "figures" / name).touch()
    with pytest.raises(UserError, match=r"holds no report but other files \(figures\)"):
        claim(out)
    claim(out, force=True)
    (out / "report.json").write_text('{"figures": ["ratio.png"]}')
    claim(out)
    assert [path.name for path in (out / "figures").iterdir()] == ["mine.png"]
    (out / "report.json").write_text('{"figures": ["../../outside.png", "/outside.png"]}')
    (tmp_path / "outside.png").touch()
    claim(out)
    assert (tmp_path / "outside.png").exists()


def test_the_usual_folder_of_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "one")
    assert usual_folder([tmp_path / "runs"]) == tmp_path / "runs" / "report"
    assert usual_folder([run]) == usual_folder([run, tmp_path]) == Path("report")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["nowhere"], "nowhere does not exist"),
        ([], "the following arguments are required: DIR"),
        (["{runs}", "--metric", "mioo"], "--metric=mioo: no run has it. Did you mean miou?"),
        (["{runs}", "--by", "methud"], "--by=methud: no run has this key. Did you mean method?"),
        (["{runs}", "--baseline", "cps"], "--baseline=cps: no run is of this method."),
        (["{runs}", "--mix", "dataset"], "dataset is none of code, settings, iterations"),
        (["{runs}", "-o", "{runs}/one"], "holds no report but other files"),
        (["{runs}", "-o", "{runs}/one/run.yaml"], "cannot be written (it is a file)"),
    ],
)
def test_mistakes_are_answered_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], answer: str
) -> None:
    write_run(tmp_path / "one")
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", *(word.format(runs=tmp_path) for word in words)]) == 2
    message = capsys.readouterr().err
    assert answer in message
    assert len(message.splitlines()) <= 5
    assert sorted(tmp_path.rglob("*")) == before


def test_runs_without_any_result_make_a_report(tmp_path: Path) -> None:
    write_run(tmp_path / "one", state="interrupted")
    for _ in range(2):
        assert main(["report", str(tmp_path)]) == 0
    assert "state: interrupted" in (tmp_path / "report" / "report.md").read_text()


def test_a_published_number_stands_in_a_column_of_its_own(tmp_path: Path) -> None:
    row = {"source": "their paper", "for": {"method": "cps"}, "miou": {"1/8": 73.2}}
    write_run(tmp_path / "one", method="cps", config={"published": [row]})
    text = markdown(study(collect([tmp_path])), [], tmp_path)
    assert "| published |" in text
    assert "| 73.20 (their paper) |" in text


def test_tables_are_whole_for_any_reader_but_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    table = TextTable(("key", "A"), [("[bold]x", "w" * 200), ("z", "1")], "Title")
    assert table.text().splitlines() == [
        "Title",
        f"key      A{'':199}".rstrip(),
        "-" * 209,
        f"[bold]x  {'w' * 200}",
        "z        1",
    ]
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in table.text().splitlines()]
    assert max(map(len, lines)) == 60
    assert sum(line.count("w") for line in lines) == 200
