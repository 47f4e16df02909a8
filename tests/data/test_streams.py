"""Batches as pure functions, and the epoch rules of the originals."""

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semiseg.contracts.dataset import Array, DatasetInfo, Part
from semiseg.contracts.feeding import Budget
from semiseg.data.collate import Item
from semiseg.data.epochs import Unlabeled, labeled, mixed, separate
from semiseg.data.geometry import RandomCrop
from semiseg.data.overlap import OverlapPair
from semiseg.data.pseudo import PseudoLabels, PseudoWriter
from semiseg.data.streams import Stream, Streams
from semiseg.data.views import OverlapCrops, Weak, WeakStrong
from semiseg.engine.step import count_images, micro_batches, to_device
from semiseg.errors import UserError

VIEW = Weak(RandomCrop(16, resize=None))


class Noise:
    """Images by id; ids that start with "u" have masks that must not be opened."""

    info = DatasetInfo("noise", ("a", "b", "c"), ((0, 0, 0), (9, 9, 9), (99, 99, 99)))

    def ids(self, part: Part) -> tuple[str, ...]:
        return ()

    def image(self, image_id: str) -> Array:
        seed = int(hashlib.md5(image_id.encode()).hexdigest()[:8], 16)
        return np.random.RandomState(seed).randint(0, 256, (24, 32, 3)).astype(np.uint8)

    def mask(self, image_id: str) -> Array | None:
        assert not image_id.startswith("u"), "the mask of an unlabeled image was opened"
        if image_id.startswith("none"):
            return None
        size = (24, 31) if image_id.startswith("odd") else (24, 32)
        return np.full(size, int(image_id.lstrip("abcdefghijklmnopqrstuvwxyz") or 0) % 3, np.uint8)


