"""A run that is selected by another score, on masks without one class and with a narrow strip among the images."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.cli import main
from semiseg.config.marks import mark_of
from semiseg.report.comparable import must_agree
from semiseg.report.compare import compare, heading
from semiseg.report.gallery import MAX_PIXELS, opened, small
from semiseg.report.records import read_run
from semiseg.report.worst_images import read_worst
from semiseg.sweep.index import Index, JobEntry
from semiseg.sweep.job import Job
from semiseg.sweep.screen import Screen

OVERRIDES = (
    *("dataset=folder", "dataset.classes=[ground,disk,bar]", "split=full", "method=supervised"),
    *("backbone.width=4", "model.channels=8", "model.low_channels=4", "trainer.channels_last=false"),
    *("trainer.crop_size=32", "trainer.batch_size=2", "trainer.iterations=4", "trainer.eval_every=2"),
    *("trainer.threads=1", "trainer.device=cpu", "tracker.mode=disabled"),
    *("evaluator.primary=foreground_dice", "evaluator.foreground=[disk,bar]"),
    "evaluator.metrics=[boundary_iou,calibration]",
)
STEM = "eval-val-reported"


def draw(folder: Path) -> None:
    """Write images of disks and bars; the validation images hold no bar, and one of them is a strip."""
    for index in range(8):
        height, width = (4, 1200) if index == 1 else (36, 48)
        y, x = np.mgrid[:height, :width]
        label = ((x - 12) ** 2 + (y - height // 2) ** 2 < 60).astype(np.uint8)
        if index > 1:
            label[:, width - 9 - index :] = 2
        pixels = np.array([[90, 120, 60], [200, 60, 80], [60, 90, 220]], np.uint8)[label]
        pixels = pixels + (x * 7 + y * 3)[..., None] % 20
        for part, values in (("images", pixels.astype(np.uint8)), ("masks", label)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / part / f"i{index}.png")
    (folder / "val.txt").write_text("i0\ni1\n")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run, and what it printed."""
    folder = tmp_path_factory.mktemp("scores")
    draw(folder / "data")
    printed = folder / "printed.txt"
    with pytest.MonkeyPatch.context() as patch, printed.open("w") as screen:
        patch.setattr("sys.stdout", screen)
        assert (
            main(["train", f"run_dir={folder / 'run'}", f"dataset.root={folder / 'data'}", *OVERRIDES]) == 0
        )
        assert main(["eval", str(folder / "run")]) == 0
    return folder / "run", printed.read_text()


def stored(path: Path) -> dict:
    return json.loads(path.read_text())


