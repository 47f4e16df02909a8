"""A task that is no segmentation: it trains, labels, evaluates, is summarized and reported under its own names."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from semiseg.cli import main
from semiseg.contracts.dataset import DatasetInfo
from semiseg.data.collate import Item, collate
from semiseg.errors import UserError
from semiseg.report.compare import compare, heading, tables
from semiseg.report.records import read_run
from semiseg.sweep.index import Index, JobEntry
from semiseg.sweep.job import Job
from semiseg.sweep.screen import Screen

HERE = Path(__file__).parent / "image_task"
OVERRIDES = (
    *("dataset=images", "method=teacher_student", "split=1/2", "backbone.width=4", "model.channels=8"),
    *("model.low_channels=4", "trainer.channels_last=false", "trainer.crop_size=32", "trainer.batch_size=4"),
    *("trainer.iterations=4", "trainer.eval_every=2", "trainer.log_every=2", "trainer.threads=1"),
    *("trainer.device=cpu", "tracker.mode=disabled", "tracker.samples=2"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run, and what it printed."""
    run = tmp_path_factory.mktemp("runs") / "run"
    printed = run.with_name("printed.txt")
    with pytest.MonkeyPatch.context() as patch, printed.open("w") as screen:
        patch.chdir(HERE)
        patch.syspath_prepend(HERE)
        task = importlib.import_module("image_task").ImageClasses()
        patch.setattr("semiseg.app.Segmentation", lambda settings: task)
        patch.setattr("sys.stdout", screen)
        assert main(["train", f"run_dir={run}", *OVERRIDES]) == 0
    return run, printed.read_text()


def test_a_run_calls_its_scores_as_its_task_does(trained: tuple[Path, str]) -> None:
    run, printed = trained
    summary = json.loads((run / "summary.json").read_text())
    assert summary["primary"] == {"key": "accuracy", "name": "accuracy"}
    assert summary["by_class"] == {"key": "recall", "name": "recall"}
    assert {"accuracy", "accuracy_best", "accuracy_last", "accuracy_test"} < summary.keys()
    assert summary["recall"].keys() == summary["recall_test"].keys()
    assert summary["fits"]["teacher"]["accuracy_best"] is not None
    assert not [key for key in summary if "iou" in key]
    for text in ("recall %", "accuracy on test", "accuracy 0.", "pseudo-label accuracy"):
        assert text in printed
    assert "mIoU" not in printed
    assert len(list((run / "samples").iterdir())) == 2


def test_networks_and_labels_of_a_task_are_stored(trained: tuple[Path, str]) -> None:
    run, _ = trained
    summary = json.loads((run / "summary.json").read_text())
    assert torch.load(run / "checkpoints/best.pt", weights_only=True)["accuracy"] == summary["accuracy"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scores = [line["val/accuracy"] for line in lines if "val/accuracy" in line]
    assert len(scores) == 4
    assert max(scores[2:]) == summary["accuracy_best"]
    assert {key for line in lines for key in line if key.startswith("pseudo/")} == {
        "pseudo/accuracy",
        "pseudo/coverage",
        "pseudo/confidence",
    }
    labels = json.loads((run / "stages/01-label/step.json").read_text())["result"]
    assert labels["quality"]["pseudo/coverage"] == 1


def test_a_report_calls_scores_as_the_task_does(trained: tuple[Path, str], tmp_path: Path) -> None:
    run, _ = trained
    assert main(["report", str(run), "-o", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report/report.md").read_text()
    assert text.startswith("# accuracy by method, split")
    assert "recall by class, validation images" in text
    page = re.sub(r"data:[^\"' )]+", "", (tmp_path / "report/report.html").read_text())
    assert "recall on the test images" in page
    assert "IoU" not in text + page
    head = (tmp_path / "report/results.csv").read_text().splitlines()[0].split(",")
    assert "accuracy_test" in head
    assert any(name.startswith("recall_test/") for name in head)


def test_runs_of_two_tasks_are_told_apart(
    trained: tuple[Path, str], tiny_run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run, _ = trained
    found = compare(read_run(run), read_run(tiny_run))
    assert "Caution: Measured by other scores: accuracy and mIoU." in heading(found)
    (results,) = (table for table in tables(found) if table.title == "Results")
    assert "accuracy, reported network, %" in [row[0] for row in results.rows]
    arguments = ["report", str(run), str(tiny_run), "--metric", "miou", "-o", str(tmp_path / "report")]
    assert main(arguments) == 0
    assert "1 of the runs are measured by accuracy and have no mIoU." in capsys.readouterr().out


def test_a_sweep_shows_the_score_of_the_task(trained: tuple[Path, str], tmp_path: Path) -> None:
    run, _ = trained
    index = Index(tmp_path)
    index.jobs[run.name] = JobEntry([], "done", metric=0.25)
    table = Screen(tmp_path, index, [Job(run, ())]).table()
    assert "accuracy %" in table
    assert "25.00" in table


def test_labels_have_the_size_that_the_dataset_says() -> None:
    class Picture:
        def __init__(self, info: DatasetInfo, side: int) -> None:
            self.info = info
            self.side = side

        def image(self, image_id: str) -> np.ndarray:
            return np.zeros((8, 8, 3), np.uint8)

        def mask(self, image_id: str) -> np.ndarray:
            return np.zeros((self.side, self.side), np.uint8)

    def view(image: np.ndarray, label: np.ndarray, key: object) -> dict[str, np.ndarray]:
        return {"image": image, "label": label}

    pixels = DatasetInfo("pixels", ("a",), ((0, 0, 0),))
    images = DatasetInfo("images", ("a",), ((0, 0, 0),), label_of="image")
    for info, right, wrong in ((pixels, 8, 1), (images, 1, 8)):
        part = collate(Picture(info, right), [Item("x", "true", view)], (0,))
        assert part["label"].shape == (1, right, right)
        with pytest.raises(UserError, match=f"label of x is {wrong}x{wrong} pixels, its image 8x8"):
            collate(Picture(info, wrong), [Item("x", "true", view)], (0,))
