"""ADE20K and COCO in real-layout trees of generated images."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from semiseg.data.ade20k import Ade20k
from semiseg.data.coco import Coco
from semiseg.data.coco_classes import STUFF, STUFF_VALUES, THINGS, UNUSED_VALUES
from semiseg.data.file_faults import BadFilesError, check_files
from semiseg.data.palette import bit_color
from semiseg.errors import UserError
from semiseg.splits.split import make_split

SIZE = (6, 8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def picture(path, seed=0):
    save(path, np.random.default_rng(seed).integers(0, 256, (*SIZE, 3)))


def holding(*values):
    """A mask with these values, and the last one everywhere else."""
    labels = np.full(SIZE, values[-1])
    labels.flat[: len(values)] = values
    return labels


def sha(text, function):
    return function(text).hexdigest()


@pytest.fixture
def ade(tmp_path):
    root = tmp_path / "ade20k" / "ADEChallengeData2016"
    masks = {
        "ADE_train_00000002": holding(0, 1, 150),
        "ADE_train_00000001": holding(3, 0),
        "ADE_val_00000001": holding(7),
    }
    for number, (stem, mask) in enumerate(masks.items()):
        part = "training" if "train" in stem else "validation"
        picture(root / "images" / part / f"{stem}.jpg", number)
        save(root / "annotations" / part / f"{stem}.png", mask)
    return root


@pytest.mark.golden("UniMatch classes")
def test_names_and_colors_of_ade20k(ade):
    info = Ade20k(str(ade)).info
    # The published list has a blank after its eighth name.
    names = [f"{name} " if name == "bed" else name.replace("_", " ") for name in info.classes]
    assert sha("\n".join(names).encode(), hashlib.sha256).startswith("2133f0a0e71146d0")
    colors = bytes(value for color in info.palette for value in color)
    assert sum(colors) == 58427
    assert sha(colors.ljust(768, b"\0"), hashlib.sha1).startswith("e644c86c5d34")
    assert len({*info.classes}) == info.num_classes == 150


@pytest.mark.golden("UniMatch classes")
def test_names_and_colors_of_coco(coco):
    info = Coco(str(coco)).info
    names = "\n".join(info.classes).replace("_", " ").encode()
    assert sha(names, hashlib.sha256).startswith("a1d98324631f1a18")
    assert info.num_classes == 81
    assert info.palette == tuple(bit_color(label) for label in range(81))
    whole = bytes(value for label in range(256) for value in bit_color(label))
    assert sha(whole, hashlib.sha1).startswith("cd59c439a2de")


@pytest.mark.parametrize("level", [0, 1])
def test_ids_of_ade20k_are_sorted(ade, level):
    dataset = Ade20k(str([ade, ade.parent][level]))
    assert dataset.ids("train") == ("ADE_train_00000001", "ADE_train_00000002")
    assert dataset.ids("val") == ("ADE_val_00000001",)
    assert dataset.ids("test") == dataset.ids("unlabeled") == ()


def test_official_masks_begin_with_not_labeled(ade):
    for labels in (None, "official"):
        dataset = Ade20k(str(ade), labels=labels)
        assert np.array_equal(dataset.mask("ADE_train_00000002"), holding(255, 0, 149))
        assert np.array_equal(dataset.mask("ADE_val_00000001"), holding(6))
        check_files(dataset, make_split(dataset, "full"))


def test_masks_of_unimatch_are_known_by_their_void(ade):
    train = ade / "annotations" / "training"
    save(train / "ADE_train_00000002.png", holding(255, 0, 149))
    save(train / "ADE_train_00000001.png", holding(3, 0))
    for labels in (None, "train_ids"):
        dataset = Ade20k(str(ade), labels=labels)
        assert np.array_equal(dataset.mask("ADE_train_00000002"), holding(255, 0, 149))
        assert np.array_equal(dataset.mask("ADE_val_00000001"), holding(7))


def test_the_wrong_kind_is_refused_from_the_pixels(ade):
    with pytest.raises(
        UserError, match=r"dataset.labels=train_ids: .*00000002.png holds the value 150.*official"
    ):
        Ade20k(str(ade), labels="train_ids")
    save(ade / "annotations/training/ADE_train_00000002.png", holding(255, 4))
    with pytest.raises(UserError, match=r"dataset.labels=official: .*the value 255.*labels=train_ids"):
        Ade20k(str(ade), labels="official")


def test_a_single_mask_of_the_other_kind_is_refused_by_the_check(ade):
    dataset = Ade20k(str(ade), labels="official")
    save(ade / "annotations/validation/ADE_val_00000001.png", holding(255, 4))
    with pytest.raises(
        BadFilesError, match=r"label 255 .1 pixels. outside the classes; expected 1 to 150, or 0 where"
    ):
        check_files(dataset, make_split(dataset, "full"))


def test_a_missing_folder_of_ade20k_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no ADE20K in .*ADEChallengeData2016/images/training"):
        Ade20k(str(tmp_path))


@pytest.fixture
def coco(tmp_path):
    root = tmp_path / "coco"
    for number, (part, values) in enumerate(
        (("train2017", (255, 0, 80)), ("train2017", (5, 6)), ("val2017", (1, 2)))
    ):
        picture(root / part / f"{number:012d}.jpg", number)
        save(root / "masks" / f"{number:012d}.png", holding(*values))
    return root


def test_void_is_a_class_of_coco(coco):
    dataset = Coco(str(coco))
    assert dataset.ids("train") == ("000000000000", "000000000001")
    assert dataset.ids("val") == ("000000000002",)
    assert dataset.info.classes[:2] == ("void", "person")
    assert np.array_equal(dataset.mask("000000000000"), holding(255, 0, 80))
    check_files(dataset, make_split(dataset, "full"))


def test_the_layout_of_the_download(coco):
    (coco / "images").mkdir()
    for part in ("train2017", "val2017"):
        (coco / part).rename(coco / "images" / part)
    for stem, part in (
        ("000000000000", "train2017"),
        ("000000000001", "train2017"),
        ("000000000002", "val2017"),
    ):
        (coco / "masks" / f"{stem}.png").rename(coco / f"{stem}.png")
        save(coco / "stuffthingmaps" / part / f"{stem}.png", holding(255, 0, 181, 12, 64))
    (coco / "masks").rmdir()
    dataset = Coco(str(coco), labels="stuff")
    expected = [255, 0, 170, STUFF_VALUES.index(12), STUFF_VALUES.index(64)]
    assert np.array_equal(dataset.mask("000000000002"), holding(*expected))
    assert dataset.info.classes[170] == "wood"
    assert dataset.info.classes[79:82] == ("toothbrush", "banner", "blanket")


def test_stuff_has_171_classes_and_182_values():
    assert (len(THINGS), len(STUFF), len(STUFF_VALUES), len(UNUSED_VALUES)) == (80, 91, 171, 11)
    assert len({*THINGS, *STUFF}) == 171
    # Category ids of things and of stuff: person 1, bicycle 2, street sign (given up) 12, stop sign 13, toothbrush 90.
    ids = {name: value + 1 for name, value in zip((*THINGS, *STUFF), STUFF_VALUES, strict=True)}
    known = {
        "person": 1,
        "fire_hydrant": 11,
        "stop_sign": 13,
        "backpack": 27,
        "bottle": 44,
        "tv": 72,
        "book": 84,
    }
    known |= {"toothbrush": 90, "banner": 92, "wood": 182, "grass": 124, "sky-other": 157}
    assert {name: ids[name] for name in known} == known


def test_labels_of_the_wrong_kind_are_refused(coco):
    mask = coco / "masks" / "000000000001.png"
    save(mask, holding(0, 181))
    with pytest.raises(
        UserError, match=r"dataset.labels=things: .*1.png holds the value 181.*dataset.labels=stuff"
    ):
        Coco(str(coco))
    save(coco / "masks" / "000000000000.png", holding(0, 80))
    save(mask, holding(11, 170))
    with pytest.raises(
        UserError, match=r"dataset.labels=stuff: .*holds the value 11.*labels=stuff_train_ids"
    ):
        Coco(str(coco), labels="stuff")
    assert Coco(str(coco), labels="stuff_train_ids").mask("000000000001")[0, 0] == 11


def test_unlabeled2017_has_no_masks(coco):
    with pytest.raises(UserError, match=r"dataset.unlabeled2017"):
        Coco(str(coco), unlabeled2017=True)
    picture(coco / "unlabeled2017" / "000000000008.jpg")
    dataset = Coco(str(coco), unlabeled2017=True)
    assert dataset.ids("unlabeled") == ("000000000008",)
    assert make_split(dataset, "1").unlabeled == ("000000000001", "000000000008")
    assert dataset.mask("000000000008") is None


def test_a_folder_of_masks_elsewhere(coco, tmp_path):
    (coco / "masks").rename(tmp_path / "other")
    with pytest.raises(UserError, match=r"there is no folder of masks: none of .*stuffthingmaps"):
        Coco(str(coco))
    assert Coco(str(coco), masks=str(tmp_path / "other")).mask("000000000001") is not None
