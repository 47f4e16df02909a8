"""Which runs are found in folders, and what is told of runs that did not finish."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from written_runs import write_run

from semiseg.errors import UserError
from semiseg.report.records import collect
from semiseg.runs.directory import RunDir


def test_runs_are_found_in_runs_sweeps_and_folders_of_them(tmp_path: Path) -> None:
    write_run(tmp_path / "alone")
    write_run(tmp_path / "sweeps" / "one" / "job")
    write_run(tmp_path / "sweeps" / "two" / "inner" / "job")
    write_run(tmp_path / ".hidden" / "job")
    write_run(tmp_path / "1" / "2" / "3" / "4" / "5")
    found = collect([tmp_path, tmp_path / "alone", tmp_path / "sweeps"])
    assert [record.path.relative_to(tmp_path).as_posix() for record in found] == [
        "alone",
        "sweeps/one/job",
        "sweeps/two/inner/job",
    ]


def test_a_record_holds_what_the_files_hold(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 0.4, seed=2, overrides=("seed=2",), metrics=({"iteration": 1},))
    (folder / "env-resumed-20260101-000000.json").write_text('{"packages": {"semiseg": "2"}}')
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 2, "unfin')
    journal = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").write_bytes(b"\xff\xfe\n" + journal)
    (record,) = collect([folder])
    assert (record.name, record.state, record.overrides) == ("shapes-supervised-s2", "done", ("seed=2",))
    assert record.config["dataset"]["name"] == "shapes"
    assert record.summary is not None
    assert record.summary["miou"] == 0.4
    assert record.env["packages"]["semiseg"] == "1.0"
    assert [env["packages"]["semiseg"] for env in record.resumed] == ["2"]
    assert record.metrics() == [{"iteration": 1}]
    assert record.validation_sha256() == "validation ids"


def test_states_of_runs_that_did_not_finish(tmp_path: Path) -> None:
    write_run(tmp_path / "failed", state="failed", error="disk full")
    write_run(tmp_path / "stopped", state="interrupted")
    broken = write_run(tmp_path / "broken")
    (broken / "summary.json").write_text('{"miou": 0.')
    empty = write_run(tmp_path / "empty")
    (empty / "summary.json").unlink()
    (write_run(tmp_path / "torn") / "config.resolved.yaml").write_text("a: [")
    (write_run(tmp_path / "emptied") / "config.resolved.yaml").write_text("")
    (write_run(tmp_path / "list") / "summary.json").write_text("[1]")
    (write_run(tmp_path / "misnamed") / "summary.json").write_text('{"primary": "miou"}')
    (write_run(tmp_path / "strange") / "status.json").write_text("[]")
    states = {record.path.name: record.state for record in collect([tmp_path])}
    assert states == {
        "failed": "failed",
        "misnamed": "unreadable",
        "stopped": "interrupted",
        "broken": "unreadable",
        "empty": "unreadable",
        "torn": "unreadable",
        "emptied": "unreadable",
        "list": "unreadable",
        "strange": "killed",
    }


def test_a_running_run_is_told_from_a_killed_one(tmp_path: Path) -> None:
    write_run(tmp_path / "killed", state="running")
    alive = write_run(tmp_path / "alive", state="running")
    with RunDir(alive).lock():
        states = {record.path.name: record.state for record in collect([tmp_path])}
    assert states == {"alive": "running", "killed": "killed"}


def test_jobs_of_a_sweep_that_left_no_run_are_told(tmp_path: Path) -> None:
    write_run(tmp_path / "done-job")
    jobs = {
        "done-job": {"overrides": ["seed=0"], "state": "done", "log": []},
        "lost-job": {"overrides": ["seed=2"], "state": "done", "log": []},
        "dead-job": {"overrides": ["method=cps", "seed=1"], "state": "failed", "log": ["start", "no memory"]},
    }
    (tmp_path / "sweep.json").write_text(json.dumps({"version": 1, "jobs": jobs}))
    dead, done, lost = collect([tmp_path])
    assert (done.state, lost.state, dead.state, dead.status["error"]) == (
        "done",
        "missing",
        "failed",
        "no memory",
    )
    assert dead.overrides == ("method=cps", "seed=1")


@pytest.mark.parametrize(
    ("name", "words"), [("nowhere", "does not exist"), ("file", "is a file"), ("", "No run in")]
)
def test_what_holds_no_run_is_named(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=words):
        collect([tmp_path / name])


def test_reading_runs_does_not_import_torch(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    code = (
        "import sys; from pathlib import Path; from semiseg.report.records import collect; "
        "from semiseg.report.aggregate import study; study(collect([Path(sys.argv[1])])); "
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 0
