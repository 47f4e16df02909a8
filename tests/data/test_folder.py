"""Own images and masks."""

import numpy as np
import pytest
from PIL import Image

from semiseg.data.file_faults import check_files
from semiseg.data.folder import Folder
from semiseg.errors import UserError
from semiseg.splits.split import make_split

CLASSES = ["ground", "road", "tree"]


def image(path, size=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 9, np.uint8)).save(path)


def mask(path, values=(0, 1, 2, 255), size=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.resize(np.array(values, np.uint8), size)).save(path)


@pytest.fixture
def tree(tmp_path):
    """Labeled a to j, unlabeled x and y, no list."""
    for stem in "abcdefghij":
        image(tmp_path / "images" / f"{stem}.jpg")
        mask(tmp_path / "masks" / f"{stem}.png")
    for stem in "xy":
        image(tmp_path / "images" / f"{stem}.png")
    return tmp_path


def folder(tree, **arguments):
    return Folder(str(tree), classes=CLASSES, **arguments)


def test_share_of_validation_images(tree):
    dataset = folder(tree, val=0.2)
    assert dataset.ids("val") == ("a", "f")
    assert dataset.ids("train") == tuple("bcdeghij")
    assert dataset.ids("unlabeled") == ("x", "y")
    assert dataset.ids("test") == ()
    assert set(np.unique(dataset.mask("b"))) == {0, 1, 2, 255}
    assert dataset.mask("x") is None
    assert dataset.files("x")[1] is None


def test_full_split_labels_what_has_a_mask(tree):
    dataset = folder(tree, val=0.2)
    split = make_split(dataset, "full")
    assert split.unlabeled == ("x", "y")
    assert check_files(dataset, split).labeled_images == (8, 8, 8)


def test_lists(tree):
    (tree / "val.txt").write_text("images/b.jpg\r\nc\n")
    (tree / "test.txt").write_text("d\n")
    (tree / "train.txt").write_text("j\na\n")
    dataset = folder(tree)
    assert dataset.ids("val") == ("b", "c")
    assert dataset.ids("test") == ("d",)
    assert dataset.ids("train") == ("j", "a")
    assert dataset.ids("unlabeled") == tuple("efghixy")


def test_share_is_taken_of_what_lists_leave(tree):
    (tree / "test.txt").write_text("a\nb\n")
    dataset = folder(tree, val=0.25)
    assert dataset.ids("val") == ("c", "g")
    assert dataset.ids("test") == ("a", "b")


def test_subfolders(tmp_path):
    for part, stems in (("train", "ab"), ("val", "c"), ("test", "d")):
        for stem in stems:
            image(tmp_path / "images" / part / f"{stem}.png")
            mask(tmp_path / "masks" / part / f"{stem}.png")
    dataset = folder(tmp_path)
    assert dataset.ids("train") == ("train/a", "train/b")
    assert dataset.ids("val") == ("val/c",)
    assert dataset.ids("test") == ("test/d",)


