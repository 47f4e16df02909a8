"""Recognizing by its first bytes what a file is that was given for weights, and how to go on with it."""

import json
import re
import zipfile
from pathlib import Path

HEAD = 4096
SHOWN_LETTERS = 40
ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "RAR",
    b"\x28\xb5\x2f\xfd": "zstd",
}
OTHERS = {
    b"\x89PNG\r\n\x1a\n": "an image (PNG)",
    b"\xff\xd8\xff": "an image (JPEG)",
    b"GIF8": "an image (GIF)",
    b"%PDF": "a PDF document",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes them",
    b"\x93NUMPY": "an array of numpy",
}
LFS = b"version https://git-lfs.github.com/spec/"
PAGE = re.compile(rb"\A\s*(<!doctype|<html|<\?xml|<head|<body)", re.IGNORECASE)
TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
AGAIN = "Download or copy it again, and look at its size."


def not_weights(path: Path) -> str | None:
    """Say what a file is that can't hold weights, and how to go on; ``None`` where it may hold some.

    Args:
        path: existing file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        return f"is empty (0 bytes). {AGAIN}"
    if head.startswith(LFS):
        return "is a pointer of Git LFS, not the file that it stands for. Fetch that: git lfs pull"
    if head.startswith(b"PK\x03\x04"):
        return _zip(path)
    kind = next((name for magic, name in ARCHIVES.items() if head.startswith(magic)), None)
    if kind is None and head[257:262] == b"ustar":
        kind = "tar"
    if kind is not None:
        return f"is a {kind} archive. Unpack it, and give the weights file that it holds."
    if found := next((name for magic, name in OTHERS.items() if head.startswith(magic)), None):
        return f"is {found}, not weights of PyTorch."
    return _text(head)


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as .safetensors do: the length of a JSON header, and the header."""
    with path.open("rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and length <= path.stat().st_size - 8


def _zip(path: Path) -> str | None:
    """Recognize ZIP archives other than those of ``torch.save``."""
    if not zipfile.is_zipfile(path):
        return f"is damaged: its end is missing ({path.stat().st_size:,} bytes are there). {AGAIN}"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        return (
            "is a TorchScript program, not weights alone. Write its weights where you trust it: "
            f"torch.save(torch.jit.load('{path.name}').state_dict(), 'weights.pth')"
        )
    if any(name.endswith("data.pkl") for name in names):
        return None
    if names and all(name.endswith(".npy") for name in names):
        return f"holds arrays of numpy ({_some(names)}), not weights of PyTorch."
    return (
        f"is a ZIP archive ({_some(names) or 'empty'}). Unpack it, and give the weights file that it holds."
    )


def _text(head: bytes) -> str | None:
    """Recognize text, such as the page that a download ended in."""
    if PAGE.search(head):
        title = TITLE.search(head)
        said = (
            f" with the title '{' '.join(title[1].decode('utf-8', 'replace').split())[:80]}'" if title else ""
        )
        kind = "XML" if head.lstrip().startswith(b"<?xml") else "HTML"
        return (
            f"is a text ({kind}) file{said}, not weights: the download ended in a web page. Download again."
        )
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A letter that the end of the head cuts in two is none of a damaged text.
        if error.start < len(head) - 4 or len(head) < HEAD:
            return None
        text = head[: error.start].decode("utf-8")
    if any(ord(letter) < 32 and letter not in "\t\n\r\f" for letter in text):
        return None
    begins = " ".join(text.split())[:SHOWN_LETTERS]
    kind = "text (JSON)" if _is_json(text) else "text"
    return f"is a {kind} file that begins with '{begins}', not weights. {AGAIN}"


def _is_json(text: str) -> bool:
    try:
        json.JSONDecoder().raw_decode(text.lstrip())
    except ValueError:
        return text.lstrip().startswith(("{", "["))
    return text.lstrip().startswith(("{", "["))


def _some(names: list[str]) -> str:
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")
