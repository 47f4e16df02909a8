import logging
import os
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest

from semiseg.contracts.score_names import MEAN_IOU
from semiseg.track.wandb_tracker import WandbTracker


class FakeRun:
    def __init__(self, log_error=None, log_seconds=0.0):
        self.records, self.summary, self.metrics = [], {}, []
        self.finished = None
        self.log_error, self.log_seconds = log_error, log_seconds
        self.release = threading.Event()

    def log(self, values):
        if self.log_seconds:
            self.release.wait(self.log_seconds)
        if self.log_error:
            raise self.log_error
        self.records.append(values)

    def define_metric(self, name, **arguments):
        self.metrics.append((name, arguments))

    def finish(self, exit_code):
        self.finished = exit_code


class FakeWandb(types.ModuleType):
    """Stands in for the wandb module; ``init_errors`` are raised by the first calls of ``init``."""

    def __init__(self, run, init_errors=(), logged_in=True):
        super().__init__("wandb")
        self.run, self.init_errors, self.logged_in = run, list(init_errors), logged_in
        self.inits = []

    def login(self, prompt):
        assert prompt is False
        return self.logged_in

    def Settings(self, **values):  # noqa: N802 - the name in wandb
        return values

    def Image(self, image, **arguments):  # noqa: N802
        return ("image", image.shape, arguments)

    def Table(self, columns, data):  # noqa: N802
        return ("table", columns, data)

    def init(self, **arguments):
        self.inits.append(arguments)
        if self.init_errors:
            raise self.init_errors.pop(0)
        return self.run


@pytest.fixture
def start(monkeypatch, tmp_path, info):
    monkeypatch.setenv("WANDB_SILENT", "true")

    def begin(fake, **arguments):
        monkeypatch.setitem(sys.modules, "wandb", fake)
        usual = {"mode": "offline", "info": info, "names": MEAN_IOU, "close_timeout": 5.0}
        return WandbTracker(tmp_path, **(usual | arguments))

    return begin


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_everything_arrives_in_order(start, sample, tmp_path, caplog):
    run = FakeRun()
    fake = FakeWandb(run)
    tracker = start(fake, group="g", name="g-s0", tags=["toy"], config={"seed": 0}, project="p", entity="e")
    tracker.start_stage("teacher", 0, 10)
    tracker.progress(5)
    tracker.log({"train/loss": 1.0, "val/iou/sky": None}, step=20)
    tracker.images("val/samples", [sample], step=20)
    outcome = {
        "split_fraction": 0.125,
        "miou": 0.5,
        "miou_test": 0.3,
        "miou_best": 0.5,
        "best_iteration": 20,
        "miou_last": 0.4,
        "wall_s": 1800,
    }
    tracker.summary(outcome | {"iou": {"sky": 0.5, "road": None}})
    tracker.close("done")

    assert run.records[0] == {"iteration": 20, "stage": "teacher", "train/loss": 1.0}
    (_, shape, arguments) = run.records[1]["val/samples"][0]
    assert (run.records[1]["iteration"], shape, arguments["caption"]) == (20, (40, 50, 3), "val/a 1")
    assert set(arguments["masks"]) == {"truth", "prediction"}
    assert arguments["masks"]["prediction"]["class_labels"] == {0: "sky", 1: "road", 255: "ignored"}
    assert np.array_equal(arguments["masks"]["truth"]["mask_data"], sample.truth)
    # A point of its own, whose x is the labeled share.
    assert run.records[2] == {"split_fraction": 0.125, "result/miou": 0.5, "result/miou_test": 0.3}
    assert run.records[3]["per_class"] == ("table", ["class", "IoU"], [["sky", 0.5], ["road", None]])
    assert run.summary["miou"] == 0.5
    compared = {"best/val/miou": 0.5, "best/iteration": 20, "final/val/miou": 0.4, "wall_hours": 0.5}
    assert {key: run.summary[key] for key in compared} == compared
    assert ("val/miou", {"step_metric": "iteration", "summary": "max"}) in run.metrics
    assert ("*", {"step_metric": "iteration"}) in run.metrics
    assert ("result/miou", {"step_metric": "split_fraction"}) in run.metrics
    assert run.finished == 0

    (given,) = fake.inits
    assert given["id"] == (tmp_path / "wandb_id").read_text().strip()
    assert (given["mode"], given["group"], given["name"], given["dir"]) == (
        "offline",
        "g",
        "g-s0",
        str(tmp_path),
    )
    assert (given["project"], given["entity"], given["tags"], given["config"]) == (
        "p",
        "e",
        ["toy"],
        {"seed": 0},
    )
    assert given["settings"]["silent"] is True
    assert "resume" not in given
    assert warnings(caplog) == []


@pytest.mark.parametrize(("status", "code"), [("done", 0), ("failed", 1), ("interrupted", 1)])
def test_the_status_becomes_the_exit_code(start, status, code):
    run = FakeRun()
    start(FakeWandb(run)).close(status)
    assert run.finished == code


def test_online_resumes_by_id(start):
    fake = FakeWandb(FakeRun())
    start(fake, mode="online").close("done")
    assert [(given["mode"], given["resume"]) for given in fake.inits] == [("online", "allow")]


