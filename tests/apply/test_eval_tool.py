import json
import re
import shutil

import pytest
import torch

from semiseg.cli import main as cli
from semiseg.cli.eval import file_stem, main
from semiseg.errors import UserError
from semiseg.runs.use import change, describe, named_evaluator, open_run
from semiseg.settings import EvaluatorSettings

TINY = (
    "debug=smoke",
    "method=supervised",
    "trainer.iterations=3",
    "trainer.eval_every=1",
    "trainer.crop_size=32",
    "dataset.train=16",
    "dataset.val=5",
    "dataset.test=3",
    "dataset.size=48",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    assert cli(["train", f"run_dir={folder}", *TINY]) == 0
    return folder


def result(run, stem):
    return json.loads((run / f"{stem}.json").read_text())


@pytest.mark.slow
def test_repeats_the_number_of_the_run(run, capsys):
    assert main([str(run)]) == 0
    summary = json.loads((run / "summary.json").read_text())
    found = result(run, "eval-val-reported")
    assert {key: found[key] for key in ("miou", "iou", "accuracy")} == {
        key: summary[key] for key in ("miou", "iou", "accuracy")
    }
    assert (found["images"], found["part"], found["step"]) == (5, "val", "train")
    output = capsys.readouterr().out
    assert re.search(rf"^mIoU +{100 * summary['miou']:.2f}$", output, re.MULTILINE)
    assert "eval-val-reported.json" in output


@pytest.mark.slow
def test_last_and_best_checkpoint_and_test_images(run):
    summary = json.loads((run / "summary.json").read_text())
    assert main([str(run), "--checkpoint", "last"]) == 0
    last = result(run, "eval-val-last")
    assert (last["miou"], last["iteration"]) == (summary["miou_last"], 3)
    assert main([str(run), "--checkpoint", "best", "--part", "test"]) == 0
    best = result(run, "eval-test-best")
    assert (best["miou"], best["images"]) == (summary["miou_test"], 3)
    assert best["iteration"] == summary["best_iteration"]


@pytest.mark.slow
def test_another_way_of_evaluating(run, capsys):
    options = ["--mode", "slide", "--window", "32", "--scales", "0.5,1", "--flip", "--device", "cpu"]
    assert main([str(run), *options]) == 0
    found = result(run, "eval-val-reported-slide32-scales0.5_1-flip")
    settings = found["evaluator"]
    assert (settings["mode"], settings["window"], settings["scales"]) == ("slide", 32, [0.5, 1.0])
    assert settings["flip"]
    assert "windows of 32 pixels, scales 0.5, 1, mirrored too" in capsys.readouterr().out


@pytest.mark.slow
def test_the_way_of_a_paper(run, capsys):
    assert main([str(run), "--evaluator", "cac", "--device", "cpu"]) == 0
    found = result(run, "eval-val-reported-cac")
    settings = found["evaluator"]
    assert (settings["name"], settings["pad"], settings["absent"]) == ("cac", "multiple", "zero")
    assert found["miou"] == round(found["miou"], 3)
    assert "whole images, padded (multiple 8, reflect)" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--evaluator=cacc.*There are: cac, "):
        main([str(run), "--evaluator", "cacc"])


def test_an_evaluator_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evaluator").mkdir()
    (tmp_path / "evaluator" / "mine.yaml").write_text("name: mine\nresize_to: [32, 48]\n")
    assert named_evaluator("mine") == EvaluatorSettings(name="mine", resize_to=[32, 48])
    assert describe(named_evaluator("mine")) == "whole images, resized to 32x48"
    (tmp_path / "evaluator" / "mine.yaml").write_text("name: mine\nwindows: 3\n")
    with pytest.raises(UserError, match=r"mine\.yaml: .*windows"):
        named_evaluator("mine")


@pytest.mark.slow
def test_what_is_wrong_is_named(run, tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint .*nothing\.pt"):
        main([str(run), "--checkpoint", "nothing.pt"])
    for option in (["--scales", "1,0"], ["--scales", "a"], ["--window", "-3"], ["--part", "train"]):
        with pytest.raises(UserError, match="`semiseg eval --help` shows the options"):
            main([str(run), *option])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "gpu"], "--device=gpu: expected auto, cpu, cuda"),
        (["--device", "cuda:77"], "--device=cuda:77: not on this machine"),
        (["--root", "/data"], "--root=/data: dataset 'shapes' reads no folder"),
        (["--window", "32"], "a window of 32 pixels: whole images have none; choose the mode slide too."),
    ],
)
def test_options_that_do_not_fit_the_run(run, options, message):
    with pytest.raises(UserError, match=message):
        main([str(run), *options])


def test_a_chosen_folder_that_cannot_be_written_to(run):
    with pytest.raises(UserError, match=r"is a file\)\. -o chooses another folder"):
        main([str(run), "--part", "test", "-o", str(run / "summary.json/out")])


@pytest.mark.slow
def test_a_run_that_cannot_be_written_to(run, monkeypatch, capsys):
    def refuse(path, values):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("semiseg.cli.eval.write_json", refuse)
    assert main([str(run), "--part", "test"]) == 0
    screen = capsys.readouterr()
    assert "mIoU" in screen.out
    assert "Written" not in screen.out
    assert "eval-test-reported.json cannot be written (Permission denied)" in screen.err


@pytest.mark.slow
def test_computes_as_the_run_did(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    config = copy / "config.resolved.yaml"
    config.write_text(config.read_text().replace("deterministic: false", "deterministic: true"))
    benchmark = torch.backends.cudnn.benchmark
    try:
        assert main([str(copy), "--part", "test"]) == 0
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = benchmark


@pytest.mark.slow
def test_an_unfinished_run_says_how_to_go_on(run, tmp_path):
    (tmp_path / "config.resolved.yaml").write_text((run / "config.resolved.yaml").read_text())
    (tmp_path / "status.json").write_text('{"state": "interrupted"}')
    with pytest.raises(UserError, match=r"interrupted[\s\S]*semiseg train run_dir="):
        open_run(tmp_path)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        main([str(tmp_path)])


def test_only_what_is_given_changes():
    usual = EvaluatorSettings(flip=True, batch_size=3)
    assert change(usual) == usual
    changed = change(usual, mode="slide", flip=False)
    padded = EvaluatorSettings(pad="size", pad_to=96)
    assert (change(padded).pad, change(padded, mode="slide").pad) == ("size", "none")
    assert (changed.mode, changed.flip, changed.batch_size) == ("slide", False, 3)


@pytest.mark.parametrize(
    ("changes", "stem"),
    [
        ({}, "eval-val-best"),
        ({"mode": "slide"}, "eval-val-best-slide512"),
        ({"flip": True}, "eval-val-best-flip"),
        ({"scales": [0.5, 1.0]}, "eval-val-best-scales0.5_1"),
    ],
)
def test_files_are_named_by_the_difference(changes, stem):
    usual = EvaluatorSettings()
    settings = change(usual, **changes)
    values = {"part": "val", "checkpoint": "best", "evaluator": vars(settings)}
    assert file_stem(values, usual) == stem
    assert file_stem({**values, "checkpoint": "/a/b.pt"}, usual) == stem.replace("best", "_a_b.pt")
    assert describe(usual) == "whole images"
