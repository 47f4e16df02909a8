"""VOC 2012 in real-layout trees of generated images, and with the real id lists."""

import logging
import os

import numpy as np
import pytest
from PIL import Image

from semiseg.contracts.dataset import ids_sha256
from semiseg.data.file_faults import BadFilesError, check_files
from semiseg.data.palette import bit_color
from semiseg.data.voc import Voc
from semiseg.errors import UserError
from semiseg.splits.split import make_split

LABELS = (np.indices((6, 8)).sum(0) * 2 % 21).astype(np.uint8)
LABELS[0, :3] = 255
TRAIN = ["2007_000032", "2008_000001"]
AUG = ["2009_000010", "2007_000032", "2008_000001", "2010_000002"]
VAL = ["2011_000003", "2007_000033"]


def save_mask(path, mode="L", labels=LABELS):
    image = Image.fromarray(labels)
    if mode == "P":
        image = Image.fromarray(labels, "P")
        image.putpalette([value for index in range(256) for value in bit_color(index)])
    image.save(path)


@pytest.fixture
def devkit(tmp_path):
    folder = tmp_path / "data" / "VOCdevkit" / "VOC2012"
    lists = folder / "ImageSets" / "Segmentation"
    for below in (
        folder / "JPEGImages",
        folder / "SegmentationClassAug",
        folder / "SegmentationClass",
        lists,
    ):
        below.mkdir(parents=True)
    for stem in {*AUG, *VAL}:
        Image.fromarray(np.full((6, 8, 3), 9, np.uint8)).save(folder / "JPEGImages" / f"{stem}.jpg")
        save_mask(folder / "SegmentationClassAug" / f"{stem}.png")
    for stem in (*TRAIN, *VAL):
        save_mask(folder / "SegmentationClass" / f"{stem}.png", "P")
    for name, ids in (("train", TRAIN), ("trainaug", AUG), ("val", VAL)):
        (lists / f"{name}.txt").write_text("\n".join(ids) + "\n")
    return folder


@pytest.mark.parametrize("level", [0, 1, 2])
def test_root_may_be_any_of_three_folders(devkit, level):
    root = [devkit, *devkit.parents][level]
    dataset = Voc(str(root))
    assert dataset.ids("train") == tuple(sorted(AUG))
    assert dataset.ids("val") == tuple(VAL)
    assert dataset.ids("test") == dataset.ids("unlabeled") == ()
    assert dataset.info.num_classes == 21
    assert dataset.info.classes[0] == "background"
    assert dataset.info.classes[15] == "person"
    assert np.array_equal(dataset.mask("2010_000002"), LABELS)
    check_files(dataset, make_split(dataset, "1/2"))


@pytest.mark.parametrize("folder", ["voc", "VOCdevkit", "VOC2012"])
def test_root_from_the_environment(devkit, tmp_path, monkeypatch, folder):
    base = tmp_path / "sets"
    base.mkdir()
    (devkit if folder == "VOC2012" else devkit.parent).rename(base / folder)
    monkeypatch.setenv("SEMISEG_DATA", str(base))
    assert len(Voc().ids("train")) == 4


def test_masks_of_voc_alone_are_palette_images(devkit):
    dataset = Voc(str(devkit), masks="SegmentationClass", train_set="train")
    assert dataset.ids("train") == tuple(TRAIN)
    assert np.array_equal(dataset.mask("2008_000001"), LABELS)


def test_masks_may_lie_elsewhere(devkit, tmp_path):
    (devkit / "SegmentationClassAug").rename(tmp_path / "masks")
    assert np.array_equal(Voc(str(devkit), masks=str(tmp_path / "masks")).mask("2010_000002"), LABELS)


@pytest.mark.parametrize("name", ["trainaug.txt", "train_aug.txt"])
def test_list_of_paths_and_both_names(devkit, name):
    lists = devkit / "ImageSets" / "Segmentation"
    (lists / "trainaug.txt").unlink()
    lines = [f"/JPEGImages/{stem}.jpg /SegmentationClassAug/{stem}.png" for stem in reversed(AUG[:3])]
    (lists / name).write_text("\r\n".join(lines))
    assert Voc(str(devkit)).ids("train") == tuple(sorted(AUG[:3]))


def test_missing_list_is_derived_from_the_masks_and_said(devkit, caplog):
    (devkit / "ImageSets" / "Segmentation" / "trainaug.txt").unlink()
    (devkit / "SegmentationClassAug" / "._2007_000032.png").write_bytes(b"left over by a file manager")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert Voc(str(devkit)).ids("train") == tuple(sorted(AUG))
    assert len(caplog.records) == 1
    assert "the 4 (10,582 as published) that have a mask in SegmentationClassAug" in caplog.text
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        assert Voc(str(devkit), train_set="train").ids("train") == tuple(TRAIN)
    assert caplog.text == ""


