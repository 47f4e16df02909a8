import json
import math
from pathlib import Path

import pytest

from semiseg.track.jsonl import JsonlTracker


def records(path):
    """All lines that are complete."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_a_line_per_record_is_on_the_disk_at_once(path):
    tracker = JsonlTracker(path)
    tracker.start_stage("teacher", 0, 10)
    tracker.log({"train/loss": 1.5, "lr/head": 0.1}, step=20)
    assert records(path) == [{"iteration": 20, "stage": "teacher", "train/loss": 1.5, "lr/head": 0.1}]
    tracker.start_stage("student", 1, 10)
    tracker.progress(3)
    tracker.log({"val/miou": 0.5}, step=40)
    tracker.summary({"miou": 0.5, "iou": {"sky": math.nan, "road": 0.25}})
    tracker.close("done")
    assert records(path)[1:] == [
        {"iteration": 40, "stage": "student", "val/miou": 0.5},
        {"iteration": 40, "stage": "student", "summary": {"miou": 0.5, "iou": {"sky": None, "road": 0.25}}},
    ]


def test_what_json_cannot_hold_becomes_null(path):
    JsonlTracker(path).log({"a": math.inf, "b": math.nan, "c": None, "d": 1}, step=0)
    assert json.loads(path.read_text()) == {
        "iteration": 0,
        "stage": None,
        "a": None,
        "b": None,
        "c": None,
        "d": 1,
    }


def test_cut_goes_back_to_a_position(path):
    tracker = JsonlTracker(path)
    tracker.log({"x": 1}, step=1)
    position = tracker.position()
    tracker.log({"x": 2}, step=2)
    tracker.close("interrupted")

    resumed = JsonlTracker(path)
    resumed.cut(position)
    assert resumed.position() == position
    resumed.log({"x": 3}, step=2)
    resumed.close("done")
    assert [record["x"] for record in records(path)] == [1, 3]


def test_cut_while_open_then_append(path):
    tracker = JsonlTracker(path)
    positions = []
    for step in range(4):
        positions.append(tracker.position())
        tracker.log({"x": step}, step=step)
    tracker.cut(positions[2])
    tracker.cut(positions[1])
    tracker.log({"x": 9}, step=9)
    assert [record["x"] for record in records(path)] == [0, 9]


def test_a_torn_last_line_is_dropped(path):
    path.write_bytes(b'{"iteration": 1, "stage": null}\n{"iteration": 2, "sta')
    assert [record["iteration"] for record in records(path)] == [1]
    tracker = JsonlTracker(path)
    tracker.log({}, step=2)
    assert [record["iteration"] for record in records(path)] == [1, 2]


def test_a_torn_only_line_longer_than_a_block(path):
    path.write_bytes(b"x" * 200_000)
    assert JsonlTracker(path).position() == 0


def test_a_long_torn_line_after_complete_ones(path):
    path.write_bytes(b'{"iteration": 1}\n' + b"x" * 200_000)
    tracker = JsonlTracker(path)
    assert tracker.position() == len(b'{"iteration": 1}\n')


def test_a_position_inside_a_line_cuts_that_line(path):
    tracker = JsonlTracker(path)
    tracker.log({}, step=1)
    end = tracker.position()
    tracker.log({}, step=2)
    tracker.cut(end + 4)
    assert tracker.position() == end


def test_a_shorter_file_is_kept_with_a_warning(path, caplog):
    tracker = JsonlTracker(path)
    tracker.log({}, step=1)
    tracker.cut(10_000)
    assert "lines are missing" in caplog.text
    assert [record["iteration"] for record in records(path)] == [1]


def test_images_leave_their_ids(path, sample):
    tracker = JsonlTracker(path)
    tracker.images("val/samples", [sample], step=5)
    assert records(path) == [{"iteration": 5, "stage": None, "val/samples": ["val/a 1"]}]


def test_a_device_file_swallows_everything():
    tracker = JsonlTracker(Path("/dev/null"))
    tracker.log({"x": 1}, step=1)
    tracker.close("done")
