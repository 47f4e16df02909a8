import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import semiseg
from semiseg.data.shapes import Shapes
from semiseg.errors import UserError
from semiseg.runs.predictor import of_run
from semiseg.runs.use import open_run
from semiseg.tasks.evaluate import evaluate


@pytest.fixture(scope="module")
def predictor(varied_run):
    return semiseg.load(varied_run, device="cpu")


@pytest.fixture(scope="module")
def image():
    return Shapes(train=4, val=1, test=1, size=64).image("train-0001")


@pytest.mark.parametrize(
    ("way", "precision"),
    [
        ({}, "fp32"),
        ({}, "bf16"),
        ({"pad": "multiple", "pad_to": 32}, "fp32"),
        ({"pad": "size", "pad_to": 60}, "bf16"),
        ({"pad": "center", "pad_to": 60, "pad_value": "reflect", "scales": [0.5, 1.0], "flip": True}, "fp32"),
        ({"mode": "slide", "window": 20, "scales": [1.5], "flip": True}, "fp32"),
    ],
)
def test_the_pixels_are_those_that_eval_counts(varied_run, predictor, way, precision):
    dataset, split = open_run(varied_run).data()
    settings = dataclasses.replace(predictor.settings, **way)
    seen = {}
    evaluate(
        predictor.network,
        dataset,
        split.val,
        settings,
        predictor.device,
        precision=precision,
        watch=lambda ids, labels, truth: seen.update(zip(ids, labels.clone(), strict=True)),
    )
    assert len(set(torch.stack([*seen.values()]).flatten().tolist())) >= 4
    applied = dataclasses.replace(predictor, settings=settings, precision=precision)
    assert set(seen) == set(split.val)
    for image_id, labels in seen.items():
        np.testing.assert_array_equal(applied.predict(dataset.image(image_id)).label, labels.numpy())


def test_files_pictures_and_arrays_give_the_same(predictor, image, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(image).save(path)
    expected = predictor.predict(image)
    assert (expected.label.shape, expected.label.dtype) == ((64, 64), np.uint8)
    assert (expected.confidence.shape, expected.confidence.dtype) == ((64, 64), np.float32)
    assert expected.confidence.min() >= 1 / len(predictor.classes) - 1e-6
    for given in (path, str(path), Image.open(path)):
        found = predictor.predict(given)
        np.testing.assert_array_equal(found.label, expected.label)
        np.testing.assert_array_equal(found.confidence, expected.confidence)
        np.testing.assert_array_equal(found.image, image)
    assert expected.classes == predictor.classes == Shapes(train=4, val=1, test=1).info.classes
    assert expected.palette == predictor.palette


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (7, 5), (200, 31)])
def test_pictures_of_any_size(predictor, size):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for way in (predictor, predictor.applied(scales=[0.5, 1], flip=True), predictor.applied(tile=48)):
        assert way.predict(noise).label.shape == size
    assert predictor.applied(mode="slide", window=32).predict(noise).confidence.shape == size


def test_rotated_photos_are_predicted_upright(predictor, image, tmp_path):
    path = tmp_path / "photo.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(image[:, :40])).save(path, exif=exif)
    np.testing.assert_array_equal(
        predictor.predict(path).label, predictor.predict(np.ascontiguousarray(image[:, :40])).label
    )


def test_photos_of_a_run_that_ignores_exif_are_predicted_as_stored(varied_run, image, tmp_path, predictor):
    path = tmp_path / "photo.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image[:, :40]).save(path, exif=exif)
    run = open_run(varied_run)
    run = dataclasses.replace(
        run, config={**run.config, "dataset": {**run.config["dataset"], "exif": "ignore"}}
    )
    ignoring = of_run(run, "reported", torch.device("cpu"), predictor.settings)
    expected = predictor.predict(np.ascontiguousarray(image[:, :40])).label
    np.testing.assert_array_equal(ignoring.predict(path).label, expected)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(ignoring.predict(opened).label, expected)


def test_pictures_of_the_prediction(predictor, image, tmp_path):
    prediction = predictor.predict(image)
    prediction.indexed().save(tmp_path / "label.png")
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "label.png")), prediction.label)
    colors = np.array(Image.open(tmp_path / "label.png").convert("RGB"))
    np.testing.assert_array_equal(colors, np.array(predictor.palette, np.uint8)[prediction.label])
    np.testing.assert_array_equal(np.array(prediction.overlay(0)), image)
    np.testing.assert_array_equal(np.array(prediction.overlay(1)), colors)
    for bits, largest in ((8, 255), (16, 65535)):
        prediction.gray(bits).save(tmp_path / "gray.png")
        stored = np.array(Image.open(tmp_path / "gray.png"))
        np.testing.assert_allclose(stored / largest, prediction.confidence, atol=0.5 / largest + 1e-6)


def test_large_pictures_are_cut(predictor):
    assert predictor.cuts(4001, 4000)
    assert not predictor.cuts(4000, 4000)
    assert not predictor.applied(tile=0).cuts(100_000, 100_000)
    assert predictor.applied(tile=100).cuts(101, 10)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ({"overlap": 10}, "goes with the size of a tile"),
        ({"tile": 4}, "tiles of 4 pixels"),
        ({"mode": "sliding"}, r"mode(.|\n)*expected one of: whole, slide"),
        ({"window": 32}, "whole images have none"),
        ({"mode": "slide", "window": 0}, r"window(.|\n)*of at least 1"),
        ({"scales": []}, r"scales(.|\n)*above 0"),
    ],
)
def test_ways_that_cannot_be(predictor, way, message):
    with pytest.raises(UserError, match=message):
        predictor.applied(**way)


def test_runs_that_resize_their_images_are_never_cut(predictor):
    resizing = dataclasses.replace(
        predictor, settings=dataclasses.replace(predictor.settings, resize_to=[32, 64])
    )
    assert not resizing.cuts(100_000, 100_000)
    assert resizing.predict(np.zeros((50, 60, 3), np.uint8)).label.shape == (50, 60)
    with pytest.raises(UserError, match="resizes every picture to 64x32"):
        resizing.applied(tile=100)


def test_a_run_on_halved_images_sees_pictures_halved(predictor, image):
    halving = dataclasses.replace(predictor, half_size=True)
    small = np.floor(image.reshape(32, 2, 32, 2, 3).mean((1, 3)) + 0.5).astype(np.uint8)
    found, expected = halving.predict(image), predictor.predict(small)
    np.testing.assert_array_equal(found.label[::2, ::2], expected.label)
    np.testing.assert_array_equal(found.confidence[1::2, 1::2], expected.confidence)
    assert halving.predict(image[:63, :1]).label.shape == (63, 1)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (np.zeros((4, 4), np.uint8), r"uint8 \(4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), r"float32 \(4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \(0, 4, 3\)"),
        (7, "picture of int"),
        (Image.new("I;16", (4, 4)), "mode I;16"),
    ],
)
def test_other_pictures_are_refused(predictor, given, found):
    with pytest.raises(UserError, match=found):
        predictor.predict(given)


def test_what_cannot_be_loaded(varied_run, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        semiseg.load(tmp_path)
    with pytest.raises(UserError, match="no checkpoint"):
        semiseg.load(varied_run, checkpoint="none.pt")
    with pytest.raises(UserError, match="device=gpu"):
        semiseg.load(str(varied_run), device="gpu")


def test_the_package_stays_light():
    code = "import sys, semiseg; semiseg.load; assert not {'torch', 'numpy', 'PIL'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_checkpoints(varied_run, image):
    assert semiseg.load(varied_run, "last", "cpu").predict(image).label.shape == (64, 64)
