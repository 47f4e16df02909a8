"""Own images in other layouts, and masks whose values or colors stand for classes."""

import numpy as np
import pytest
from PIL import Image

from semiseg.data.file_faults import BadFilesError, check_files
from semiseg.data.folder import Folder
from semiseg.data.store import stored
from semiseg.errors import UserError
from semiseg.splits.split import make_split

CLASSES = ["ground", "road", "tree"]
COLORS = ["#000000", "#804000", "#00ff80"]
GREY = np.array([[0, 0, 1, 1], [2, 2, 255, 255]], np.uint8)


def save(path, values, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values)
    picture = picture.quantize(8) if mode == "P" else picture.convert(mode) if values.ndim == 3 else picture
    picture.save(path)


def image(path):
    save(path, np.full((*GREY.shape, 3), 9, np.uint8))


def colored(colors):
    """GREY with these colors for the labels 0, 1, 2 and 255."""
    table = np.zeros((256, 3), np.uint8)
    table[[0, 1, 2, 255]] = [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in colors]
    return table[GREY]


def pairs(root, mask=GREY, mode="RGB"):
    """Three images with equal masks."""
    for stem in "abc":
        image(root / "images" / f"{stem}.jpg")
        save(root / "masks" / f"{stem}.png", mask, mode)
    return root


def folder(root, **arguments):
    return Folder(str(root), **{"classes": CLASSES, "val": 0.34, **arguments})


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colors_become_labels(tmp_path, mode):
    root = pairs(tmp_path, colored([*COLORS, "#ffffff"]), mode)
    dataset = folder(root, values=["#000000", "#804000", "#00FF80"], void=["#ffffff"])
    np.testing.assert_array_equal(dataset.mask("a"), GREY)
    assert dataset.info.palette == ((0, 0, 0), (128, 64, 0), (0, 255, 128))
    split = make_split(dataset, "full")
    np.testing.assert_array_equal(stored(dataset, split).mask("b"), GREY)
    np.testing.assert_array_equal(
        folder(root, values=["#ffffff", "#804000", "#00ff80"], void=["#000000"]).mask("a"),
        np.array([255, 1, 2, 0], np.uint8)[np.searchsorted([0, 1, 2, 255], GREY)],
    )


def test_values_of_one_class_may_be_several(tmp_path):
    root = pairs(tmp_path, colored([*COLORS, "#ffffff"]))
    merged = folder(root, classes=["ground", "other"], values=["#000000", ["#804000", "#00ff80", "#ffffff"]])
    np.testing.assert_array_equal(merged.mask("a"), np.minimum(GREY, 1))
    assert merged.info.palette == ((0, 0, 0), (128, 64, 0))


def test_stores_of_other_colors_are_apart(tmp_path):
    root = pairs(tmp_path, colored([*COLORS, "#ffffff"]))
    first = folder(root, values=COLORS, void=["#ffffff"])
    stored(first, make_split(first, "full"))
    other = folder(root, values=COLORS[::-1], void=["#ffffff"])
    assert stored(other, make_split(other, "full")).mask("a")[0, 0] == 2


def test_numbers_that_are_no_positions(tmp_path):
    root = pairs(tmp_path, np.where(GREY > 0, 255, 0).astype(np.uint8))
    dataset = folder(root, classes=["rest", "object"], values=[0, 255])
    np.testing.assert_array_equal(dataset.mask("a"), GREY > 0)
    wrong = folder(root, classes=["rest", "object"], values=[[0, 255], 1])
    assert set(np.unique(wrong.mask("a"))) == {0}
    wrong = folder(root, classes=["object", "other"], values=[255, 1])
    with pytest.raises(
        BadFilesError,
        match=r"label 0 \(2 pixels\) outside the classes; expected 1, 255, or 254 where not labeled\n",
    ):
        check_files(wrong, make_split(wrong, "full"))
    spaced = folder(root, values=[0, 7, 9])
    assert set(np.unique(spaced.mask("a"))) == {0, 255}


