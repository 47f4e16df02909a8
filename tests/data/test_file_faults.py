"""Every kind of bad file is named with its reason before a run starts."""

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data.camvid import CamVid
from semiseg.data.file_faults import BadFilesError, check_files
from semiseg.data.mask_pixels import read_pixels
from semiseg.data.picture_files import BadFileError, read_image
from semiseg.data.shapes import Shapes
from semiseg.errors import UserError
from semiseg.splits.inspection import inspect_split
from semiseg.splits.split import make_split

PICTURE = (np.indices((24, 32)).sum(0)[..., None] * (3, 4, 2)).astype(np.uint8)
LABELS = (np.indices((24, 32)).sum(0) % 12).astype(np.uint8)


def write_tree(root, train=6, val=2, test=1):
    """A sound tree; train-0 and train-3 will be labeled by ``1/3``."""
    for part, count in (("train", train), ("val", val), ("test", test)):
        (root / part).mkdir(parents=True)
        (root / f"{part}annot").mkdir()
        for index in range(count):
            Image.fromarray(PICTURE).save(root / part / f"{part}-{index}.jpg", quality=95)
            Image.fromarray(LABELS).save(root / f"{part}annot" / f"{part}-{index}.png")
    return root


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "camvid")


def check(tree, skip_bad=False, split="1/3"):
    dataset = CamVid(str(tree), skip_bad=skip_bad)
    return check_files(dataset, make_split(dataset, split))


def grey_png(bits, rows):
    """A grey PNG of fewer than 8 bits, which PIL does not write."""
    raw = b"".join(b"\0" + bytes(row) for row in rows)
    width = len(rows[0]) * 8 // bits

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, len(rows), bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def cut(path: Path, share=0.9):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip_bit_of_data(path: Path):
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 12] ^= 0xFF
    path.write_bytes(bytes(data))


def save(path: Path, array, **options):
    Image.fromarray(array).save(path, **options)


def color_coded(path: Path):
    save(path, np.stack([LABELS * 20, LABELS, 255 - LABELS], -1))


