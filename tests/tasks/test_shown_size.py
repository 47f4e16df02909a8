"""Sizes of pictures: bounded in both directions, whatever the form of an image."""

import tracemalloc

import numpy as np
import pytest

from semiseg.contracts.dataset import DatasetInfo
from semiseg.tasks.samples import cut_panels, render
from semiseg.tasks.shown_size import (
    SAMPLE_PIXELS,
    TALLEST,
    panel_size,
    reduced,
    sample_size,
)

FORMS = [
    (1, 1),
    (8, 8),
    (48, 64),
    (40, 50),
    (6000, 4),
    (4, 6000),
    (60_000, 4),
    (4, 60_000),
    (1, 100_000),
    (1024, 2048),
    (20_000, 20_000),
    (3000, 400),
    (700, 150),
]


@pytest.mark.parametrize(("height", "width"), FORMS)
def test_sizes_are_bounded(height: int, width: int) -> None:
    shown_height, shown_width = panel_size(height, width)
    assert 1 <= shown_height <= TALLEST
    assert 1 <= shown_width <= 640
    if min(height, width) >= 4:
        assert panel_size(shown_height, shown_width) == (shown_height, shown_width)
    kept_height, kept_width = sample_size(height, width)
    assert kept_height * kept_width <= max(SAMPLE_PIXELS, 1)
    assert kept_height <= height
    assert kept_width <= width


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        ((48, 64), (144, 192)),
        ((1024, 2048), (320, 640)),
        ((375, 500), (375, 500)),
        ((6000, 4), (3000, 16)),
        ((4, 6000), (16, 640)),
        ((400, 100), (400, 100)),
    ],
)
def test_proportions_are_kept_but_for_strips(image: tuple[int, int], shown: tuple[int, int]) -> None:
    assert panel_size(*image) == shown


def test_the_nearest_pixels_are_kept() -> None:
    values = np.arange(36).reshape(6, 6)
    assert reduced(values, (2, 3)).tolist() == [[7, 9, 11], [25, 27, 29]]
    assert reduced(values, (6, 6)) is values
    assert reduced(np.array([[1, 2]]), (2, 4)).tolist() == [[1, 1, 2, 2]] * 2
    assert reduced(np.zeros((5, 7, 3)), (2, 2)).shape == (2, 2, 3)


@pytest.mark.parametrize("form", [(60_000, 4), (4, 60_000)])
def test_a_strip_takes_no_more_memory_than_an_ordinary_picture(
    form: tuple[int, int], info: DatasetInfo
) -> None:
    label = np.zeros(form, np.uint8)
    label[: form[0] // 2, : form[1] // 2] = 1
    image, confidence = np.zeros((*form, 3), np.uint8), np.ones(form, np.float32)
    tracemalloc.start()
    picture = render(image, label, label, confidence, info)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(picture.size) < 4000
    assert peak < 2**24
    panels = cut_panels(picture, 4)
    assert panels is not None
    assert len(panels) == 4
