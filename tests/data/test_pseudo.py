"""The store of pseudo-labels: exact, resumable, readable from many threads and processes."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semiseg.data import pseudo
from semiseg.data.pseudo import PseudoLabels, PseudoWriter
from semiseg.errors import UserError

IDS = [f"image-{number}" for number in range(7)]
META = {"network": "abc", "policy": {"scales": [0.5, 1]}}


def made(image_id: str) -> tuple[Any, Any]:
    number = int(image_id.rsplit("-", 1)[1])
    rng = np.random.RandomState(number)
    size = (5 + number, 9 - number)
    return rng.choice([0, 1, 2, 255], size).astype(np.uint8), rng.rand(*size).astype(np.float32)


def fill(writer: PseudoWriter, stop: int = len(IDS), with_confidence: bool = True) -> None:
    for image_id in IDS[:stop]:
        if image_id not in writer.done:
            label, confidence = made(image_id)
            writer.write(image_id, label, confidence if with_confidence else None)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A store that was written without interruption."""
    path = tmp_path / "whole"
    with PseudoWriter(path, META, sync_every=3) as writer:
        fill(writer)
        writer.seal()
    return path


def test_images_are_safe_on_disk_after_some_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, safe in ((3600.0, ()), (0.0, tuple(IDS[:4]))):
        monkeypatch.setattr(pseudo, "SYNC_SECONDS", seconds)
        path = tmp_path / str(seconds)
        first = PseudoWriter(path, META)
        fill(first, 4)
        assert PseudoWriter(path, META).done == safe
        first.close()


def test_the_order_of_a_store_may_be_given(tmp_path: Path) -> None:
    with PseudoWriter(tmp_path, META) as writer:
        fill(writer)
        store = writer.seal(IDS[::-1])
    assert store.ids == tuple(IDS[::-1])
    assert all(np.array_equal(store.label(name), made(name)[0]) for name in IDS)


def test_what_was_written_is_read(whole: Path) -> None:
    store = PseudoLabels(whole)
    assert store.exists
    assert store.ids == tuple(IDS)
    assert store.meta == META
    for image_id in reversed(IDS):
        label, confidence = store.read(image_id)
        assert confidence is not None
        assert (label.dtype, confidence.dtype) == (np.uint8, np.float32)
        assert np.array_equal(label, made(image_id)[0])
        assert np.array_equal(confidence, made(image_id)[1])
    with pytest.raises(KeyError):
        store.label("another")
    assert set(contents(whole)) == {"index.json", "labels.bin", "confidence.bin"}


def test_statistics(whole: Path) -> None:
    labels = np.concatenate([made(image_id)[0].ravel() for image_id in IDS])
    confidences = np.concatenate([made(image_id)[1].ravel() for image_id in IDS])
    statistics = PseudoLabels(whole).statistics
    assert statistics["images"] == 7
    assert statistics["pixels"] == labels.size
    assert statistics["labeled_pixels"] == int((labels != 255).sum())
    assert statistics["classes"] == {str(value): int((labels == value).sum()) for value in (0, 1, 2, 255)}
    assert statistics["mean_confidence"] == pytest.approx(
        float(confidences.mean(dtype=np.float64)), rel=1e-12
    )


@pytest.mark.parametrize("sync_every", [1, 2, 100])
@pytest.mark.parametrize("stop", range(8))
def test_a_killed_writer_can_go_on(whole: Path, tmp_path: Path, stop: int, sync_every: int) -> None:
    first = PseudoWriter(tmp_path / "first", META, sync_every=sync_every)
    fill(first, stop)
    # What is on disk now is what a kill would leave.
    path = tmp_path / "resumed"
    shutil.copytree(first.path, path)
    writer = PseudoWriter(path, META, sync_every=2)
    assert writer.done == tuple(IDS[: stop - stop % sync_every])
    fill(writer)
    writer.seal()
    assert contents(path) == contents(whole)


def test_torn_files_are_cut_back(whole: Path, tmp_path: Path) -> None:
    first = PseudoWriter(tmp_path / "first", META, sync_every=1)
    fill(first, 4)
    journal = (first.path / "journal.jsonl").read_bytes()
    header = journal.index(b"\n") + 1
    for cut in range(header, len(journal) + 1, 17):
        path = tmp_path / f"cut-{cut}"
        shutil.copytree(first.path, path)
        (path / "journal.jsonl").write_bytes(journal[:cut])
        with (path / "labels.bin").open("ab") as file:
            file.write(b"half an image")
        writer = PseudoWriter(path, META)
        assert writer.done == tuple(IDS[: journal[header:cut].count(b"\n")])
        fill(writer)
        writer.seal()
        assert contents(path) == contents(whole)


