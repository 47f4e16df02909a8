"""Facts about pictures: equal for equal pixels only, the same with and without a store, computed once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semiseg.contracts.dataset import Split
from semiseg.data import file_inspection, picture_facts, store_files
from semiseg.data.camvid import CamVid
from semiseg.data.file_faults import check_files
from semiseg.data.picture_facts import image_facts, looks, mask_facts, pixel_digest
from semiseg.data.shapes import Shapes
from semiseg.data.store import stored
from semiseg.splits.split import make_split


@pytest.fixture
def dataset(tmp_path: Path) -> CamVid:
    root = tmp_path / "camvid"
    for part, count in (("train", 4), ("val", 2)):
        (root / part).mkdir(parents=True)
        (root / f"{part}annot").mkdir()
        for number in range(count):
            rng = np.random.default_rng(number + 10 * len(part))
            Image.fromarray(rng.integers(0, 256, (12, 20, 3), np.uint8)).save(
                root / part / f"{part}-{number}.png"
            )
            labels = rng.integers(0, 3, (12, 20), np.uint8)
            Image.fromarray(labels).save(root / f"{part}annot" / f"{part}-{number}.png")
    return CamVid(str(root), cache_dir=str(tmp_path / "cache"))


def split_of(dataset: CamVid) -> Split:
    return make_split(dataset, "1/2")


def refuse(*_: Any) -> None:
    raise AssertionError("computed again")


def test_facts_are_those_of_the_pixels(dataset: CamVid) -> None:
    split = split_of(dataset)
    facts = check_files(dataset, split).facts
    assert set(facts) == {*split.labeled, *split.unlabeled, *split.val}
    for image_id, found in facts.items():
        assert found.size == (12, 20)
        assert found.picture == pixel_digest(dataset.image(image_id))
        assert looks([found.small])[1].all()
        mask = dataset.mask(image_id)
        assert mask is not None
        if image_id in split.unlabeled:
            assert found.mask is None
            assert found.counts is None
        else:
            assert found.mask == pixel_digest(mask)
            assert found.counts == {value: int((mask == value).sum()) for value in range(3)}


def test_digests_tell_shape_and_type_too() -> None:
    array = np.zeros((4, 6, 3), np.uint8)
    others = [array.reshape(6, 4, 3), array.astype(np.int8), array + 1, array[:, :, :1]]
    assert len({pixel_digest(each) for each in (array, *others)}) == 5
    assert pixel_digest(np.zeros((4, 12, 3), np.uint8)[:, ::2]) == pixel_digest(array)


@pytest.mark.parametrize("kind", ["gray", "five channels", "16 bits", "float with NaN", "one pixel"])
def test_images_of_any_type_have_facts(kind: str) -> None:
    rng = np.random.default_rng(0)
    image: Any = rng.integers(0, 256, (40, 30, {"gray": 1, "five channels": 5}.get(kind, 3)))
    if kind == "16 bits":
        image = (image * 200).astype(np.uint16)
    elif kind == "float with NaN":
        image = image.astype(np.float32)
        image[:20] = np.nan
    elif kind == "one pixel":
        image = image[:1, :1].astype(np.uint8)
    else:
        image = image.astype(np.uint8)
    facts = image_facts(image)
    assert facts.size == image.shape[:2]
    assert len(facts.small) == 256


def test_a_store_keeps_facts_and_computes_them_once(dataset: CamVid, monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_of(dataset)
    expected = check_files(dataset, split)
    assert check_files(stored(dataset, split), split) == expected
    monkeypatch.setattr(store_files, "pixel_facts", refuse)
    monkeypatch.setattr(picture_facts, "pixel_digest", refuse)
    assert check_files(stored(dataset, split), split) == expected


@pytest.mark.parametrize("filled", [True, False])
def test_a_store_of_an_earlier_version_is_completed_from_its_pixels(
    dataset: CamVid, monkeypatch: pytest.MonkeyPatch, filled: bool
) -> None:
    split = split_of(dataset)
    expected = check_files(dataset, split)
    found = stored(dataset, split)
    listings = sorted(Path(dataset.cache_dir or "").rglob("*-*.json"))
    for path in listings:
        content = json.loads(path.read_text())
        del content["facts"]
        path.write_text(json.dumps(content))
    for name in ("image", "mask"):
        monkeypatch.setattr(CamVid, name, refuse)
    monkeypatch.setattr(file_inspection, "SAMPLES", 0)
    assert check_files(stored(dataset, split, filled=filled), split) == expected
    assert all(("facts" in json.loads(path.read_text())) is filled for path in listings)
    assert len(listings) == 2
    assert found.ids("train") == dataset.ids("train")


def test_earlier_versions_read_the_index(dataset: CamVid) -> None:
    stored(dataset, split_of(dataset))
    for path in Path(dataset.cache_dir or "").rglob("*-*.json"):
        content = json.loads(path.read_text())
        assert content["format"] == 1
        for file, _, _, offset, height, width, labels in content["files"]:
            assert Path(file).is_file()
            assert offset % (height * width) == 0
            assert labels == ([0, 1, 2] if path.name.startswith("masks") else [])


def test_drawn_images_have_facts_where_they_are_drawn_anyway() -> None:
    dataset = Shapes(train=6, val=2, test=2, size=32)
    split = make_split(dataset, "1/3")
    facts = check_files(dataset, split).facts
    assert set(facts) == {*split.labeled, *split.val}
    for image_id, found in facts.items():
        assert found.mask == mask_facts(dataset.mask(image_id)).digest
