"""Batches of images of one size, and smaller ones where memory runs out."""

import logging
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from semiseg.data import image_batches as module
from semiseg.data.image_batches import EqualImages, ImageBatch, MemoryLimit, ReadImage, image_batches

CPU = torch.device("cpu")


def image(name: str, height: int, width: int, *, masked: bool = False) -> ReadImage:
    pixels = np.random.default_rng(len(name)).integers(0, 256, (height, width, 3), np.uint8)
    return ReadImage(name, pixels, pixels[..., 0] if masked else None)


def shape(each: ReadImage) -> tuple[int, ...]:
    return each.pixels.shape


def ids(batches: Sequence[ImageBatch]) -> list[list[tuple[str, ...]]]:
    return [[images.ids for images in batch] for batch in batches]


MIXED = [
    image("a", 4, 6),
    image("b", 6, 4),
    image("c", 4, 6),
    image("d", 4, 6),
    image("e", 6, 4),
    image("f", 5, 5),
]


def test_a_batch_is_full_or_at_the_end() -> None:
    found = list(image_batches(MIXED, shape, 2, CPU))
    assert ids(found) == [[("a", "c")], [("b", "e")], [("d",)], [("f",)]]
    assert found[0][0].images.shape == (2, 3, 4, 6)
    assert torch.equal(found[0][0].images[1], torch.from_numpy(MIXED[2].pixels).permute(2, 0, 1))


def test_single_images_keep_their_order() -> None:
    assert ids(list(image_batches(MIXED, shape, 1, CPU))) == [[(name,)] for name in "abcdef"]


def test_images_of_several_sizes_may_share_a_batch() -> None:
    (batch,) = image_batches(
        [image("a", 4, 6, masked=True), image("b", 6, 4, masked=True)] * 2, lambda _: 0, 4, CPU
    )
    assert [(images.ids, tuple(images.images.shape)) for images in batch] == [
        (("a", "a"), (2, 3, 4, 6)),
        (("b", "b"), (2, 3, 6, 4)),
    ]
    assert [images.masks.shape for images in batch if images.masks is not None] == [(2, 4, 6), (2, 6, 4)]


def test_rare_sizes_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES", 3 * 4 * 6 * 2)
    found = ids(list(image_batches(MIXED, shape, 8, CPU)))
    assert found == [[("a", "c")], [("b",)], [("d",)], [("e",)], [("f",)]]


def batch(*sizes: int) -> ImageBatch:
    names = iter("abcdefgh")
    return [
        EqualImages(tuple(next(names) for _ in range(size)), torch.full((size, 3, 4, 4), size), None)
        for size in sizes
    ]


def test_batches_are_halved_until_they_fit(caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    def work(part: ImageBatch) -> list[str]:
        names = [name for images in part for name in images.ids]
        assert [len(images.images) for images in part] == [len(images.ids) for images in part]
        tried.append(len(names))
        if len(names) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return names

    module._reported.clear()
    limit = MemoryLimit()
    with caplog.at_level(logging.WARNING):
        found = [name for _, names in limit.apply(work, batch(3, 5)) for name in names]
        assert found == list("abcdefgh")
        assert tried == [8, 4, 2, 2, 2, 2]
        tried.clear()
        assert [names for _, names in limit.apply(work, batch(5))] == [["a", "b"], ["c", "d"], ["e"]]
        assert tried == [2, 2, 1]
    (record,) = caplog.records
    assert "8 images at once; going on with 2" in record.getMessage()


def test_one_image_that_does_not_fit_and_other_errors_are_raised() -> None:
    def fail(part: ImageBatch) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(RuntimeError, match="can't allocate"):
        list(MemoryLimit().apply(fail, batch(2)))

    def wrong(part: ImageBatch) -> None:
        raise RuntimeError("The size of tensor a must match")

    with pytest.raises(RuntimeError, match="must match"):
        list(MemoryLimit().apply(wrong, batch(2)))
