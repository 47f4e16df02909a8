"""Masks of all formats, depths, palettes and transparencies: read in one way, or refused by name."""

import logging
from pathlib import Path

import numpy as np
import pytest
from picture_writing import COLORS, LABELS, clear, colored, paletted, png, save, turned
from PIL import Image

from semiseg.data.file_faults import BadFilesError, check_files
from semiseg.data.folder import Folder
from semiseg.data.mask_format import MaskFormat, agree, format_of_settings, read_format
from semiseg.data.mask_pixels import read_pixels
from semiseg.data.picture_files import BadFileError
from semiseg.errors import UserError
from semiseg.splits.inspection import inspect_split
from semiseg.splits.lists import MASK_SUFFIXES
from semiseg.splits.split import make_split

NAMED = ["#000000", "#ff0000", "#00ff00"]
ONE_BIT = Image.fromarray(LABELS == 1)
TWICE = [0, 2, 1]
"""Palette in which the indices 1 and 2 are exchanged."""


def folder(root: Path, masks, options=None, **settings) -> Folder:
    """A dataset of the masks; each is an array, a PIL picture or a function of the path, or a pair with an ending."""
    for number, mask in enumerate(masks):
        save(root / "images" / f"i{number}.png", np.full((12, 16, 3), 20 * number, np.uint8))
        mask, suffix = mask if isinstance(mask, tuple) else (mask, ".png")
        path = root / "masks" / f"i{number}{suffix}"
        path.parent.mkdir(exist_ok=True)
        mask(path) if callable(mask) else save(path, mask, **(options or {}))
    return Folder(
        str(root), **{"classes": ["ground", "disk", "square"], "val": 0.2, "cache": False, **settings}
    )


def check(dataset: Folder):
    return check_files(dataset, make_split(dataset, "full"))


def swapped(labels=LABELS) -> Image.Image:
    """The same picture for a viewer, with other indices."""
    return paletted(np.array(TWICE, np.uint8)[labels], [COLORS[label] for label in TWICE])


@pytest.mark.parametrize("suffix", MASK_SUFFIXES)
def test_lossless_formats_are_read_exactly(tmp_path, suffix):
    color = suffix in (".webp", ".ppm", ".pnm")
    picture = Image.fromarray(colored() if color else LABELS)
    if suffix == ".pbm":
        picture = ONE_BIT
    options = {"lossless": True} if suffix == ".webp" else {}
    dataset = folder(tmp_path, [(picture, suffix)] * 2, options, values=NAMED if color else None)
    assert np.array_equal(dataset.mask("i0"), LABELS == 1 if suffix == ".pbm" else LABELS)


@pytest.mark.parametrize(
    ("suffix", "options", "named"),
    [
        (".jpg", {}, "JPEG"),
        (".webp", {}, "lossy WebP"),
        (".tif", {"compression": "jpeg"}, "TIFF with lossy compression"),
        (".jp2", {}, "JPEG2000"),
        (".avif", {}, "AVIF"),
        (".png", {"format": "JPEG"}, "JPEG"),
    ],
)
def test_lossy_formats_are_refused_whatever_the_name(tmp_path, suffix, options, named):
    path = save(tmp_path / f"a{suffix}", colored(), **options)
    with pytest.raises(
        BadFileError, match=f"{named}; a mask has to be stored without loss.*export it again as PNG"
    ):
        read_pixels(path)


def deep(labels, bits, kind):
    return lambda path: png(path, bits, kind, [row.astype(">u2").tobytes() for row in labels])


