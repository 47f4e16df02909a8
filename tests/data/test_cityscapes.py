"""Cityscapes in real-layout trees of generated images, and with the real id lists."""

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from semiseg.contracts.dataset import ids_sha256
from semiseg.data.cityscapes import CLASSES, Cityscapes
from semiseg.data.file_faults import BadFilesError, check_files, measurable
from semiseg.errors import UserError
from semiseg.splits.split import make_split

# The 34 labelIds and what they are in training, as the dataset's authors give them.
TRAIN_IDS = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255]
TRAIN_IDS += [6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255, 255, 16, 17, 18]
LABELS = (np.arange(12 * 16).reshape(12, 16) % 34).astype(np.uint8)
PICTURE = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
CITIES = {"train": ("bremen", "aachen"), "val": ("lindau",), "test": ("berlin",)}


def write(root, part, city, number, kinds=("labelIds",)):
    name = f"{city}_{number:06d}_000019"
    for folder in (root / "leftImg8bit" / part / city, root / "gtFine" / part / city):
        folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PICTURE).save(root / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png")
    (root / "gtFine" / part / city / f"{name}_gtFine_polygons.json").write_text("{}")
    for kind in kinds:
        labels = LABELS if kind == "labelIds" else np.asarray(TRAIN_IDS, np.uint8)[LABELS]
        Image.fromarray(labels).save(root / "gtFine" / part / city / f"{name}_gtFine_{kind}.png")


@pytest.fixture
def tree(tmp_path):
    for part, cities in CITIES.items():
        for city in cities:
            for number in (1, 0):
                write(tmp_path, part, city, number)
    return tmp_path


TRAIN = ("aachen/aachen_000000_000019", "aachen/aachen_000001_000019")
TRAIN += ("bremen/bremen_000000_000019", "bremen/bremen_000001_000019")


def test_ids_are_sorted_by_city_and_name(tree):
    dataset = Cityscapes(str(tree))
    assert dataset.ids("train") == TRAIN
    assert dataset.ids("val") == ("lindau/lindau_000000_000019", "lindau/lindau_000001_000019")
    assert dataset.ids("test") == ("berlin/berlin_000000_000019", "berlin/berlin_000001_000019")
    assert dataset.ids("unlabeled") == ()
    assert np.array_equal(dataset.image(TRAIN[0]), PICTURE)


def test_label_ids_go_through_the_table(tree):
    dataset = Cityscapes(str(tree))
    assert np.array_equal(dataset.mask(TRAIN[0]), np.asarray(TRAIN_IDS, np.uint8)[LABELS])
    assert dataset.info.classes[13] == "car"
    assert sorted(set(TRAIN_IDS)) == [*range(19), 255]


def test_train_ids_are_taken_where_they_are_there(tree):
    for city, part in (("aachen", "train"), ("bremen", "train"), ("lindau", "val")):
        for number in (0, 1):
            write(tree, part, city, number, ("labelTrainIds",))
    by_id, by_train_id = (Cityscapes(str(tree), labels=kind) for kind in ("labelIds", "labelTrainIds"))
    assert Cityscapes(str(tree)).files(TRAIN[0]) == by_train_id.files(TRAIN[0]) != by_id.files(TRAIN[0])
    assert np.array_equal(by_id.mask(TRAIN[0]), by_train_id.mask(TRAIN[0]))
    by_train_id.files(TRAIN[0])[1].unlink()
    assert Cityscapes(str(tree)).files(TRAIN[0]) == by_id.files(TRAIN[0])


def test_test_images_have_no_masks_and_are_not_measured(tree):
    dataset = Cityscapes(str(tree))
    first = dataset.ids("test")[0]
    assert dataset.files(first)[1] is None
    assert dataset.mask(first) is None
    assert dataset.image(first).shape == (12, 16, 3)
    split = make_split(dataset, "1/2")
    assert len(split.test) == 2
    expected = {"labeled": 2, "unlabeled": 2, "val": 2, "test": 0}
    assert measurable(dataset, split).counts == check_files(dataset, split).split.counts == expected


def test_half_size_is_the_interpolation_of_torch_and_every_second_label(tree):
    half, whole = (Cityscapes(str(tree), half_size=value) for value in (True, False))
    image = torch.from_numpy(PICTURE).permute(2, 0, 1)[None].double()
    exact = F.interpolate(image, (6, 8), mode="bilinear", align_corners=False)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(half.image(TRAIN[0]), np.floor(exact + 0.5).astype(np.uint8))
    labels = torch.from_numpy(whole.mask(TRAIN[0]))[None, None].float()
    nearest = F.interpolate(labels, (6, 8), mode="nearest")[0, 0].numpy()
    assert np.array_equal(half.mask(TRAIN[0]), nearest)
    assert half.mask(TRAIN[0]).flags.c_contiguous
    assert half.mask(half.ids("test")[0]) is None
    check_files(half, make_split(half, "full"))


def test_half_size_of_odd_images_is_refused(tree):
    dataset = Cityscapes(str(tree), half_size=True)
    Image.fromarray(PICTURE[:11]).save(dataset.files(TRAIN[0])[0])
    with pytest.raises(BadFilesError, match=r"16x11 pixels; .*half_size=true expects even"):
        check_files(dataset, make_split(dataset, "full"))


def test_bad_labels_go_through_the_check(tree):
    dataset = Cityscapes(str(tree))
    Image.fromarray(LABELS + 1).save(dataset.files(TRAIN[0])[1])
    dataset.files(TRAIN[2])[1].unlink()
    expected = r"(?s)label 34 \(\d+ pixels\) .*expected 7 to 8, 11 to 13, 17, .*bremen.*mask missing"
    with pytest.raises(BadFilesError, match=expected):
        check_files(dataset, make_split(dataset, "full"))


def test_what_is_missing_is_named(tree, tmp_path, monkeypatch):
    monkeypatch.delenv("SEMISEG_DATA", raising=False)
    with pytest.raises(UserError, match=r"(?s)SEMISEG_DATA are not set.*gtFine/\{train,val\}"):
        Cityscapes()
    with pytest.raises(UserError, match="expected one of: labelTrainIds, labelIds or null"):
        Cityscapes(str(tree), labels="color")
    with pytest.raises(
        UserError, match=r"labels=labelTrainIds: no image has .*; 6 have one of .*labels=labelIds"
    ):
        Cityscapes(str(tree), labels="labelTrainIds")
    (tree / "gtFine").rename(tree / "elsewhere")
    with pytest.raises(UserError, match=r"no training or validation image has a mask in .*gtFine"):
        Cityscapes(str(tree))
    (tree / "leftImg8bit" / "train").rename(tree / "train")
    with pytest.raises(UserError, match=r"no training images in .*train"):
        Cityscapes(str(tree))


@pytest.mark.golden("ST++ metric and palette")
def test_palette():
    colors = list(CLASSES.values())
    assert colors[0] == (128, 64, 128)
    assert colors[12] == (255, 0, 0)
    assert colors[18] == (119, 11, 32)
    assert sum(map(sum, colors)) == 5964


@pytest.fixture(scope="module")
def real_tree(shared_data, tmp_path_factory):
    """The real ids; each file is a hard link to one image or one mask."""
    lists = shared_data("published_splits/cps/city/config_new")
    root = tmp_path_factory.mktemp("cityscapes")
    Image.fromarray(PICTURE).save(root / "image.png")
    Image.fromarray(LABELS).save(root / "mask.png")
    for part in ("train", "val", "test"):
        for line in (lists / f"{part}.txt").read_text().splitlines():
            name = line.split("\t")[0].rsplit("/", 1)[1].removesuffix(".png")
            city = name.split("_")[0]
            image = root / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png"
            mask = root / "gtFine" / part / city / f"{name}_gtFine_labelIds.png"
            for source, path in ((root / "image.png", image), (root / "mask.png", mask)):
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(source, path)
    return root


@pytest.mark.golden("DMT splits")
def test_real_counts_and_order(real_tree):
    dataset = Cityscapes(str(real_tree))
    assert [len(dataset.ids(part)) for part in ("train", "val", "test")] == [2975, 500, 1525]
    assert ids_sha256((*dataset.ids("train"), "")).startswith("5be898907a337d99")
    assert make_split(dataset, "1/8").counts["labeled"] == 372
    assert dataset.mask(dataset.ids("test")[0]) is None


def test_train_extra_joins_the_unlabeled_images(tree):
    with pytest.raises(UserError, match=r"dataset.train_extra=.*no images in .*train_extra"):
        Cityscapes(str(tree), train_extra=True)
    write(tree, "train_extra", "augsburg", 7)
    coarse = tree / "gtCoarse" / "train_extra" / "augsburg"
    coarse.mkdir(parents=True)
    (coarse / "augsburg_000007_000019_gtCoarse_labelIds.png").write_bytes(b"never read")
    extra = ("augsburg/augsburg_000007_000019",)
    for half_size in (False, True):
        dataset = Cityscapes(str(tree), train_extra=True, half_size=half_size)
        assert dataset.ids("unlabeled") == extra
        assert dataset.mask(extra[0]) is None
        split = make_split(dataset, "1/2")
        assert split.unlabeled[-1:] == extra
        assert check_files(dataset, split).split.unlabeled == split.unlabeled
    assert Cityscapes(str(tree)).ids("unlabeled") == ()
