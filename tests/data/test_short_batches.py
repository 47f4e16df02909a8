"""Streams whose last batch holds what is left, and pseudo-labels with confidence on their way to a batch."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from semiseg.contracts.dataset import Array, DatasetInfo, Part
from semiseg.contracts.feeding import Budget, View
from semiseg.data.augment import Photometric
from semiseg.data.collate import Item, collate
from semiseg.data.cutout import Cutout
from semiseg.data.epochs import labeled, unlabeled_and_labeled
from semiseg.data.geometry import RandomCrop, ScaleUniform
from semiseg.data.loading import batches
from semiseg.data.pseudo import PseudoLabels, PseudoWriter
from semiseg.data.streams import Stream, Streams
from semiseg.data.views import Strong, Weak, WeakStrong
from semiseg.errors import UserError

A = pytest.importorskip("albumentations")
CROP = RandomCrop((12, 16), ScaleUniform(0.5, 1.5, "torch"))
VIEW = Weak(CROP)


class Coded:
    """Images whose first channel tells the class; the masks of unlabeled images must not be opened."""

    info = DatasetInfo("coded", ("a", "b", "c"), ((0, 0, 0), (9, 9, 9), (99, 99, 99)))

    def ids(self, part: Part) -> tuple[str, ...]:
        return ()

    def image(self, image_id: str) -> Array:
        y, x = np.mgrid[:20, :24]
        return np.stack([(y // 4 + x // 4 + int(image_id[1:])) % 3] * 3, -1).astype(np.uint8)

    def mask(self, image_id: str) -> Array | None:
        assert not image_id.startswith("u")
        return self.image(image_id)[..., 0]


def ids(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{number}" for number in range(count))


def drawn(streams: Streams, name: str, iterations: range, seed: int = 0) -> list[list[str]]:
    return [[item.id for item in streams.items(name, seed, "train", iteration)] for iteration in iterations]


@pytest.mark.parametrize(("count", "size"), [(11, 4), (8, 4), (3, 4), (7, 1)])
def test_a_pass_shows_every_image_once_and_ends_short(count: int, size: int) -> None:
    streams = labeled(ids("l", count), VIEW, size, Budget(epochs=3), last="short")
    per_epoch = -(-count // size)
    assert (streams.iterations_per_epoch, streams.iterations) == (per_epoch, 3 * per_epoch)
    epochs = [drawn(streams, "labeled", range(n * per_epoch, (n + 1) * per_epoch)) for n in range(3)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch[:-1]] == [size] * (per_epoch - 1)
        assert sorted(chain(*epoch)) == sorted(ids("l", count))
    assert epochs[0] != epochs[1] or count < 4


def test_a_stream_that_is_used_up_begins_anew_in_another_order() -> None:
    streams = unlabeled_and_labeled(
        ids("u", 23), ids("l", 5), VIEW, unlabeled_batch_size=4, batch_size=2, budget=Budget(iterations=30)
    )
    assert streams.iterations_per_epoch == 6
    seen = drawn(streams, "labeled", range(12))
    assert [len(batch) for batch in seen] == [2, 2, 1] * 4
    passes = [list(chain(*seen[start : start + 3])) for start in (0, 3, 6, 9)]
    assert all(sorted(each) == sorted(ids("l", 5)) for each in passes)
    assert len({tuple(each) for each in passes}) > 1
    assert [len(batch) for batch in drawn(streams, "unlabeled", range(12))] == [4, 4, 4, 4, 4, 3] * 2


@pytest.mark.parametrize(
    ("count", "smallest", "sizes"), [(9, 2, [4, 4]), (10, 2, [4, 4, 2]), (10, 3, [4, 4])]
)
def test_a_last_batch_that_is_too_small_is_dropped(count: int, smallest: int, sizes: list[int]) -> None:
    streams = labeled(ids("l", count), VIEW, 4, Budget(epochs=1), last="short", smallest=smallest)
    assert [len(batch) for batch in drawn(streams, "labeled", range(streams.iterations))] == sizes


def test_fewer_images_than_the_smallest_batch_are_repeated() -> None:
    streams = labeled(ids("l", 1), VIEW, 4, Budget(epochs=2), last="short", smallest=2)
    assert drawn(streams, "labeled", range(2)) == [["l0"] * 4] * 2
    with pytest.raises(UserError, match="no batch of 2"):
        Stream((Item("l0", "true", VIEW),), 4, last="short", smallest=2)


def test_images_that_are_labeled_and_pseudo_labeled_are_refused() -> None:
    with pytest.raises(UserError, match="l1"):
        unlabeled_and_labeled(
            ("u0", "l1"), ids("l", 3), VIEW, unlabeled_batch_size=2, batch_size=1, budget=Budget(epochs=1)
        )


@pytest.fixture
def store(tmp_path: Path) -> PseudoLabels:
    """Labels as coded in the images; the confidence tells label and place."""
    with PseudoWriter(tmp_path / "labels") as writer:
        for image_id in ids("u", 7):
            label = Coded().image(image_id)[..., 0]
            confidence = 0.3 + 0.2 * label + np.linspace(0, 0.15, label.size).reshape(label.shape)
            writer.write(image_id, label, confidence.astype(np.float32))
        return writer.seal()


@pytest.mark.parametrize(
    "view", [VIEW, Strong(CROP, Photometric([A.RandomBrightnessContrast(p=1)])), WeakStrong(CROP)]
)
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_confidences_follow_their_labels(store: PseudoLabels, view: View, workers: int) -> None:
    thresholds = (0.0, 0.55, 2.0)
    labels = PseudoLabels(store.path, thresholds=thresholds)
    streams = unlabeled_and_labeled(
        labels, ids("l", 3), view, unlabeled_batch_size=4, batch_size=2, budget=Budget(epochs=2)
    )
    if workers and view is not VIEW:
        pytest.skip("one view is enough for workers")
    found = list(batches(streams, Coded(), 0, "train", num_workers=workers))
    assert [len(batch["pseudo"]["id"]) for batch in found] == [4, 3] * 2
    kept = 0
    for batch in found:
        part = batch["pseudo"]
        label, confidence = part["label"], part["confidence"]
        assert confidence.dtype == torch.float32
        assert confidence.shape == label.shape == (len(part["id"]), 12, 16)
        assert "confidence" not in batch["labeled"]
        inside = label != 255
        kept += int(inside.sum())
        # The confidence lies within 0.15 of its class's value: it is that of the same pixel.
        offset = (confidence - 0.3 - 0.2 * label)[inside]
        assert offset.min() > -1e-6
        assert offset.max() < 0.15 + 1e-6
        assert not (label == 2).any()
        assert (confidence[label == 1] >= 0.55).all()
    assert kept > 300


def test_true_labels_beside_confident_ones_are_certain(store: PseudoLabels) -> None:
    part = collate(Coded(), [Item("l0", "true", VIEW), Item("u1", store, VIEW)], (0,))
    assert (part["confidence"][0] == 1).all()
    assert part["confidence"][1].max() < 1


def test_strong_views_that_move_pixels_refuse_confidences(store: PseudoLabels) -> None:
    moving = Strong(CROP, Photometric([A.HorizontalFlip(p=1)]), Cutout(p=1))
    collate(Coded(), [Item("l0", "true", moving)], (0,))
    with pytest.raises(UserError, match="HorizontalFlip move pixels"):
        collate(Coded(), [Item("u0", store, moving)], (0,))


def test_the_same_crop_with_and_without_confidence(store: PseudoLabels) -> None:
    image, (label, confidence) = Coded().image("u3"), store.read("u3")
    for view in (VIEW, Strong(CROP, cutout=Cutout(p=1)), WeakStrong(CROP)):
        plain, more = view(image, label, (5,)), view(image, label, (5,), confidence)
        assert set(more) - set(plain) == {"confidence"}
        assert all(np.array_equal(plain[name], more[name]) for name in plain)