def ids(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{number}" for number in range(count))


def drawn(streams: Streams, name: str, epoch: int, seed: int = 0, step: str = "train") -> list[str]:
    """Ids of one epoch, in order."""
    per_epoch = streams.iterations_per_epoch
    iterations = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    return [item.id for iteration in iterations for item in streams.items(name, seed, step, iteration)]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def cps_streams(same_image: bool, labels: int = 6, unlabeled: int = 13, **options: Any) -> Streams:
    other = ids("u", unlabeled)
    return separate(
        ids("l", labels),
        VIEW,
        {
            "unlabeled_0": Unlabeled(other, VIEW, "unlabeled" if same_image else None),
            "unlabeled_1": Unlabeled(other, VIEW, "unlabeled" if same_image else None),
        },
        **{"batch_size": 4, "unlabeled_batch_size": 4, "budget": Budget(epochs=3), **options},
    )


def test_batch_holds_typed_tensors() -> None:
    batch = cps_streams(False).batch(Noise(), 0, "train", 0)
    assert list(batch) == ["labeled", "unlabeled_0", "unlabeled_1"]
    part = batch["labeled"]
    assert part["image"].shape == (4, 3, 16, 16)
    assert part["image"].dtype == torch.uint8
    assert part["image"].is_contiguous(memory_format=torch.channels_last)
    assert part["label"].shape == (4, 16, 16)
    assert part["label"].dtype == torch.uint8  # one byte a pixel between processes and to the device
    assert all(isinstance(image_id, str) for image_id in part["id"])
    assert set(batch["unlabeled_0"]) == {"image", "id"}
    for slot, image_id in enumerate(part["id"]):
        assert (part["label"][slot] == int(image_id[1:]) % 3).all()


def test_images_are_channels_first() -> None:
    streams = labeled(["l1"], Weak(RandomCrop((24, 32), resize=None, flip="none")), 1, Budget(iterations=1))
    image = streams.batch(Noise(), 0, "train", 0)["labeled"]["image"][0]
    assert np.array_equal(image.permute(1, 2, 0).numpy(), Noise().image("l1"))


def test_batches_are_a_function_of_seed_step_and_iteration() -> None:
    streams = cps_streams(False)
    order = [5, 0, 3, 3, 0, 8]
    first = {iteration: streams.batch(Noise(), 1, "train", iteration) for iteration in range(9)}
    for iteration in order:
        assert same(cps_streams(False).batch(Noise(), 1, "train", iteration), first[iteration])
    assert not same(streams.batch(Noise(), 2, "train", 0), first[0])
    assert not same(streams.batch(Noise(), 1, "student", 0), first[0])


def test_no_draw_repeats_within_or_between_epochs() -> None:
    one = labeled(["l0"] * 40, VIEW, 8, Budget(epochs=2))
    crops = [
        crop.numpy().tobytes()
        for iteration in range(one.iterations)
        for crop in one.batch(Noise(), 0, "train", iteration)["labeled"]["image"]
    ]
    assert len(crops) == 80
    # 9 x 17 offsets and a flip: chance alone repeats about ten of 80, a repeated stream all of an epoch.
    assert len(set(crops)) > 60


def test_an_epoch_shows_every_image_once_in_a_new_order() -> None:
    streams = labeled(ids("l", 12), VIEW, 4, Budget(epochs=5))
    epochs = [drawn(streams, "labeled", epoch) for epoch in range(5)]
    assert all(sorted(epoch) == sorted(ids("l", 12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert drawn(streams, "labeled", 0, seed=1) != epochs[0]


def test_the_last_incomplete_batch_is_dropped() -> None:
    streams = labeled(ids("l", 11), VIEW, 4, Budget(epochs=5))
    assert (streams.iterations_per_epoch, streams.iterations) == (2, 10)
    assert all(len(set(drawn(streams, "labeled", epoch))) == 8 for epoch in range(5))
    assert {image_id for epoch in range(5) for image_id in drawn(streams, "labeled", epoch)} == set(
        ids("l", 11)
    )


@pytest.mark.parametrize("count", [1, 3, 5])
def test_fewer_images_than_a_batch_wrap_around(count: int) -> None:
    streams = labeled(ids("l", count), VIEW, 8, Budget(epochs=4))
    assert streams.iterations_per_epoch == 1
    for epoch in range(4):
        shown = drawn(streams, "labeled", epoch)
        assert len(shown) == 8
        for start in range(0, 8 - count + 1, count):
            assert sorted(shown[start : start + count]) == sorted(ids("l", count))
    assert len(streams.batch(Noise(), 0, "train", 3)["labeled"]["id"]) == 8


def test_leveled_lists_are_repeated_and_filled_up() -> None:
    streams = cps_streams(False, labels=5, unlabeled=12)
    assert streams.iterations_per_epoch == 3
    fills = set()
    for epoch in range(12):
        shown = drawn(streams, "labeled", epoch)
        counts = [shown.count(image_id) for image_id in ids("l", 5)]
        assert sorted(counts) == [2, 2, 2, 3, 3]
        fills.add(tuple(counts))
        assert sorted(drawn(streams, "unlabeled_0", epoch)) == sorted(ids("u", 12))
    assert len(fills) > 3


def test_order_tags_pair_the_streams() -> None:
    paired, apart = cps_streams(True), cps_streams(False)
    for epoch in range(3):
        assert drawn(paired, "unlabeled_0", epoch) == drawn(paired, "unlabeled_1", epoch)
        assert drawn(apart, "unlabeled_0", epoch) != drawn(apart, "unlabeled_1", epoch)
    batch = paired.batch(Noise(), 0, "train", 0)
    assert batch["unlabeled_0"]["id"] == batch["unlabeled_1"]["id"]
    assert not torch.equal(batch["unlabeled_0"]["image"], batch["unlabeled_1"]["image"])


def test_order_can_stay_frozen() -> None:
    streams = cps_streams(True, unlabeled=12, reshuffle_unlabeled=False)
    epochs = [drawn(streams, "unlabeled_0", epoch) for epoch in range(3)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert drawn(streams, "labeled", 0) != drawn(streams, "labeled", 1)
    images = [streams.batch(Noise(), 0, "train", iteration)["unlabeled_0"]["image"] for iteration in (0, 3)]
    assert not torch.equal(*images)


def test_streams_of_different_batch_size_share_an_epoch() -> None:
    streams = cps_streams(False, labels=6, unlabeled=24, batch_size=2, unlabeled_batch_size=6)
    assert streams.iterations_per_epoch == 4
    assert sorted(drawn(streams, "unlabeled_0", 0)) == sorted(ids("u", 24))
    assert len(drawn(streams, "labeled", 0)) == 8


def test_fixed_iterations_an_epoch() -> None:
    streams = cps_streams(False, iterations_per_epoch=1157, budget=Budget(epochs=80))
    assert streams.iterations == 92_560
    shown = drawn(streams, "unlabeled_0", 0)
    assert all(sorted(shown[start : start + 13]) == sorted(ids("u", 13)) for start in range(0, 130, 13))
    assert shown[:13] != shown[13:26]


VOC, CITY = 10_582, 2_975


@pytest.mark.parametrize(
    ("total", "labels", "epochs", "per_epoch", "iterations"),
    [
        (VOC, 662, 32, 1240, 39_680),
        (VOC, 1323, 34, 1157, 39_338),
        (VOC, 2646, 40, 992, 39_680),
        (VOC, 5291, 60, 661, 39_660),
        (CITY, 186, 128, 348, 44_544),
        (CITY, 372, 137, 325, 44_525),
        (CITY, 744, 160, 279, 44_640),
        (CITY, 1488, 240, 186, 44_640),
    ],
)
def test_epochs_of_cps(total: int, labels: int, epochs: int, per_epoch: int, iterations: int) -> None:
    streams = cps_streams(
        False,
        labels,
        total - labels,
        batch_size=8,
        unlabeled_batch_size=8,
        budget=Budget(epochs=epochs),
        nominal_lengths=True,
    )
    assert (streams.iterations_per_epoch, streams.iterations) == (per_epoch, iterations)
    assert len(drawn(streams, "labeled", 0)) == 8 * per_epoch
    by_lists = cps_streams(False, labels, total - labels, batch_size=8, unlabeled_batch_size=8)
    assert by_lists.iterations_per_epoch == (278 if labels == 744 else per_epoch)


@pytest.mark.parametrize(
    ("labels", "total", "epochs", "teacher", "student", "half", "half_student"),
    [
        (92, VOC, 80, 11, 1316, 5245, 661),
        (183, VOC, 80, 22, 1301, 5199, 656),
        (366, VOC, 80, 22, 1279, 5108, 639),
        (732, VOC, 80, 45, 1256, 4925, 628),
        (1464, VOC, 80, 91, 1210, 4559, 650),
        (662, VOC, 80, 41, 1240, 4960, 641),
        (1323, VOC, 80, 82, 1157, 4629, 620),
        (2645, VOC, 80, 165, 1157, 3968, 578),
        (100, CITY, 240, 12, 360, 1437, 183),
        (372, CITY, 240, 23, 325, 1301, 174),
        (744, CITY, 240, 46, 278, 1115, 162),
    ],
)
def test_epochs_of_stpp(
    labels: int, total: int, epochs: int, teacher: int, student: int, half: int, half_student: int
) -> None:
    known, others = ids("l", labels), ids("u", total - labels)
    budget = Budget(epochs=epochs)
    stage_1 = labeled(known, VIEW, 16, budget, double_below=200)
    assert (stage_1.iterations_per_epoch, stage_1.iterations) == (teacher, teacher * epochs)
    reliable = PseudoLabels("reliable", others[:half])
    stage_4 = mixed(known, reliable, VIEW, VIEW, 16, budget)
    assert stage_4.iterations_per_epoch == half_student
    stage_6 = mixed(known, [reliable, PseudoLabels("rest", others[half:])], VIEW, VIEW, 16, budget)
    assert (stage_6.iterations_per_epoch, stage_6.iterations) == (student, student * epochs)


def test_small_lists_of_stpp_are_doubled() -> None:
    streams = labeled(ids("l", 8), VIEW, 4, Budget(epochs=1), double_below=9)
    assert streams.iterations_per_epoch == 4
    assert all(drawn(streams, "labeled", 0).count(image_id) == 2 for image_id in ids("l", 8))
    assert labeled(ids("l", 8), VIEW, 4, Budget(epochs=1), double_below=8).iterations_per_epoch == 2


def test_mixed_batches_read_true_and_pseudo_labels(tmp_path: Path) -> None:
    with PseudoWriter(tmp_path) as writer:
        for image_id in ids("u", 6):
            writer.write(image_id, np.full((24, 32), 2, np.uint8))
    store = writer.seal()
    strong = Weak(RandomCrop((8, 16), resize=None))
    streams = mixed(
        ids("l", 2), store, Weak(RandomCrop((8, 16), resize=None)), strong, 4, Budget(iterations=9)
    )
    assert (streams.iterations_per_epoch, streams.iterations) == (3, 9)
    shown = drawn(streams, "mixed", 0)
    assert [shown.count(image_id) for image_id in (*ids("l", 2), *ids("u", 6))] == [3, 3, 1, 1, 1, 1, 1, 1]
    for iteration in range(3):
        part = streams.batch(Noise(), 0, "train", iteration)["mixed"]
        for image_id, label in zip(part["id"], part["label"], strict=True):
            assert (label == (2 if image_id.startswith("u") else int(image_id[1:]))).all()


def test_mixed_refuses_repeated_images() -> None:
    store = PseudoLabels("store", ["a", "b"])
    with pytest.raises(UserError, match=r"1 images .* both labeled and pseudo-labeled: a"):
        mixed(["a"], store, VIEW, VIEW, 1, Budget(epochs=1))
    with pytest.raises(UserError, match="2 images"):
        mixed(["c"], [store, store], VIEW, VIEW, 1, Budget(epochs=1))


def test_mixed_goes_on_without_pseudo_labels() -> None:
    streams = mixed(ids("l", 4), PseudoLabels("store", []), VIEW, VIEW, 2, Budget(epochs=1))
    assert sorted(drawn(streams, "mixed", 0)) == sorted(ids("l", 4))


def test_other_views_are_stacked() -> None:
    items = {
        "pairs": Item("u1", None, OverlapCrops(OverlapPair(16))),
        "strong": Item("u2", None, WeakStrong(RandomCrop(16), k=2)),
    }
    streams = Streams({name: Stream((item,), 3) for name, item in items.items()}, 2, 1)
    batch = streams.batch(Noise(), 0, "train", 1)
    assert batch["pairs"]["image_1"].shape == (3, 3, 16, 16)
    assert batch["pairs"]["box_2"].shape == (3, 4)
    assert batch["pairs"]["box_2"].dtype == torch.int64
    assert batch["pairs"]["flip_1"].dtype == torch.bool
    assert batch["strong"]["strong_2"].shape == (3, 3, 16, 16)
    assert batch["pairs"]["id"] == ["u1"] * 3


def test_padding_travels_with_the_images_through_parts_of_a_batch() -> None:
    view = WeakStrong(RandomCrop(40), k=2, valid=True)
    streams = labeled(ids("l", 4), view, 4, Budget(iterations=1))
    batch = streams.batch(Noise(), 0, "train", 0)
    valid = batch["labeled"]["valid"]
    assert valid.shape == (4, 40, 40)
    assert valid.dtype == torch.bool
    assert torch.equal(valid.sum((1, 2)), torch.full((4,), 24 * 32))
    pieces = micro_batches(to_device(batch, torch.device("cpu"), torch.channels_last), 2)
    assert torch.equal(torch.cat([piece["labeled"]["valid"] for piece in pieces]), valid)
    plain = labeled(ids("l", 4), replace(view, valid=False), 4, Budget(iterations=1)).batch(
        Noise(), 0, "train", 0
    )
    assert "valid" not in plain["labeled"]
    assert count_images(batch) == count_images(plain) == 12


def test_labels_must_exist_and_fit() -> None:
    with pytest.raises(UserError, match="none1 is in the labeled set, but has no mask"):
        labeled(["none1"], VIEW, 1, Budget(iterations=1)).batch(Noise(), 0, "train", 0)
    with pytest.raises(UserError, match="The label of odd1 is 31x24 pixels, its image 32x24"):
        labeled(["odd1"], VIEW, 1, Budget(iterations=1)).batch(Noise(), 0, "train", 0)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Budget(),
        lambda: Budget(iterations=1, epochs=1),
        lambda: Budget(iterations=0),
        lambda: labeled([], VIEW, 1, Budget(epochs=1)),
        lambda: labeled(["a"], VIEW, 0, Budget(epochs=1)),
        lambda: Streams({}, 0, 1),
    ],
)
def test_bad_values_are_explained(build: Any) -> None:
    with pytest.raises(UserError):
        build()


def test_a_stream_has_labels_or_not() -> None:
    with pytest.raises(ValueError, match="with and without labels"):
        Stream((Item("a", "true", VIEW), Item("b", None, VIEW)), 1)


def test_iterations_win_over_the_epoch_rule() -> None:
    streams = cps_streams(False, budget=Budget(iterations=7))
    assert streams.iterations == 7
    pairs = itertools.pairwise(range(8))
    assert all(not same(*(streams.batch(Noise(), 0, "train", i) for i in pair)) for pair in pairs)
