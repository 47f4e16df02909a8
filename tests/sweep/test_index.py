"""``sweep.json`` follows the run directories, whatever has happened to either."""

import json
from pathlib import Path
from typing import Any

import pytest

from semiseg.errors import UserError
from semiseg.files import write_json
from semiseg.runs.directory import RunDir
from semiseg.sweep.index import Index, locked_sweep
from semiseg.sweep.job import Job

NAME = "shapes-cps-s0-0123abcd"


def run(folder: Path, state: str, *typed: str) -> Path:
    """A run directory in some state."""
    place = RunDir(folder)
    folder.mkdir(parents=True)
    (place.path / "run.yaml").touch()
    write_json(folder / "overrides.yaml", list(typed))
    if state == "done":
        place.write_summary({"miou": 0.25, "wall_s": 61.5})
    place.write_status(state)
    return folder


def entry(sweep_dir: Path, name: str = NAME) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((sweep_dir / "sweep.json").read_text())["jobs"][name]
    return stored


def test_runs_of_an_older_sweep_are_adopted(tmp_path: Path) -> None:
    run(tmp_path / NAME, "done", "seed=0", "sweep_dir='x'", "run_dir=y")
    run(tmp_path / "a-run-of-my-own", "done")
    Index(tmp_path).begin(["seed=0,1"], [])
    assert json.loads((tmp_path / "sweep.json").read_text()) == {
        "version": 1,
        "commands": [["seed=0,1"]],
        "jobs": {
            NAME: {
                "overrides": ["seed=0"],
                "state": "done",
                "metric": 0.25,
                "seconds": 61.5,
                "exit_code": None,
                "log": [],
            }
        },
    }


@pytest.mark.parametrize(
    ("state", "known"), [("failed", "failed"), ("interrupted", "interrupted"), ("running", "killed")]
)
def test_runs_that_have_not_finished_are_told_and_wait_for_their_turn(
    state: str, known: str, tmp_path: Path
) -> None:
    job = Job(run(tmp_path / NAME, state), ("seed=0",))
    index = Index(tmp_path)
    assert index.entry(job).state == known
    index.begin([], [job])
    assert entry(tmp_path)["state"] == "waiting"


def test_a_run_that_somebody_works_on_is_running(tmp_path: Path) -> None:
    job = Job(run(tmp_path / NAME, "running"), ())
    with RunDir(job.folder).lock():
        assert Index(tmp_path).entry(job).state == "running"


def test_a_finished_run_whose_folder_was_removed_runs_again(tmp_path: Path) -> None:
    job = Job(tmp_path / NAME, ("seed=0",))
    done = {"overrides": ["seed=0"], "state": "done", "metric": 0.5, "seconds": 3, "exit_code": 0, "log": []}
    write_json(tmp_path / "sweep.json", {"version": 1, "commands": [["seed=0"]], "jobs": {NAME: done}})
    Index(tmp_path).begin(["seed=0"], [job])
    assert (entry(tmp_path)["state"], entry(tmp_path)["metric"]) == ("waiting", None)
    assert json.loads((tmp_path / "sweep.json").read_text())["commands"] == [["seed=0"]]


def test_a_broken_index_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path / NAME, "done")
    (tmp_path / "sweep.json").write_text('{"version": 1, "jo')
    Index(tmp_path).write()
    assert entry(tmp_path)["state"] == "done"
    assert "made anew" in caplog.text


def test_an_index_of_another_version_is_left_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "sweep.json", {"version": 2})
    with pytest.raises(UserError, match="version 2"):
        Index(tmp_path)


def test_directories_that_cannot_hold_a_sweep(tmp_path: Path) -> None:
    run(tmp_path / "run", "done")
    (tmp_path / "file").touch()
    for name, reason in {
        "run": "of a single run",
        "file": "it is a file",
        "file/x": "Not a directory",
    }.items():
        with pytest.raises(UserError, match=reason), locked_sweep(tmp_path / name):
            pass
    with (
        locked_sweep(tmp_path / "new"),
        pytest.raises(UserError, match="Another sweep"),
        locked_sweep(tmp_path / "new"),
    ):
        pass
    assert not (tmp_path / "new").exists()
