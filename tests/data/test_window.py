"""A window of a resized image equals that part of the whole, bit for bit."""

import random
from dataclasses import replace
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from semiseg.data.geometry import LongSide, Placement, RandomCrop, ScaleUniform
from semiseg.data.resize import Interpolation, NearestRule, nearest_sources, resized
from semiseg.data.window import Window, _opencv_span, _rows_first, mirrored, resized_window

SHAPES = ((375, 500), (500, 333), (128, 256), (96, 96), (61, 47))
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


def picture(rng: random.Random, height: int, width: int) -> np.ndarray[Any, Any]:
    state = np.random.RandomState(rng.randrange(2**31))
    return state.randint(0, 256, (height, width, 3)).astype(np.uint8)


def sizes(rng: random.Random, count: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs of an image's size and a new one: common ones, any, and those around Pillow's change of order."""
    found = []
    for _ in range(count):
        kind = rng.randrange(3)
        if kind == 0:
            height, width = rng.choice(SHAPES)
            scale = rng.choice(SCALES)
            found.append(((height, width), (int(height * scale), int(width * scale))))
        elif kind == 1:
            height, width = rng.randint(1, 200), rng.randint(1, 200)
            found.append(((height, width), (rng.randint(1, 300), rng.randint(1, 300))))
        else:
            height, width = rng.randint(40, 160), rng.randint(20, 80)
            new = rng.randint(1, width + 10)
            found.append(((height, width), (max(1, height - 2 * (width - new) + rng.randint(-2, 2)), new)))
    return found


def windows(rng: random.Random, size: tuple[int, int]) -> Window:
    bottom, right = rng.randint(1, size[0]), rng.randint(1, size[1])
    top, left = rng.randint(0, bottom - 1), rng.randint(0, right - 1)
    return Window(top, left, bottom + rng.choice((0, 0, 5)), right)


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
def test_a_window_equals_the_whole(interpolation: Interpolation) -> None:
    rng = random.Random(interpolation)
    for old, new in sizes(rng, 150):
        image = picture(rng, *old)
        label, confidence = image[..., 0].copy(), image[..., 1] / np.float32(255)
        maps = [image, label]
        if not interpolation.startswith("pil"):
            maps += [confidence, image.astype(np.float32)]
        window, mirror = windows(rng, new), rng.random() < 0.5
        for values in maps:
            whole = resized(np.ascontiguousarray(values[:, ::-1]) if mirror else values, new, interpolation)
            expected = whole[window.top : window.bottom, window.left : window.right]
            found = resized_window(values, new, interpolation, window, mirror)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected, err_msg=f"{old} {new} {window} {mirror}")


def test_nearest_pixels_are_those_of_the_libraries() -> None:
    rng = random.Random(0)
    for _ in range(400):
        length, new = rng.randint(1, 2048), rng.randint(1, 4096)
        low, high = (np.arange(length) & 255).astype(np.uint8), (np.arange(length) >> 8).astype(np.uint8)
        for values in (low, high):
            row = Image.fromarray(values[None]).resize((new, 1), Image.Resampling.NEAREST)
            column = Image.fromarray(values[:, None]).resize((1, new), Image.Resampling.NEAREST)
            expected = values[nearest_sources(length, new, "pil_bilinear")]
            np.testing.assert_array_equal(np.asarray(row)[0], expected)
            np.testing.assert_array_equal(np.asarray(column)[:, 0], expected)
            found = cv2.resize(values[None], (new, 1), interpolation=cv2.INTER_NEAREST)[0]
            np.testing.assert_array_equal(found, values[nearest_sources(length, new, "opencv")])


def test_parts_are_used_where_they_can_be() -> None:
    for length, new in ((1024, 2048), (2048, 3072), (1024, 512), (500, 750), (2048, 1536)):
        span = _opencv_span(length, new, 100, 300)
        assert span.new < new
        assert span.kept.stop - span.kept.start == 200
    assert _opencv_span(375, 281, 50, 100).new == 281
    assert _rows_first(375, 500, (281, 375))
    assert _rows_first(500, 375, (800, 600))


def test_mirrored() -> None:
    image = picture(random.Random(0), 7, 9)
    for values in (image, image[..., 0], image.astype(np.float32), image[:5, 2:7]):
        np.testing.assert_array_equal(mirrored(values), values[:, ::-1])


def test_an_empty_window() -> None:
    image = picture(random.Random(0), 7, 9)
    assert resized_window(image, (14, 18), "opencv", Window(14, 0, 15, 5)).size == 0


@pytest.mark.parametrize("rule", get_args(NearestRule))
@pytest.mark.parametrize("flip", ["first", "last", "none"])
def test_labels_take_the_nearest_pixel_of_the_library_that_is_named(rule: NearestRule, flip: Any) -> None:
    """Labels and other maps of a crop, whatever the image is interpolated by; windows are cut first."""
    rng, differing = random.Random(f"{rule} {flip}"), 0
    for old, new in sizes(rng, 100):
        label = picture(rng, *old)[..., 0].copy()
        crop = RandomCrop((rng.randint(1, 90), rng.randint(1, 90)), None, flip)
        resizes = (
            LongSide(None, interpolation="pil_bicubic", label_interpolation=rule),
            ScaleUniform(label_interpolation=rule),
        )
        crop = replace(crop, resize=rng.choice(resizes))
        mirror, top, left = rng.random() < 0.5, rng.randint(0, new[0] - 1), rng.randint(0, new[1] - 1)
        mirror = mirror and flip != "none"
        placement = Placement(crop, new, top, left, mirror)
        before = label[:, ::-1] if mirror and flip == "first" else label
        whole = libraries_nearest(np.ascontiguousarray(before), new, rule)
        window = whole[top : top + crop.size[0], left : left + crop.size[1]]
        expected = np.full(crop.size, 255, np.uint8)
        expected[: window.shape[0], : window.shape[1]] = window
        if mirror and flip == "last":
            expected = expected[:, ::-1]
        np.testing.assert_array_equal(placement.map(label, 255), expected, err_msg=f"{old} {new}")
        confidence = placement.map(label.astype(np.float32), 255)
        np.testing.assert_array_equal(confidence, expected)
        differing += not np.array_equal(resized(label, new, "pil_bilinear"), resized(label, new, "opencv"))
    assert differing > 20


def libraries_nearest(label: np.ndarray[Any, Any], new: tuple[int, int], rule: NearestRule) -> Any:
    """Resize with the library itself."""
    if rule == "opencv":
        return cv2.resize(label, new[::-1], interpolation=cv2.INTER_NEAREST)
    if rule == "pillow":
        return np.asarray(Image.fromarray(label).resize(new[::-1], Image.Resampling.NEAREST))
    return F.interpolate(torch.from_numpy(label)[None, None].float(), new, mode="nearest")[0, 0].numpy()


def test_without_a_rule_of_their_own_labels_follow_the_image() -> None:
    label = picture(random.Random(3), 33, 47)[..., 0].copy()
    for interpolation in get_args(Interpolation):
        placement = Placement(
            RandomCrop((20, 61), LongSide(interpolation=interpolation)), (20, 61), 0, 0, False
        )
        np.testing.assert_array_equal(placement.map(label, 255), resized(label, (20, 61), interpolation))
