import numpy as np
import pytest
from PIL import Image

from semiseg.apply.mask_coding import mask_coding
from semiseg.cli import main
from semiseg.data.folder import Folder
from semiseg.data.shapes import Shapes
from semiseg.files import read_json

CLASSES = ["rest", "vessel", "bone"]
LABEL = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (20, 30))


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"void": [7]},
        {"values": [10, [255, 3], 20]},
        {"values": [10, 255, 20], "void": [128, 5]},
        {"values": ["#000000", "#ff0000", "#00ff00"], "void": ["#808080"]},
        {"values": ["#000000", ["#ffffff", "#eeeeee"], "#ff00ff"], "void": ["#00ff00"]},
    ],
)
def test_the_dataset_of_the_run_reads_the_masks(own, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    dataset_config = {"classes": CLASSES, "values": None, "void": [], **own}
    for name in ("a", "b"):
        Image.new("RGB", (30, 20)).save(tmp_path / "images" / f"{name}.jpg")
        Image.new("P", (30, 20)).save(tmp_path / "masks" / f"{name}.png")
    probe = Folder(str(tmp_path), classes=CLASSES, val=0.5, **own)
    coding = mask_coding(dataset_config, probe.info)
    if own.get("values") == [10, [255, 3], 20]:
        # No setting names a number for "not labeled" there, so the highest that is no class means it.
        assert (coding.numbers, coding.unlabeled) == ((10, 255, 20), 254)
    for name in ("a", "b"):
        coding.picture(LABEL).save(tmp_path / "masks" / f"{name}.png")
    dataset = Folder(str(tmp_path), classes=CLASSES, val=0.5, **own)
    np.testing.assert_array_equal(dataset.mask("a"), LABEL)


def test_pixels_without_label_have_a_color_of_no_class():
    dataset = {"values": ["#000000", "#ffffff"], "void": []}
    info = Shapes(train=4, val=1, test=1).info
    colors = ((0, 0, 0), (255, 255, 255))
    two = type(info)("two", ("rest", "vessel"), colors)
    assert mask_coding(dataset, two).unlabeled_color == (255, 0, 255)


@pytest.mark.slow
def test_label_writes_the_values_of_the_runs_dataset(tmp_path, capsys, monkeypatch):
    shapes = Shapes(train=6, val=2, test=1, size=32)
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for image_id in shapes.ids("train"):
        Image.fromarray(shapes.image(image_id)).save(tmp_path / "data/images" / f"{image_id}.png")
        mask = shapes.mask(image_id)
        assert mask is not None
        Image.fromarray(np.where(mask > 0, 255, 0).astype(np.uint8)).save(
            tmp_path / "data/masks" / f"{image_id}.png"
        )
    data = ["dataset=folder", f"dataset.root={tmp_path / 'data'}", "dataset.classes=[rest,shape]"]
    own = ["dataset.values=[0,255]", "dataset.val=0.3", "dataset.void=[9]", "split=full", "debug=smoke"]
    run = tmp_path / "run"
    small = ["trainer.crop_size=32", "trainer.threads=1", "method=supervised", f"run_dir={run}"]
    assert main(["train", *data, *own, *small]) == 0
    assert main(["label", str(run), str(tmp_path / "data/images"), "-o", str(tmp_path / "out")]) == 0
    found = {
        value
        for path in (tmp_path / "out/masks").iterdir()
        for value in np.unique(np.array(Image.open(path)))
    }
    assert 9 in found
    assert found <= {0, 255, 9}
    assert read_json(tmp_path / "out/label.json")["mask_values"] == {"rest": 0, "shape": 255}
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "out/masks").iterdir():
        mask = Image.open(path).convert("RGB")  # as editors save it
        mask.paste((224, 224, 192), (4, 4, 16, 16))
        mask.save(path)
    assert main(["init", "out", "--name", "next"]) == 0
    text = capsys.readouterr().out
    assert "#c00000" in next(line for line in text.splitlines() if "(not labeled)" in line)
    next_run = f"run_dir={tmp_path / 'next_run'}"
    assert main(["train", "dataset=next", "split=full", "debug=smoke", *small[:-1], next_run]) == 0
    assert (
        tmp_path / "out/classes.txt"
    ).read_text() == "rest,0,#000000\nshape,255,#e0e0c0\n(not labeled),9,#c00000\n"
