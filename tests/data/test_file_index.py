"""Starts after the first one: they open what has changed and a sample, and refuse what a first start refuses."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semiseg.contracts.dataset import Array, Split
from semiseg.data import file_inspection
from semiseg.data.camvid import CamVid
from semiseg.data.file_faults import BadFilesError, CheckReport, check_files
from semiseg.data.folder import Folder
from semiseg.data.image_files import FileDataset
from semiseg.data.index_file import read_entries, write_entries
from semiseg.data.store import stored
from semiseg.data.store_fill import PartReader
from semiseg.splits.split import make_split

SIZE = (12, 20)
PAIRS = 12


class Opened:
    """Counts the files that datasets and the check open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: list[str] = []
        for name in ("image", "label_map"):
            original = getattr(FileDataset, name)
            monkeypatch.setattr(FileDataset, name, self._counted(original, name))
        monkeypatch.setattr("semiseg.data.mask_comparison.SAMPLES", 0)
        for module, name in (("exif_turns", "size_and_orientation"), ("mask_agreement", "read_format")):
            place = f"semiseg.data.{module}.{name}"
            original = getattr(__import__(f"semiseg.data.{module}", fromlist=[name]), name)
            monkeypatch.setattr(place, self._header(original))

    def _counted(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def counted(dataset: FileDataset, key: Any) -> Any:
            self.files.append(str(dataset.files(key)[0] if name == "image" else key))
            return original(dataset, key)

        return counted

    def _header(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(path: Path, *more: Any) -> Any:
            self.files.append(str(path))
            return original(path, *more)

        return counted

    def take(self) -> list[str]:
        """Names of the files opened since the last call, sorted, each once."""
        found, self.files = sorted({Path(file).name for file in self.files}), []
        return found


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    monkeypatch.setattr(file_inspection, "SAMPLES", 0)
    return Opened(monkeypatch)


def labels(seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 3, SIZE, np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images and masks of own data, named so that their order is that of their numbers."""
    base = tmp_path / "own"
    for folder in ("images", "masks"):
        (base / folder).mkdir(parents=True)
    for number in range(PAIRS):
        pixels = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(base / "images" / f"i{number:02d}.png")
        Image.fromarray(labels(number)).save(base / "masks" / f"i{number:02d}.png")
    (base / "val.txt").write_text("i10\ni11\n")
    return base


def own(root: Path, **settings: Any) -> tuple[Folder, Split]:
    dataset = Folder(
        str(root), classes=("a", "b", "c"), cache=False, cache_dir=str(root.parent / "cache"), **settings
    )
    return dataset, make_split(dataset, "full")


def check(root: Path, **settings: Any) -> CheckReport:
    return check_files(*own(root, **settings))


def index_of(root: Path) -> Path:
    (path,) = (root.parent / "cache" / "checked").glob("*.npz")
    return path


def test_the_second_start_opens_nothing_and_reports_the_same(root: Path, opened: Opened) -> None:
    first = check(root)
    assert len(opened.take()) == PAIRS
    assert check(root) == first
    assert opened.take() == []
    again = check_files(*own(root), progress=lambda done, total: None)
    assert list(again.facts) == list(first.facts)


def test_changed_and_new_files_are_opened(root: Path, opened: Opened) -> None:
    check(root)
    opened.take()
    Image.fromarray(labels(100)).save(root / "masks" / "i03.png")
    for folder in ("images", "masks"):
        shutil.copy(root / folder / "i05.png", root / folder / "i12.png")
    before, after = check(root), check(root)
    assert opened.take() == ["i03.png", "i12.png"]
    assert before == after
    dataset, _ = own(root)
    assert after.facts["i03"].counts == {
        int(value): int(count)
        for value, count in zip(*np.unique(dataset.mask("i03"), return_counts=True), strict=True)
    }


def rewrite(path: Path, content: bytes, keep_time: bool = False) -> None:
    status = path.stat()
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "of another format": (
        lambda masks: (masks / "i04.png").write_bytes((masks / "deep.tif").read_bytes()),
        r"i04\.png .*",
    ),
    "cut off": (
        lambda masks: rewrite(masks / "i04.png", (masks / "i04.png").read_bytes()[:-30]),
        r"i04\.png .*cannot be decoded",
    ),
    "cut off with its time": (
        lambda masks: rewrite(masks / "i04.png", (masks / "i04.png").read_bytes()[:-30], keep_time=True),
        r"i04\.png .*cannot be decoded",
    ),
    "empty": (lambda masks: rewrite(masks / "i04.png", b"", keep_time=True), r"i04\.png .*empty file"),
    "gone": (lambda masks: (masks / "i11.png").unlink(), r"i11\.png .*mask missing"),
    "of another size": (
        lambda masks: Image.fromarray(labels(4)[:-1]).save(masks / "i04.png"),
        r"mask is 20x11, its image 20x12",
    ),
    "with a value that is no class": (
        lambda masks: Image.fromarray(labels(4) + 5).save(masks / "i04.png"),
        r"i04\.png .*outside the classes",
    ),
    "in color": (
        lambda masks: Image.fromarray(np.stack([labels(4), labels(4) * 9, labels(4)], -1)).save(
            masks / "i04.png"
        ),
        r"i04\.png .*color-coded mask",
    ),
    "with the palette of others": (
        lambda masks: palette(masks / "i04.png"),
        r"i04\.png .*palette",
    ),
    "that is the image of another": (
        lambda masks: shutil.copy(masks.parent / "images" / "i05.png", masks / "i04.png"),
        r"i04\.png",
    ),
}


def palette(path: Path) -> None:
    image = Image.fromarray(labels(4))
    image.putpalette([value for index in range(256) for value in (index, 7, 255 - index)])
    image.save(path)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_first_start_refuses_a_later_one_refuses(root: Path, fault: str, cache: bool) -> None:
    """By the index alone, and with stored pixels beside it."""
    change, message = FAULTS[fault]
    if fault == "with the palette of others":  # as all masks had the same one before
        for path in (root / "masks").glob("*.png"):
            image = Image.open(path)
            image.putpalette([value for index in range(256) for value in (index, index, index)])
            image.save(path)
    if fault == "of another format":
        Image.fromarray(labels(4).astype(np.float32)).save(root / "masks" / "deep.tif")

    def start() -> CheckReport:
        dataset, split = own(root)
        dataset.cache = cache
        return check_files(stored(dataset, split), split)

    deep = root / "masks" / "deep.tif"
    kept = deep.read_bytes() if deep.exists() else b""
    deep.unlink(missing_ok=True)
    start()
    start()
    if kept:
        rewrite(root / "masks" / "i04.png", kept)
    else:
        change(root / "masks")
    with pytest.raises(BadFilesError, match=message) as known:
        start()
    shutil.rmtree(root.parent / "cache")
    with pytest.raises(BadFilesError) as anew:
        start()
    assert str(known.value) == str(anew.value)


def test_swapped_masks_are_noticed(root: Path, opened: Opened) -> None:
    before = check(root)
    masks = root / "masks"
    for old, new in (("i01", "held"), ("i02", "i01"), ("held", "i02")):
        (masks / f"{old}.png").rename(masks / f"{new}.png")
    opened.take()
    after = check(root)
    assert opened.take() == ["i01.png", "i02.png"]
    assert after.facts["i01"].mask == before.facts["i02"].mask
    assert after.facts["i02"].mask == before.facts["i01"].mask


def test_other_content_of_the_same_size_and_time_of_change(root: Path, opened: Opened) -> None:
    """The time of the status, which nobody can set, still tells."""
    path = root / "masks" / "i06.png"
    content = bytearray(path.read_bytes())
    check(root)
    opened.take()
    content[-5] ^= 1  # the checksum of the end
    rewrite(path, bytes(content), keep_time=True)
    with pytest.raises(BadFilesError, match=r"i06\.png"):
        check(root)


def test_the_sample_notices_that_the_index_is_wrong(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a file system that keeps no time of the status: the index is put on files with other contents."""
    truth = check(root)
    others = index_of(root)
    entries = read_entries(others)
    for known in entries["masks"].values():
        assert known.pixels is not None
        known.pixels = known.pixels._replace(digest="0" * 32)
    write_entries(others, entries)
    monkeypatch.setattr(file_inspection, "SAMPLES", 0)
    assert check(root) != truth
    monkeypatch.setattr(file_inspection, "SAMPLES", 1)
    assert check(root) == truth
    assert "has other contents than an earlier start found" in caplog.text
    caplog.clear()
    assert check(root) == truth
    assert "has other contents" not in caplog.text


def test_stored_pixels_are_compared_when_the_sample_differs(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dataset, split = own(root)
    dataset.cache = True
    check_files(stored(dataset, split), split)
    wrong = dataset.image("i03") ^ 255
    original = PartReader.read

    def other(reader: PartReader, kind: Any, entry: Any) -> Any:
        found = original(reader, kind, entry)
        return wrong if kind == "images" and np.array_equal(found, wrong ^ 255) else found

    monkeypatch.setattr(PartReader, "read", other)
    shutil.rmtree(root.parent / "cache" / "checked")
    read = stored(dataset, split)
    assert np.array_equal(read.image("i03"), wrong)
    check_files(read, split)
    index = index_of(root)
    entries = read_entries(index)
    for known in entries["images"].values():
        assert known.pixels is not None
        known.pixels = known.pixels._replace(digest="0" * 32)
    write_entries(index, entries)
    report = check_files(read, split)
    assert "has other contents" in caplog.text
    monkeypatch.setattr(PartReader, "read", original)
    assert np.array_equal(read.image("i03"), wrong ^ 255)
    assert report.facts["i03"].picture == check(root).facts["i03"].picture


def test_the_sample_is_drawn_by_its_seed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_inspection, "SAMPLES", 3)
    opened = Opened(monkeypatch)
    check(root)
    opened.take()
    drawn = []
    for seed in (0, 0, 1, 2):
        check_files(*own(root), seed=seed)
        drawn.append(opened.take())
    assert drawn[0] == drawn[1]
    assert len({tuple(each) for each in drawn}) == 3
    assert all(len(each) == 3 for each in drawn)


@pytest.mark.parametrize("fault", ["cut off", "text", "empty", "other version", "folder"])
def test_a_damaged_index_only_costs_time(root: Path, opened: Opened, fault: str) -> None:
    first = check(root)
    path = index_of(root)
    content = path.read_bytes()
    if fault == "folder":
        path.unlink()
        path.mkdir()
    else:
        damaged = {"cut off": content[: len(content) // 2], "text": b"hello", "empty": b""}
        path.write_bytes(damaged.get(fault, content.replace(b'"format": 1', b'"format": 9')))
    opened.take()
    assert check(root) == first
    assert len(opened.take()) == PAIRS
    if fault != "folder":
        check(root)
        assert opened.take() == []


def test_a_cache_that_cannot_be_written_only_costs_time(root: Path, opened: Opened) -> None:
    (root.parent / "cache").write_text("a file where the folder would be")
    first = check(root)
    assert check(root) == first
    assert len(opened.take()) == PAIRS


def test_other_settings_have_an_index_of_their_own(root: Path, opened: Opened) -> None:
    check(root)
    opened.take()
    check(root, void=[7])
    assert len(opened.take()) == PAIRS
    assert len(list((root.parent / "cache" / "checked").glob("*.npz"))) == 2


def test_bad_files_that_are_left_out_are_opened_each_time(root: Path, opened: Opened) -> None:
    (root / "masks" / "i04.png").write_bytes(b"nonsense")
    for _ in range(2):
        report = check(root, skip_bad=True)
        assert [each.id for each in report.skipped] == ["i04"]
    opened.take()
    check(root, skip_bad=True)
    assert opened.take() == ["i04.png"]


def test_a_smaller_split_keeps_what_is_known_of_the_others(root: Path, opened: Opened) -> None:
    dataset, whole = own(root)
    check_files(dataset, whole)
    opened.take()
    Image.fromarray(labels(100)).save(root / "masks" / "i00.png")
    check_files(dataset, make_split(dataset, "1/5"))
    assert opened.take() == ["i00.png"]
    check_files(dataset, whole)
    assert opened.take() == []


def test_through_a_link_the_files_are_the_same(
    root: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = check(root)
    opened.take()
    link = root.parent / "link"
    link.symlink_to(root, target_is_directory=True)
    dataset = Folder(str(link), classes=("a", "b", "c"), cache=False, cache_dir=str(root.parent / "cache"))
    assert check_files(dataset, make_split(dataset, "full")).facts == first.facts
    monkeypatch.chdir(root.parent)
    dataset = Folder("own", classes=("a", "b", "c"), cache=False, cache_dir=str(root.parent / "cache"))
    assert check_files(dataset, make_split(dataset, "full")).facts == first.facts
    assert opened.take() == []


def test_published_layouts_too(tmp_path: Path, opened: Opened) -> None:
    for part in ("train", "val"):
        for folder in (part, f"{part}annot"):
            (tmp_path / "camvid" / folder).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "camvid" / part / f"{part}{number}.png")
            Image.fromarray(labels(number)).save(tmp_path / "camvid" / f"{part}annot" / f"{part}{number}.png")
    dataset = CamVid(str(tmp_path / "camvid"), cache=False, cache_dir=str(tmp_path / "cache"))
    split = make_split(dataset, "1/2")
    first = check_files(dataset, split)
    opened.take()
    assert check_files(dataset, split) == first
    assert opened.take() == []
