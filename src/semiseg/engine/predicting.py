"""Predictions of many images: read ahead in a thread, computed in batches, copied back behind the computation."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from semiseg.contracts.dataset import SegDataset
from semiseg.contracts.recipe import BatchPolicy
from semiseg.data.background import reading_ahead
from semiseg.data.image_batches import Batch, MemoryLimit, ReadImage, image_batches

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

    def work(batch: Batch) -> Sequence[Any]:
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
) -> Iterator[Batch]:
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
    copied: deque[tuple[str, Tensor, Tensor, torch.Event]] = deque()
    for image_id, (label, confidence) in results:
        if label.device.type != "cuda":
            yield image_id, label.cpu(), confidence.cpu()
            continue
        pair = _pinned_copy(label), _pinned_copy(confidence)
        copied.append((image_id, *pair, torch.cuda.current_stream(label.device).record_event()))
        if len(copied) > behind:
            yield _arrived(*copied.popleft())
    while copied:
        yield _arrived(*copied.popleft())


def _pinned_copy(values: Tensor) -> Tensor:
    # Torch keeps the page-locked memory of copies that nobody holds any more, for later ones.
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)


def _arrived(
    image_id: str, label: Tensor, confidence: Tensor, copied: torch.Event
) -> tuple[str, Tensor, Tensor]:
    copied.synchronize()
    return image_id, label, confidence
