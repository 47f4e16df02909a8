"""Batches that come again within an epoch, as ``itertools.cycle`` over a loader makes them."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from semiseg.contracts.dataset import Array, DatasetInfo
from semiseg.contracts.feeding import Budget
from semiseg.data.collate import Item
from semiseg.data.epochs import Unlabeled, separate
from semiseg.data.geometry import RandomCrop
from semiseg.data.streams import Stream, Streams
from semiseg.data.views import Weak

VIEW = Weak(RandomCrop(16, resize=None))


class Noise:
    info = DatasetInfo("noise", ("a", "b"), ((0, 0, 0), (9, 9, 9)))

    def image(self, image_id: str) -> Array:
        return np.random.RandomState(int(image_id[1:])).randint(0, 256, (24, 32, 3)).astype(np.uint8)

    def mask(self, image_id: str) -> Array:
        return self.image(image_id)[..., 0] // 128


def make(labels: int, others: int, **options: Any) -> Streams:
    options = {"batch_size": 3, "unlabeled_batch_size": 4, "budget": Budget(epochs=4)} | options
    known, unknown = [f"l{number}" for number in range(labels)], [f"u{number}" for number in range(others)]
    return separate(known, VIEW, {"unlabeled": Unlabeled(unknown, VIEW)}, replay=True, **options)


def epoch(streams: Streams, name: str, number: int) -> list[tuple[tuple[str, ...], bytes]]:
    """Ids and pixels of each batch of an epoch."""
    size = streams.iterations_per_epoch
    parts = [
        streams.batch(Noise(), 7, "train", step)[name] for step in range(number * size, (number + 1) * size)
    ]
    return [(tuple(part["id"]), part["image"].numpy().tobytes()) for part in parts]


def test_an_epoch_cycles_through_the_whole_batches_of_one_pass() -> None:
    streams = make(8, 9, iterations_per_epoch=11)
    for name, batches in (("labeled", 2), ("unlabeled", 2)):
        for number in range(3):
            shown = epoch(streams, name, number)
            once = shown[:batches]
            assert shown == list(itertools.islice(itertools.cycle(once), 11))
            assert len(set(once)) == batches
            listed = [image_id for ids, _ in once for image_id in ids]
            assert len(set(listed)) == len(listed)


def test_the_next_epoch_has_new_batches() -> None:
    streams = make(8, 9, iterations_per_epoch=5)
    first, second = (set(epoch(streams, "labeled", number)) for number in range(2))
    assert not first & second


def test_labels_are_replayed_with_their_images() -> None:
    streams = make(7, 9, iterations_per_epoch=9)
    one, other = (streams.batch(Noise(), 0, "train", step)["labeled"] for step in (1, 3))
    assert torch.equal(one["label"], other["label"])


def test_a_list_that_is_long_enough_is_not_replayed() -> None:
    replayed, drawn = (
        make(6, 40),
        separate(
            [f"l{number}" for number in range(6)],
            VIEW,
            {"unlabeled": Unlabeled([f"u{number}" for number in range(40)], VIEW)},
            batch_size=3,
            unlabeled_batch_size=4,
            budget=Budget(epochs=4),
            iterations_per_epoch=10,
        ),
    )
    assert replayed.iterations_per_epoch == 10
    assert epoch(replayed, "unlabeled", 1) == epoch(drawn, "unlabeled", 1)
    assert epoch(replayed, "labeled", 1)[:2] == epoch(drawn, "labeled", 1)[:2]
    assert epoch(replayed, "labeled", 1)[2:] != epoch(drawn, "labeled", 1)[2:]


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    shown = epoch(make(2, 9, iterations_per_epoch=4), "labeled", 0)
    assert len(set(shown)) == 1
    assert sorted(set(shown[0][0])) == ["l0", "l1"]


@pytest.mark.parametrize(
    ("labels", "others", "labeled", "unlabeled"),
    [(662, 9920, 82, 1240), (1323, 9259, 165, 1157), (2645, 7937, 330, 992), (372, 2603, 46, 325)],
)
def test_published_batches_of_a_pass(labels: int, others: int, labeled: int, unlabeled: int) -> None:
    streams = make(labels, others, batch_size=8, unlabeled_batch_size=8, iterations_per_epoch=1157)
    for name, batches in (("labeled", labeled), ("unlabeled", unlabeled)):
        shown = [tuple(item.id for item in streams.items(name, 0, "train", step)) for step in range(1157)]
        whole = min(batches, 1157)
        assert len(set(shown[:whole])) == whole
        assert shown == [shown[step % batches] for step in range(1157)]


def test_a_stream_with_epochs_of_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match="replay"):
        Stream((Item("l0", "true", VIEW),), 1, last="short", replay=True)
