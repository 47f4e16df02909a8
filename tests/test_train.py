"""A whole run through the command line: its files, its promises, its answers to bad luck."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from semiseg.cli import main
from semiseg.data.shapes import Shapes

TINY = (
    "trainer.iterations=4",
    "trainer.batch_size=2",
    "trainer.unlabeled_batch_size=2",
    "trainer.crop_size=32",
    "trainer.eval_every=2",
    "trainer.checkpoint_every=2",
    "trainer.log_every=1",
    "trainer.threads=1",
    "tracker.mode=disabled",
)
SHAPES = ("dataset.train=16", "dataset.val=4", "dataset.test=2", "dataset.size=32", "split=1/4")


def train(run: Path, *overrides: str) -> int:
    return main(["train", f"run_dir={run}", *TINY, *overrides])


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints/best.pt", weights_only=True)["state_dict"]
    return state


def assert_equal_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A CamVid tree of drawn shapes."""
    shapes = Shapes(train=12, val=3, test=2, size=40)
    root = tmp_path / "camvid"
    for part in ("train", "val", "test"):
        (root / part).mkdir(parents=True)
        (root / f"{part}annot").mkdir()
        for image_id in shapes.ids(part):
            mask = shapes.mask(image_id)
            assert mask is not None
            cv2.imwrite(str(root / part / f"{image_id}.png"), shapes.image(image_id)[..., ::-1])
            cv2.imwrite(str(root / f"{part}annot" / f"{image_id}.png"), mask)
    return root


def test_a_run_leaves_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train(run, *SHAPES, "method=cps") == 0
    shown = capsys.readouterr().out
    assert "mIoU" in shown
    assert "1. train" in shown
    for name in (
        "run.yaml",
        "config.resolved.yaml",
        "overrides.yaml",
        "env.json",
        "metrics.jsonl",
        "run.log",
    ):
        assert (run / name).stat().st_size >= 0
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    for name in ("best.pt", "last.pt", "last.prev.pt", "manifest.json"):
        assert (run / "checkpoints" / name).exists()
    assert len(list((run / "samples").glob("*.png"))) == 4
    summary = json.loads((run / "summary.json").read_text())
    assert summary["split_counts"] == {"labeled": 4, "unlabeled": 12, "val": 4, "test": 2}
    assert summary["iterations"] == 4
    assert {"miou", "miou_best", "miou_last", "miou_test", "split_sha256", "train_images_per_s"} <= set(
        summary
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    keys = {key for line in lines for key in line}
    assert {"train/loss", "train/loss_cps", "train/unlabeled_used", "train/unlabeled_confidence"} <= keys
    assert {"val/miou", "pseudo/miou", "pseudo/accuracy", "lr/head", "time/images_per_s"} <= keys
    assert {"time/data_wait", "time/memory_gib", "iteration", "stage"} <= keys


def test_eval_repeats_the_number_of_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(run, *SHAPES, "method=supervised") == 0
    summary = json.loads((run / "summary.json").read_text())
    assert main(["eval", str(run)]) == 0
    (written,) = run.glob("eval-*.json")
    assert json.loads(written.read_text())["miou"] == summary["miou"]
    assert main(["eval", str(run), "--checkpoint", "last", "--part", "test", "--flip"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["supervised", "cps", "st", "stpp"])
def test_masks_of_unlabeled_images_are_never_learned_from(
    method: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Noise, a broken file and a missing one in place of hidden masks change no weight."""
    options = ("dataset=camvid", f"dataset.root={folder}", "split=1/4", f"method={method}")
    assert train(tmp_path / "true", *options) == 0
    hidden = sorted((folder / "trainannot").glob("*.png"))
    unlabeled = [path for index, path in enumerate(hidden) if index % 4]
    generator = np.random.default_rng(0)
    for path in unlabeled:
        cv2.imwrite(str(path), generator.integers(0, 11, (40, 40), np.uint8))
    unlabeled[0].write_bytes(b"broken")
    unlabeled[1].unlink()
    assert train(tmp_path / "noise", *options) == 0
    assert_equal_weights(tmp_path / "true", tmp_path / "noise")
    assert "hidden mask" in caplog.text


def test_bad_files_are_named_before_training_and_can_be_left_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [folder / "train" / "train-0001.png", folder / "trainannot" / "train-0004.png"]
    for path in bad:
        path.write_bytes(b"")
    options = ("dataset=camvid", f"dataset.root={folder}", "split=1/4", "method=cps")
    assert train(tmp_path / "refused", *options) == 2
    shown = capsys.readouterr().err
    assert all(path.name in shown for path in bad)
    assert "Traceback" not in shown
    assert not (tmp_path / "refused").exists()
    assert train(tmp_path / "kept", *options, "dataset.skip_bad=true") == 0
    summary = json.loads((tmp_path / "kept" / "summary.json").read_text())
    assert {Path(fault["file"]) for fault in summary["skipped_files"]} == set(bad)
    assert all(fault.keys() == {"id", "file", "reason"} for fault in summary["skipped_files"])
    assert "left out 2 images" in (tmp_path / "kept" / "run.log").read_text()
    assert summary["split_counts"]["labeled"] == 2


def test_a_loss_that_is_not_finite_ends_the_run_readably(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(run, *SHAPES, "method=supervised", "optimizer.lr=1e30") == 1
    shown = capsys.readouterr().err
    assert "not finite at iteration" in shown
    assert "train-00" in shown
    assert "Traceback" not in shown
    assert json.loads((run / "status.json").read_text())["state"] == "failed"


def test_plan_names_all_steps_and_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", "--plan", f"run_dir={run}", *TINY, *SHAPES, "method=stpp"]) == 0
    shown = capsys.readouterr().out
    steps = ("teacher", "rank", "label-reliable", "student-reliable", "label-rest", "student")
    assert all(f". {step}" in shown for step in steps)
    assert not run.exists()


def test_a_directory_with_other_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert train(tmp_path, *SHAPES) == 2
    assert "thesis.tex" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_damaged_checkpoints_are_never_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    assert train(whole, *SHAPES, "method=cps") == 0
    shutil.copytree(whole, damaged)
    # As if the run had been killed before its end.
    (damaged / "summary.json").unlink()
    (damaged / "status.json").unlink()
    step = damaged / "stages/00-train/step.json"
    step.write_text(json.dumps(json.loads(step.read_text()) | {"state": "running"}))
    content = bytearray((damaged / "checkpoints/last.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "checkpoints/last.pt").write_bytes(content)
    assert train(damaged, *SHAPES, "method=cps") == 0
    assert_equal_weights(whole, damaged)
    assert "is damaged" in (damaged / "run.log").read_text()


def test_precision_accumulation_and_optimizers_run(tmp_path: Path) -> None:
    options = ("trainer.precision=bf16", "trainer.accumulate=2", "trainer.batch_size=4", "optimizer=adamw")
    more = ("schedule=cosine", "trainer.clip_grad_norm=1.0", "trainer.samples_every=1", "trainer.select=last")
    run = tmp_path / "run"
    assert train(run, *SHAPES, *options, *more, "method=supervised", "method.augment=strong") == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["miou"] == summary["miou_last"]
    pictures = [line for line in (run / "metrics.jsonl").read_text().splitlines() if "val/samples" in line]
    assert len(pictures) == 3
