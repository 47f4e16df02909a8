"""Images that EXIF turns: their masks are proven to fit, doubted, or refused."""

import logging

import numpy as np
import pytest
from picture_writing import LABELS, save, turned
from PIL.PngImagePlugin import PngInfo

from semiseg.data.exif_turns import find_turns
from semiseg.data.file_faults import BadFilesError, check_files
from semiseg.data.folder import Folder
from semiseg.data.picture_files import size_and_orientation
from semiseg.errors import UserError
from semiseg.splits.inspection import inspect_split
from semiseg.splits.split import make_split

TURNS = {1: None, 2: "lr", 3: 2, 4: "ud", 6: 3, 8: 1}


def upright(array, orientation):
    if isinstance(TURNS[orientation], int):
        return np.rot90(array, TURNS[orientation]).copy()
    return {None: array, "lr": array[:, ::-1], "ud": array[::-1]}[TURNS[orientation]].copy()


def folder(root, orientations, drawn="upright", square=(), ending="jpg", **settings):
    """One image for each orientation; masks drawn on the upright image, or on the stored pixels."""
    for number, orientation in enumerate(orientations):
        labels = LABELS[:, :12] if number in square else LABELS
        picture = np.repeat(labels[..., None] * np.uint8(100), 3, 2)
        tag = {"tiffinfo": {274: orientation}} if ending == "tif" else {"exif": turned(orientation)}
        save(root / "images" / f"i{number}.{ending}", picture, **tag)
        mask = upright(labels, orientation) if drawn == "upright" else labels
        save(root / "masks" / f"i{number}.png", mask)
    return Folder(
        str(root), **{"classes": ["ground", "disk", "square"], "val": 0.2, "cache": False, **settings}
    )


def check(dataset):
    return check_files(dataset, make_split(dataset, "full"))


def refused(dataset):
    with pytest.raises(BadFilesError) as caught:
        check(dataset)
    assert {fault.id for fault in caught.value.faults}
    return {fault.id: fault.reason for fault in caught.value.faults}


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_half_turned_images_are_refused_where_quarter_turns_tell(tmp_path, ending):
    dataset = folder(tmp_path, [1, 6, 1, 3, 2, 4, 1, 8, 6, 1], "stored", square=[8], ending=ending)
    faults = refused(dataset)
    assert sorted(faults) == ["i1", "i3", "i4", "i5", "i7", "i8"]
    assert "mask was drawn on the stored pixels. dataset.exif=ignore" in faults["i1"]
    assert "half turned by EXIF" in faults["i3"]
    assert "other masks (2) were not drawn on the upright image, as their sizes show" in faults["i3"]
    assert "mirrored" in faults["i4"]
    assert "turned by a quarter" in faults["i8"]


def test_they_are_left_out_with_the_others(tmp_path):
    report = check(folder(tmp_path, [1, 6, 1, 3, 1, 2], "stored", skip_bad=True))
    assert sorted(fault.id for fault in report.skipped) == ["i1", "i3", "i5"]


def test_with_exif_ignored_all_masks_of_stored_pixels_fit(tmp_path, caplog):
    dataset = folder(tmp_path, [1, 6, 1, 3, 1, 2], "stored", exif="ignore")
    with caplog.at_level(logging.WARNING):
        assert check(dataset).skipped == ()
    assert "3 of 6 images with masks are turned or mirrored by EXIF, which is ignored" in caplog.text
    assert "The sizes of 1 prove that masks were drawn on the stored pixels" in caplog.text
    for image_id in ("i1", "i3", "i5"):
        agree = (dataset.image(image_id)[..., 0] > 50) == (dataset.mask(image_id) > 0)
        assert agree.mean() > 0.95
    assert dataset.pixel_options()["exif"] == "ignore"


def test_with_exif_ignored_masks_of_upright_images_are_refused(tmp_path):
    faults = refused(folder(tmp_path, [1, 6, 1, 3, 1, 1], exif="ignore"))
    assert sorted(faults) == ["i1", "i3"]
    assert "the mask was drawn on the upright image" in faults["i1"]
    assert "dataset.exif=apply" in faults["i3"]


@pytest.mark.parametrize(
    ("orientations", "square", "text"),
    [
        ([1, 3, 1, 2, 1], [], "Sizes prove nothing for 2 that are half turned, mirrored or square"),
        ([1, 6, 1, 1, 1], [1], "Sizes prove nothing for 1"),
        (
            [1, 6, 3, 1, 1],
            [],
            "The sizes of 1 prove that masks were drawn on the upright image. Sizes prove nothing",
        ),
        ([1, 6, 8, 1, 1], [], "2 of 5 images with masks are turned"),
    ],
)
def test_what_sizes_cannot_prove_is_said(tmp_path, caplog, orientations, square, text):
    dataset = folder(tmp_path, orientations, square=square)
    with caplog.at_level(logging.WARNING):
        assert check(dataset).skipped == ()
    assert text in caplog.text
    assert text in "\n".join(inspect_split(dataset, make_split(dataset, "full"), (), None))


def test_another_value_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.exif=never: expected one of apply, ignore"):
        folder(tmp_path, [1, 1], exif="never")


def test_upright_images_need_no_word(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        check(folder(tmp_path, [1, 1, 1, 1]))
    assert "EXIF" not in caplog.text


def test_masks_with_the_tag_of_their_image_are_proven(tmp_path):
    image = save(tmp_path / "a.jpg", np.repeat(LABELS[..., None], 3, 2), exif=turned(3))
    mask = save(tmp_path / "a.png", LABELS, exif=turned(3))
    assert find_turns({"a": (image, mask)}, "apply").note is None
    other = save(tmp_path / "b.png", LABELS, exif=turned(1))
    assert find_turns({"a": (image, other)}, "apply").unproven == ("a",)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_size_and_orientation_are_those_of_the_header(tmp_path, suffix, orientation):
    picture = np.zeros((12, 16, 3), np.uint8)
    tag = {"tiffinfo": {274: orientation}} if suffix == "tif" else {"exif": turned(orientation)}
    path = save(tmp_path / f"a.{suffix}", picture, **tag)
    upright_size = (16, 12) if orientation == 6 else (12, 16)
    assert size_and_orientation(path) == (upright_size, orientation)
    assert size_and_orientation(path, "ignore") == ((12, 16), orientation)


def test_exif_in_the_texts_of_a_png_is_found(tmp_path):
    text = PngInfo()
    text.add_text("Software", "a labeling tool")
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    path = save(tmp_path / "a.png", np.zeros((12, 16, 3), np.uint8), pnginfo=text)
    assert size_and_orientation(path) == ((16, 12), 6)