READ = {
    "grey": (LABELS, {}, LABELS),
    "palette": (paletted(LABELS, COLORS), {}, LABELS),
    "palette of 2 bits": (lambda p: paletted(LABELS, COLORS).save(p, bits=2), {}, LABELS),
    "RGB with equal channels": (np.stack([LABELS] * 3, -1), {}, LABELS),
    "16 bits": (LABELS.astype(np.uint16), {}, LABELS),
    "16 bits with large values": (LABELS.astype(np.uint16) * 300, {"values": [0, 300, 600]}, LABELS),
    "16 bits, several values": (LABELS.astype(np.uint16) * 300, {"values": [0, [1, 300], 600]}, LABELS),
    "8 bits beside large values": (LABELS, {"values": [0, [1, 300], [2, 600]]}, LABELS),
    "32 bits": ((Image.fromarray(LABELS.astype(np.int32)), ".tif"), {}, LABELS),
    "one bit": (ONE_BIT, {}, LABELS == 1),
    "one bit with 255 a class": (ONE_BIT, {"classes": ["a", "b"], "values": [0, 255]}, LABELS == 1),
    "opaque RGBA": (np.dstack([colored(), np.full_like(LABELS, 255)]), {"values": NAMED}, LABELS),
    "RGBA, ground void": (clear(), {"values": NAMED, "void": ["transparent"]}, np.where(LABELS, LABELS, 255)),
    "RGBA, ground a class": (clear(), {"values": ["transparent", *NAMED[1:]]}, LABELS),
    "RGBA, ground unnamed": (clear(), {"values": NAMED}, np.where(LABELS, LABELS, 255)),
    "RGBA, several": (clear(hidden=(0, 0, 0)), {"values": [["transparent", NAMED[0]], *NAMED[1:]]}, LABELS),
    "grey with alpha": (
        Image.fromarray(np.dstack([LABELS + 7, (LABELS > 0) * np.uint8(255)]), "LA"),
        {"values": ["Transparent", 8, 9]},
        LABELS,
    ),
    "RGBA with equal channels": (
        np.dstack([*[LABELS] * 3, (LABELS > 0) * np.uint8(255)]),
        {"values": ["transparent", 1, 2]},
        LABELS,
    ),
    "palette, one index transparent": (
        lambda p: paletted(LABELS, COLORS).save(p, transparency=0),
        {"values": ["transparent", 1, 2]},
        LABELS,
    ),
    "palette, opacity of indices": (
        lambda p: paletted(LABELS, COLORS).save(p, transparency=b"\xff\0\xff"),
        {"values": [0, "transparent", 2]},
        LABELS,
    ),
    "grey, one value transparent": (
        lambda p: Image.fromarray(LABELS).save(p, transparency=2),
        {},
        np.where(LABELS == 2, 255, LABELS),
    ),
    "RGB, one color transparent": (
        lambda p: Image.fromarray(colored()).save(p, transparency=COLORS[2]),
        {"values": [*NAMED[:2], "transparent"]},
        LABELS,
    ),
    "GIF, transparent ground": (
        (lambda p: paletted(LABELS, COLORS).save(p, transparency=0), ".gif"),
        {"values": ["transparent", 1, 2]},
        LABELS,
    ),
    "palette by colors": (swapped(), {"values": NAMED}, LABELS),
    "one bit by colors": (ONE_BIT, {"classes": ["a", "b"], "values": ["#000000", "#ffffff"]}, LABELS == 1),
}


@pytest.mark.parametrize("kind", READ)
def test_masks_are_read(tmp_path, kind):
    mask, settings, expected = READ[kind]
    dataset = folder(tmp_path, [mask] * 2, **settings)
    assert np.array_equal(dataset.mask("i0"), expected)
    check(dataset)


def animation(path):
    Image.fromarray(255 - LABELS).save(path, save_all=True, append_images=[paletted(LABELS, COLORS)])


