"""Images of one size in batches, and batches that fit into the memory of the device."""

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from semiseg.contracts.dataset import Array, Pixels
from semiseg.data.collate import image_tensor

Result = TypeVar("Result")

WAITING_BYTES = 256 * 2**20
"""Pixels that may wait for others of their size."""

MEMORY_TEXTS = ("out of memory", "can't allocate memory", "CUDNN_STATUS_ALLOC_FAILED")

log = logging.getLogger(__name__)
_reported: set[str] = set()


class ReadImage(NamedTuple):
    """An image that was read, and perhaps its mask."""

    id: str
    pixels: Pixels
    mask: Array | None = None


class EqualImages(NamedTuple):
    """Images of one size.

    Args:
        ids: their ids.
        images: ``(N, C, H, W)``, uint8 or float32.
        masks: their masks, ``(N, h, w) uint8``; ``None`` without.
    """

    ids: tuple[str, ...]
    images: Tensor
    masks: Tensor | None

    def pinned(self) -> "EqualImages":
        """Return them in page-locked memory, for copies to CUDA that nobody waits for."""
        masks = None if self.masks is None else self.masks.pin_memory()
        return EqualImages(self.ids, self.images.pin_memory(), masks)

    def cut(self, start: int, end: int) -> "EqualImages":
        """Return some of them."""
        masks = None if self.masks is None else self.masks[start:end]
        return EqualImages(self.ids[start:end], self.images[start:end], masks)


ImageBatch = list[EqualImages]
"""Images that pass through a network at once, by their sizes."""


def image_batches(
    read: Iterable[ReadImage], size: Callable[[ReadImage], Hashable], most: int, device: torch.device
) -> Iterator[ImageBatch]:
    """Group images by size: batches of ``most``, as soon as there are so many, and smaller ones at the end.

    With ``most=1`` the order is kept. Images of rare sizes wait until they take ``WAITING_BYTES``; then they go on in
    smaller batches. The batches depend on the images and ``most`` alone.

    Args:
        read: images, read one after the other.
        size: function that returns equal values for images that can share a batch.
        most: number of images of a full batch.
        device: device that they will be copied to; for CUDA they are put into page-locked memory.
    """
    waiting: dict[Hashable, list[ReadImage]] = {}
    held = 0
    for image in read:
        group = waiting.setdefault(size(image), [])
        group.append(image)
        held += image.pixels.nbytes
        if len(group) == most:
            del waiting[size(image)]
            held -= sum(each.pixels.nbytes for each in group)
            yield _batch(group, device)
        elif held > WAITING_BYTES:
            yield from (_batch(each, device) for each in waiting.values())
            waiting, held = {}, 0
    yield from (_batch(each, device) for each in waiting.values())


def _batch(images: list[ReadImage], device: torch.device) -> ImageBatch:
    images.sort(key=_shape)
    found = [_stacked(list(group)) for _, group in groupby(images, _shape)]
    return [each.pinned() for each in found] if device.type == "cuda" else found


def _shape(image: ReadImage) -> tuple[int, ...]:
    return image.pixels.shape


def _stacked(images: Sequence[ReadImage]) -> EqualImages:
    masks = [image.mask for image in images if image.mask is not None]
    return EqualImages(
        tuple(image.id for image in images),
        image_tensor([image.pixels for image in images]),
        torch.from_numpy(np.stack(masks)) if masks else None,
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, that of the device or that of the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in MEMORY_TEXTS)


class MemoryLimit:
    """Calls a function with whole batches, or with smaller ones once memory has run out, after one warning."""

    def __init__(self) -> None:
        self._most: int | None = None

    def apply(
        self, work: Callable[[ImageBatch], Result], batch: ImageBatch
    ) -> Iterator[tuple[ImageBatch, Result]]:
        """Give the parts of a batch and the result of each; one image that does not fit raises the error."""
        left = [batch] if self._most is None else _parts(batch, self._most)
        failed = 0
        while left:
            found = self._tried(work, left[0])
            if found is not None:
                if failed:
                    _warn(failed, _count(left[0]))
                    failed = 0
                yield left.pop(0), found[0]
                continue
            # Outside of the handler of the error, which holds what the call had allocated.
            torch.cuda.empty_cache()
            count = _count(left[0])
            failed = failed or count
            self._most = count // 2
            left = [part for each in left for part in _parts(each, self._most)]

    def _tried(self, work: Callable[[ImageBatch], Result], batch: ImageBatch) -> tuple[Result] | None:
        """Return the result, ``None`` where memory has run out with several images."""
        try:
            return (work(batch),)
        except (RuntimeError, MemoryError) as error:
            if _count(batch) == 1 or not out_of_memory(error):
                raise
            return None


def _count(batch: ImageBatch) -> int:
    return sum(len(each.ids) for each in batch)


def _parts(batch: ImageBatch, most: int) -> list[ImageBatch]:
    """Cut a batch into parts of a number of images, in their order."""
    parts: list[ImageBatch] = []
    room = 0
    for images in batch:
        start, end = 0, len(images.ids)
        while start < end:
            if room == 0:
                parts.append([])
                room = most
            taken = min(room, end - start)
            parts[-1].append(images.cut(start, start + taken))
            start, room = start + taken, room - taken
    return parts


def _warn(failed: int, count: int) -> None:
    message = (
        f"Memory ran out with {failed} images at once; going on with {count}. "
        f"evaluator.batch_size={count} begins so."
    )
    # Every evaluation of a run meets it again.
    if message not in _reported:
        _reported.add(message)
        log.warning(message)