IMAGE, MASK = "train/train-3.jpg", "trainannot/train-3.png"
FAULTS = {
    "missing image": (IMAGE, Path.unlink, "image missing"),
    "truncated jpeg": (IMAGE, cut, "cannot be decoded.*truncated"),
    "empty image": (IMAGE, lambda p: p.write_bytes(b""), "empty file"),
    "zeros": (IMAGE, lambda p: p.write_bytes(bytes(2000)), "not an image"),
    "text as image": (IMAGE, lambda p: p.write_text("hello"), "not an image"),
    "folder as image": (IMAGE, lambda p: (p.unlink(), p.mkdir()), "image missing|cannot be read"),
    "missing mask": (MASK, Path.unlink, "mask missing"),
    "empty mask": (MASK, lambda p: p.write_bytes(b""), "empty file"),
    "cut mask": (MASK, lambda p: cut(p, 0.5), "cannot be decoded|not an image"),
    "mask with flipped bits": (MASK, flip_bit_of_data, "cannot be decoded"),
    "text as mask": (MASK, lambda p: p.write_text("hello"), "not an image"),
    "other size": (MASK, lambda p: save(p, LABELS[:20]), r"mask is 32x20, its image 32x24"),
    "16-bit mask with other values": (
        MASK,
        lambda p: save(p, LABELS.astype(np.uint16) * 257),
        r"label 257 \(\d+ pixels\), 514 .* outside the classes",
    ),
    "color-coded mask": (MASK, color_coded, r"color-coded mask with 12 colors \(#0000ff"),
    "half-transparent mask": (
        MASK,
        lambda p: save(p, np.stack([LABELS] * 4, -1)),
        "704 half-transparent pixels",
    ),
    "4-bit grey mask": (MASK, lambda p: p.write_bytes(grey_png(4, [[0x01] * 16] * 24)), "grey of 4 bits"),
    "label outside": (
        MASK,
        lambda p: save(p, LABELS + 1),
        r"label 12 \(\d+ pixels\) outside.*0 to 10, or 11, 255",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_bad_file_of_a_labeled_image_is_named_with_its_reason(tree, kind):
    file, damage, reason = FAULTS[kind]
    names = "".join(f"train-{index}\n" for index in range(6))
    (tree / "train.txt").write_text(names)
    damage(tree / file)
    with pytest.raises(BadFilesError, match=f"(?s){Path(file).stem}.*({reason})") as caught:
        check(tree)
    assert [fault.id for fault in caught.value.faults] == ["train-3"]
    assert "skip_bad=true" in str(caught.value)
    assert Path(caught.value.faults[0].file).name.split(".")[0] == "train-3"


def test_all_bad_files_are_named_at_once(tree):
    for file, damage in (
        (IMAGE, cut),
        (MASK, color_coded),
        ("val/val-1.jpg", cut),
        ("testannot/test-0.png", Path.unlink),
    ):
        damage(tree / file)
    (tree / "train" / "train-1.jpg").write_bytes(b"")
    with pytest.raises(BadFilesError, match="bad files: 5, of 4 images") as caught:
        check(tree)
    for file in (IMAGE, MASK, "train/train-1.jpg", "val/val-1.jpg", "testannot/test-0.png"):
        assert str(tree / file) in str(caught.value)


def test_long_lists_are_cut_in_the_message_only(tmp_path):
    tree = write_tree(tmp_path / "t", train=60)
    for path in (tree / "train").iterdir():
        path.write_bytes(b"")
    with pytest.raises(BadFilesError, match="and 10 more") as caught:
        check(tree)
    assert len(caught.value.faults) == 60


def test_advice_for_several_files_is_said_once(tree):
    for index in (0, 3):
        save(tree / f"trainannot/train-{index}.png", LABELS, format="JPEG")
    with pytest.raises(BadFilesError) as caught:
        check(tree)
    assert str(caught.value).count("has to be stored without loss\n") == 2
    assert str(caught.value).count("export it again as PNG") == 1
    assert all("export it again as PNG" in fault.reason for fault in caught.value.faults)


def test_masks_of_unlabeled_images_stay_closed(tree):
    opened = []

    class Watched(CamVid):
        def mask(self, image_id):
            opened.append(image_id)
            return super().mask(image_id)

    (tree / "trainannot" / "train-1.png").write_bytes(b"noise")
    dataset = Watched(str(tree))
    report = check_files(dataset, make_split(dataset, "1/3"))
    assert sorted(set(opened)) == ["test-0", "train-0", "train-3", "val-0", "val-1"]
    assert report.skipped == ()


def test_skip_bad_leaves_out_and_records(tree, caplog):
    cut(tree / IMAGE)
    color_coded(tree / MASK)
    (tree / "train" / "train-1.jpg").write_bytes(b"")
    cut(tree / "val/val-0.jpg")
    with caplog.at_level(logging.WARNING):
        report = check(tree, skip_bad=True)
    assert report.split.labeled == ("train-0",)
    assert report.split.unlabeled == ("train-2", "train-4", "train-5")
    assert report.split.val == ("val-1",)
    assert report.split.name == "1/3"
    assert [(fault.id, Path(fault.file).name) for fault in report.skipped] == [
        ("train-3", "train-3.jpg"),
        ("train-3", "train-3.png"),
        ("train-1", "train-1.jpg"),
        ("val-0", "val-0.jpg"),
    ]
    assert all(fault.reason for fault in report.skipped)
    assert "left out 3 images" in caplog.text


def test_skip_bad_with_nothing_left_is_refused(tree):
    for index in (0, 3):
        (tree / "train" / f"train-{index}.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="all 2 labeled images of split 1/3 have bad files"):
        check(tree, skip_bad=True)
    for index in (0, 1):
        (tree / "val" / f"val-{index}.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="all 2 validation images"):
        check(tree, skip_bad=True, split="full")


def test_sound_tree_with_progress(tree):
    steps = []
    dataset = CamVid(str(tree))
    split = make_split(dataset, "1/3")
    report = check_files(dataset, split, lambda done, total: steps.append((done, total)))
    assert report.split == split
    assert report.labeled_images == (2,) * 11
    assert steps == [(done, 9) for done in range(1, 10)]


def test_unexpected_errors_of_other_datasets_are_named(tree):
    class Broken(CamVid):
        def image(self, image_id):
            raise RuntimeError("the disk is on fire")

    dataset = Broken(str(tree))
    with pytest.raises(BadFilesError, match="RuntimeError: the disk is on fire"):
        check_files(dataset, make_split(dataset, "1/3"))


def test_shapes_only_count_their_classes():
    dataset = Shapes(train=20, val=4, size=32)
    split = make_split(dataset, "1/2")
    report = check_files(dataset, split)
    assert report.split is split
    assert report.labeled_images[0] == 10
    assert 0 in check_files(dataset, make_split(dataset, "1")).labeled_images


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1", "LA"])
def test_image_modes_are_converted_as_pil_does(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture = Image.fromarray(PICTURE).convert(mode)
    picture.save(path)
    with Image.open(path) as stored:
        expected = np.asarray(stored.convert("RGB"))
    found = read_image(path)
    assert found.shape == (24, 32, 3)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


def test_16_bit_image_is_refused(tmp_path):
    save(tmp_path / "a.png", PICTURE[..., 0].astype(np.uint16) * 200)
    with pytest.raises(BadFileError, match="16 bits a channel; expected 8"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_rotation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "a.png", PICTURE, exif=exif)
    turns = {3: 2, 6: 3, 8: 1}[orientation]
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(PICTURE, turns))


def test_mask_of_a_rotated_image_has_to_be_upright(tree):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tree / IMAGE, PICTURE, exif=exif)
    with pytest.raises(BadFilesError, match=r"mask is 32x24, its image 24x32.*EXIF"):
        check(tree)
    save(tree / MASK, np.rot90(LABELS, 3).copy())
    check(tree)


def test_masks_are_indices_of_palette_grey_and_two_colors(tmp_path):
    palette = Image.fromarray(LABELS, "P")
    palette.putpalette(bytes(reversed(range(256))) * 3)
    palette.save(tmp_path / "p.png")
    save(tmp_path / "l.png", LABELS)
    Image.fromarray(LABELS > 5).save(tmp_path / "one.png")
    assert np.array_equal(read_pixels(tmp_path / "p.png").codes, LABELS)
    assert np.array_equal(read_pixels(tmp_path / "l.png").codes, LABELS)
    assert np.array_equal(read_pixels(tmp_path / "one.png").codes, LABELS > 5)


def test_lossy_masks_are_refused(tmp_path):
    save(tmp_path / "m.jpg", LABELS)
    with pytest.raises(BadFileError, match="stored without loss"):
        read_pixels(tmp_path / "m.jpg")


@pytest.mark.parametrize("skip_bad", [False, True])
def test_all_faults_are_named_where_no_image_is_left(tree, skip_bad):
    cut(tree / "val/val-0.jpg")
    (tree / "val/val-1.jpg").write_bytes(b"")
    with pytest.raises(BadFilesError, match=r"(?s)val-0\.jpg.*val-1\.jpg") as raised:
        check(tree, skip_bad)
    assert ("all 2 validation images" in str(raised.value)) is skip_bad


def test_splits_check_names_the_files_where_none_is_left(tree):
    dataset = CamVid(str(tree))
    split = make_split(dataset, "1/3")
    for path in (tree / "val").iterdir():
        path.unlink()
    cut(tree / "train/train-1.jpg")
    with pytest.raises(BadFilesError, match=r"(?s)train-1\.jpg.*val-0\.jpg.*val-1\.jpg"):
        list(inspect_split(dataset, split, (), None))
