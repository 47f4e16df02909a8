"""Measuring a network against masks: evaluation, quality of pseudo-labels, pictures of samples."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.dataset import DatasetInfo, Pixels, SegDataset
from semiseg.contracts.feeding import StoredLabels
from semiseg.contracts.score_names import BOUNDARY_IOU, ECE, RELIABILITY
from semiseg.contracts.tracking import Sample
from semiseg.contracts.training import Network
from semiseg.data.background import reading_ahead
from semiseg.data.display import displayed
from semiseg.data.image_batches import EqualImages, ImageBatch, MemoryLimit, ReadImage, image_batches
from semiseg.errors import Interrupted, UserError
from semiseg.seeding import derive_seed
from semiseg.tasks.boundary import BoundaryCounts
from semiseg.tasks.calibration import CalibrationBins
from semiseg.tasks.inference import (
    evaluating,
    pad_with_mean,
    predict_groups,
    predict_with_confidence,
    resized,
    seen_size,
    to_batch,
)
from semiseg.tasks.metrics import ConfusionMatrix, Metrics, foreground_labels, means
from semiseg.tasks.shown_size import reduced, sample_size

if TYPE_CHECKING:
    from semiseg.settings import EvaluatorSettings

log = logging.getLogger(__name__)

QUALITY_IMAGES = 100

Watcher = Callable[[Sequence[str], Tensor, Tensor], None]
"""Function of ids, predictions ``(N, H, W)`` and masks ``(N, H, W)``."""

_reported: set[str] = set()


class Measurement:
    """All that an evaluation measures, on the device, without host synchronization before ``compute``.

    Args:
        info: classes of the dataset.
        settings: settings that choose the scores.
        device: device of the counts, and of the tensors that ``update`` gets.
        absent: rule for absent classes in place of that of the settings; ``None`` takes theirs.

    Raises:
        UserError: ``evaluator.foreground`` names no class of the dataset.
    """

    def __init__(
        self, info: DatasetInfo, settings: EvaluatorSettings, device: torch.device, absent: str | None = None
    ) -> None:
        self.matrix = ConfusionMatrix(
            info.num_classes,
            absent=absent or settings.absent,
            decimals=settings.decimals,
            ignore_index=info.ignore_index,
            device=device,
            primary=settings.primary,
            foreground=foreground_labels(settings, info),
        )
        common = info.ignore_index, device
        self._boundary = self._calibration = None
        if "boundary_iou" in settings.metrics:
            self._boundary = BoundaryCounts(info.num_classes, settings.boundary_ratio, *common)
        if "calibration" in settings.metrics:
            self._calibration = CalibrationBins(info.num_classes, settings.calibration_bins, *common)

    @property
    def needs_confidence(self) -> bool:
        """Whether ``update`` needs the confidence."""
        return self._calibration is not None

    def update(self, labels: Tensor, truth: Tensor, confidence: Tensor | None = None) -> None:
        """Add images of one size: predicted classes, masks and perhaps confidence, ``(N, H, W)`` each."""
        self.matrix.update(labels, truth)
        if self._boundary is not None:
            self._boundary.update(labels, truth)
        if self._calibration is not None and confidence is not None:
            self._calibration.update(labels, confidence, truth)

    def compute(self) -> Metrics:
        """Compute the scores of the images so far."""
        found = self.matrix.compute()
        if self._boundary is not None:
            shares = self._boundary.compute()
            if self.matrix.absent == "true_only":
                shares = [share if label in found.counted else None for label, share in enumerate(shares)]
            table = {BOUNDARY_IOU.key: shares}
            outline = means(table, found.counted, self.matrix.foreground)
            found = replace(found, totals={**found.totals, **outline}, classes={**found.classes, **table})
        if self._calibration is not None:
            error, curve = self._calibration.compute()
            found = replace(found, totals={**found.totals, ECE.key: error}, more={RELIABILITY: curve})
        return found


def evaluate(
    network: Network,
    dataset: SegDataset,
    ids: Sequence[str],
    settings: EvaluatorSettings,
    device: torch.device,
    *,
    stop: Callable[[], None] | None = None,
    precision: str = "fp32",
    watch: Watcher | None = None,
) -> Metrics:
    """Compare a network's predictions with the masks of some images, in one confusion matrix.

    Images that the network sees at one size are predicted together, in batches of ``settings.batch_size``, or smaller
    ones where memory runs out; a thread reads ahead. The network's mode is restored. Where the settings resize or
    crop, predictions are compared with masks treated alike.

    Args:
        network: network to evaluate, on ``device``.
        dataset: images and masks.
        ids: images to count; each must have a mask.
        settings: settings by which the network is applied and absent classes count.
        device: device of the computation.
        stop: function that is called before each batch and may raise to end the evaluation; ``None`` calls nothing.
        precision: ``trainer.precision`` of the run.
        watch: function of ids, predictions and masks, integers ``(N, H, W)`` on the device, called for all images in
            the order of the batches; ``None`` calls nothing.

    Raises:
        UserError: an image without a mask, or with one of another size.
    """
    read = (_true_pair(dataset, image_id) for image_id in ids)
    return _count(network, read, dataset, settings, device, stop, precision, watch)


def quality_ids(ids: Sequence[str], seed: int, limit: int = QUALITY_IMAGES) -> tuple[str, ...]:
    """Choose the unlabeled images whose hidden masks pseudo-labels are compared with.

    The choice depends on the seed alone; the order is kept.
    """
    if len(ids) <= limit:
        return tuple(ids)
    generator = random.Random(derive_seed(seed, "pseudo-quality"))
    return tuple(ids[index] for index in sorted(generator.sample(range(len(ids)), limit)))


def pseudo_label_quality(
    source: Network | StoredLabels,
    dataset: SegDataset,
    ids: Sequence[str],
    settings: EvaluatorSettings,
    device: torch.device,
    *,
    stop: Callable[[], None] | None = None,
    precision: str = "fp32",
) -> Metrics | None:
    """Compare predictions or stored labels with hidden masks, where there are any.

    Images without a mask are left out, and so are bad masks, each with one warning; hidden masks never stop a run.

    Args:
        source: network on ``device``, or stored labels; images without such a label are left out.
        dataset: images and masks.
        ids: images to compare, see ``quality_ids``.
        settings: settings as for ``evaluate``.
        device: device of the computation.
        stop: function that is called before each batch or image and may raise to end it; ``None`` calls nothing.
        precision: ``trainer.precision`` of the run.

    Returns:
        ``None`` where no image has a usable mask; ``coverage`` is the share of pixels with a pseudo-label.
    """
    # The costly measurements are for the images that networks are judged on.
    usual = replace(settings, metrics=[])
    usable = 0

    def readable(wanted: Sequence[str]) -> Iterator[ReadImage]:
        nonlocal usable
        for image_id in wanted:
            found = _hidden_pair(dataset, image_id)
            if found is not None:
                usable += 1
                yield found

    if isinstance(source, Network):
        metrics = _count(source, readable(ids), dataset, usual, device, stop, precision)
        return metrics if usable else None
    # On the CPU, where stored labels are read: moving them would take longer than counting.
    matrix = Measurement(dataset.info, usual, torch.device("cpu")).matrix
    stored = set(source.ids)
    for image in readable([image_id for image_id in ids if image_id in stored]):
        if stop is not None:
            stop()
        matrix.update(torch.from_numpy(source.label(image.id)), torch.from_numpy(image.mask))
    return matrix.compute() if usable else None


def take_samples(
    network: Network,
    dataset: SegDataset,
    ids: Sequence[str],
    settings: EvaluatorSettings,
    device: torch.device,
    precision: str = "fp32",
) -> list[Sample]:
    """Predict a few images for pictures, large ones reduced; arguments as ``evaluate``, masks may be absent."""
    samples = []
    for image_id in ids:
        image, truth = dataset.image(image_id), dataset.mask(image_id)
        label, confidence = predict_with_confidence(network, to_batch([image], device), settings, precision)
        # At once: the pictures of all samples are in memory together.
        size = sample_size(*image.shape[:2])
        samples.append(
            Sample(
                image_id,
                displayed(reduced(image, size), dataset.info.bands),
                None if truth is None else reduced(truth, size),
                reduced(label[0].to(torch.uint8).cpu().numpy(), size),
                reduced(confidence[0].cpu().numpy(), size),
            )
        )
    return samples


def _count(
    network: Network,
    read: Iterable[ReadImage],
    dataset: SegDataset,
    settings: EvaluatorSettings,
    device: torch.device,
    stop: Callable[[], None] | None,
    precision: str,
    watch: Watcher | None = None,
) -> Metrics:
    measurement = Measurement(dataset.info, settings, device)

    def size(image: ReadImage) -> tuple[int, int]:
        return seen_size(*_compared_size(image.pixels, settings), settings, network.size_multiple)

    def work(batch: ImageBatch) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        pairs = [_compared(images, settings, network, device) for images in batch]
        found = predict_groups(
            network,
            [images for images, _ in pairs],
            settings,
            precision,
            with_confidence=measurement.needs_confidence,
        )
        return [(labels, truth, sure) for (labels, sure), (_, truth) in zip(found, pairs, strict=True)]

    limit = MemoryLimit()
    coming = image_batches(read, size, settings.batch_size, device)
    with evaluating(network), reading_ahead(coming) as batches:
        for batch in batches:
            if stop is not None:
                stop()
            for part, results in limit.apply(work, batch):
                for images, (labels, truth, confidence) in zip(part, results, strict=True):
                    measurement.update(labels, truth, confidence)
                    if watch is not None:
                        watch(images.ids, labels, truth)
    return measurement.compute()


def _compared(
    images: EqualImages, settings: EvaluatorSettings, network: Network, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return images and masks on the device, at the size at which they are compared."""
    assert images.masks is not None
    pixels = images.images.to(device, non_blocking=True)
    truth = images.masks.to(device, non_blocking=True)
    return _with_margin(*_at_size(pixels, truth, settings), settings, network)


