"""Images of all formats and depths: read as they look, or refused by name."""

import struct

import numpy as np
import pytest
from picture_writing import LABELS, colored, deep_png, paletted, save, turned
from PIL import Image, ImageOps

from semiseg.data.picture_files import BadFileError, read_image, upright_rgb
from semiseg.data.picture_header import jpeg_bits
from semiseg.errors import UserError
from semiseg.splits.lists import IMAGE_SUFFIXES

PICTURE = (np.indices((12, 16)).sum(0)[..., None] * (9, 4, 2)).astype(np.uint8)
LOSSLESS = [".png", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".tga", ".ppm", ".pnm", ".webp"]


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_formats_are_read_exactly(tmp_path, suffix):
    assert suffix in IMAGE_SUFFIXES
    few = colored() if suffix == ".gif" else PICTURE
    path = save(tmp_path / f"a{suffix}", few, **({"lossless": True} if suffix == ".webp" else {}))
    assert np.array_equal(read_image(path), few)


@pytest.mark.parametrize(
    "suffix", [".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".jpx", ".avif", ".webp"]
)
def test_lossy_formats_are_read_as_pil_reads_them(tmp_path, suffix):
    assert suffix in IMAGE_SUFFIXES
    path = tmp_path / f"a{suffix}"
    save(path, PICTURE)
    with Image.open(path) as stored:
        assert np.array_equal(read_image(path), np.asarray(stored.convert("RGB")))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_is_refused_for_any_number_of_channels(tmp_path, channels):
    deep_png(tmp_path / "a.png", channels)
    with pytest.raises(BadFileError, match=r"16 bits a channel; expected 8\. .*onvert all images to 8 bits"):
        read_image(tmp_path / "a.png")


def pnm(kind, largest, channels=1):
    values = (LABELS.astype(int) * largest // 2).repeat(channels).astype(">u2" if largest > 255 else "u1")
    return f"{kind} 16 12 {largest}\n".encode() + values.tobytes()


def deep_tiff():
    """A TIFF of 16-bit RGB: a header, the directory of nine tags, the depth of the channels, and the pixels."""
    short, size = 3, 16 * 12 * 6
    tags = [(256, 1, 16), (257, 1, 12), (258, 3, 122), (259, 1, 1), (262, 1, 2), (273, 1, 128), (277, 1, 3)]
    tags += [(278, 1, 12), (279, 1, size)]
    entries = b"".join(struct.pack("<HHII", tag, short, count, value) for tag, count, value in tags)
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    return head + struct.pack("<HHH", 16, 16, 16) + bytes(size)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("rgb16.tif", deep_tiff(), "16 bits a channel"),
        ("gray16.tif", Image.fromarray(LABELS.astype(np.uint16) * 900), "16 bits a channel"),
        ("float.tif", Image.fromarray(LABELS.astype(np.float32)), r"32 bits a channel \(float numbers\)"),
        ("int.tif", Image.fromarray(LABELS.astype(np.int32)), r"32 bits a channel"),
        ("gray12.pgm", pnm("P5", 4095), "12 bits a channel"),
        ("gray16.pgm", pnm("P5", 65535), "16 bits a channel"),
        ("rgb16.ppm", pnm("P6", 65535, 3), "16 bits a channel"),
        ("rgb10.ppm", pnm("P6", 1023, 3), "10 bits a channel"),
        ("float.pfm", b"Pf\n16 12\n-1.0\n" + bytes(768), r"32 bits a channel \(float"),
        ("gray16.jp2", Image.fromarray(LABELS.astype(np.uint16) * 900), "16 bits a channel"),
    ],
)  # fmt: skip
def test_other_depths_are_refused_by_their_header(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else save(path, content)
    with pytest.raises(BadFileError, match=f"{reason}.*; expected 8"):
        read_image(path)


def test_jpeg_of_12_bits_is_named(tmp_path):
    data = b"\xff\xd8\xff\xc1\x00\x0b\x0c\x00\x0c\x00\x10\x01\x01\x11\x00" + bytes(20)
    (tmp_path / "a.jpg").write_bytes(data)
    assert jpeg_bits(data) == 12
    with pytest.raises(BadFileError, match="12 bits a channel; expected 8"):
        read_image(tmp_path / "a.jpg")


def test_low_values_of_a_pgm_are_spread_as_viewers_do(tmp_path):
    (tmp_path / "a.pgm").write_bytes(pnm("P5", 100))
    assert set(np.unique(read_image(tmp_path / "a.pgm"))) == {0, 128, 255}


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_several_pictures_in_a_file_are_refused(tmp_path, suffix):
    frames = [
        paletted(LABELS, [(0, 0, 0), (255, 0, 0), (0, 255, 0)]),
        paletted(LABELS.T.copy().T[::-1].copy(), [(0, 0, 0)] * 3),
    ]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(BadFileError, match="2 pictures in one file"):
        read_image(tmp_path / f"a.{suffix}")


def test_smaller_copies_in_a_tiff_do_not_count(tmp_path):
    small = Image.fromarray(PICTURE[::2, ::2])
    small.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(PICTURE).save(tmp_path / "a.tif", save_all=True, append_images=[small])
    assert np.array_equal(read_image(tmp_path / "a.tif"), PICTURE)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif"])
@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_orientation_is_applied_or_ignored(tmp_path, suffix, orientation):
    more = {"lossless": True} if suffix == "webp" else {}
    plain = read_image(save(tmp_path / f"plain.{suffix}", PICTURE, **more))
    tag = {"tiffinfo": {274: orientation}} if suffix == "tif" else {"exif": turned(orientation)}
    path = save(tmp_path / f"turned.{suffix}", PICTURE, **tag, **more)
    expected = Image.fromarray(plain)
    expected.getexif()[0x0112] = orientation
    assert np.array_equal(read_image(path), np.asarray(ImageOps.exif_transpose(expected)))
    assert np.array_equal(read_image(path, "ignore"), plain)
    with Image.open(path) as opened:
        assert np.array_equal(upright_rgb(opened), read_image(path))
    with Image.open(path) as opened:
        assert np.array_equal(upright_rgb(opened, "ignore"), plain)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0x\0\0\0", b"Exif\0\0junk", b""]
)
def test_odd_exif_turns_nothing(tmp_path, exif):
    path = save(tmp_path / "a.jpg", PICTURE, exif=exif)
    assert read_image(path).shape == PICTURE.shape


def test_pil_pictures_of_16_bits_are_refused(tmp_path):
    deep_png(tmp_path / "a.png", 3)
    with Image.open(tmp_path / "a.png") as picture, pytest.raises(UserError, match="expected 8"):
        upright_rgb(picture)


def test_one_limit_of_size(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", PICTURE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert np.array_equal(read_image(path), PICTURE)
    assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setattr("semiseg.data.picture_files.LARGEST_PIXELS", 100)
    with pytest.raises(BadFileError, match=r"16x12 are 0\.0 gigapixels; expected at most 100 pixels: cut it"):
        read_image(path)
