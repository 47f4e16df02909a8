"""Random crops and overlapping pairs through their public calls."""

import pickle
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.contracts.dataset import Array
from semiseg.data.geometry import (
    LongSide,
    RandomCrop,
    Resize,
    ScaleChoice,
    ScaleUniform,
)
from semiseg.data.overlap import OverlapPair
from semiseg.data.resize import resized
from semiseg.data.two_sided_scale import ScaleTwoSided
from semiseg.data.views import Weak
from semiseg.errors import UserError

RULES: list[Resize | None] = [
    None,
    ScaleUniform(),
    ScaleUniform(0.5, 1.5, "pil_bilinear"),
    ScaleUniform(0.5, 1.5, "torch"),
    ScaleChoice([0.5, 1, 2.0]),
    LongSide(40),
    LongSide(None, 0.5, 2.0, "pil_bicubic"),
    ScaleTwoSided(0.5, 1.5),
]


def coded(height: int, width: int) -> tuple[Array, Array]:
    """An image whose channels tell row and column, and a label that tells the channels' parity."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([y + 1, x + 1, y * 0 + 7], -1).astype(np.uint8)
    return image, ((y + x) % 2).astype(np.uint8)


@settings(deadline=None, max_examples=150)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    crop=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    resize=st.sampled_from(RULES),
    flip=st.sampled_from(["last", "first", "second", "none"]),
    pad=st.sampled_from(["bottom_right", "centered"]),
    order=st.sampled_from(["xy", "yx"]),
    when=st.sampled_from(["always", "longer", "unfitting"]),
    off_by_one=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_rule_gives_the_crop_size(
    height: int,
    width: int,
    crop: tuple[int, int],
    resize: Resize | None,
    flip: Any,
    pad: Any,
    order: Any,
    when: Any,
    off_by_one: bool,
    seed: int,
) -> None:
    rule = RandomCrop(crop, resize, flip, pad, (9, 8, 7), order, when, off_by_one)
    image, label = coded(height, width)
    before = image.copy()
    result, result_label = rule(image, label, random.Random(seed))
    assert result.shape == (*crop, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert result_label is not None
    assert result_label.shape == crop
    assert np.array_equal(image, before)
    assert ((result == (9, 8, 7)).all(-1) | (result_label != 255)).all()
    alone, nothing = rule(image, None, random.Random(seed))
    assert np.array_equal(alone, result)
    assert nothing is None
    placement = rule.draw(height, width, random.Random(seed))
    assert np.array_equal(placement.valid(), placement.map(np.ones((height, width), np.uint8), 0) == 1)


@pytest.mark.parametrize(("height", "width"), [(2, 1), (1, 2)])
def test_a_window_beyond_a_mirrored_image_is_padding(height: int, width: int) -> None:
    for seed in range(400):
        rule = RandomCrop((1, 1), ScaleUniform(), "second", "bottom_right", (9, 8, 7), "xy", "always", True)
        image, label = coded(height, width)
        result, result_label = rule(image, label, random.Random(seed))
        valid = rule.draw(height, width, random.Random(seed)).valid()
        assert np.array_equal(result_label != 255, valid)
        assert ((result == (9, 8, 7)).all(-1) == ~valid).all()


def test_label_stays_on_its_pixels() -> None:
    image, label = coded(60, 50)
    rule = RandomCrop((40, 70), resize=None)
    for seed in range(20):
        result, result_label = rule(image, label, random.Random(seed))
        assert result_label is not None
        inside = result_label != 255
        assert inside.sum() == 40 * 50
        row, column = result[..., 0].astype(int) - 1, result[..., 1].astype(int) - 1
        assert ((row + column) % 2 == result_label)[inside].all()
        assert (result[~inside] == (124, 116, 104)).all()


@settings(deadline=None, max_examples=80)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    crop=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    seed=st.integers(0, 1000),
)
def test_a_flip_between_resize_and_crop(height: int, width: int, crop: tuple[int, int], seed: int) -> None:
    rule = RandomCrop(crop, ScaleUniform(0.5, 2, "torch"), "second", "centered", (9, 8, 7))
    image, label = coded(height, width)
    placement = rule.draw(height, width, random.Random(seed))
    whole = resized(image, placement.size, "torch"), resized(label, placement.size, "torch")
    if placement.flip:
        whole = whole[0][:, ::-1], whole[1][:, ::-1]
    rows, columns = (
        slice(first, first + side) for first, side in zip((placement.top, placement.left), crop, strict=True)
    )
    fitting = replace(rule, resize=None, flip="none").draw(*whole[1][rows, columns].shape, random.Random(0))
    assert np.array_equal(placement.image(image), fitting.image(whole[0][rows, columns]))
    assert np.array_equal(placement.map(label, 255), fitting.map(whole[1][rows, columns], 255))
    assert np.array_equal(placement.valid(), placement.map(label, 255) != 255)


def test_padding_may_have_a_label() -> None:
    image, label = coded(2, 2)
    for pad_label in (0, 255):
        rule = RandomCrop(6, flip="none", pad="centered", pad_label=pad_label)  # type: ignore[arg-type]
        _, result = rule(image, label + 5, random.Random(0))
        assert result is not None
        assert (result == pad_label).sum() == 32
        assert np.array_equal(result[2:4, 2:4], label + 5)
        data = Weak(rule, valid=True)(image, label, ("key",))
        assert (data["label"][~data["valid"]] == pad_label).all()


def test_two_sided_scales_shrink_as_often_as_they_enlarge() -> None:
    rng, rule = random.Random(0), ScaleTwoSided()
    sides = np.array([rule.size(1000, 1000, rng)[0] for _ in range(2000)])
    assert abs((sides < 1000).mean() - 0.5) < 0.04
    assert max(sides.min() - 500, 2000 - sides.max()) < 10
    assert abs(np.median(sides[sides < 1000]) - 750) < 20
    assert abs(np.median(sides[sides >= 1000]) - 1500) < 40


def test_offsets_and_flips_cover_all_places() -> None:
    image, _ = coded(6, 7)
    rule = RandomCrop((4, 4), resize=None)
    seen = set()
    for seed in range(400):
        result, _ = rule(image, None, random.Random(seed))
        flipped = result[0, 0, 1] > result[0, 1, 1]
        seen.add((int(result[0, 0, 0]), int(result[0].min(0)[1]), bool(flipped)))
    assert len(seen) == 3 * 4 * 2


def test_centered_padding() -> None:
    image, label = coded(3, 4)
    result, result_label = RandomCrop((6, 8), resize=None, flip="none", pad="centered")(
        image, label, random.Random(0)
    )
    assert result_label is not None
    assert np.array_equal(result[1:4, 2:6], image)
    assert int((result_label == 255).sum()) == 48 - 12


def test_crop_off_by_one_loses_a_row() -> None:
    image, _ = coded(5, 4)
    rule = RandomCrop((4, 4), resize=None, flip="none", pad="centered", crop_off_by_one=True)
    lost = [
        seed for seed in range(50) if (rule(image, None, random.Random(seed))[0][-1] == (124, 116, 104)).all()
    ]
    assert lost
    faithful = replace(rule, crop_off_by_one=False)
    assert all((faithful(image, None, random.Random(seed))[0][..., 2] == 7).all() for seed in range(50))


@pytest.mark.parametrize("flip", ["first", "last"])
@pytest.mark.parametrize("pad", ["centered", "bottom_right"])
def test_a_window_of_the_source_is_resized_alone(flip: Any, pad: Any) -> None:
    image, label = coded(20, 30)
    rule = RandomCrop((16, 24), ScaleUniform(0.5, 2.0), flip=flip, pad=pad, window="source")
    sizes, flips = set(), set()
    for seed in range(200):
        placed: Any = rule.draw(20, 30, random.Random(seed))
        sizes.add(placed.window)
        flips.add(placed.flip)
        crop, valid, known = placed.image(image), placed.valid(), placed.map(label, 255)
        assert crop.shape == (16, 24, 3)
        assert valid.shape == known.shape == (16, 24)
        assert valid.dtype == np.bool_
        assert np.array_equal(valid, known != 255)
        inside = placed.window[0] <= 20 and placed.window[1] <= 30
        assert valid.all() or not inside
        assert not valid.all() or placed.window[0] <= 24
        # The first channel tells the row, the second the column: no pixel outside of the window is seen.
        if inside:
            rows, columns = crop[..., 0] - 1, crop[..., 1] - 1
            if placed.flip and flip == "first":
                columns = 29 - columns
            for values, start, length in ((rows, placed.top, 0), (columns, placed.left, 1)):
                assert start <= values.min() <= values.max() < start + placed.window[length]
            assert (int(crop[0, 0, 1]) > int(crop[0, -1, 1])) == placed.flip
    heights = {height for height, _ in sizes}
    assert min(heights) == 8
    assert max(heights) >= 31
    assert flips == {False, True}


def test_long_side_is_relative_to_the_image_where_no_base_is_given() -> None:
    rule = LongSide(None, 0.5, 2.0)
    sizes = {rule.size(30, 60, random.Random(seed)) for seed in range(500)}
    assert {width for _, width in sizes} == set(range(30, 121))
    assert all(height == int(width / 2 + 0.5) for height, width in sizes)


@pytest.mark.parametrize("interpolation", ["opencv", "pil_bilinear", "pil_bicubic"])
def test_labels_are_never_interpolated(interpolation: Any) -> None:
    label = np.random.RandomState(0).choice([0, 3, 255], (31, 17)).astype(np.uint8)
    for size in ((9, 40), (64, 5)):
        result = resized(label, size, interpolation)
        assert result.shape == size
        assert set(np.unique(result)) <= {0, 3, 255}


def test_rules_can_be_pickled() -> None:
    rule = RandomCrop([32, 40], ScaleChoice([1, 2]))
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert rule.size == (32, 40)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomCrop(0), "crop_size"),
        (lambda: RandomCrop([1, 2, 3]), "crop_size"),
        (lambda: RandomCrop(8, pad_color=(0, 0, 256)), "pad_color"),
        (lambda: RandomCrop(8, flip="lst"), "flip=lst: expected one of: last, first, second, none"),
        (lambda: RandomCrop(8, pad="middle"), "pad"),
        (lambda: RandomCrop(8, draw_order="zz"), "draw_order"),
        (lambda: RandomCrop(8, draw_when="never"), "draw_when"),
        (lambda: RandomCrop(8, window="source"), "window=source: needs a resize by a factor"),
        (lambda: RandomCrop(8, LongSide(400), window="source"), "ScaleChoice or ScaleUniform"),
        (lambda: ScaleUniform(2, 1), "low=2"),
        (lambda: ScaleUniform(0, 1), "low=0"),
        (lambda: ScaleUniform(1, 2, "nearest"), "interpolation"),
        (lambda: ScaleChoice([]), "values"),
        (lambda: ScaleChoice([1, -1]), "values"),
        (lambda: LongSide(0), "base=0"),
        (lambda: OverlapPair(100), "the nearest is 96"),
        (lambda: OverlapPair(4), "the nearest is 8"),
        (lambda: OverlapPair(96, iou=(0.9, 0.1)), "iou"),
    ],
)
def test_bad_values_are_explained(build: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()


@settings(deadline=None, max_examples=100)
@given(height=st.integers(8, 200), width=st.integers(8, 200), seed=st.integers(0, 1000))
def test_pairs_agree_on_their_common_part(height: int, width: int, seed: int) -> None:
    image = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)
    pair = OverlapPair(64)(image, random.Random(seed))
    parts = []
    for crop, box, flip in ((pair.image_1, pair.box_1, pair.flip_1), (pair.image_2, pair.box_2, pair.flip_2)):
        assert crop.shape == (64, 64, 3)
        assert all(side % 8 == 0 and 0 <= side <= 64 for side in box)
        upright = crop[:, ::-1] if flip else crop
        parts.append(upright[box[0] : box[2], box[1] : box[3]])
    assert np.array_equal(*parts)


@settings(deadline=None, max_examples=100)
@given(height=st.integers(8, 200), width=st.integers(8, 200), seed=st.integers(0, 1000))
def test_pairs_know_their_padding(height: int, width: int, seed: int) -> None:
    image = np.random.RandomState(seed).randint(1, 256, (height, width, 3)).astype(np.uint8)
    pair = OverlapPair(64, LongSide(None, 0.8, 2.0, "opencv"), pad_color=(0, 0, 0))(
        image, random.Random(seed)
    )
    for valid, crop in ((pair.valid(1), pair.image_1), (pair.valid(2), pair.image_2)):
        assert np.array_equal(valid, crop.any(-1))
