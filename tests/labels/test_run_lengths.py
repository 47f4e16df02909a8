"""Packed masks: COCO's run lengths and Label Studio's brush."""

import json

import numpy as np
import pytest
from drawn_labels import FILES
from PIL import Image

from semiseg.labels.brush_rle import from_brush, to_brush
from semiseg.labels.run_lengths import coco_runs, from_coco_runs, from_runs


def drawn(count=40):
    generator = np.random.default_rng(0)
    for number in range(count):
        bits = generator.random(generator.integers(1, 40, 2)) < generator.random()
        yield np.kron(bits, np.ones((5, 7), bool)) if number % 2 else bits


def test_compressed_and_other_masks_are_read_as_pycocotools_writes_them():
    mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is in the extra dev")
    for bits in drawn():
        packed = mask.encode(np.asfortranarray(bits.astype(np.uint8)))
        assert (from_coco_runs({**packed, "counts": packed["counts"].decode()}) == bits).all()
        unpacked = mask.decode(mask.frPyObjects(coco_runs(bits), *bits.shape))
        assert (unpacked == bits).all()


def test_masks_of_coco_survive_a_round_trip():
    for bits in drawn():
        assert (from_coco_runs(coco_runs(bits)) == bits).all()


@pytest.mark.parametrize(
    "counts", [";2", ";23000", ";2300099", "", "\x00", "é", [3, 4], [36], [-1, 36], [1.5, 33.5]]
)
def test_masks_of_coco_that_are_damaged_are_refused(counts):
    with pytest.raises(ValueError):
        from_coco_runs({"size": [5, 7], "counts": counts})


def test_runs_begin_with_what_is_not_set():
    assert from_runs([0, 2, 1], 3).tolist() == [True, True, False]


def test_a_brush_survives_a_round_trip():
    for bits in drawn():
        assert (from_brush(to_brush(bits), bits.shape) == bits).all()


def test_a_brush_of_label_studios_own_library_is_read():
    (task, *_) = json.loads((FILES / "label_studio.json").read_text())
    packed = task["annotations"][0]["result"][0]["value"]["rle"]
    expected = np.array(Image.open(FILES / "task-1-annotation-7-by-1-tag-blob-0.png")) > 0
    assert (from_brush(packed, (30, 40)) == expected).all()
    assert expected.sum() == 190


@pytest.mark.parametrize(
    "damage", [lambda rle: rle[:-3], lambda rle: rle[:3], lambda rle: [0, 0, 2, *rle[3:]]]
)
def test_a_brush_that_is_damaged_is_refused(damage):
    with pytest.raises(ValueError):
        from_brush(damage(to_brush(np.eye(9, dtype=bool))), (9, 9))
