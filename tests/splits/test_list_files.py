"""Id lists as people write them: encodings, line ends, forms of names."""

import unicodedata

import pytest

from semiseg.errors import UserError
from semiseg.splits.lists import read_ids, require_ids

KAEFER = "K\u00e4fer 00"
KNOWN = [KAEFER, "deep/IMG_1", "deep/img_2", "b"]


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (f"{KAEFER}\nb\n".encode(), (KAEFER, "b")),
        (f"{KAEFER}\r\nb\r\n".encode("utf-8-sig"), (KAEFER, "b")),
        (f"{KAEFER}\r\nb\r\n".encode("utf-16"), (KAEFER, "b")),
        (f"\ufeff{KAEFER}\nb".encode("utf-16-be"), (KAEFER, "b")),
        (f"{KAEFER}\nb".encode("utf-32"), (KAEFER, "b")),
        (unicodedata.normalize("NFD", KAEFER).encode(), (KAEFER,)),
        (KAEFER.upper().encode(), (KAEFER,)),
        (b"C:\\data\\images\\deep\\img_1.jpg\r\nimages\\b.png\r\n", ("deep/IMG_1", "b")),
        (b"IMG_2\n", ("deep/img_2",)),
        (b"/data/images/b.jpg /data/masks/b.png\n", ("b",)),
        (b"\n\n", ()),
    ],
)
def test_lists_are_read(tmp_path, content, ids):
    (tmp_path / "val.txt").write_bytes(content)
    assert read_ids(tmp_path / "val.txt", KNOWN) == ids


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (KAEFER.encode("latin-1"), r"no UTF-8 text \(byte 0xe4 at position 1\)\. Save it as UTF-8"),
        (
            "b\n".encode("utf-16-le"),
            r"bytes of 0, as in UTF-16 without a byte order mark\)\. Save it as UTF-8",
        ),
        (b"c\n", "line 1: c"),
        (b"b\nB\n", "names 1 images twice: b"),
    ],
)
def test_lists_are_refused(tmp_path, content, message):
    (tmp_path / "val.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_ids(tmp_path / "val.txt", KNOWN)


def test_a_line_that_may_mean_two_images(tmp_path):
    (tmp_path / "val.txt").write_text("Ab\n")
    with pytest.raises(UserError, match=r"val\.txt, line 1: Ab may mean AB or ab"):
        read_ids(tmp_path / "val.txt", ["AB", "ab"])


def test_an_empty_list_says_so(tmp_path):
    (tmp_path / "val.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"val\.txt names no image"):
        require_ids(tmp_path / "val.txt", KNOWN)
