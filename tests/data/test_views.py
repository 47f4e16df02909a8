"""Views: what they hold, and that draws depend on the key alone."""

from typing import Any

import numpy as np
import pytest

from semiseg.contracts.feeding import View
from semiseg.data.augment import Photometric
from semiseg.data.cutout import Cutout
from semiseg.data.geometry import LongSide, RandomCrop
from semiseg.data.overlap import OverlapPair
from semiseg.data.views import OverlapCrops, Strong, Weak, WeakStrong
from semiseg.errors import UserError

A = pytest.importorskip("albumentations")

IMAGE = np.random.RandomState(0).randint(0, 256, (60, 80, 3)).astype(np.uint8)
LABEL = np.random.RandomState(1).randint(0, 4, (60, 80)).astype(np.uint8)
CROP = RandomCrop(32)


def jitter() -> Photometric:
    return Photometric([A.ColorJitter(p=1)])


def views() -> dict[str, View]:
    return {
        "weak": Weak(CROP),
        "strong": Strong(CROP, jitter(), Cutout(p=1)),
        "weak_strong": WeakStrong(CROP, jitter(), Cutout(p=1), k=2),
        "overlap": OverlapCrops(OverlapPair(32), jitter()),
    }


@pytest.mark.parametrize("name", ["weak", "strong", "weak_strong", "overlap"])
def test_draws_are_a_function_of_the_key(name: str) -> None:
    view = views()[name]
    keys = [(seed, "step", iteration, "s", 0) for seed in range(2) for iteration in range(4)]
    first = [view(IMAGE, LABEL, key) for key in keys]
    again = [views()[name](IMAGE, LABEL, key) for key in reversed(keys)][::-1]
    for one, other in zip(first, again, strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[field], other[field]) for field in one)
    field = "image" if name != "overlap" else "image_1"
    assert len({sample[field].tobytes() for sample in first}) == len(keys)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("weak", {"image", "label"}),
        ("strong", {"image", "label"}),
        ("weak_strong", {"image", "label", "strong_1", "strong_2"}),
        ("overlap", {"image_1", "image_2", "box_1", "box_2", "flip_1", "flip_2"}),
    ],
)
def test_fields(name: str, fields: set[str]) -> None:
    view = views()[name]
    assert set(view(IMAGE, LABEL, (0,))) == fields
    unlabeled = view(IMAGE, None, (0,))
    assert set(unlabeled) == fields - {"label"}
    for field, value in unlabeled.items():
        if "image" in field or "strong" in field:
            assert (value.shape, value.dtype) == ((32, 32, 3), np.uint8)


def test_strong_images_share_the_crop_of_the_weak_one() -> None:
    sample = WeakStrong(CROP, None, Cutout(p=1), k=2)(IMAGE, LABEL, (0,))
    erased = [(sample[f"strong_{number}"] != sample["image"]).any(-1) for number in (1, 2)]
    assert all(0 < area.mean() < 0.5 for area in erased)
    assert not np.array_equal(*erased)
    weak = Weak(CROP)(IMAGE, LABEL, (0,))
    assert np.array_equal(sample["image"], weak["image"])
    assert np.array_equal(sample["label"], weak["label"])


def padded_views(valid: bool) -> dict[str, View]:
    """All views of crops that are larger than the image and padded with black."""
    crop = RandomCrop(96, pad_color=(0, 0, 0))
    pair = OverlapPair(96, LongSide(None, 1.0, 1.0), pad_color=(0, 0, 0))
    return {
        "weak": Weak(crop, valid),
        "strong": Strong(crop, None, Cutout(p=1, noise=(1, 255)), valid),
        "weak_strong": WeakStrong(crop, jitter(), None, 2, valid),
        "overlap": OverlapCrops(pair, None, valid),
    }


@pytest.mark.parametrize("name", ["weak", "strong", "weak_strong", "overlap"])
@pytest.mark.parametrize("label", [LABEL, None], ids=["labeled", "unlabeled"])
def test_views_tell_their_padding_on_request(name: str, label: Any) -> None:
    image = np.maximum(IMAGE, 1)
    for seed in range(4):
        plain = padded_views(False)[name](image, label, (seed,))
        told = padded_views(True)[name](image, label, (seed,))
        added = told.keys() - plain.keys()
        assert added == ({"valid_1", "valid_2"} if name == "overlap" else {"valid"})
        assert all(np.array_equal(told[field], values) for field, values in plain.items())
        for field in added:
            assert told[field].dtype == bool
            assert told[field].sum() == 60 * 80
            if name != "strong":  # noise covers padding as well
                assert np.array_equal(told[field], told[field.replace("valid", "image")].any(-1))


def test_what_cutout_erases_stays_valid() -> None:
    for seed in range(4):
        data = padded_views(True)["strong"](IMAGE, LABEL, (seed,))
        assert (data["label"][~data["valid"]] == 255).all()
        assert (data["label"][data["valid"]] == 255).any()


def test_overlap_crops_change_colors_apart() -> None:
    plain = OverlapCrops(OverlapPair(32))(IMAGE, None, (0,))
    changed = OverlapCrops(OverlapPair(32), jitter())(IMAGE, None, (0,))
    for field in ("box_1", "box_2", "flip_1", "flip_2"):
        assert np.array_equal(plain[field], changed[field])
    for field in ("image_1", "image_2"):
        assert not np.array_equal(plain[field], changed[field])
    assert plain["box_1"].dtype == np.int64
    assert plain["flip_1"].dtype == bool


@pytest.mark.parametrize(
    "build",
    [
        lambda moved: WeakStrong(CROP, moved),
        lambda moved: OverlapCrops(OverlapPair(32), moved),
        lambda moved: Strong(CROP, moved, valid=True),
    ],
    ids=["weak_strong", "overlap", "strong with padding"],
)
def test_views_that_compare_pixels_refuse_transforms_that_move_them(build: Any) -> None:
    with pytest.raises(UserError, match="HorizontalFlip move pixels"):
        build(Photometric([A.HorizontalFlip()]))


def test_a_strong_image_is_the_least() -> None:
    with pytest.raises(UserError, match="k=0; expected"):
        WeakStrong(CROP, k=0)
