"""Decoded pixels are kept once for all runs: equal to the files, never stale, whatever kills the process."""

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.cli import main
from semiseg.contracts.dataset import Split
from semiseg.contracts.feeding import Budget
from semiseg.data import image_files, mask_reader, store_files, store_fill
from semiseg.data import store as store_module
from semiseg.data.camvid import CamVid
from semiseg.data.cityscapes import Cityscapes
from semiseg.data.epochs import labeled
from semiseg.data.file_faults import BadFilesError, check_files
from semiseg.data.folder import Folder
from semiseg.data.geometry import RandomCrop
from semiseg.data.loading import batches
from semiseg.data.picture_facts import image_facts
from semiseg.data.shapes import Shapes
from semiseg.data.store import StoredDataset, store_folder, stored, wanted_files
from semiseg.data.store_files import PartWriter, cache_folder, locked, read_index
from semiseg.data.views import Weak
from semiseg.errors import UserError
from semiseg.splits.split import make_split

SIZES = ((24, 32), (32, 24), (17, 41))


def picture(number: int) -> np.ndarray[Any, Any]:
    return np.random.RandomState(number).randint(0, 256, (*SIZES[number % 3], 3)).astype(np.uint8)


def label(number: int) -> np.ndarray[Any, Any]:
    return np.random.RandomState(number).randint(0, 12, SIZES[number % 3]).astype(np.uint8)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "camvid"
    number = 0
    for part, count in (("train", 9), ("val", 3), ("test", 2)):
        (root / part).mkdir(parents=True)
        (root / f"{part}annot").mkdir()
        for index in range(count):
            Image.fromarray(picture(number)).save(root / part / f"{part}-{index}.jpg", quality=90)
            mask = Image.fromarray(label(number)).convert("P")
            mask.putpalette(list(range(256)) * 3)
            mask.save(root / f"{part}annot" / f"{part}-{index}.png")
            number += 1
    return root


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of all files that were read from here on."""
    names: list[str] = []
    for module, name in ((image_files, "read_image"), (mask_reader, "read_pixels")):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda path, exif, real=real: (names.append(path.name), real(path, exif))[1]
        )
    return names


def camvid(tree: Path, folder: Path, **options: Any) -> CamVid:
    return CamVid(str(tree), cache_dir=str(folder), **options)


def split_of(dataset: Any, split: str = "1/3") -> Split:
    return make_split(dataset, split)


def open_store(tree: Path, cache: Path, split: str = "1/3", **options: Any) -> StoredDataset:
    dataset = camvid(tree, cache)
    found = stored(dataset, split_of(dataset, split), **options)
    assert isinstance(found, StoredDataset)
    return found


def assert_equal(found: Any, expected: Any) -> None:
    for part in ("train", "val", "test"):
        assert found.ids(part) == expected.ids(part)
        for image_id in expected.ids(part):
            for given, wanted in (
                (found.image(image_id), expected.image(image_id)),
                (found.mask(image_id), expected.mask(image_id)),
            ):
                assert (given.dtype, given.shape, type(given)) == (wanted.dtype, wanted.shape, np.ndarray)
                np.testing.assert_array_equal(given, wanted)


def parts(cache: Path, kind: str = "images") -> list[Path]:
    return sorted(cache.rglob(f"{kind}-*.bin"))


def stop_after(count: int) -> Callable[[], None]:
    left = [count]

    def tick() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    return tick


def test_pixels_equal_the_files(tree: Path, cache: Path) -> None:
    assert_equal(open_store(tree, cache), camvid(tree, cache))


def test_nothing_is_opened_twice(tree: Path, cache: Path, opened: list[str]) -> None:
    open_store(tree, cache)
    assert len(opened) > 14
    opened.clear()
    found = open_store(tree, cache)
    check_files(found, split_of(found))
    for image_id in found.ids("train"):
        found.image(image_id)
    assert opened == []


def test_masks_of_unlabeled_images_are_never_opened(tree: Path, cache: Path, opened: list[str]) -> None:
    for mask in (tree / "trainannot").iterdir():
        if mask.stem not in ("train-0", "train-3", "train-6"):
            mask.write_bytes(b"no image")
    found = open_store(tree, cache)
    check_files(found, split_of(found))
    masks = {name for name in opened if name.endswith(".png")}
    assert {name for name in masks if name.startswith("train")} == {
        "train-0.png",
        "train-3.png",
        "train-6.png",
    }
    assert len(masks) == 3 + 3 + 2
    assert len({name for name in opened if name.endswith(".jpg")}) == 14


def test_more_labels_add_only_their_masks(tree: Path, cache: Path, opened: list[str]) -> None:
    open_store(tree, cache, "1/9")
    opened.clear()
    open_store(tree, cache, "1/3")
    # The first is read once more to see how large a decoded file is.
    assert set(opened) == {"train-3.png", "train-6.png"}


@pytest.mark.parametrize("content_only", [False, True])
def test_a_changed_file_is_decoded_again(tree: Path, cache: Path, content_only: bool) -> None:
    open_store(tree, cache)
    changed = tree / "train" / "train-1.jpg"
    Image.fromarray(255 - picture(1)).save(changed, quality=90 if content_only else 50)
    os.utime(changed, ns=(1, changed.stat().st_mtime_ns + 1000))
    mask = tree / "valannot" / "val-0.png"
    Image.fromarray(np.zeros(SIZES[0], np.uint8)).save(mask)
    assert_equal(open_store(tree, cache), camvid(tree, cache))


def test_a_changed_dataset_leaves_no_dead_parts(tree: Path, cache: Path) -> None:
    open_store(tree, cache)
    before = parts(cache)
    for path in (*tree.rglob("*.jpg"), *tree.rglob("*.png")):
        os.utime(path, ns=(1, 1))
    assert_equal(open_store(tree, cache), camvid(tree, cache))
    assert len(parts(cache)) == len(before)
    assert parts(cache) != before


def test_another_decoder_decodes_again(tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store_files, "DECODER", "pillow 1.0")
        patch.setattr(image_files, "read_image", lambda path, exif: np.zeros((8, 8, 3), np.uint8))
        open_store(tree, cache)
    assert_equal(open_store(tree, cache), camvid(tree, cache))
    assert len(parts(cache)) == 1


def test_what_was_decoded_before_a_stop_is_kept(tree: Path, cache: Path, opened: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        open_store(tree, cache, tick=stop_after(12))
    kept = len(read_index(parts(cache)[0].parent, "images"))
    assert kept > 3
    opened.clear()
    found = open_store(tree, cache)
    assert len({name for name in opened if name.endswith(".jpg")}) == 14 - kept
    assert_equal(found, camvid(tree, cache))


KILLED = """
import sys, time
from semiseg.data import store_files, store_fill
from semiseg.data.camvid import CamVid
from semiseg.splits.split import make_split
from semiseg.data.store import stored
dataset = CamVid(sys.argv[1], cache_dir=sys.argv[2])
real = store_files.PartWriter.add
def add(self, *given):
    print("added", flush=True)
    real(self, *given)
    time.sleep(0.1)
