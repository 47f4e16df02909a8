"""The command that looks at a folder of own images and writes its dataset config."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from own_folder import COLORS, GREY, colored, fields, photo, save
from PIL import Image

from semiseg.cli import main
from semiseg.data.folder import Folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(root, *options):
    assert main(["init", str(root), *options]) == 0


def written(name="fields"):
    content = yaml.safe_load(Path(f"dataset/{name}.yaml").read_text(encoding="utf-8"))
    assert content.pop("defaults") == ["folder", "_self_"]
    return content


def dataset(name="fields"):
    return Folder(**written(name))


def test_report_and_config_of_a_plain_folder(here, capsys):
    init(fields(here / "fields"))
    text = capsys.readouterr().out
    for line in (
        "images   8 in images: 8 jpg; 5 have a mask",
        "sizes    8 of 8x6 (width x height)",
        "masks    5 in masks, named as their images; grey PNGs, 4 values",
        "parts    4 labeled to learn from, 1 to validate on, 3 unlabeled",
        "  class_0        0         42.86%             4           1",
        "  (not labeled)  255       12.50%             4           1",
        "dataset/fields.val.txt lists 20% of the labeled images",
        "written  dataset/fields.yaml",
    ):
        assert line in text
    assert written() == {
        "name": "fields",
        "root": str(here / "fields"),
        "images": "images",
        "masks": "masks",
        "classes": ["class_0", "class_1", "class_2"],
        "placeholder_names": True,
        "mask_format": {"kind": "gray"},
        "val": str(here / "dataset/fields.val.txt"),
        "test": None,
    }
    assert (here / "dataset/fields.val.txt").read_text() == "a\n"
    assert "class_0  # 42.86% of the labeled pixels" in (here / "dataset/fields.yaml").read_text()


def test_train_reads_the_config(here, capsys):
    init(fields(here / "my fields", mask=colored()), "--void", "#ffffff")
    capsys.readouterr()
    assert main(["splits", "check", "dataset=my_fields", "split=full", "dataset.skip_bad=true"]) == 0
    text = capsys.readouterr().out
    assert "4 labeled, 3 unlabeled, 1 val" in text
    assert "no class is missing" in text


@pytest.mark.parametrize("mode", [None, "P"])
def test_colors_are_found_and_mapped(here, capsys, mode):
    # Palettes of single masks, as tools that quantize write them, do not agree.
    root = fields(here / "fields", mask=colored(), mode=mode)
    other = np.where(GREY == 2, 0, GREY).astype(np.uint8)
    save(root / "masks" / "e.png", colored(other), mode)
    init(root, "--classes", "soil,weed,wheat", "--void", "#ffffff")
    text = capsys.readouterr().out
    assert "color-coded, 4 colors" in text
    assert "  weed           #00ff80" in text
    assert "  (not labeled)  #ffffff" in text
    assert written()["values"] == ["#000000", "#00ff80", "#804000"]
    assert written()["void"] == ["#ffffff"]
    found = dataset()
    assert found.info.palette[1] == (0, 255, 128)
    np.testing.assert_array_equal(found.mask("a"), np.array([0, 2, 1, 255])[np.minimum(GREY, 3)])


def test_color_pictures_with_equal_channels_are_grey(here):
    init(fields(here / "fields", mask=np.repeat(GREY[..., None], 3, axis=2)))
    assert "values" not in written()
    np.testing.assert_array_equal(dataset().mask("a"), GREY)


def test_colors_that_look_alike_get_others_in_pictures(here):
    init(fields(here / "fields", mask=np.minimum(GREY, 2)[..., None] * np.array([1, 1, 0], np.uint8)))
    assert written()["values"] == ["#000000", "#010100", "#020200"]
    assert dataset().info.palette == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    np.testing.assert_array_equal(dataset().mask("a"), np.minimum(GREY, 2))


def test_palette_masks_show_their_colors(here, capsys):
    root = fields(here / "fields")
    for stem in "abcde":
        picture = Image.fromarray(GREY).convert("P")
        picture.putpalette([channel for index in range(256) for channel in COLORS.get(index, (9, 9, 9))])
        picture.save(root / "masks" / f"{stem}.png")
    init(root)
    text = capsys.readouterr().out
    assert "palette PNGs, 4 values" in text
    assert "  class_1        1         #804000" in text
    assert "values" not in written()


@pytest.mark.parametrize(
    ("found", "options", "values", "count"),
    [
        ([0, 255], (), [0, 255], 2),
        ([0, 1, 255], (), None, 2),
        ([0, 1, 3], (), None, 4),
        ([1, 2, 3], (), [1, 2, 3], 3),
        ([0, 100, 200, 255], (), [0, 100, 200, 255], 4),
        ([0, 100, 200, 255], ("--void", "255"), [0, 100, 200], 3),
        ([0, 1, 2, 11], ("--void", "11"), None, 3),
        ([0, 1], ("--classes", "a,b,c"), None, 3),
        ([0, 7], ("--classes", "a,b"), [0, 7], 2),
        ([0, 7], ("--classes", "a=7,b=0"), [7, 0], 2),
        ([0, 7, 255], ("--classes", "a=7,b=0,c=9"), [7, 0, 9], 3),
    ],
)
def test_numbers_become_classes(here, found, options, values, count):
    init(fields(here / "fields", mask=np.resize(np.array(found, np.uint8), (6, 8))), *options)
    content = written()
    assert (content.get("values"), len(content["classes"])) == (values, count)
    labels = set(np.unique(dataset().mask("a")).tolist())
    assert labels <= {*range(count), 255}


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        ("{}.jpg", "{}.png", {"images": ".", "masks": "."}),
        ("{}.png", "{}_mask.png", {"images": ".", "masks": ".", "mask_suffix": "_mask"}),
        ("{}_sat.jpg", "{}_mask.png", {"images": ".", "image_suffix": "_sat", "mask_suffix": "_mask"}),
        ("data/rgb/{}.png", "data/gt/{}.png", {"images": "data/rgb", "masks": "data/gt"}),
        ("rgb/{}.jpg", "gt/{}_labels.png", {"images": "rgb", "masks": "gt", "mask_suffix": "_labels"}),
        ("{}.jpg", "labels/{}.png", {"images": ".", "masks": "labels"}),
        ("a/b/{}.jpg", "a/b/annotations/{}.png", {"images": "a/b", "masks": "a/b/annotations"}),
        ("images/deep/{}.jpg", "masks/deep/{}.png", {"images": "images", "masks": "masks"}),
    ],
)
def test_layouts(here, images, masks, expected):
    init(fields(here / "fields", images, masks))
    content = written()
    assert {key: content[key] for key in expected} == expected
    assert "mask_suffix" in expected or "mask_suffix" not in content
    found = dataset()
    assert [len(found.ids(part)) for part in ("train", "val", "test", "unlabeled")] == [4, 1, 0, 3]


@pytest.mark.parametrize(
    ("images", "masks"), [("{}/images/{}.jpg", "{}/masks/{}.png"), ("{}/{}.jpg", "{}_gt/{}.png")]
)
def test_parts_in_folders(here, capsys, images, masks):
    for part, stem in (("train", "a"), ("train", "b"), ("valid", "c")):
        photo(here / "fields" / images.format(part, stem))
        save(here / "fields" / masks.format(part, stem), GREY)
    photo(here / "fields" / images.format("test", "d"))
    init(here / "fields")
    assert "the images of test have no masks: they count as unlabeled" in capsys.readouterr().out
    content = written()
    assert (content["val"], content["test"], "*" in content["images"]) == ("valid", None, True)
    assert dataset().ids("val") == ("valid/c",)
    assert dataset().ids("unlabeled") == ("test/d",)


def test_val_list_and_given_parts(here):
    root = fields(here / "fields")
    (root / "val.txt").write_text("a\nb\n")
    (root / "test.txt").write_text("c\n")
    init(root)
    assert (written()["val"], written()["test"]) == ("val", "test")
    assert dataset().ids("val") == ("a", "b")
    init(root, "--val", "0.5", "--name", "half")
    assert dataset("half").ids("val") == ("a", "d")


def test_new_masks_do_not_change_what_is_validated_on(here, capsys):
    root = fields(here / "fields", labeled="fghij")
    init(root)
    assert dataset().ids("val") == ("f",)
    fields(root, labeled="abcde", unlabeled="")
    assert (len(dataset().ids("train")), dataset().ids("val")) == (9, ("f",))
    init(root, "--force")
    assert "those of dataset/fields.val.txt, as before" in capsys.readouterr().out
    assert dataset().ids("val") == ("f",)
    init(root, "--force", "--val", "0.2")
    assert dataset().ids("val") == ("a", "f")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.txt", "soil\nweed\nwheat\n"),
        ("class_dict.csv", "name,r,g,b\nsoil,0,0,0\nwheat,128,64,0\nweed,0,255,128\n"),
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nsoil:0,0,0::\nweed:0,255,128::\nwheat:128,64,0::\n",
        ),
        ("label_colors.txt", "0 0 0\tsoil\n128 64 0\twheat\n0 255 128\tweed\n"),
        ("names.txt", "soil #000000\nweed #00FF80\nwheat #804000\n"),
    ],
)
def test_names_that_are_written_down(here, file, text):
    root = fields(here / "fields", mask=colored())
    (root / file).write_text(text)
    init(root, "--void", "#ffffff")
    content = written()
    assert dict(zip(content["classes"], content["values"], strict=True)) == {
        "soil": "#000000",
        "weed": "#00ff80",
        "wheat": "#804000",
    }


def test_colors_of_voc_keep_their_order(here):
    voc = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 255: (224, 224, 192)}
    pixels = np.array([voc[int(value)] for value in GREY.ravel()], np.uint8).reshape(*GREY.shape, 3)
    init(fields(here / "fields", mask=pixels))
    assert written()["values"] == ["#000000", "#800000", "#008000"]
    assert written()["void"] == ["#e0e0c0"]
    np.testing.assert_array_equal(dataset().mask("a"), GREY)


def test_other_masks_of_the_same_images_are_named(here, capsys):
    root = fields(here / "fields")
    for stem in "abcde":
        save(root / "masks_coarse" / f"{stem}.png", np.minimum(GREY, 1))
    init(root)
    assert "other masks of the same images: --images images --masks masks_coarse" in capsys.readouterr().out
    init(root, "--masks", "masks_coarse", "--name", "coarse")
    assert len(written("coarse")["classes"]) == 2


def test_several_kinds_of_masks_in_one_folder(here, capsys):
    root = fields(here / "fields", "rgb/{}_rgb.png", "gt/{}_gt_ids.png")
    for stem in "abcde":
        save(root / "gt" / f"{stem}_gt_color.png", colored())
    init(root)
    other = "--images rgb --masks gt --image-suffix=_rgb --mask-suffix=_gt_color"
    assert f"other masks of the same images: {other}" in capsys.readouterr().out
    assert (written()["mask_suffix"], len(written()["classes"])) == ("_gt_ids", 3)
    init(root, "--mask-suffix=_gt_color", "--force")
    assert (written()["mask_suffix"], len(written()["values"])) == ("_gt_color", 4)
    assert dataset().ids("unlabeled") == ("x", "y", "z")


def test_made_up_names_are_marked_until_somebody_writes_others(here):
    root = fields(here / "fields")
    init(root)
    assert dataset().info.placeholder_names
    assert not Folder(**{**written(), "classes": ["soil", "weed", "wheat"]}).info.placeholder_names
    assert Folder(**{**written(), "classes": ["soil", "class_1", "wheat"]}).info.placeholder_names
    init(root, "--classes", "soil,weed,wheat", "--force")
    assert "placeholder_names" not in written()
    assert not dataset().info.placeholder_names
