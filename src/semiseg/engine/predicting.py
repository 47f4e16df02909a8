"""Predictions of many images: read ahead in a thread, computed in batches, copied back behind the computation."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from semiseg.contracts.dataset import SegDataset
from semiseg.contracts.recipe import BatchPolicy
from semiseg.data.background import reading_ahead
from semiseg.data.image_batches import ImageBatch, MemoryLimit, ReadImage, image_batches
from semiseg.engine.compute import Readback

BATCHES_READ_TOGETHER = 64
"""Number of batches whose images are sorted by size; a resumed labeling begins with the first that is not complete."""


def predictions(
    network: nn.Module,
    dataset: SegDataset,
    ids: Sequence[str],
    policy: Callable[[Any, Tensor], Any],
    device: torch.device,
    *,
    most: int = 1,
    stop: Callable[[], None] = lambda: None,
    done: frozenset[str] = frozenset(),
) -> Generator[tuple[str, Any]]:
    """Apply a policy to images, and give id and result of each.

    Args:
        network: one network, or a module of several, in evaluation mode on ``device``.
        dataset: images.
        ids: images to predict; the batches depend on them alone, so they have to be the same when a labeling resumes.
        policy: function of the network and one image ``(1, C, H, W)``; where ``most`` is above 1, a ``BatchPolicy``
            gets images of one size together, and results come in the order of these batches.
        device: device of the computation.
        most: number of images in a batch.
        stop: function that is called before each batch and may raise to end the predictions.
        done: images whose results are not needed; a batch that has others is computed whole.
    """
    most = most if isinstance(policy, BatchPolicy) else 1

    def work(batch: ImageBatch) -> Sequence[Any]:
        (images,) = (each.images for each in batch)  # of one size
        images = images.to(device, non_blocking=True)
        with torch.inference_mode():
            return (
                policy.batch(network, images)
                if isinstance(policy, BatchPolicy)
                else [policy(network, images)]
            )

    limit = MemoryLimit()
    with reading_ahead(_batches(dataset, ids, device, most, done)) as batches:
        for batch in batches:
            stop()
            # The mode is left before the yield: it would otherwise hold in the caller's loop over the results.
            for (images,), results in limit.apply(work, batch):
                for image_id, result in zip(images.ids, results, strict=True):
                    if image_id not in done:
                        yield image_id, result


def _batches(
    dataset: SegDataset, ids: Sequence[str], device: torch.device, most: int, done: frozenset[str]
) -> Iterator[ImageBatch]:
    length = 1 if most == 1 else most * BATCHES_READ_TOGETHER
    for start in range(0, len(ids), length):
        part = ids[start : start + length]
        if done.issuperset(part):
            continue
        read = (ReadImage(image_id, dataset.image(image_id)) for image_id in part)
        for batch in image_batches(read, lambda image: image.pixels.shape, most, device):
            if not done.issuperset(batch[0].ids):
                yield batch


def on_host(
    results: Iterable[tuple[str, tuple[Tensor, Tensor]]], behind: int
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Copy labels and confidences to the host.

    From CUDA they are copied while later images are computed, and given ``behind`` images later.
    """
    coming: deque[tuple[str, Readback, Readback]] = deque()
    for image_id, (label, confidence) in results:
        coming.append((image_id, Readback(label), Readback(confidence)))
        if not coming[-1][1].late or len(coming) > behind:
            yield _arrived(*coming.popleft())
    while coming:
        yield _arrived(*coming.popleft())


def _arrived(image_id: str, label: Readback, confidence: Readback) -> tuple[str, Tensor, Tensor]:
    return image_id, label.values(), confidence.values()