def test_pixels_lost_by_the_disk_are_labeled_again(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "lost"
    with PseudoWriter(path, META) as writer:
        fill(writer, 5)
    with (path / "confidence.bin").open("ab") as file:
        file.truncate(4 * (5 * 9 + 6 * 8 + 3))
    writer = PseudoWriter(path, META)
    assert writer.done == tuple(IDS[:2])
    fill(writer)
    writer.seal()
    assert contents(path) == contents(whole)


def test_a_kill_inside_seal(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "sealing"
    with PseudoWriter(path, META) as writer:
        fill(writer)
    shutil.copy(whole / "index.json", path)
    assert PseudoLabels(path).exists
    writer = PseudoWriter(path, META)
    assert writer.done == tuple(IDS)
    writer.seal()
    assert contents(path) == contents(whole)
    with pytest.raises(ValueError, match="is complete"):
        writer.write("more", *made("image-0"))


PROGRAM = """
import sys, time, numpy as np
from semiseg.data.pseudo import PseudoWriter
writer = PseudoWriter(sys.argv[1], sync_every=1)
print("start", flush=True)
for number in range(100000):
    image_id = f"i{number}"
    if image_id not in writer.done:
        writer.write(image_id, np.full((64, 64), number % 200, np.uint8), np.full((64, 64), 0.5, np.float32))
"""


@pytest.mark.slow
def test_sigkill_leaves_a_store_that_goes_on(tmp_path: Path) -> None:
    found = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        journal = tmp_path / "journal.jsonl"
        while journal.read_bytes().count(b"\n") < found + 10:
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        writer = PseudoWriter(tmp_path)
        assert len(writer.done) > found
        assert writer.done == tuple(f"i{number}" for number in range(len(writer.done)))
        found = len(writer.done)
        writer.close()
    store = PseudoWriter(tmp_path).seal()
    for number, image_id in enumerate(store.ids):
        assert (store.label(image_id) == number % 200).all()


def test_a_store_of_other_origin_is_refused(tmp_path: Path) -> None:
    with PseudoWriter(tmp_path, META) as writer:
        fill(writer, 2)
    with pytest.raises(UserError, match="other origin"):
        PseudoWriter(tmp_path, {"network": "xyz"})


def test_labels_alone_take_a_fifth_of_the_space(tmp_path: Path) -> None:
    with PseudoWriter(tmp_path) as writer:
        fill(writer, 3, with_confidence=False)
    writer = PseudoWriter(tmp_path)
    with pytest.raises(ValueError, match="for all images or for none"):
        writer.write(IDS[3], *made(IDS[3]))
    fill(writer, with_confidence=False)
    store = writer.seal()
    label, confidence = store.read(IDS[4])
    assert np.array_equal(label, made(IDS[4])[0])
    assert confidence is None
    assert (tmp_path / "confidence.bin").stat().st_size == 0
    assert store.statistics["mean_confidence"] is None


def test_writer_checks_what_it_gets(tmp_path: Path) -> None:
    writer = PseudoWriter(tmp_path)
    label, confidence = made(IDS[0])
    writer.write(IDS[0], label, confidence)
    for arguments in (
        (IDS[0], label, confidence),
        (IDS[1], label.astype(np.int64), confidence),
        (IDS[1], label, confidence.astype(np.float64)),
        (IDS[1], label, confidence[:-1]),
        (IDS[1], label[None], confidence[None]),
    ):
        with pytest.raises(ValueError):
            writer.write(*arguments)
    writer.write(IDS[1], label[:, ::-1], confidence[:, ::-1])
    store = writer.seal()
    assert store.ids == (IDS[0], IDS[1])
    assert np.array_equal(store.label(IDS[1]), label[:, ::-1])


def test_delete_keeps_the_manifest(whole: Path) -> None:
    store = PseudoLabels(whole)
    statistics = store.statistics
    for _ in range(2):
        store.delete()
        for handle in (store, PseudoLabels(whole)):
            assert not handle.exists
            assert handle.ids == tuple(IDS)
            assert handle.statistics == statistics
            assert handle.meta == META
            with pytest.raises(UserError, match="keep_pseudo_labels=true"):
                handle.label(IDS[0])
        assert set(contents(whole)) == {"index.json"}
        json.loads((whole / "index.json").read_text())


def test_damage_is_noticed(whole: Path) -> None:
    store = PseudoLabels(whole)
    data = bytearray((whole / "labels.bin").read_bytes())
    data[-1] ^= 1
    (whole / "labels.bin").write_bytes(data)
    assert np.array_equal(store.label(IDS[0]), made(IDS[0])[0])
    with pytest.raises(UserError, match="damaged at image-6"):
        store.label(IDS[-1])
    with (whole / "confidence.bin").open("ab") as file:
        file.truncate(10)
    with pytest.raises(UserError, match="damaged at image-0"):
        store.confidence(IDS[0])
    (whole / "confidence.bin").unlink()
    with pytest.raises(UserError, match="damaged"):
        store.confidence(IDS[0])


def test_a_handle_needs_no_files(tmp_path: Path) -> None:
    handle = PseudoLabels(tmp_path / "later", ids=["b", "a"])
    assert not handle.exists
    assert handle.ids == ("b", "a")
    with pytest.raises(UserError, match="no complete pseudo-labels"):
        PseudoLabels(tmp_path / "later").ids  # noqa: B018
    with pytest.raises(UserError, match="no complete pseudo-labels"):
        handle.label("a")


def test_reads_from_threads_and_copies(whole: Path) -> None:
    store = PseudoLabels(whole)
    store.read(IDS[0])
    copy = pickle.loads(pickle.dumps(store))
    wanted = [IDS[number % 7] for number in range(200)]
    with ThreadPoolExecutor(4) as pool:
        for image_id, label, other in zip(
            wanted, pool.map(store.label, wanted), pool.map(copy.label, wanted), strict=True
        ):
            assert np.array_equal(label, made(image_id)[0])
            assert np.array_equal(other, label)