def test_unlabeled_images_elsewhere(tree, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "raw"
    image(other / "a.jpg")
    image(other / "deep" / "b.jpg")
    dataset = folder(tree, val=0.2, unlabeled=str(other))
    assert dataset.ids("unlabeled") == ("x", "y", "raw/a", "raw/deep/b")
    assert dataset.image("raw/a").shape == (6, 8, 3)
    assert dataset.mask("raw/a") is None
    inside = folder(tree, val=0.2, unlabeled="images")
    assert inside.ids("unlabeled") == ("x", "y")
    with pytest.raises(UserError, match=r"dataset\.unlabeled is no folder: .*nowhere"):
        folder(tree, val=0.2, unlabeled="nowhere")


def test_folders_elsewhere_suffix_and_void(tree):
    (tree / "masks").rename(tree / "labels")
    for path in (tree / "labels").iterdir():
        mask(path.with_name(f"{path.stem}_mask.png"), values=(0, 7, 2))
        path.unlink()
    dataset = folder(tree, val=0.2, masks=str(tree / "labels"), mask_suffix="_mask", void=[7])
    assert set(np.unique(dataset.mask("a"))) == {0, 2, 255}


def test_listed_image_has_to_have_a_mask(tree):
    (tree / "val.txt").write_text("a\nx\n")
    dataset = folder(tree)
    with pytest.raises(UserError, match=r"x\.png \(id x\): mask missing"):
        check_files(dataset, make_split(dataset, "full"))


def test_mask_without_image_is_named(tree):
    (tree / "images" / "b.jpg").unlink()
    dataset = folder(tree, val=0.2)
    with pytest.raises(UserError, match=r"b\.\* \(id b\): image missing"):
        check_files(dataset, make_split(dataset, "full"))


def test_palette_is_distinct_or_given(tree):
    assert len(set(folder(tree, val=0.2).info.palette)) == 3
    given = folder(tree, val=0.2, palette=[[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert given.info.palette[1] == (4, 5, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ["one"]}, "has 1 names; expected 2 to 255"),
        ({"classes": ["yes", True]}, "class name True is no text in YAML"),
        ({"classes": ["a", "b", "a"]}, "class names occur twice: a"),
        ({"palette": [[0, 0, 0]]}, "has 1 colors for 3 classes"),
        ({"palette": [[0, 0, 0], [1, 1], [0, 0, 256]]}, r"palette color \[1, 1\]"),
        ({"val": 1.5}, "dataset.val=1.5: expected a share between 0 and 1"),
        ({"val": "list.txt"}, r"cannot read the id list .*list\.txt"),
        ({"val": "val"}, r"neither .*val\.txt nor a folder .*dataset\.val=0\.2"),
        ({"void": [2]}, "void value 2 is a class, or no number of 16 bits; expected .* other than 0 to 2"),
        ({"images": "pictures"}, r"no images in .*pictures"),
        ({"masks": "labels"}, r"a\.jpg needs a\.png there, but it holds no pictures"),
        ({"values": [0, 1]}, r"values=\[0, 1\]: expected one entry for each of 3 classes"),
        ({"values": [0, 1, []]}, "expected one entry for each of 3 classes"),
        ({"values": [0, [1, 2], 2]}, "dataset.values and dataset.void name twice: 2"),
        ({"values": [0, 1, 70000]}, "dataset.values has 70000; expected numbers from 0 to 65535"),
        ({"values": [0, 1, "#00ff00"]}, "mix numbers and colors"),
        ({"void": ["#00ff00"]}, "mix numbers and colors"),
        ({"values": ["#000", "#00ff00", "#0000ff"]}, "'#000' is no color; expected .* '#00ff80', in quotes"),
        (
            {"mask_suffix": "_x"},
            r"needs a_x\.png there, but it holds 10 png, for example a\.png.*a\.png are nearest.*mask_suffix",
        ),
    ],
)
def test_faulty_settings_are_refused(tree, arguments, message):
    with pytest.raises(UserError, match=f"(?s){message}"):
        Folder(str(tree), **{"classes": CLASSES, "val": 0.2, **arguments})


def test_nothing_left_to_train_on(tree):
    (tree / "val.txt").write_text("\n".join("abcdefghij"))
    with pytest.raises(UserError, match="no labeled image left for training"):
        folder(tree)


def test_leaks_in_lists_are_refused(tree):
    (tree / "train.txt").write_text("a\nb\n")
    (tree / "val.txt").write_text("b\n")
    with pytest.raises(UserError, match="1 ids both in train and in val: b"):
        folder(tree)


def test_ids_of_two_folders_that_clash(tree):
    image(tree / "images" / "more" / "z.jpg")
    image(tree / "more" / "z.jpg")
    with pytest.raises(UserError, match=r"give the same ids: more/z"):
        folder(tree, val=0.2, unlabeled="more")


def test_missing_root_shows_the_tree(tmp_path):
    with pytest.raises(UserError, match=r"(?s)images/.*masks/.*val\.txt"):
        folder(tmp_path / "nowhere")
