import dataclasses

import numpy as np
import pytest
from PIL import Image

from semiseg.tasks.samples import (
    GAP,
    HEADER_HEIGHT,
    colorize,
    render,
    sample_ids,
    split_panels,
    write_samples,
)


def panels(picture, count):
    array = np.asarray(picture)
    width = (array.shape[1] - (count - 1) * GAP) // count
    return [
        array[HEADER_HEIGHT:, index * (width + GAP) : index * (width + GAP) + width] for index in range(count)
    ]


def test_panels_hold_image_truth_prediction_and_confidence(sample, info):
    picture = render(sample.image, sample.truth, sample.prediction, sample.confidence, info)
    image, truth, prediction, confidence = panels(picture, 4)
    factor = image.shape[0] // 40
    assert image.shape[:2] == (40 * factor, 50 * factor)
    assert (image == 77).all()
    assert (truth[: 10 * factor] == 255).all()
    assert (truth[10 * factor :] == (10, 20, 30)).all()
    assert (prediction[:, : 25 * factor] == (10, 20, 30)).all()
    assert (prediction[:, 25 * factor :] == (200, 100, 50)).all()
    assert (confidence[0, 0].tolist(), confidence[-1, -1].tolist()) == ([0, 0, 0], [255, 255, 255])
    header = np.asarray(picture)[:HEADER_HEIGHT]
    assert (header < 128).any()


def test_without_truth_there_are_three_panels(sample, info):
    picture = render(sample.image, None, sample.prediction, sample.confidence, info)
    assert len(panels(picture, 3)) == 3
    assert (
        picture.width < render(sample.image, sample.truth, sample.prediction, sample.confidence, info).width
    )


@pytest.mark.parametrize("truth", [True, False])
def test_a_picture_is_cut_into_its_panels(sample, info, truth):
    shown = sample.truth if truth else None
    picture = render(sample.image, shown, sample.prediction, sample.confidence, info)
    found = split_panels(picture)
    names = ["image", "truth", "prediction", "confidence"] if truth else ["image", "prediction", "confidence"]
    assert list(found) == names
    for name, expected in zip(names, panels(picture, len(names)), strict=True):
        assert np.array_equal(np.asarray(found[name]), expected)


@pytest.mark.parametrize("size", [(1, 1), (100, 100), (640, HEADER_HEIGHT)])
def test_another_picture_has_no_panels(size):
    with pytest.raises(ValueError, match="not a picture"):
        split_panels(Image.new("RGB", size, (90, 90, 90)))


def test_large_images_are_reduced(info):
    label = np.zeros((1024, 2048), np.uint8)
    picture = render(
        np.zeros((1024, 2048, 3), np.uint8), label, label, np.ones((1024, 2048), np.float32), info
    )
    assert picture.size == (4 * 640 + 3 * GAP, 320 + HEADER_HEIGHT)


def test_other_labels_are_white(info):
    label = np.array([[0, 1, 2, 255]], np.uint8)
    assert colorize(label, info).tolist() == [[[10, 20, 30], [200, 100, 50], [255] * 3, [255] * 3]]


def test_files_are_named_by_position_and_id(tmp_path, sample, info):
    paths = write_samples(
        tmp_path / "samples", [sample, dataclasses.replace(sample, id="b", truth=None)], info
    )
    assert [path.name for path in paths] == ["00-val_a_1.png", "01-b.png"]
    assert write_samples(tmp_path / "samples", [sample], info)[0] == paths[0]
    with Image.open(paths[0]) as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("total", "count", "expected"), [(10, 4, (0, 2, 5, 7)), (3, 8, (0, 1, 2)), (0, 8, ())]
)
def test_sample_ids_are_spread(total, count, expected):
    ids = tuple(f"v{index}" for index in range(total))
    assert sample_ids(ids, count) == tuple(f"v{index}" for index in expected)
