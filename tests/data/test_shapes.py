"""The embedded dataset: the same pixels everywhere, all classes, color no giveaway."""

import hashlib
import pickle
import time

import numpy as np
import pytest

from semiseg.data.shapes import Shapes
from semiseg.errors import UserError


def sha16(array):
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("image_id", "image", "mask"),
    [
        ("train-0000", "dba1fad6da569a11", "c1019092b479d130"),
        ("train-0479", "9477efb070301887", "9a3b0183075be0ca"),
        ("val-0000", "852d534f6a79002d", "11bdcfcb8f8d78fd"),
        ("test-0095", "c204ca03cf3530ba", "a2679cd8ccbf24d5"),
    ],
)
def test_pixels_are_pinned(image_id, image, mask):
    dataset = Shapes()
    assert sha16(dataset.image(image_id)) == image
    assert sha16(dataset.mask(image_id)) == mask


def test_default_counts_and_formats():
    dataset = Shapes()
    assert [len(dataset.ids(part)) for part in ("train", "val", "test", "unlabeled")] == [480, 96, 96, 0]
    assert dataset.info.classes == ("background", "disk", "square", "triangle", "ring", "star", "cross")
    assert len(set(dataset.info.palette)) == 7
    image, mask = dataset.image("val-0003"), dataset.mask("val-0003")
    assert (image.shape, image.dtype) == ((96, 96, 3), np.uint8)
    assert (mask.shape, mask.dtype) == ((96, 96), np.uint8)
    assert mask.max() <= 6


def test_an_image_depends_on_seed_and_id_alone():
    few, many = Shapes(train=3, val=0, test=0, cache=0), Shapes(train=20)
    many.image("train-0007")
    assert np.array_equal(few.image("train-0002"), many.image("train-0002"))
    assert not np.array_equal(few.image("train-0002"), few.image("train-0001"))
    assert not np.array_equal(few.image("train-0002"), Shapes(seed=1).image("train-0002"))
    assert not np.array_equal(many.image("train-0002"), many.image("val-0002"))


def test_changing_what_is_returned_changes_nothing():
    dataset = Shapes(train=2)
    before = dataset.image("train-0000")
    dataset.image("train-0000")[:] = 0
    dataset.mask("train-0000")[:] = 9
    assert np.array_equal(dataset.image("train-0000"), before)
    assert dataset.mask("train-0000").max() <= 6


def test_a_worker_gets_the_same_images_without_the_cache():
    dataset = Shapes(train=30)
    drawn = [dataset.image(image_id) for image_id in dataset.ids("train")]
    sent = pickle.dumps(dataset)
    assert len(sent) < 20_000
    received = pickle.loads(sent)
    assert all(
        np.array_equal(image, received.image(i)) for image, i in zip(drawn, dataset.ids("train"), strict=True)
    )


@pytest.mark.parametrize("size", [32, 75, 200, 512])
def test_other_sizes(size):
    dataset = Shapes(train=4, size=size)
    masks = np.stack([dataset.mask(image_id) for image_id in dataset.ids("train")])
    assert dataset.image("train-0003").shape == (size, size, 3)
    assert 0.3 < (masks == 0).mean() < 0.95


def test_every_class_is_common_and_background_the_largest():
    dataset = Shapes(train=100)
    counts = np.bincount(np.concatenate([dataset.mask(i).ravel() for i in dataset.ids("train")]), minlength=7)
    shares = counts / counts.sum()
    assert 0.5 < shares[0] < 0.85
    assert shares[1:].min() > 0.02


def test_color_tells_the_class_only_in_part():
    dataset = Shapes(train=120)
    images = np.concatenate([dataset.image(i).reshape(-1, 3) for i in dataset.ids("train")])
    labels = np.concatenate([dataset.mask(i).ravel() for i in dataset.ids("train")])
    shapes = labels > 0
    coarse = (images[shapes] // 32).astype(np.int64) @ [64, 8, 1]
    histogram = np.zeros((512, 7))
    np.add.at(histogram, (coarse, labels[shapes]), 1)
    best_guess = histogram.max(1).sum() / histogram.sum()
    prior = histogram.sum(0).max() / histogram.sum()
    assert prior + 0.05 < best_guess < 0.9


def test_switches_change_the_picture():
    calm = Shapes(train=1, noise=0, clutter=0)
    assert np.abs(calm.image("train-0000").astype(int) - Shapes(train=1).image("train-0000")).mean() > 1
    with pytest.raises(KeyError):
        calm.image("train-0001")


def test_drawing_is_fast_and_kept():
    dataset = Shapes(train=40)
    start = time.perf_counter()
    for image_id in dataset.ids("train"):
        dataset.image(image_id)
    drawing = time.perf_counter() - start
    start = time.perf_counter()
    for image_id in dataset.ids("train"):
        dataset.mask(image_id)
    assert drawing < 40 * 0.02  # about 1.3 ms each on an idle core
    assert time.perf_counter() - start < drawing / 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": 0}, r"^train=0: expected a whole number of at least 1"),
        ({"val": -1}, r"^val=-1"),
        ({"size": 16}, r"^size=16: expected a whole number of at least 32 and at most 512"),
        ({"own_texture": 1.5}, r"^own_texture=1\.5: expected a number of at least 0 and at most 1"),
        ({"hue_spread": 181}, "hue_spread"),
        ({"noise": 256}, "noise"),
        ({"clutter": -1}, "clutter"),
        ({"cache": -1}, "cache"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Shapes(**arguments)
