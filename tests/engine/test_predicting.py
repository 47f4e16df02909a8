"""Predictions of many images: order, batches, stop requests, and labels that are resumed."""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semiseg.contracts.dataset import DatasetInfo
from semiseg.data.pseudo import PseudoWriter
from semiseg.data.pseudo_files import CONFIDENCE, INDEX, LABELS
from semiseg.engine.labeling import write_labels
from semiseg.engine.predicting import predictions
from semiseg.errors import Interrupted, UserError
from semiseg.pseudo import ClassConfidences

CPU = torch.device("cpu")
SIZES = [(4, 6), (6, 4), (4, 6), (4, 6), (5, 5), (6, 4), (4, 6), (4, 6), (6, 4), (4, 6)]
IDS = [f"i{number}" for number in range(len(SIZES))]


class Noise:
    """Images of several sizes; reading "broken" fails."""

    info = DatasetInfo("noise", ("a", "b"), ((0, 0, 0), (9, 9, 9)))

    def __init__(self) -> None:
        self.read: list[str] = []

    def ids(self, part: str) -> tuple[str, ...]:
        return tuple(IDS)

    def image(self, image_id: str) -> Any:
        self.read.append(image_id)
        if image_id == "broken":
            raise UserError("'broken' cannot be decoded.")
        number = int(image_id[1:])
        return np.random.default_rng(number).integers(0, 256, (*SIZES[number], 3), np.uint8)

    def mask(self, image_id: str) -> None:
        return None


class ByBatch:
    """The brightness of an image as its confidence, which shows the batch that it was in."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.batch(network, images)[0]

    def batch(self, network: nn.Module, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        self.batches.append(len(images))
        gray = images.float().mean(1)
        return [((each > 127).to(torch.uint8), each / 256 + len(images)) for each in gray]


def one_by_one(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    assert len(images) == 1
    return ByBatch()(network, images)


@pytest.mark.parametrize("policy", [one_by_one, ByBatch()])
def test_single_images_come_in_the_given_order(policy: Any) -> None:
    most = 1 if isinstance(policy, ByBatch) else 3
    dataset, ids = Noise(), IDS[::-1]
    found = list(predictions(nn.Identity(), dataset, ids, policy, CPU, most=most))
    assert [image_id for image_id, _ in found] == ids == dataset.read
    assert all(label.shape == SIZES[int(image_id[1:])] for image_id, (label, _) in found)


def test_images_of_one_size_share_a_batch() -> None:
    policy = ByBatch()
    found = dict(predictions(nn.Identity(), Noise(), IDS, policy, CPU, most=3))
    assert sorted(found) == IDS
    assert policy.batches == [3, 3, 3, 1]
    for image_id, (label, confidence) in predictions(nn.Identity(), Noise(), IDS, one_by_one, CPU):
        assert torch.equal(found[image_id][0], label)
        torch.testing.assert_close(found[image_id][1] % 1, confidence % 1)


def test_no_mode_is_left_behind_and_no_gradient_recorded() -> None:
    network = nn.Conv2d(3, 2, 1)
    for _, (maps, _) in predictions(network, Noise(), IDS[:2], lambda net, x: (net(x.float())[0], x), CPU):
        assert not torch.is_inference_mode_enabled()
        assert not maps.requires_grad


def test_a_stop_request_ends_it_between_two_batches() -> None:
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Interrupted("SIGTERM", 143)

    before = threading.active_count()
    given: list[str] = []
    results = predictions(nn.Identity(), Noise(), IDS, ByBatch(), CPU, most=3, stop=stop)
    with pytest.raises(Interrupted):
        given.extend(result[0] for result in results)
    assert len(given) == 6
    assert threading.active_count() == before


def test_an_image_that_cannot_be_read_is_named() -> None:
    before = threading.active_count()
    results = predictions(nn.Identity(), Noise(), [*IDS[:3], "broken", *IDS[3:]], one_by_one, CPU)
    found: list[str] = []
    with pytest.raises(UserError, match="'broken' cannot be decoded"):
        found.extend(result[0] for result in results)
    assert found == IDS[:3]
    assert threading.active_count() == before


class Killed(BaseException):
    """A kill, as far as a test can have one: nothing is saved on the way."""


def labeled(path: Path, kill_after: int | None = None) -> tuple[list[str], Sequence[float]]:
    """Write labels as a run does; a kill after some images leaves what was synced."""
    writer, thresholds = PseudoWriter(path, sync_every=1), ClassConfidences(2, 0.5, stride=1)
    done = frozenset(writer.done)
    results = predictions(nn.Identity(), Noise(), IDS, ByBatch(), CPU, most=3, done=done)

    def progress(count: int) -> None:
        if count == kill_after:
            raise Killed

    try:
        write_labels(writer, results, thresholds, 3, progress, lambda: None)
    except Killed:
        return sorted(writer.done), []
    writer.seal(IDS)
    return sorted(writer.done), thresholds.compute()


def digests(path: Path) -> list[str]:
    return [hashlib.sha256((path / name).read_bytes()).hexdigest() for name in (INDEX, LABELS, CONFIDENCE)]


@pytest.mark.parametrize("killed_after", [1, 4, 9])
def test_labels_of_batches_are_resumed_within_a_batch(tmp_path: Path, killed_after: int) -> None:
    _, expected = labeled(tmp_path / "whole")
    done, _ = labeled(tmp_path / "killed", killed_after)
    assert len(done) == killed_after
    finished, found = labeled(tmp_path / "killed")
    assert finished == IDS
    assert found == expected
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")


def test_a_complete_store_gives_its_thresholds_again(tmp_path: Path) -> None:
    _, expected = labeled(tmp_path)
    assert labeled(tmp_path) == (IDS, expected)


def test_a_full_disk_ends_labeling_and_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def write(image_id: str, *_: Any) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(image_id)

    before = threading.active_count()
    writer = PseudoWriter(tmp_path)
    monkeypatch.setattr(writer, "write", write)
    results = predictions(nn.Identity(), Noise(), IDS, ByBatch(), CPU, most=3)
    with pytest.raises(OSError, match="No space"):
        write_labels(writer, results, None, 1, lambda count: None, lambda: None)
    assert len(written) == 2
    assert threading.active_count() == before
