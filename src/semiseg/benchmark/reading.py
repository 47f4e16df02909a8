"""Images per second that one core reads of a dataset, decoded from its files or taken from the store."""

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch

from semiseg.config import build
from semiseg.config.compose import Composed
from semiseg.config.stored import plain
from semiseg.contracts.dataset import SegDataset, Split
from semiseg.contracts.feeding import View
from semiseg.data.augment import Augment
from semiseg.data.collate import Item, collate
from semiseg.data.pseudo import PseudoLabels
from semiseg.data.store import Storable, stored
from semiseg.errors import UserError
from semiseg.splits.split import make_split

Work = Callable[[int], Any]
"""Makes the images, or the batch, of a number that rises with each call."""

Labels = Literal["true"] | PseudoLabels | None
"""Labels of a stream, see ``Item``."""


@dataclass(frozen=True)
class ReadingRate:
    """Images per second and core of one pipeline.

    Args:
        name: Dataset, labels, view and crop.
        files: Rate where the dataset itself gives the pixels, which decodes its files.
        store: Rate where the store of decoded pixels gives them. ``None`` for a dataset without files.
    """

    name: str
    files: float
    store: float | None


@dataclass(frozen=True)
class StoreFill:
    """The files of a dataset, and how quickly a store was filled with them.

    Args:
        name: Name of the dataset.
        image_bytes: Mean size of an image file.
        mask_bytes: Mean size of a mask file.
        rate: Images with masks per second that were decoded and stored, on all cores.
    """

    name: str
    image_bytes: float
    mask_bytes: float
    rate: float


def measure_reading(
    cfg: Composed, images: int, rounds: int, seconds: float, report_line: Callable[[str], None]
) -> tuple[list[ReadingRate], list[StoreFill]]:
    """Measure what the configured dataset and augmentation give a training loop.

    One thread and CPU time, as in ``interleaved``. The time ends with the tensors of a batch. The store is
    made anew in a temporary folder; that of the user is neither read nor changed.

    Args:
        cfg: Config with the dataset, the augmentation, the crop and the batch size.
        images: Number of training images that are read.
        rounds: Rounds of each measurement.
        seconds: CPU time of a round.
        report_line: Called with a line about each pipeline.

    Returns:
        The rates, and facts about the store; none for a dataset without files.

    Raises:
        UserError: The dataset has no training images.
    """
    with tempfile.TemporaryDirectory(prefix="semiseg-benchmark-") as folder, one_thread():
        dataset = _with_store(cfg, Path(folder))
        ids = make_split(dataset, "full").labeled[:images]
        if not ids:
            raise UserError(f"dataset {dataset.info.name} has no training images to read.")
        fills: list[StoreFill] = []
        sources = {"files": dataset}
        if isinstance(dataset, Storable):
            sources["store"], filled = fill_store(dataset.info.name, dataset, Split(ids, (), ()))
            fills.append(filled)
        rates = []
        for name, labels, view in _pipelines(build.augment(cfg)):
            size = cfg.trainer.batch_size
            ways = {way: (batches(source, ids, labels, view, size), size) for way, source in sources.items()}
            found = interleaved(ways, rounds, seconds)
            title = f"{dataset.info.name} {name} {cfg.trainer.crop_size}"
            rates.append(ReadingRate(title, found["files"], found.get("store")))
            report_line(f"{title}: {rate_text(max(found.values()))} images/s")
    return rates, fills


def rate_text(rate: float) -> str:
    """A rate with about three digits, never in powers of ten."""
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"


def _with_store(cfg: Composed, folder: Path) -> SegDataset:
    """Build the configured dataset with a store in a folder, where it can have one."""
    own = plain(cfg)
    if "cache_dir" in own["dataset"]:
        own["dataset"] |= {"cache": True, "cache_dir": str(folder)}
    return build.dataset(own)


def _pipelines(augment: Augment) -> list[tuple[str, Labels, View]]:
    """Names, labels and views that training methods read by this augmentation."""
    found: list[tuple[str, Labels, View]] = [
        ("labeled weak", "true", augment.weak),
        ("labeled strong", "true", augment.strong),
        ("unlabeled weak", None, augment.weak),
    ]
    if augment.pair is not None:
        found.append(("unlabeled pair", None, augment.pair))
    return found


def fill_store(name: str, dataset: Storable, split: Split) -> tuple[SegDataset, StoreFill]:
    """Fill the store of a dataset; return the dataset that reads from it, and how long that took."""
    began = time.perf_counter()
    source = stored(dataset, split)
    rate = len(split.labeled) / (time.perf_counter() - began)
    files = [dataset.files(image_id) for image_id in split.labeled]
    images, masks = [image for image, _ in files], [mask for _, mask in files if mask is not None]
    return source, StoreFill(name, _mean_bytes(images), _mean_bytes(masks), rate)


def _mean_bytes(files: Sequence[Path]) -> float:
    sizes = [file.stat().st_size for file in files if file.is_file()]
    return statistics.mean(sizes) if sizes else 0.0


def batches(dataset: SegDataset, ids: Sequence[str], labels: Labels, view: View, size: int) -> Work:
    """Return what makes the batches of a stream, up to the tensors that a training step gets.

    Args:
        dataset: Source of images and masks.
        ids: Images, read over and over in this order.
        labels: Labels of the images.
        view: View of each image.
        size: Images of a batch.
    """
    items = [Item(image_id, labels, view) for image_id in ids]

    def work(number: int) -> Any:
        chosen = [items[(size * number + slot) % len(items)] for slot in range(size)]
        return collate(dataset, chosen, (0, "benchmark", number))

    return work


def interleaved(ways: Mapping[str, tuple[Work, int]], rounds: int, seconds: float) -> dict[str, float]:
    """Images per second of CPU time of several ways that take turns.

    Args:
        ways: What is called with rising numbers, and the images that a call makes.
        rounds: Rounds of each way; the median counts.
        seconds: CPU time of a round.
    """
    calls: dict[str, int] = {}
    for name, (work, _) in ways.items():
        _seed(0)
        work(0)
        began = time.process_time()
        work(1)
        calls[name] = max(1, round(seconds / max(time.process_time() - began, 1e-6)))
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, (work, images) in ways.items():
            _seed(turn)
            began = time.process_time()
            for number in range(calls[name]):
                work(turn * calls[name] + number)
            taken[name].append((time.process_time() - began) / calls[name] / images)
    return {name: 1 / statistics.median(values) for name, values in taken.items()}


def _seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch and OpenCV compute with one thread inside of the block."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
