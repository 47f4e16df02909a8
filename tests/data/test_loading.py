"""Worker processes change nothing but the time; what goes wrong in them is explained."""

import hashlib
import itertools
import multiprocessing
import os
import signal
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semiseg.contracts.dataset import Array, DatasetInfo, Part
from semiseg.contracts.feeding import Budget
from semiseg.data.augment import Photometric
from semiseg.data.cutout import Cutout
from semiseg.data.epochs import Unlabeled, mixed, separate
from semiseg.data.geometry import RandomCrop
from semiseg.data.loading import LoadingError, batches
from semiseg.data.pseudo import PseudoWriter
from semiseg.data.streams import Streams
from semiseg.data.views import Strong, Weak
from semiseg.errors import UserError

A = pytest.importorskip("albumentations")

CROP = RandomCrop(24)


def strong() -> Strong:
    return Strong(CROP, Photometric([A.ColorJitter(p=0.8), A.GaussianBlur(p=0.5)]), Cutout())


class Noise:
    """Images by id; "broken" and "bug" can't be read."""

    info = DatasetInfo("noise", ("a", "b"), ((0, 0, 0), (255, 255, 255)))

    def ids(self, part: Part) -> tuple[str, ...]:
        return ()

    def image(self, image_id: str) -> Array:
        if image_id == "broken":
            raise UserError("broken.png is damaged")
        if image_id == "bug":
            raise KeyError("a bug")
        seed = int(hashlib.md5(image_id.encode()).hexdigest()[:8], 16)
        return np.random.RandomState(seed).randint(0, 256, (40, 30, 3)).astype(np.uint8)

    def mask(self, image_id: str) -> Array | None:
        assert not image_id.startswith("u")
        return np.ones((40, 30), np.uint8)


def ids(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{number}" for number in range(count))


def streams(iterations: int | None = None, labels: tuple[str, ...] = ids("l", 3)) -> Streams:
    return separate(
        labels,
        strong(),
        {"unlabeled": Unlabeled(ids("u", 6), strong())},
        batch_size=2,
        unlabeled_batch_size=2,
        budget=Budget(iterations=iterations) if iterations else Budget(epochs=2),
    )


def digests(loaded: Any) -> list[str]:
    """One hash a batch, of everything in it."""
    result = []
    for batch in loaded:
        digest = hashlib.sha256()
        for name, part in batch.items():
            digest.update(repr((name, part["id"])).encode())
            for key in sorted(part.keys() - {"id"}):
                digest.update(repr((key, part[key].dtype, part[key].shape)).encode())
                digest.update(part[key].numpy().tobytes())
        result.append(digest.hexdigest())
    return result


@pytest.mark.slow
def test_workers_and_resuming_change_nothing(tmp_path: Path) -> None:
    alone = digests(batches(streams(), Noise(), 0, "train", 0))
    assert len(alone) == len(set(alone)) == 6
    state = torch.random.get_rng_state()
    assert digests(batches(streams(), Noise(), 0, "train", 0, num_workers=2)) == alone
    assert digests(batches(streams(), Noise(), 0, "train", 4, num_workers=1)) == alone[4:]
    assert torch.equal(torch.random.get_rng_state(), state)

    with PseudoWriter(tmp_path) as writer:
        for image_id in ids("u", 4):
            writer.write(image_id, np.zeros((40, 30), np.uint8))
    retraining = mixed(ids("l", 2), writer.seal(), Weak(CROP), strong(), 4, Budget(epochs=2))
    alone = digests(batches(retraining, Noise(), 0, "student", 0))
    assert digests(batches(retraining, Noise(), 0, "student", 0, num_workers=2)) == alone


def test_resuming_in_this_process() -> None:
    alone = digests(batches(streams(), Noise(), 3, "train", 0))
    assert digests(batches(streams(), Noise(), 3, "train", 2)) == alone[2:]
    assert digests(batches(streams(), Noise(), 3, "train", 6)) == []


def killed(feed: Any) -> None:
    """Kill one of the processes behind ``feed`` and read on."""
    next(feed)
    worker = multiprocessing.active_children()[0]
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join()
    for _ in feed:
        pass


@pytest.mark.slow
def test_a_killed_worker_is_explained() -> None:
    feed = batches(streams(100_000), Noise(), 0, "student", 0, num_workers=2)
    with pytest.raises(
        LoadingError, match=r"at iteration \d+ of step student.*shm-size.*smaller trainer.num_workers than 2"
    ):
        killed(feed)


def left_alone(connection: Any) -> None:
    """Begin to load, tell the ids of the processes that do, and wait to be killed."""
    feed = batches(streams(100_000), Noise(), 0, "train", 0, num_workers=2)
    for _ in range(3):
        next(feed)
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    connection.send([server, *(worker.pid for worker in multiprocessing.active_children())])
    signal.pause()


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_process() -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=left_alone, args=(there,))
    process.start()
    assert here.poll(120)
    pids = here.recv()
    assert len(pids) == 3
    process.kill()
    process.join()
    deadline = time.monotonic() + 20
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be collected by the system does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_signals_to_the_group_do_not_end_workers() -> None:
    feed = batches(streams(200), Noise(), 0, "train", 0, num_workers=2)
    for _ in range(3):  # both workers are at work
        next(feed)
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    for pid in (server, *(worker.pid for worker in multiprocessing.active_children())):
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    assert len(digests(itertools.islice(feed, 50))) == 50
    feed.close()
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_faults_in_workers_are_those_of_this_process() -> None:
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"^broken.png is damaged$"):
            list(batches(streams(labels=("broken",)), Noise(), 0, "train", 0, num_workers=workers))
    with pytest.raises(RuntimeError, match="KeyError: 'a bug'"):
        list(batches(streams(labels=("bug",)), Noise(), 0, "train", 0, num_workers=1))