def test_online_without_a_key_goes_offline_and_never_asks(start, caplog):
    fake = FakeWandb(FakeRun(), logged_in=False)
    tracker = start(fake, mode="online")
    tracker.log({"train/loss": 1.0}, step=1)
    tracker.close("done")
    assert [given["mode"] for given in fake.inits] == ["offline"]
    assert len(fake.run.records) == 1
    (message,) = warnings(caplog)
    assert "wandb login" in message
    assert "wandb sync" in message


def test_an_unreachable_server_goes_offline(start, caplog):
    fake = FakeWandb(FakeRun(), init_errors=[ConnectionError("no route\n to host")])
    tracker = start(fake, mode="online")
    tracker.close("done")
    assert [given["mode"] for given in fake.inits] == ["online", "offline"]
    (message,) = warnings(caplog)
    assert "ConnectionError: no route to host" in message


def test_a_failing_start_is_one_warning(start, caplog):
    tracker = start(FakeWandb(FakeRun(), init_errors=[OSError("disk full")]))
    for step in range(5000):
        tracker.log({"train/loss": 1.0}, step)
    tracker.close("done")
    (message, *more) = warnings(caplog)
    assert "could not start (OSError: disk full)" in message
    assert "metrics.jsonl" in message
    assert len(more) <= 1


def test_an_id_that_cannot_be_kept_is_one_warning(start, tmp_path, caplog):
    (tmp_path / "wandb_id").mkdir()
    start(FakeWandb(FakeRun())).close("done")
    (message,) = warnings(caplog)
    assert "could not start" in message


def test_a_missing_package_is_one_warning(start, caplog):
    tracker = start(None)
    tracker.log({"train/loss": 1.0}, 1)
    tracker.close("done")
    assert len(warnings(caplog)) == 1


def test_failing_records_are_one_warning_and_a_count(start, sample, caplog):
    run = FakeRun(log_error=RuntimeError("server died"))
    tracker = start(FakeWandb(run))
    for step in range(5):
        tracker.log({"train/loss": 1.0}, step)
    tracker.close("failed")
    assert run.finished == 1
    first, last = warnings(caplog)
    assert "server died" in first
    assert "4 more failures" in last


def test_a_slow_wandb_slows_nothing_and_drops(start, caplog):
    run = FakeRun(log_seconds=30)
    tracker = start(FakeWandb(run), queue_size=10, close_timeout=0.3)
    started = time.perf_counter()
    for step in range(2000):
        tracker.log({"train/loss": 1.0}, step)
    assert time.perf_counter() - started < 1.0
    started = time.perf_counter()
    tracker.close("done")
    assert time.perf_counter() - started < 3.0
    first, last = warnings(caplog)
    assert "did not finish within 0.3 s" in first
    assert "records dropped" in last
    run.release.set()


def test_a_hanging_start_does_not_hold_the_run(start, caplog):
    fake = FakeWandb(FakeRun())
    gate = threading.Event()
    fake.init = lambda **arguments: gate.wait(30) and fake.run
    tracker = start(fake, close_timeout=0.2)
    tracker.log({"train/loss": 1.0}, 1)
    tracker.close("done")
    assert len(warnings(caplog)) == 1
    gate.set()


OFFLINE_RUN = """
import sys
from pathlib import Path
import numpy as np
from semiseg.contracts.dataset import DatasetInfo
from semiseg.contracts.score_names import MEAN_IOU
from semiseg.contracts.tracking import Sample
from semiseg.track.wandb_tracker import WandbTracker

info = DatasetInfo("toy", ("sky", "road"), ((1, 2, 3), (4, 5, 6)))
label = np.zeros((8, 9), np.uint8)
sample = Sample("a", np.zeros((8, 9, 3), np.uint8), label, label, np.ones((8, 9), np.float32))
options = {"info": info, "names": MEAN_IOU, "config": {"seed": 0}, "close_timeout": 60.0}
tracker = WandbTracker(Path(sys.argv[1]), mode=sys.argv[2], **options)
tracker.start_stage("fit", 0, 2)
tracker.log({"train/loss": 1.0}, 1)
tracker.images("val/samples", [sample], 2)
tracker.summary({"miou": 0.5, "iou": {"sky": 0.5, "road": None}})
tracker.close("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_real_files_without_account_or_network(tmp_path, mode):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path / "home"), "WANDB_BASE_URL": "http://127.0.0.1:9"}
    result = subprocess.run(
        [sys.executable, "-c", OFFLINE_RUN, str(tmp_path), mode],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, result.stderr
    name = (tmp_path / "wandb_id").read_text().strip()
    (folder,) = (tmp_path / "wandb").glob(f"offline-run-*-{name}")
    assert (folder / f"run-{name}.wandb").stat().st_size > 0
    assert list((folder / "files" / "media" / "images" / "val").glob("samples_*.png"))
    assert result.stdout == ""
    if mode == "offline":
        assert result.stderr == ""
    else:
        (line,) = result.stderr.splitlines()
        assert "wandb login" in line
