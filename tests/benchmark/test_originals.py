"""The script that measures against the published pipelines, and the operations of these."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data
import originals
from data import BATCH, make_trees, pipelines
from semiseg.data.shapes import Shapes

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "data.py"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """An image of 90x60 pixels, its palette mask, and the same as pseudo-labels in an .npy file."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (60, 90, 3), np.uint8)).save(folder / "a.jpg")
    mask = Image.fromarray(rng.integers(0, 21, (60, 90), np.uint8))
    mask.putpalette(list(range(256)) * 3)
    mask.save(folder / "a.png")
    np.save(folder / "a.npy", rng.random((60, 90, 2), np.float32))
    return folder / "a.jpg", folder / "a.png", folder / "a.npy"


def test_originals_give_what_their_loaders_got(files: tuple[Path, Path, Path]) -> None:
    image, mask, pseudo = files
    table = torch.arange(256)
    crops = {
        "dmt": (originals.dmt(image, mask, (40, 40), None, None), 40),
        "dmt cityscapes": (originals.dmt(image, mask, (40, 40), (64, 128), table), 40),
        "cps": (originals.cps(image, mask, 48, ["a"] * 10, 25), 48),
        "cps cityscapes": (originals.cps(image, mask, 48, ["a"] * 10, 25, edges=True), 48),
        "stpp": (originals.stpp(image, mask, 33, 80, ["b"], False), 33),
        "stpp strong": (originals.stpp(image, mask, 33, 80, ["b"], True), 33),
        "cac": (originals.cac(image, mask, 32, 80, False), 32),
        "cac cityscapes": (originals.cac(image, mask, 32, 80, True), 32),
    }
    for name, ((picture, label), crop) in crops.items():
        assert (picture.dtype, tuple(picture.shape)) == (torch.float32, (3, crop, crop)), name
        assert (label.dtype, tuple(label.shape)) == (torch.int64, (crop, crop)), name
    picture, both = originals.dmt_pseudo(image, pseudo, (40, 40))
    assert (picture.dtype, both.dtype, tuple(both.shape)) == (torch.float32, torch.float32, (2, 40, 40))
    assert len(originals.cps(image, None, 48, ["a"] * 10, 25)) == 1
    assert [tuple(each.shape) for each in originals.cac_pair(image, mask, 32, 80)] == [
        (3, 32, 32),
        (32, 32),
    ] * 2


@pytest.mark.slow
def test_every_pipeline_runs_on_made_files(tmp_path: Path) -> None:
    source = Shapes(train=6, val=2, test=0)
    trees = make_trees(source, 3, tmp_path)
    assert trees["voc"].dataset.image("00001").shape == (375, 500, 3)
    first = trees["cityscapes"].dataset.ids("train")[0]
    assert trees["cityscapes"].dataset.image(first).shape == (1024, 2048, 3)
    assert trees["cityscapes_half"].dataset.image(first).shape == (512, 1024, 3)
    for each in pipelines():
        tree = trees[each.tree]
        crop = int(each.name.split()[-1].split("x")[-1])
        original = each.original(tree)(0)
        assert original[0].shape[-1] == crop, each.name
        ours = each.ours(tree.dataset, tree.pseudo)(0)
        images = ours["image_1" if "pair" in each.name else "image"]
        assert images.shape[0] == BATCH
        assert images.shape[-1] == crop
        assert ("label" in ours) == (each.labels is not None)
        assert ("confidence" in ours) == (each.labels == "pseudo")


@pytest.mark.slow
def test_the_script_writes_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [each for each in pipelines() if each.tree == "voc"][:2]
    monkeypatch.setattr(data, "pipelines", lambda: few)
    words = ["--rounds", "1", "--images", "2", "--seconds", "0.001", "-o", str(tmp_path / "data.md")]
    data.main(["dataset.train=4", "trainer.threads=1", *words])
    text = (tmp_path / "data.md").read_text()
    assert text in capsys.readouterr().out
    assert text.startswith("    python benchmarks/data.py dataset.train=4")
    rows = [line for line in text.splitlines() if line.startswith("| DMT")]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [each.name for each in few]
    assert all("**" in row and row.count("|") == 7 for row in rows)
    assert "| cityscapes_half |" in text
    assert "Machine: " in text


def test_the_script_refuses_like_a_command() -> None:
    command = [sys.executable, str(SCRIPT), "--rounds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "data.py: --rounds, --images and --seconds have to be above 0.\n"
