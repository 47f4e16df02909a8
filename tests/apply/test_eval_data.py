"""``semiseg eval`` on other images, and what it writes beside the numbers."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.apply.confusion import write_picture
from semiseg.cli import main as cli
from semiseg.cli.eval import main
from semiseg.config.faults import ConfigFaults
from semiseg.errors import UserError
from semiseg.runs.use import open_run

STEM = "eval-val-reported"


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval") / "run"
    shutil.copytree(tiny_run, folder)
    assert main([str(folder), "--worst", "3"]) == 0
    return folder


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.slow
def test_the_confusion_matrix_as_table_and_picture(run: Path) -> None:
    result = json.loads((run / f"{STEM}.json").read_text())
    head, *lines = rows(run / STEM / "confusion.csv")
    classes = list(result["iou"])
    assert head == ["true class / predicted", *classes]
    assert [line[0] for line in lines] == classes
    assert [[int(cell) for cell in line[1:]] for line in lines] == result["confusion"]
    picture = Image.open(run / STEM / "confusion.png")
    assert min(picture.size) > 300
    assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 10


@pytest.mark.slow
def test_scores_of_images_and_pictures_of_the_worst(run: Path) -> None:
    result = json.loads((run / f"{STEM}.json").read_text())
    head, *lines = rows(run / STEM / "images.csv")
    scores = [dict(zip(head, line, strict=True)) for line in lines]
    values = [float(each["miou"]) for each in scores]
    assert len(scores) == 5
    assert values == sorted(values)
    pixels = [int(each["pixels"]) for each in scores]
    assert sum(pixels) == sum(map(sum, result["confusion"]))
    right = sum(float(each["accuracy"]) * count for each, count in zip(scores, pixels, strict=True))
    assert right / sum(pixels) == pytest.approx(result["accuracy"], abs=1e-5)
    for each in scores:
        shares = [float(each[key]) for key in head if key.startswith("iou ") and each[key]]
        assert float(each["miou"]) == pytest.approx(sum(shares) / len(shares), abs=1e-5)
    names = sorted(path.name for path in (run / STEM / "worst").iterdir())
    assert names == [*(f"{i:03d}-{each['image']}.png" for i, each in enumerate(scores[:3], 1)), "legend.png"]


@pytest.mark.slow
def test_fewer_pictures_replace_more(run: Path, tmp_path: Path) -> None:
    worst = tmp_path / STEM / "worst"
    assert main([str(run), "-o", str(tmp_path), "--worst", "2"]) == 0
    assert len(list(worst.glob("0*.png"))) == 2
    assert main([str(run), "-o", str(tmp_path), "--worst", "0"]) == 0
    assert [path.name for path in worst.iterdir()] == ["legend.png"]
    assert (tmp_path / f"{STEM}.json").read_bytes() == (run / f"{STEM}.json").read_bytes()


@pytest.mark.slow
def test_training_images_and_another_partition(run: Path, tmp_path: Path) -> None:
    _, split = open_run(run).data()
    counts = {"labeled": len(split.labeled), "unlabeled": len(split.unlabeled)}
    words = [str(run), "-o", str(tmp_path), "--worst", "0"]
    for part, count in counts.items():
        assert main([*words, "--part", part]) == 0
        assert json.loads((tmp_path / f"eval-{part}-reported.json").read_text())["images"] == count
    assert main([*words, "--part", "labeled", "split=1/2"]) == 0
    (path,) = tmp_path.glob("eval-labeled-reported-shapes-????????.json")
    found = json.loads(path.read_text())
    assert (found["images"], found["overrides"]) == (2 * counts["labeled"], ["split=1/2"])


@pytest.mark.slow
def test_another_dataset_with_the_same_classes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, _ = open_run(run).data()
    monkeypatch.chdir(tmp_path)
    for image_id in dataset.ids("test"):
        for folder, pixels in (("images", dataset.image(image_id)), ("masks", dataset.mask(image_id))):
            (tmp_path / "town" / folder / "val").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "town" / folder / "val" / f"{image_id}.png")
    first = dataset.ids("train")[0]
    Image.fromarray(dataset.image(first)).save(tmp_path / "town" / "images" / "extra.png")
    Image.fromarray(dataset.mask(first)).save(tmp_path / "town" / "masks" / "extra.png")
    names = ",".join(dataset.info.classes)
    keys = ["dataset=folder", "dataset.root=town", "dataset.cache=false", f"dataset.classes=[{names}]"]
    assert main([str(run), *keys, "-o", "out", "--worst", "0"]) == 0
    (path,) = (tmp_path / "out").glob("eval-val-reported-folder-????????.json")
    found = json.loads(path.read_text())
    assert (found["dataset"], found["images"]) == ("folder", 3)
    assert found["miou"] == json.loads((run / "summary.json").read_text())["miou_test"]
    other = names.replace("disk", "ball")
    with pytest.raises(UserError, match=r"The checkpoint has the classes .*disk.*, the dataset has .*ball"):
        main([str(run), *keys[:3], f"dataset.classes=[{other}]", "-o", "out"])


def test_keys_that_are_no_data_are_refused(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigFaults, match=r"method=cps[\s\S]*eval takes keys of the data"):
        main([str(tiny_run), "method=cps"])
    with pytest.raises(ConfigFaults, match=r"dataset\.sise=3[\s\S]*Did you mean dataset\.size"):
        main([str(tiny_run), "dataset.sise=3"])
    with pytest.raises(UserError, match=r"no val images \(4 labeled, 12 unlabeled, 0 val, 3 test\)"):
        main([str(tiny_run), "dataset.val=0"])
    assert cli(["eval", str(tiny_run), "dataset=shape"]) == 2
    assert "Did you mean shapes?" in capsys.readouterr().err


def test_many_classes_and_absent_ones_fit_on_a_picture(tmp_path: Path) -> None:
    counts = np.eye(60, dtype=int) * 7
    counts[3] = 0
    write_picture(tmp_path / "a.png", counts.tolist(), [f"class $_{i}" for i in range(60)], "title")
    write_picture(tmp_path / "b.png", [[3, 1], [0, 0]], ["a", "b"], "title")
    assert Image.open(tmp_path / "a.png").width > Image.open(tmp_path / "b.png").width