def test_what_is_missing_is_named(devkit, tmp_path):
    lists = devkit / "ImageSets" / "Segmentation"
    with pytest.raises(UserError, match=r"(?s)no VOC 2012 in .*JPEGImages.*ImageSets/Segmentation/"):
        Voc(str(tmp_path))
    with pytest.raises(UserError, match="expected one of: trainaug"):
        Voc(str(devkit), train_set="trainval")
    with pytest.raises(UserError, match=r"no folder of masks .*/nothing"):
        Voc(str(devkit), masks="nothing")
    (lists / "train.txt").unlink()
    with pytest.raises(UserError, match=r"train\.txt is missing"):
        Voc(str(devkit), train_set="train")
    (lists / "val.txt").rename(lists / "elsewhere.txt")
    with pytest.raises(UserError, match=r"(?s)val\.txt is missing\. Expected:.*ImageSets/Segmentation/"):
        Voc(str(devkit))
    (lists / "elsewhere.txt").rename(lists / "val.txt")
    (devkit / "SegmentationClassAug").rename(devkit / "elsewhere")
    with pytest.raises(
        UserError, match=r"holds 4: dataset\.masks=SegmentationClass .*dataset\.train_set=train"
    ):
        Voc(str(devkit))
    (lists / "val.txt").unlink()
    with pytest.raises(UserError, match=r"val\.txt"):
        Voc(str(devkit), masks="elsewhere")


def test_leak_between_the_lists_is_refused(devkit):
    with (devkit / "ImageSets" / "Segmentation" / "trainaug.txt").open("a") as file:
        file.write(f"{VAL[0]}\n")
    with pytest.raises(UserError, match=f"both in train and in val: {VAL[0]}"):
        Voc(str(devkit))


def test_bad_files_go_through_the_check(devkit):
    (devkit / "JPEGImages" / "2008_000001.jpg").unlink()
    save_mask(devkit / "SegmentationClassAug" / "2007_000032.png", labels=LABELS + 1)
    dataset = Voc(str(devkit))
    with pytest.raises(BadFilesError, match=r"(?s)label 21 .*expected 0 to 20, or 255 where not labeled"):
        check_files(dataset, make_split(dataset, "full"))
    kept = Voc(str(devkit), skip_bad=True)
    assert check_files(kept, make_split(kept, "full")).split.labeled == ("2009_000010", "2010_000002")


@pytest.mark.golden("ST++ metric and palette")
def test_palette_of_the_development_kit():
    colors = [bit_color(index) for index in range(256)]
    assert colors[:4] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
    assert colors[15] == (192, 128, 128)
    assert colors[255] == (224, 224, 192)
    assert sum(map(sum, colors)) == 81920
    assert len(set(colors)) == 256


@pytest.fixture(scope="module")
def real_tree(shared_data, tmp_path_factory):
    """The real ids; each file is a hard link to one image or one mask."""
    published = shared_data("published_splits/stpp/pascal")
    clean = [published / "1.4k" / f"{kind}.txt" for kind in ("labeled", "unlabeled")]
    first, rest, val = (
        [
            line.split()[0].removeprefix("JPEGImages/").removesuffix(".jpg")
            for line in path.read_text().splitlines()
        ]
        for path in (*clean, published / "val.txt")
    )
    folder = tmp_path_factory.mktemp("voc") / "VOC2012"
    lists = folder / "ImageSets" / "Segmentation"
    for below in (folder / "JPEGImages", folder / "SegmentationClassAug", lists):
        below.mkdir(parents=True)
    Image.fromarray(np.full((2, 2, 3), 9, np.uint8)).save(folder / "image.jpg")
    Image.fromarray(np.array([[0, 1], [20, 255]], np.uint8)).save(folder / "mask.png")
    for stem in (*first, *rest, *val):
        os.link(folder / "image.jpg", folder / "JPEGImages" / f"{stem}.jpg")
        os.link(folder / "mask.png", folder / "SegmentationClassAug" / f"{stem}.png")
    (lists / "train.txt").write_text("\n".join(first))
    (lists / "val.txt").write_text("\n".join(val))
    return folder


def test_real_counts(real_tree, caplog):
    with caplog.at_level(logging.WARNING):
        derived = Voc(str(real_tree))
    assert "the 10,582 (10,582 as published)" in caplog.text
    assert [len(derived.ids(part)) for part in ("train", "val", "test")] == [10582, 1449, 0]
    assert len(Voc(str(real_tree), train_set="train").ids("train")) == 1464
    split = make_split(derived, "1/8")
    assert split.counts == {"labeled": 1323, "unlabeled": 9259, "val": 1449, "test": 0}


@pytest.mark.golden("DMT splits")
def test_derived_list_is_the_published_base_list(real_tree):
    ids = Voc(str(real_tree)).ids("train")
    (real_tree / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("\n".join(reversed(ids)))
    assert Voc(str(real_tree)).ids("train") == ids
    assert ids_sha256((*ids, "")).startswith("d1326bd532648d73")
    (real_tree / "ImageSets" / "Segmentation" / "trainaug.txt").unlink()


@pytest.mark.slow
def test_real_tree_is_checked(real_tree):
    dataset = Voc(str(real_tree))
    report = check_files(dataset, make_split(dataset, "1/16"))
    assert report.labeled_images[1] == 662