def _compared_size(pixels: Pixels, settings: EvaluatorSettings) -> tuple[int, int]:
    """Return the size of an image of ``_compared``."""
    height, width = settings.resize_to or pixels.shape[:2]
    crop = settings.center_crop
    if crop is None:
        return height, width
    return (crop, crop) if settings.crop_margin != "none" else (min(height, crop), min(width, crop))


def _at_size(images: Tensor, truth: Tensor, settings: EvaluatorSettings) -> tuple[Tensor, Tensor]:
    if settings.resize_to is not None:
        # Floats, since torch resizes no int64; class numbers are exact in them.
        labels = F.interpolate(truth[:, None].float(), settings.resize_to, mode="nearest")
        images, truth = resized(images, settings), labels[:, 0].to(truth.dtype)
    if settings.center_crop is None:
        return images, truth
    return _middle(images, settings.center_crop), _middle(truth, settings.center_crop)


def _middle(maps: Tensor, side: int) -> Tensor:
    """Return the square in the middle of ``(..., H, W)``; an axis that is shorter stays whole."""
    top, left = (max((length - side) // 2, 0) for length in maps.shape[-2:])
    return maps[..., top : top + side, left : left + side]


def _with_margin(
    images: Tensor, truth: Tensor, settings: EvaluatorSettings, network: Network
) -> tuple[Tensor, Tensor]:
    """Bring images that are smaller than the crop to its size, with class 0 around them, where the settings say so."""
    if settings.center_crop is None or settings.crop_margin == "none":
        return images, truth
    rows, columns = (max(settings.center_crop - length, 0) for length in images.shape[-2:])
    margins = columns // 2, columns - columns // 2, rows // 2, rows - rows // 2
    if not any(margins):
        return images, truth
    # Published code of U2PL: u2pl/dataset/augmentation.py pads the images after normalization.
    return pad_with_mean(images.float(), margins, network), F.pad(truth, margins)


def _true_pair(dataset: SegDataset, image_id: str) -> ReadImage:
    image, mask = dataset.image(image_id), dataset.mask(image_id)
    where = f"Image '{image_id}' of dataset '{dataset.info.name}'"
    if mask is None:
        raise UserError(
            f"{where} has no mask, so nothing can be measured on it. Evaluate images that have masks."
        )
    if mask.shape != image.shape[:2]:
        sizes = [f"{array.shape[1]}x{array.shape[0]}" for array in (image, mask)]
        raise UserError(
            f"{where} has {sizes[0]} pixels, but its mask has {sizes[1]}. Replace one of the two files."
        )
    return ReadImage(image_id, image, mask)


def _hidden_pair(dataset: SegDataset, image_id: str) -> ReadImage | None:
    """Read an image and its hidden mask; ``None`` where there is no usable mask."""
    try:
        mask = dataset.mask(image_id)
        if mask is None:
            return None
        image = dataset.image(image_id)
        if mask.shape != image.shape[:2]:
            raise ValueError(f"mask of {mask.shape} for an image of {image.shape[:2]} pixels")
        foreign = np.unique(mask[(mask >= dataset.info.num_classes) & (mask != dataset.info.ignore_index)])
        if foreign.size:
            raise ValueError(f"labels outside the classes: {foreign[:5].tolist()}")
    except Interrupted:
        raise
    except Exception as error:  # a decoder may raise anything, and a hidden mask must never stop a run
        message = (
            f"The hidden mask of unlabeled image '{image_id}' is left out of pseudo-label quality: {error}"
        )
        # Every evaluation of a run reads the same masks.
        if message not in _reported:
            _reported.add(message)
            log.warning(message)
        return None
    return ReadImage(image_id, image, mask)
