"""``semiseg compare``: what it finds in the files of two runs, on their images, and what it refuses."""

import csv
import json
import shutil

import pytest
import torch
from PIL import Image

from processes import Command
from semiseg.cli import main as cli


@pytest.fixture(scope="module")
def other_run(tiny_run, tmp_path_factory):
    """A run with other weights, another seed, other labels and another way of evaluating."""
    words = json.loads((tiny_run / "overrides.yaml").read_text())
    words = [word for word in words if word.partition("=")[0] not in ("run_dir", "seed", "split")]
    folder = tmp_path_factory.mktemp("other") / "run"
    changed = ("seed=1", "split=1/2", "optimizer.lr=0.02", "evaluator.flip=true", "trainer.log_every=2")
    assert cli(["train", f"run_dir={folder}", *words, *changed]) == 0
    return folder


@pytest.fixture(scope="module")
def compared(tiny_run, other_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "out"
    assert cli(["compare", str(tiny_run), str(other_run), "-o", str(out), "--images", "2"]) == 0
    return out


def summary(run):
    return json.loads((run / "summary.json").read_text())


def test_differences_of_config_and_environment(compared):
    found = json.loads((compared / "comparison.json").read_text())
    config = {each["key"]: each for each in found["config"]}
    assert (config["seed"]["a"], config["seed"]["b"]) == (0, 1)
    assert (config["evaluator.flip"]["a"], config["evaluator.flip"]["b"]) == (False, True)
    assert config["optimizer.lr"]["matters"]
    assert not config["trainer.log_every"]["matters"]
    assert set(config) == {"seed", "split", "optimizer.lr", "evaluator.flip", "trainer.log_every"}
    # A commit may be made between the two runs; they are of one machine.
    assert all(each["key"].startswith("git.") for each in found["environment"])
    cautions = " ".join(found["cautions"])
    assert "Evaluated in other ways: evaluator.flip." in cautions
    assert "Trained on other labeled images: split 1/4 every 0 and split 1/2 every 0." in cautions


def test_results_and_classes(compared, tiny_run, other_run):
    found = json.loads((compared / "comparison.json").read_text())
    a, b = summary(tiny_run), summary(other_run)
    results = {each["name"]: each for each in found["results"]}
    for key in ("miou", "miou_last", "miou_test", "accuracy"):
        assert (results[key]["a"], results[key]["b"]) == (a[key], b[key])
        assert results[key]["change"] == pytest.approx(b[key] - a[key])
    for key, part in (("classes", "iou"), ("classes_test", "iou_test")):
        assert {each["name"]: (each["a"], each["b"]) for each in found[key]} == {
            name: (a[part][name], b[part][name]) for name in a[part]
        }


def test_each_network_predicts_as_its_run_evaluates(compared, tiny_run, other_run):
    ranked = json.loads((compared / "comparison.json").read_text())["images"]["ranked"]
    assert len(ranked) == 5
    pixels = sum(each["pixels"] for each in ranked)
    for key, run in (("right_a", tiny_run), ("right_b", other_run)):
        right = sum(each[key] * each["pixels"] for each in ranked)
        assert right / pixels == pytest.approx(summary(run)["accuracy"], abs=1e-12)
    for each in ranked:
        assert each["right_a"] - each["right_b"] == pytest.approx(each["only_a"] - each["only_b"])
        assert each["differ"] >= each["only_a"] + each["only_b"] - 1e-12
    shares = [each["differ"] for each in ranked]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0


def test_files_of_the_images(compared):
    ranked = json.loads((compared / "comparison.json").read_text())["images"]["ranked"]
    with (compared / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [each["id"] for each in ranked]
    assert [float(row["differ"]) for row in rows] == [each["differ"] for each in ranked]
    drawn = [each["picture"] for each in ranked]
    assert drawn[0] == f"pictures/01-{ranked[0]['id']}.png"
    assert drawn[2:] == [None] * 3
    page = (compared / "comparison.md").read_text()
    for picture in drawn[:2]:
        assert f"({picture})" in page
        with Image.open(compared / picture) as image:
            # Five panels of 192 pixels: 48 pixels enlarged four times.
            assert image.width == 5 * 192 + 4 * 4
    assert "| mIoU, reported network, % |" in page


def test_the_screen_shows_it_all(tiny_run, other_run, capsys):
    assert cli(["compare", str(tiny_run), str(other_run), "--part", "test"]) == 0
    screen = capsys.readouterr().out
    for line in ("Settings that differ", "Results", "IoU on the validation images", "IoU on the test images"):
        assert f"\n{line}" in screen
    assert "3 test images: the networks name other classes for" in screen
    assert "Images where they disagree most" in screen
    assert str(tiny_run) in screen


def test_an_earlier_comparison_is_replaced_on_demand_only(compared, tiny_run, other_run, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(compared, out)
    (out / "pictures" / "mine.png").touch()
    former = json.loads((out / "comparison.json").read_text())["images"]["ranked"]
    words = ["compare", str(tiny_run), str(other_run), "-o", str(out)]
    assert cli(words) == 2
    assert "--force" in capsys.readouterr().err
    assert cli([*words, "--force", "--images", "1", "--part", "test"]) == 0
    (first, *_) = json.loads((out / "comparison.json").read_text())["images"]["ranked"]
    assert {path.name for path in (out / "pictures").iterdir()} == {
        "mine.png",
        first["picture"].removeprefix("pictures/"),
    }
    assert first["picture"] not in {each["picture"] for each in former}


def test_a_run_that_has_not_finished_is_compared_by_its_settings(tiny_run, other_run, tmp_path, capsys):
    part = tmp_path / "part"
    shutil.copytree(other_run, part)
    (part / "status.json").write_text('{"state": "interrupted"}')
    assert cli(["compare", str(tiny_run), str(part)]) == 0
    screen = capsys.readouterr().out
    assert f"Caution: {part} has not finished (interrupted)." in screen
    assert "optimizer.lr" in screen
    assert "name other classes" not in screen


def test_without_images_no_network_is_read(tiny_run, other_run, tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(other_run, bare, ignore=shutil.ignore_patterns("*.pt"))
    out = tmp_path / "out"
    assert cli(["compare", str(tiny_run), str(bare), "--no-images", "-o", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["comparison.json", "comparison.md"]
    assert json.loads((out / "comparison.json").read_text())["images"] is None
    capsys.readouterr()
    assert cli(["compare", str(tiny_run), str(bare)]) == 2
    assert "There is no checkpoint" in capsys.readouterr().err


def test_networks_with_other_classes(tiny_run, tmp_path, capsys):
    renamed = tmp_path / "renamed"
    shutil.copytree(tiny_run, renamed)
    path = renamed / "checkpoints" / "best.pt"
    bundle = torch.load(path, weights_only=True)
    bundle["classes"] = ["sea", *bundle["classes"][1:]]
    torch.save(bundle, path)
    path.with_name("best.pt.sha256").unlink()
    assert cli(["compare", str(tiny_run), str(renamed)]) == 2
    error = capsys.readouterr().err
    assert "name other classes: background" in error
    assert "and sea" in error
    assert "--no-images" in error


def test_what_is_refused(tiny_run, other_run, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "run.yaml").touch()
    both = tmp_path / "both"
    for name in ("a", "b"):
        (both / name).mkdir(parents=True)
        (both / name / "run.yaml").touch()
    a, b = str(tiny_run), str(other_run)
    for words, message in (
        ([a, a], "are the same run"),
        ([a, str(tmp_path / "nowhere")], "nowhere does not exist"),
        ([a, str(tmp_path / "file")], "is a file"),
        ([a, str(tmp_path / "empty")], "cannot be read"),
        ([a, str(both)], f"{both} holds 2 runs. Give one of them, for example {both / 'a'}"),
        ([a, b, "-o", str(tmp_path / "file")], "it is a file"),
        ([a, b, "--images", "0"], "--images=0: expected 1 or more"),
        ([a, b, "--part", "train"], "invalid choice: 'train'"),
        ([a, b, "--root", "/data"], "dataset 'shapes' reads no folder"),
        ([a, b, "--device", "gpu"], "--device=gpu: expected auto, cpu"),
        ([a], "required: RUN_B"),
    ):
        assert cli(["compare", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
        assert len(error.splitlines()) < 20


@pytest.mark.slow
def test_as_a_command(tiny_run, other_run, tmp_path):
    out = tmp_path / "out"
    code, output = Command("compare", str(tiny_run), str(other_run), "-o", str(out)).finish()
    assert code == 0, output
    assert f"Written to {out / 'comparison.md'}" in output
    code, output = Command("compare", str(tiny_run), str(tmp_path / "nowhere")).finish()
    assert code == 2
    assert "nowhere does not exist" in output
    assert "Traceback" not in output
