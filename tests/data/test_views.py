"""Views: what they hold, and that draws depend on the key alone."""

from typing import Any

import numpy as np
import pytest

from semiseg.data.augment import Photometric
from semiseg.data.cutout import Cutout
from semiseg.data.geometry import RandomCrop
from semiseg.data.overlap import OverlapPair
from semiseg.data.views import OverlapCrops, Strong, View, Weak, WeakStrong
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
    [lambda moved: WeakStrong(CROP, moved), lambda moved: OverlapCrops(OverlapPair(32), moved)],
    ids=["weak_strong", "overlap"],
)
def test_views_that_compare_pixels_refuse_transforms_that_move_them(build: Any) -> None:
    with pytest.raises(UserError, match="HorizontalFlip move pixels"):
        build(Photometric([A.HorizontalFlip()]))