HALF = np.dstack([colored(), np.where(LABELS == 1, 128, 255).astype(np.uint8)])
REFUSED = {
    "grey of 2 bits": (lambda p: png(p, 2, 0, [b"\x1b\x1b\x1b\x1b"] * 12), "grey of 2 bits"),
    "grey of 4 bits": (lambda p: png(p, 4, 0, [b"\x01\x20" * 4] * 12), "grey of 4 bits"),
    "RGB of 16 bits": (deep(np.stack([LABELS] * 3, -1), 16, 2), "16 bits a channel"),
    "grey and alpha of 16 bits": (deep(np.stack([LABELS, LABELS], -1), 16, 4), "16 bits a channel"),
    "half-transparent": (HALF, r"20 half-transparent pixels \(10.42%\)"),
    "half-transparent index": (
        lambda p: paletted(LABELS, COLORS).save(p, transparency=b"\xff\x80"),
        "20 half-transparent pixels",
    ),
    "float": ((Image.fromarray(LABELS.astype(np.float32)), ".tif"), "mode F .32 bits, float"),
    "negative": ((Image.fromarray(LABELS.astype(np.int32) - 1), ".tif"), r"label -1 \(136 pixels\)"),
    "CMYK": ((Image.fromarray(colored()).convert("CMYK"), ".tif"), "mode CMYK"),
    "16 bits, other values": (LABELS.astype(np.uint16) * 257, r"label 257 \(20 pixels\), 514"),
    "PGM with a small largest value": (
        (lambda p: p.write_bytes(b"P5 16 12 2\n" + LABELS.tobytes()), ".pgm"),
        "grey of 2 bits",
    ),
    "PGM of 12 bits": (
        (lambda p: p.write_bytes(b"P5 16 12 4095\n" + LABELS.astype(">u2").tobytes()), ".pgm"),
        "largest value 4095",
    ),
    "white is zero": (
        (lambda p: Image.fromarray(LABELS).save(p, tiffinfo={262: 0}), ".tif"),
        "TIFF in which 0 means white",
    ),
    "animation": (
        (
            lambda p: Image.fromarray(255 - LABELS).save(
                p, save_all=True, append_images=[paletted(LABELS, COLORS)]
            ),
            ".gif",
        ),
        "2 pictures in one file",
    ),
    "colors without values": (colored(), "color-coded mask with 3 colors"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_masks_are_refused_by_name(tmp_path, kind):
    mask, reason = REFUSED[kind]
    dataset = folder(tmp_path, [LABELS, LABELS, mask])
    with pytest.raises(BadFilesError, match=f"i2.*{reason}"):
        check(dataset)


def gray_png(value):
    return np.full((12, 16), value, np.uint8)


WHITE = (LABELS == 1).astype(np.uint8) * 255
MIXED = {
    "palettes in another order": (
        [paletted(LABELS, COLORS)] * 3 + [swapped()],
        "i3.*index 1 of its palette is #00ff00",
    ),
    "grey among palettes": (
        [paletted(LABELS, COLORS)] * 3 + [LABELS],
        "i3.*a grey mask, read by its values, unlike 3 others such as",
    ),
    "palette among grey": (
        [LABELS] * 3 + [paletted(LABELS, COLORS)],
        "i3.*a palette mask, read by its indices",
    ),
    "one bit beside 255": ([WHITE, WHITE, ONE_BIT], "i2.*a mask of one bit"),
    "one bit beside RGB of 255": ([np.stack([WHITE] * 3, -1)] * 2 + [ONE_BIT], "i2.*a mask of one bit"),
    "255 beside one bit": ([ONE_BIT, ONE_BIT, WHITE], "i2.*a mask of 8 bits"),
    "GIF whose palette begins with white": (
        [(paletted(LABELS, [(0, 0, 0), (255, 255, 255), (9, 9, 9)]), ".gif")] * 2
        + [(paletted(1 - (LABELS == 1).astype(np.uint8), [(255, 255, 255), (0, 0, 0)]), ".gif")],
        "i2.*index 0 of its palette is #ffffff",
    ),
}


@pytest.mark.parametrize("kind", MIXED)
def test_masks_that_differ_are_named_without_a_format(tmp_path, kind):
    masks, reason = MIXED[kind]
    dataset = folder(tmp_path, masks)
    with pytest.raises(
        BadFilesError, match=f"bad files: 1, (?s:.*){reason}(?s:.*)Save all masks in the same way"
    ):
        check(dataset)
    with pytest.raises(BadFilesError, match=f"bad files: 1, (?s:.*){reason}"):
        list(inspect_split(dataset, make_split(dataset, "full"), (), None))


def voc_like():
    voc = [(0, 0, 0), (128, 0, 0), (0, 128, 0)]
    return paletted(LABELS, voc)


SAME = {
    "palettes that differ in unused colors": [
        paletted(LABELS, COLORS),
        paletted(LABELS, [*COLORS, (1, 2, 3)]),
    ],
    "the colors of VOC beside grey": [voc_like(), LABELS],
    "8 and 16 bits": [LABELS, LABELS.astype(np.uint16)],
    "one bit beside 0 and 1": [ONE_BIT, (LABELS == 1).astype(np.uint8)],
    "RGB with equal channels beside grey": [LABELS, np.stack([LABELS] * 3, -1)],
    "with and without alpha": [LABELS, Image.fromarray(np.dstack([LABELS, gray_png(255)]), "LA")],
}


@pytest.mark.parametrize("kind", SAME)
def test_masks_that_mean_the_same_may_differ(tmp_path, kind):
    dataset = folder(tmp_path, SAME[kind])
    assert check(dataset).skipped == ()
    assert np.array_equal(dataset.mask("i0"), dataset.mask("i1"))


def test_one_bit_and_255_are_one_class(tmp_path):
    dataset = folder(tmp_path, [WHITE, ONE_BIT], classes=["a", "b"], values=[0, 255])
    check(dataset)
    assert np.array_equal(dataset.mask("i0"), dataset.mask("i1"))
    assert dataset.mask("i1").max() == 1


def test_the_cure_of_palettes_is_shown_and_works(tmp_path):
    masks = [paletted(LABELS, COLORS)] * 2 + [swapped()]
    with pytest.raises(BadFilesError) as caught:
        check(folder(tmp_path, masks))
    assert """'dataset.values=["#000000","#ff0000","#00ff00"]'""" in str(caught.value)
    assert "(ground #000000, disk #ff0000, square #00ff00)" in str(caught.value)
    dataset = folder(tmp_path, masks, values=NAMED)
    check(dataset)
    assert np.array_equal(dataset.mask("i0"), dataset.mask("i2"))


def test_no_colors_are_advised_where_no_palette_is_more_frequent(tmp_path):
    with pytest.raises(BadFilesError, match="Save all masks in the same way") as caught:
        check(folder(tmp_path, [paletted(LABELS, COLORS), swapped()] * 2))
    assert "dataset.values=[" not in str(caught.value)


def test_many_values_are_said_to_come_from_smoothed_edges(tmp_path):
    smooth = np.arange(192, dtype=np.uint8).reshape(12, 16)
    with pytest.raises(BadFilesError, match="so many values come from smoothed edges: save masks without"):
        check(folder(tmp_path, [LABELS, LABELS, smooth]))
    (tmp_path / "other").mkdir()
    with pytest.raises(BadFilesError) as caught:
        check(folder(tmp_path / "other", [LABELS, LABELS, LABELS + 2]))
    assert "smoothed" not in str(caught.value)


@pytest.mark.parametrize(
    ("shared", "mask", "reason"),
    [
        ({"kind": "gray"}, paletted(LABELS, COLORS), "a palette mask"),
        ({"kind": "gray"}, ONE_BIT, "one bit a pixel; the others are not"),
        ({"kind": "gray", "bits": 1, "white": 1}, WHITE, "8 bits or more a pixel; the others are"),
        (
            {"kind": "palette", "colors": dict(enumerate(NAMED))},
            swapped(),
            "index 1 of its palette is #00ff00",
        ),
        ({"kind": "palette", "colors": dict(enumerate(NAMED))}, LABELS, "a grey mask"),
        (
            {"kind": "gray"},
            Image.fromarray(np.dstack([LABELS, LABELS // 2 * 255]), "LA"),
            "fully transparent pixels",
        ),
    ],
)
def test_a_format_is_compared_with_each_file(tmp_path, shared, mask, reason):
    dataset = folder(tmp_path, [mask, mask], mask_format=shared)
    with pytest.raises(BadFilesError, match=f"bad files: 2.*(?s:.*){reason}"):
        check(dataset)


def test_a_format_of_numbers_takes_all_palettes(tmp_path):
    dataset = folder(tmp_path, [paletted(LABELS, COLORS), swapped(), LABELS], mask_format={"kind": "number"})
    check(dataset)
    assert np.array_equal(dataset.mask("i1"), np.array(TWICE)[LABELS])


def test_white_of_one_bit_is_what_the_format_says(tmp_path):
    shared = {"kind": "gray", "white": 255}
    dataset = folder(tmp_path, [ONE_BIT, WHITE], mask_format=shared)
    check(dataset)
    assert np.array_equal(dataset.mask("i0"), np.where(LABELS == 1, 255, 0))
    assert dataset.pixel_options()["format"] == {"kind": "gray", "white": 255}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "grey"}, "dataset.mask_format.kind=grey: expected one of gray, palette, color, number"),
        ({"kind": "gray", "bits": 7}, "dataset.mask_format.bits=7: expected one of 1, 8, 16, 32"),
        ({"kind": "gray", "depth": 8}, "dataset.mask_format.depth: expected some of kind, bits"),
    ],
)
def test_faulty_formats_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        format_of_settings(values)


def test_formats_are_written_and_read_back(tmp_path):
    found = read_format(save(tmp_path / "a.png", paletted(LABELS, COLORS)))
    assert found == MaskFormat("palette", colors=dict(enumerate(NAMED)))
    assert format_of_settings(found.settings()) == found
    common, faults = agree({tmp_path / "a.png": found, tmp_path / "b.png": found})
    assert (common, faults) == (found, {})


def test_values_of_no_class_are_counted_over_all_masks(tmp_path):
    other = np.where(LABELS == 2, 7, LABELS).astype(np.uint8)
    dataset = folder(tmp_path, [LABELS, other, other, LABELS])
    with pytest.raises(BadFilesError) as caught:
        check(dataset)
    share = 2 * (LABELS == 2).sum() / (4 * LABELS.size)
    assert f"no class: 7 ({share:.2%} of the pixels of all masks, in 2 masks)" in str(caught.value)


def test_unnamed_transparency_is_said(tmp_path, caplog):
    dataset = folder(tmp_path, [clear(), clear()], values=NAMED)
    with caplog.at_level(logging.WARNING):
        check(dataset)
    assert "fully transparent pixels of masks count as not labeled" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        check(folder(tmp_path, [clear(), clear()], values=NAMED, void=["transparent"]))
    assert "transparent" not in caplog.text


def test_masks_with_exif_of_their_own_are_turned_like_images(tmp_path):
    wide = save(tmp_path / "a.png", LABELS, exif=turned(6))
    assert np.array_equal(read_pixels(wide).codes, np.rot90(LABELS, 3))
    assert np.array_equal(read_pixels(wide, "ignore").codes, LABELS)