def test_the_best_network_is_chosen_by_the_score(trained: tuple[Path, str]) -> None:
    run, printed = trained
    summary = stored(run / "summary.json")
    assert summary["primary"] == {"key": "foreground_dice", "name": "foreground Dice"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [(line["val/foreground_dice"], line["iteration"]) for line in lines if "val/miou" in line]
    best = max(found, key=lambda each: (each[0], -each[1]))
    assert (summary["foreground_dice_best"], summary["best_iteration"]) == best
    assert summary["foreground_dice"] == summary["foreground_dice_best"]
    assert summary["dice"]["disk"] == summary["foreground_dice"]  # over the only foreground class with pixels
    assert {"val/mboundary_iou", "val/ece", "val/dice/ground"} <= {key for line in lines for key in line}
    assert "foreground Dice 0." in printed
    assert "calibration error (ECE)" in printed
    assert re.search(r"^class +Dice % +IoU % ", printed, re.MULTILINE)


def test_a_class_that_no_mask_holds_is_left_out_and_said(trained: tuple[Path, str]) -> None:
    run, printed = trained
    summary = stored(run / "summary.json")
    assert summary["absent_classes"] == ["bar"]
    assert summary["counted_classes"] == ["ground", "disk"]
    assert summary["iou"]["bar"] is None
    assert summary["miou"] == pytest.approx(np.mean([summary["iou"][name] for name in ("ground", "disk")]))
    assert summary["true_pixels"]["bar"] == 0
    note = "no validation image holds bar: foreground Dice is over 2 of 3 classes"
    assert f"Note: {note}." in printed
    record = read_run(run)
    assert sum(note in line for line in heading(compare(record, record))) == 2


def test_eval_repeats_the_scores(trained: tuple[Path, str]) -> None:
    run, _ = trained
    summary, result = stored(run / "summary.json"), stored(run / f"{STEM}.json")
    shared = ("foreground_dice", "miou", "iou", "class_precision", "true_pixels", "ece", "boundary_iou")
    assert {key: result[key] for key in shared} == {key: summary[key] for key in shared}
    assert result["reliability"] == summary["reliability"]
    assert sum(each["pixels"] for each in result["reliability"]) == 36 * 48 + 4 * 1200
    with (run / STEM / "reliability.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 15
    assert opened(run / STEM / "reliability.png") is not None


def test_the_worst_images_are_on_a_page(trained: tuple[Path, str]) -> None:
    run, _ = trained
    with (run / STEM / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ["image", "foreground_dice", "miou", "accuracy", "pixels"]
    scores = [float(row["foreground_dice"]) for row in rows]
    assert scores == sorted(scores)
    assert {row["image"]: (int(row["true disk"]) > 0, int(row["pixels"])) for row in rows} == {
        "i0": (True, 36 * 48),
        "i1": (True, 4800),
    }
    found = read_worst(run / STEM)
    assert [each.name for each in found] == [row["image"] for row in rows]
    assert list(found[0].pictures) == ["image", "truth", "prediction", "wrong", "confidence"]
    page = (run / STEM / "worst.html").read_text()
    plain = re.sub(r"data:[^\"' )]+", "", page)
    assert plain.count("<img src=") == 1 + 2 * 5
    assert plain.index(rows[0]["image"]) < plain.index(rows[1]["image"])
    assert "foreground Dice" in plain
    assert "http://" not in plain


def test_pictures_of_a_strip_are_bounded(trained: tuple[Path, str]) -> None:
    run, _ = trained
    for folder in ("samples", f"{STEM}/worst"):
        sizes = [Image.open(path).size for path in (run / folder).glob("*.png")]
        assert max(max(size) for size in sizes) <= 4000
        assert len(sizes) >= 2


def test_report_and_sweep_name_the_score(trained: tuple[Path, str], tmp_path: Path) -> None:
    run, _ = trained
    assert main(["report", str(run), "-o", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report/report.md").read_text()
    assert text.startswith("# foreground Dice by method, split")
    assert "no validation image holds bar" in text
    assert "mean boundary IoU" in text
    page = re.sub(r"data:[^\"' )]+", "", (tmp_path / "report/report.html").read_text())
    assert "Worst pictures" in page
    assert "Precision on the validation images" in page
    head = (tmp_path / "report/results.csv").read_text().splitlines()[0].split(",")
    assert {"foreground_dice", "miou", "class_recall/disk", "boundary_iou/ground"} <= set(head)
    metric = ["--metric", "class_precision/disk", "-o", str(tmp_path / "other")]
    assert main(["report", str(run), *metric]) == 0
    assert "precision of disk" in (tmp_path / "other/report.md").read_text()
    index = Index(tmp_path)
    index.jobs[run.name] = JobEntry([], "done", metric=0.25)
    assert "foreground Dice %" in Screen(tmp_path, index, [Job(run, ())]).table()


def test_the_network_is_ranked_by_a_score_of_the_command(
    trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained
    assert main(["eval", str(run), "--primary", "mrecall", "--metrics", "", "-o", str(tmp_path)]) == 0
    result = stored(tmp_path / f"{STEM}.json")
    assert result["primary"]["name"] == "mean recall"
    assert "ece" not in result
    for words, message in (
        (["--primary", "recall"], "Did you mean mrecall?"),
        (["--foreground", "disc"], "Did you mean disk?"),
        (["--metrics", "ece"], "expected a list of boundary_iou, calibration"),
    ):
        assert main(["eval", str(run), *words]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_a_wrong_class_name_is_refused_before_training(
    trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*OVERRIDES, "evaluator.foreground=[disk,bars]", f"dataset.root={trained[0].parent / 'data'}"]
    assert main(["train", f"run_dir={tmp_path / 'run'}", *words]) == 2
    assert "Did you mean bar?" in capsys.readouterr().err


def test_a_run_that_measured_less_is_reported_beside_it(trained: tuple[Path, str], tmp_path: Path) -> None:
    """As runs of the first version, whose summaries name no score of a class but IoU."""
    run, _ = trained
    earlier = tmp_path / "runs/earlier"
    shutil.copytree(run, tmp_path / "runs/now")
    shutil.copytree(run, earlier)
    summary = stored(earlier / "summary.json")
    kept = {"miou": summary["miou"], "iou": summary["iou"], "accuracy": summary["accuracy"]}
    more = {
        "primary": {"key": "miou", "name": "mIoU"},
        "by_class": {"key": "iou", "name": "IoU"},
        "secondary": [{"key": "accuracy", "name": "pixel accuracy"}],
        "split_counts": summary["split_counts"],
        "split_sha256": summary["split_sha256"],
    }
    (earlier / "summary.json").write_text(json.dumps(kept | more))
    assert main(["report", str(tmp_path / "runs"), "--metric", "miou", "-o", str(tmp_path / "out")]) == 0
    assert main(["compare", str(earlier), str(run), "--no-images"]) == 0


def test_runs_may_differ_in_further_measurements_and_not_in_the_score_they_were_selected_by() -> None:
    assert not must_agree(mark_of("evaluator.metrics", {}))
    for key in ("primary", "foreground", "absent", "boundary_ratio"):
        assert must_agree(mark_of(f"evaluator.{key}", {}))


def test_pictures_of_earlier_versions_without_a_bound_are_not_read(tmp_path: Path) -> None:
    Image.new("1", (100, MAX_PIXELS // 100 + 1)).save(tmp_path / "strip.png")
    Image.new("RGB", (30, 4000)).save(tmp_path / "tall.png")
    assert opened(tmp_path / "strip.png") is None
    assert opened(tmp_path / "missing.png") is None
    tall = opened(tmp_path / "tall.png")
    assert tall is not None
    assert small(tall, True).size == (16, 640)
