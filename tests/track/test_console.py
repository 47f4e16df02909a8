import io

import pytest
from rich.console import Console

from semiseg.contracts.score_names import MEAN_IOU, MetricName, ScoreNames
from semiseg.track import console as module
from semiseg.track.console import ConsoleTracker, render_summary, score_table


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def plain(**arguments):
    stream = io.StringIO()
    return stream, ConsoleTracker(MEAN_IOU.primary, console=Console(file=stream, width=200), **arguments)


def test_plain_lines_without_a_terminal(clock):
    stream, tracker = plain(stages=3)
    tracker.start_stage("teacher", 0, 400)
    tracker.progress(1)
    clock[0] += 99
    tracker.progress(100)
    tracker.log({"train/loss": 0.53211, "time/images_per_s": 31.26, "lr/head": 0.1}, 100)
    tracker.log({"val/miou": 0.4123, "val/iou/sky": 0.5}, 100)
    tracker.images("val/samples", [], 100)
    tracker.summary({"miou": 1})
    tracker.close("done")
    assert stream.getvalue().splitlines() == [
        "[1/3] teacher",
        "[1/3] teacher  100/400  eta 5:00  loss 0.5321  31.3 images/s",
        "[1/3] teacher  100/400  eta 5:00  loss 0.5321  31.3 images/s  mIoU 0.4123",
    ]


def test_remaining_time_after_a_resume_counts_from_there(clock):
    stream, tracker = plain()
    tracker.start_stage("fit", 1, 9000)
    tracker.progress(1000)
    clock[0] += 500
    tracker.progress(2000)
    tracker.log({"train/loss": 1.0}, 2000)
    assert stream.getvalue().splitlines()[-1] == "[2] fit  2000/9000  eta 58:20  loss 1.0000"
    clock[0] += 1e5
    tracker.progress(2001)
    tracker.log({}, 2001)
    assert "eta 195:11:37" in stream.getvalue().splitlines()[-1]


def test_a_bar_on_a_terminal():
    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, width=120, color_system=None)
    tracker = ConsoleTracker(MEAN_IOU.primary, stages=2, console=terminal)
    tracker.start_stage("teacher", 0, 10)
    tracker.progress(10)
    tracker.log({"train/loss": 0.25, "val/miou": 0.5}, 10)
    tracker.start_stage("label", 1, 0)
    tracker.log({"pseudo/miou": 0.75}, 10)
    tracker.close("done")
    text = stream.getvalue()
    assert "[1/2] teacher  10/10  loss 0.2500  mIoU 0.5000" in text
    assert "[2/2] label  pseudo-label mIoU 0.7500" in text


def test_table_of_iou():
    scores = {"iou": {"sky": 0.93101, "traffic light": None}, "miou": 0.5, "accuracy": None}
    assert score_table(scores, MEAN_IOU, {"mIoU on test": 0.25}).splitlines() == [
        "class            IoU %",
        "----------------------",
        "sky              93.10",
        "traffic light        -",
        "----------------------",
        "mIoU             50.00",
        "pixel accuracy       -",
        "mIoU on test     25.00",
    ]


def test_table_of_a_long_name():
    names = ScoreNames(MetricName("accuracy", "accuracy"), MetricName("recall", "recall"))
    assert score_table({"recall": {"sky": 0.5}, "accuracy": 1.0}, names, {}).splitlines() == [
        "class     recall %",
        "------------------",
        "sky          50.00",
        "------------------",
        "accuracy    100.00",
    ]


def test_summary_names_the_files(tmp_path):
    summary = {"miou": 0.5, "accuracy": 0.75, "iou": {"sky": 0.5}, "miou_test": 0.25}
    text = render_summary(summary, tmp_path)
    assert "mIoU on test     25.00" in text
    assert str(tmp_path / "samples") in text
    assert (
        "test"
        not in render_summary({"miou": None, "accuracy": None, "iou": {}}, tmp_path).split("Run dir")[0]
    )
