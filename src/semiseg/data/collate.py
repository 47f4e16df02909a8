"""From images, labels and views to the tensors of one stream's part of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from semiseg.contracts.dataset import Array, Confidence, Pixels, SegDataset
from semiseg.contracts.feeding import DrawKey, StoredLabels, View, ViewData
from semiseg.contracts.training import StreamBatch
from semiseg.errors import UserError


@dataclass(frozen=True)
class Item:
    """One entry of a stream.

    Args:
        id: id of the image.
        labels: "true" for the dataset's mask, or a store of pseudo-labels; with ``None`` no mask is opened.
        view: view of the image.
    """

    id: str
    labels: Literal["true"] | StoredLabels | None
    view: View


def collate(dataset: SegDataset, items: Sequence[Item], key: DrawKey) -> StreamBatch:
    """Load the items and stack the results of their views; slot s draws by ``(*key, s)``.

    Images become ``(N, C, H, W)``, uint8 or float32, to which bands of 16 bits are converted; ``label`` is
    ``(N, H, W) uint8``, which ``to_device`` makes int64 (other integers are int64 here already), everything else keeps
    its type; ``id`` is the list of N ids. Where pseudo-labels come with
    their confidence, ``confidence`` is ``(N, H, W) float32``, 1 for true labels. Where the views give it, ``valid`` is
    ``(N, H, W) bool``, False where an image is padded.

    Raises:
        UserError: a labeled image has no mask, or one of another size.
    """
    samples = [_sample(dataset, item, (*key, slot)) for slot, item in enumerate(items)]
    if any("confidence" in sample for sample in samples):
        for sample in samples:
            sample.setdefault("confidence", np.ones(sample["label"].shape, np.float32))
    part: StreamBatch = {name: _stacked(name, [sample[name] for sample in samples]) for name in samples[0]}
    part["id"] = [item.id for item in items]
    return part


def _sample(dataset: SegDataset, item: Item, key: DrawKey) -> ViewData:
    image = dataset.image(item.id)
    label, confidence = _label(dataset, item)
    if label is not None and label.shape != dataset.info.label_size(*image.shape[:2]):
        raise UserError(
            f"The label of {item.id} is {label.shape[1]}x{label.shape[0]} pixels, "
            f"its image {image.shape[1]}x{image.shape[0]}."
        )
    if confidence is None:
        return item.view(image, label, key)
    return item.view(image, label, key, confidence)


def _label(dataset: SegDataset, item: Item) -> tuple[Array | None, Confidence | None]:
    if item.labels is None:
        return None, None
    if isinstance(item.labels, StoredLabels):
        return item.labels.read(item.id)
    mask = dataset.mask(item.id)
    if mask is None:
        raise UserError(f"{item.id} is in the labeled set, but has no mask.")
    return mask, None


def _stacked(name: str, values: list[NDArray[Any]]) -> torch.Tensor:
    if name == "label" and any(value.dtype != np.uint8 for value in values):
        return torch.from_numpy(np.stack(values, dtype=np.int64))
    return image_tensor(values) if values[0].ndim == 3 else torch.from_numpy(np.stack(values))


def image_tensor(images: Sequence[Pixels]) -> torch.Tensor:
    """Return images of one size, ``(H, W, C)``, as ``(N, C, H, W)``, uint8 or float32.

    The channels stay last in memory, as networks want them; to_device brings them to any other layout.
    """
    # torch computes little with uint16; float32 holds each of its numbers.
    wide = images[0].dtype == np.uint16
    return torch.from_numpy(np.stack(images, dtype=np.float32 if wide else None)).permute(0, 3, 1, 2)