def test_unknown_colors_are_named(tmp_path):
    root = pairs(tmp_path, colored([*COLORS, "#ff0000"]))
    dataset = folder(root, values=COLORS)
    with pytest.raises(BadFilesError, match=r"color #ff0000 \(2 pixels\) of no class; .* name 4 colors"):
        check_files(dataset, make_split(dataset, "full"))
    noise = np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    for stem in "abc":
        save(root / "masks" / f"{stem}.png", noise)
    with pytest.raises(BadFilesError, match="come from smoothed edges: save masks without antialiasing"):
        check_files(dataset, make_split(dataset, "full"))


def test_color_coded_masks_without_colors_are_refused(tmp_path):
    dataset = folder(pairs(tmp_path, colored([*COLORS, "#ff0000"])))
    with pytest.raises(BadFilesError, match=r"color-coded mask with 4 colors .*semiseg init FOLDER"):
        check_files(dataset, make_split(dataset, "full"))


def test_images_and_masks_in_one_folder(tmp_path):
    for stem in "abc":
        image(tmp_path / f"{stem}.png")
        save(tmp_path / f"{stem}_mask.png", GREY)
    image(tmp_path / "more" / "x.jpg")
    dataset = folder(tmp_path, images=".", masks=".", mask_suffix="_mask")
    assert (dataset.ids("train"), dataset.ids("val")) == (("b", "c"), ("a",))
    assert dataset.ids("unlabeled") == ("more/x",)


def test_one_folder_and_equal_names(tmp_path):
    for stem in "abc":
        image(tmp_path / f"{stem}.jpg")
        save(tmp_path / f"{stem}.png", GREY)
    image(tmp_path / "x.jpg")
    dataset = folder(tmp_path, images=".", masks=".")
    assert dataset.ids("unlabeled") == ("x",)
    np.testing.assert_array_equal(dataset.mask("b"), GREY)
    assert dataset.image("b").shape == (2, 4, 3)


def test_suffix_of_images_and_masks_below_them(tmp_path):
    for stem in "abc":
        image(tmp_path / f"{stem}_sat.jpg")
        save(tmp_path / "truth" / f"{stem}_mask.png", GREY)
    dataset = folder(tmp_path, images=".", masks="truth", image_suffix="_sat", mask_suffix="_mask")
    assert (dataset.ids("train"), dataset.ids("unlabeled")) == (("b", "c"), ())
    image(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg and .*a_sat\.jpg have the same id"):
        folder(tmp_path, images=".", masks="truth", image_suffix="_sat", mask_suffix="_mask")


@pytest.mark.parametrize(
    ("images", "masks"), [("{}/images", "{}/masks"), ("{}", "{}annot"), ("deep/{}/rgb", "deep/gt/{}")]
)
def test_a_star_stands_for_a_folder(tmp_path, images, masks):
    for part, stem in (("train", "a"), ("train", "b"), ("val", "c"), ("test", "d")):
        image(tmp_path / images.format(part) / f"{stem}.png")
        save(tmp_path / masks.format(part) / f"{stem}.png", GREY)
    image(tmp_path / images.format("train") / "x.png")
    dataset = folder(tmp_path, images=images.format("*"), masks=masks.format("*"), val="val")
    assert dataset.ids("train") == ("train/a", "train/b")
    assert (dataset.ids("val"), dataset.ids("test")) == (("val/c",), ("test/d",))
    assert dataset.ids("unlabeled") == ("train/x",)
    np.testing.assert_array_equal(dataset.mask("val/c"), GREY)


def test_no_test_images(tmp_path):
    root = pairs(tmp_path)
    image(root / "images" / "test" / "d.jpg")
    dataset = folder(root, test=None)
    assert (dataset.ids("test"), dataset.ids("unlabeled")) == ((), ("test/d",))


def test_lists_of_bare_names_mean_images_in_subfolders(tmp_path):
    for stem in ("x/a", "x/b", "y/b", "y/c"):
        image(tmp_path / "images" / f"{stem}.jpg")
        save(tmp_path / "masks" / f"{stem}.png", GREY)
    (tmp_path / "val.txt").write_text("a.jpg\nc\n")
    assert folder(tmp_path, val="val").ids("val") == ("x/a", "y/c")
    (tmp_path / "val.txt").write_text("b\n")
    with pytest.raises(UserError, match="line 1: b"):
        folder(tmp_path, val="val")
    (tmp_path / "val.txt").write_text("z/a\n")
    with pytest.raises(UserError, match="line 1: z/a"):
        folder(tmp_path, val="val")