store_files.PartWriter.add = add
store_files.PartWriter.__init__.__defaults__ = (3000,)
stored(dataset, make_split(dataset, "1/3"))
"""


@pytest.mark.slow
def test_a_killed_process_is_followed_by_another(tree: Path, cache: Path, opened: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tree), str(cache)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(6):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert list(cache.rglob(".*.tmp-*"))
    complete = len(read_index(parts(cache)[0].parent, "images"))
    assert complete >= 3
    assert_equal(open_store(tree, cache), camvid(tree, cache))
    assert not list(cache.rglob(".*.tmp-*"))


def test_pixels_without_index_do_not_count_and_go(tree: Path, cache: Path) -> None:
    open_store(tree, cache)
    (listing,) = cache.rglob("images-*.json")
    listing.unlink()
    assert_equal(open_store(tree, cache), camvid(tree, cache))
    assert listing.with_suffix(".bin") not in parts(cache)


@pytest.mark.parametrize("damage", ["cut", "index", "gone"])
def test_a_damaged_part_is_made_again(tree: Path, cache: Path, damage: str) -> None:
    open_store(tree, cache)
    (path,) = parts(cache)
    if damage == "cut":
        os.truncate(path, path.stat().st_size - 1)
    elif damage == "gone":
        path.unlink()
    else:
        path.with_suffix(".json").write_text('{"format": 1')
    assert_equal(open_store(tree, cache), camvid(tree, cache))


def test_a_part_removed_while_it_is_used_is_replaced_by_the_files(tree: Path, cache: Path) -> None:
    found = open_store(tree, cache)
    for path in parts(cache):
        path.unlink()
    assert_equal(found, camvid(tree, cache))


def test_parts_have_a_limit(tmp_path: Path) -> None:
    arrays = [picture(number) for number in range(7)]
    with PartWriter(tmp_path, "images", limit=5000) as writer:
        for number, array in enumerate(arrays):
            writer.add(store_files.Stamp(str(number), number, number), array, image_facts(array))
    index = read_index(tmp_path, "images")
    assert len({entry.part for entry in index.values()}) > 1
    assert max(path.stat().st_size for path in tmp_path.glob("*.bin")) <= 5000
    reader = store_files.PartReader(tmp_path)
    for key, entry in index.items():
        np.testing.assert_array_equal(reader.read("images", entry), arrays[int(key.file)])


def test_the_size_is_told_before_anything_is_written(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = camvid(tree, cache)
    wanted = wanted_files(dataset, split_of(dataset))
    estimate = store_fill.estimated_bytes(dataset, wanted)
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(store_fill.shutil, "disk_usage", lambda path: SimpleNamespace(free=estimate + 1000))
    with pytest.raises(UserError, match=r"take 0.0 MiB.*dataset.cache_dir=PATH.*dataset.cache=false"):
        open_store(tree, cache)
    assert "Decoding 14 images and 8 masks of dataset camvid once for all runs: 0.0 MiB" in caplog.text
    assert not parts(cache)
    monkeypatch.undo()
    open_store(tree, cache)
    assert estimate == sum(path.stat().st_size for path in cache.rglob("*.bin"))


def test_a_full_disk_leaves_no_half_part(tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_files.os, "fsync", full)
        with pytest.raises(UserError, match=r"cannot be stored in .*No space left"):
            open_store(tree, cache)
    assert not list(cache.rglob("*.json"))
    assert_equal(open_store(tree, cache), camvid(tree, cache))


def test_a_place_that_cannot_be_written(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be stored in .*file.*dataset.cache=false"):
        open_store(tree, tmp_path / "file")


def test_a_second_process_waits_and_then_builds_what_is_missing(
    tree: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = store_folder(camvid(tree, cache))
    folder.mkdir(parents=True)
    with locked(folder, lambda: None), pytest.raises(KeyboardInterrupt):
        open_store(tree, cache, tick=stop_after(2))
    assert caplog.text.count(f"Waiting for process {os.getpid()} on ") == 1
    assert_equal(open_store(tree, cache), camvid(tree, cache))


@pytest.mark.slow
def test_workers_read_the_same_batches(tree: Path, cache: Path) -> None:
    found = open_store(tree, cache)
    found.image("train-0")
    assert len(pickle.dumps(found)) < 20_000
    streams = labeled(found.ids("train"), Weak(RandomCrop(16)), 4, Budget(iterations=2))
    expected = [part["labeled"] for part in batches(streams, camvid(tree, cache), 0, "step")]
    for workers in (0, 1):
        for wanted, given in zip(
            expected, batches(streams, found, 0, "step", num_workers=workers), strict=True
        ):
            assert given["labeled"]["id"] == wanted["id"]
            assert given["labeled"]["image"].equal(wanted["image"])
            assert given["labeled"]["label"].equal(wanted["label"])


def test_nothing_larger_than_half_of_the_memory_is_read_ahead(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = open_store(tree, cache)
    assert found.nbytes == sum(path.stat().st_size for path in cache.rglob("*.bin"))
    for memory, expected in ((2 * found.nbytes, True), (2 * found.nbytes - 2, False)):
        monkeypatch.setattr(store_module, "memory_bytes", lambda memory=memory: memory)
        assert found.preload() is expected
    monkeypatch.undo()
    assert 2**28 < store_module.memory_bytes() < 2**46


def test_arrays_may_be_written_and_stay_apart(tree: Path, cache: Path) -> None:
    found = open_store(tree, cache)
    found.image("train-0")[:] = 0
    assert_equal(found, camvid(tree, cache))


def test_without_a_store(tree: Path, cache: Path) -> None:
    dataset = camvid(tree, cache, cache=False)
    assert stored(dataset, split_of(dataset)) is dataset
    shapes = Shapes(train=4, val=2, test=2, size=32)
    assert stored(shapes, split_of(shapes, "full")) is shapes
    assert not cache.exists()


def test_unfilled_takes_what_is_there(tree: Path, cache: Path) -> None:
    assert_equal(open_store(tree, cache, filled=False), camvid(tree, cache))
    assert not cache.exists()
    open_store(tree, cache, "1/9")
    found = open_store(tree, cache, filled=False)
    assert_equal(found, camvid(tree, cache))
    assert found.nbytes == sum(path.stat().st_size for path in cache.rglob("*.bin"))


BAD = {
    "cut image": ("train/train-2.jpg", lambda p: p.write_bytes(p.read_bytes()[:400]), "cannot be decoded"),
    "missing image": ("train/train-2.jpg", Path.unlink, "image missing"),
    "missing mask": ("trainannot/train-3.png", Path.unlink, "mask missing"),
    "other size": (
        "trainannot/train-3.png",
        lambda p: Image.fromarray(label(0)[:20]).save(p),
        "mask is 32x20, its image 32x24",
    ),
    "no class": (
        "valannot/val-1.png",
        lambda p: Image.fromarray(np.full(SIZES[1], 77, np.uint8)).save(p),
        "label 77",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_files_are_told_as_without_a_store(tree: Path, cache: Path, fault: str) -> None:
    file, damage, reason = BAD[fault]
    (tree / "train.txt").write_text("\n".join(f"train-{index}" for index in range(9)))
    damage(tree / file)
    dataset = camvid(tree, cache)
    split = split_of(dataset)
    with pytest.raises(BadFilesError, match=reason) as expected:
        check_files(dataset, split)
    for _ in range(2):
        with pytest.raises(BadFilesError) as found:
            check_files(stored(dataset, split), split)
        assert str(found.value) == str(expected.value)
    skipping = camvid(tree, cache, skip_bad=True)
    report = check_files(stored(skipping, split), split)
    assert report == check_files(skipping, split)
    assert len(report.skipped) == 1


def test_stores_are_told_apart_by_what_changes_pixels(tree: Path, tmp_path: Path, cache: Path) -> None:
    own = tmp_path / "own"
    for folder, source in (("images", "train"), ("masks", "trainannot")):
        (own / folder).mkdir(parents=True)
        for path in (tree / source).iterdir():
            (own / folder / path.name).write_bytes(path.read_bytes())

    def folder_of(**options: Any) -> Path:
        given = {"classes": [f"c{index}" for index in range(12)], "val": 0.25, "name": "own"} | options
        return store_folder(Folder(str(options.pop("root", own)), **{"cache_dir": str(cache), **given}))

    usual = folder_of()
    assert usual.parent == cache / "decoded"
    assert usual.name.startswith("own-")
    assert folder_of(val=0.5) == usual
    assert folder_of(skip_bad=True) == usual
    assert folder_of(classes=[f"c{index}" for index in range(13)]) != usual
    assert folder_of(void=[200]) != usual
    link = tmp_path / "link"
    link.symlink_to(own)
    linked = Folder(
        str(link), classes=[f"c{i}" for i in range(12)], val=0.25, cache_dir=str(cache), name="own"
    )
    assert store_folder(linked) == usual


def test_half_size_has_a_store_of_its_own(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "cityscapes"
    for part in ("train", "val"):
        for kind, array in (("leftImg8bit", picture(0)), ("gtFine", label(0) % 9)):
            end = "leftImg8bit" if kind == "leftImg8bit" else "gtFine_labelTrainIds"
            (root / kind / part / "aachen").mkdir(parents=True)
            Image.fromarray(array).save(root / kind / part / "aachen" / f"aachen_{part}_{end}.png")
    for half_size in (False, True):
        dataset = Cityscapes(str(root), half_size=half_size, cache_dir=str(cache))
        split = split_of(dataset, "full")
        wanted = wanted_files(dataset, split)
        estimate = store_fill.estimated_bytes(dataset, wanted)
        before = sum(path.stat().st_size for path in cache.rglob("*.bin"))
        assert_equal(stored(dataset, split), dataset)
        assert sum(path.stat().st_size for path in cache.rglob("*.bin")) - before == estimate
    assert len(list((cache / "decoded").iterdir())) == 2


def test_links_to_a_folder_share_a_store(tree: Path, tmp_path: Path, cache: Path, opened: list[str]) -> None:
    open_store(tree, cache)
    opened.clear()
    (tmp_path / "link").symlink_to(tree)
    open_store(tmp_path / "link", cache)
    assert opened == []


def test_content_is_compared_on_request(tree: Path, cache: Path) -> None:
    found = open_store(tree, cache)
    dataset, split = camvid(tree, cache), split_of(found)
    wanted = wanted_files(dataset, split)
    assert store_fill.differing(dataset, found.folder, wanted, lambda: None) == []
    image = tree / "train" / "train-1.jpg"
    status, size = image.stat(), image.stat().st_size
    Image.fromarray(255 - picture(1)).save(image, quality=80)
    image.write_bytes(image.read_bytes()[:size].ljust(size, b"\0"))
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    (path,) = parts(cache, "masks")
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(bytes(content))
    wrong = store_fill.differing(dataset, found.folder, wanted, lambda: None)
    assert [Path(file).name for file in wrong] == ["train-1.jpg", "train-0.png"]
    assert_equal(open_store(tree, cache), camvid(tree, cache))


def replace_quietly(image: Path, number: int) -> None:
    """Replace an image by another one of the same number of bytes and the same time, as archives may."""
    status = image.stat()
    Image.fromarray(255 - picture(number)).save(image, quality=60)
    image.write_bytes(image.read_bytes()[: status.st_size].ljust(status.st_size, b"\0"))
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert image.stat().st_size == status.st_size


def as_of_an_earlier_version(cache: Path) -> None:
    """Remove the times of status from all indexes, and say when they were written."""
    for path in cache.rglob("*-*.json"):
        index = json.loads(path.read_text())
        del index["status"]
        path.write_text(json.dumps(index))


def test_a_file_replaced_with_its_size_and_time_is_noticed(
    tree: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_store(tree, cache)
    replace_quietly(tree / "train" / "train-1.jpg", 1)
    replace_quietly(tree / "val" / "val-2.jpg", 2)
    unfilled = open_store(tree, cache, filled=False)
    caplog.set_level(logging.INFO)
    assert_equal(unfilled, camvid(tree, cache))
    assert_equal(open_store(tree, cache), camvid(tree, cache))
    assert "The status of 2 images of dataset camvid has changed" in caplog.text
    assert "Decoding 2 images of dataset camvid" in caplog.text


def test_a_new_status_alone_is_compared_once(tree: Path, cache: Path, opened: list[str]) -> None:
    open_store(tree, cache)
    before = parts(cache)
    for path in (tree / "train").iterdir():
        path.chmod(0o600)
    opened.clear()
    open_store(tree, cache)
    assert set(opened) == {f"train-{number}.jpg" for number in range(9)}
    opened.clear()
    assert_equal(open_store(tree, cache, filled=False), open_store(tree, cache))
    assert all(not name.startswith("train-1.jpg") for name in opened)
    assert parts(cache) == before


def test_a_store_of_an_earlier_version_is_used(tree: Path, cache: Path, opened: list[str]) -> None:
    open_store(tree, cache)
    as_of_an_earlier_version(cache)
    opened.clear()
    open_store(tree, cache)
    assert opened == []
    replace_quietly(tree / "train" / "train-1.jpg", 1)
    assert_equal(open_store(tree, cache), camvid(tree, cache))


def test_where_stores_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder("~/x") == Path.home() / "x"
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "given"))
    assert cache_folder(None) == tmp_path / "given"
    monkeypatch.delenv("SEMISEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder(None) == tmp_path / "xdg" / "semiseg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder(None) == Path.home() / ".cache" / "semiseg"
    assert Path(image_files.__file__).parents[1] not in cache_folder(None).parents


RUN = (
    *("train", "dataset=camvid", "split=1/3", "method=supervised", "trainer.crop_size=24"),
    *("trainer.iterations=2", "trainer.batch_size=2", "trainer.threads=1", "tracker.mode=disabled"),
)


@pytest.mark.slow
def test_a_run_learns_the_same_with_and_without_a_store(
    tree: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*RUN, f"dataset.root={tree}", f"dataset.cache_dir={cache}"]
    assert main([*words, f"run_dir={tmp_path / 'plan'}", "--plan"]) == 0
    # A plan keeps what it found out of the files, and stores no pixels.
    assert not cache.exists() or not parts(cache)
    assert main([*words, f"run_dir={tmp_path / 'stored'}"]) == 0
    assert parts(cache)
    assert main([*words, f"run_dir={tmp_path / 'files'}", "dataset.cache=false"]) == 0
    summaries = [json.loads((tmp_path / run / "summary.json").read_text()) for run in ("stored", "files")]
    assert summaries[0]["iou"] == summaries[1]["iou"]
    assert summaries[0]["miou_test"] == summaries[1]["miou_test"]
    states = [
        torch.load(tmp_path / run / "checkpoints/best.pt", weights_only=True)["state_dict"]
        for run in ("stored", "files")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    (tmp_path / "stored" / "summary.json").unlink()
    (tmp_path / "stored" / "status.json").unlink()
    assert main(["train", f"run_dir={tmp_path / 'stored'}", "dataset.cache=false"]) == 0
    assert "Going on with" in capsys.readouterr().out
