"""Images a second of each paper's data pipeline: as published, and semiseg's from files and from the store."""

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch

from semiseg.benchmark import originals
from semiseg.benchmark.files import Tree, cityscapes_tree, voc_tree
from semiseg.config import build
from semiseg.config.compose import Request, compose
from semiseg.contracts.dataset import SegDataset
from semiseg.contracts.training import View
from semiseg.data.cityscapes import LABEL_IDS
from semiseg.data.collate import collate
from semiseg.data.pseudo import PseudoLabels
from semiseg.data.store import stored
from semiseg.data.streams import Item
from semiseg.splits.split import make_split

BATCH = 8
CPS_LENGTHS = {"voc": (1323, 9259), "cityscapes": (372, 2603)}
"""Labeled and unlabeled images of CPS's partitions 1/8."""

Work = Callable[[int], Any]


@dataclass(frozen=True)
class Pipeline:
    """One way of a paper from files to what its network gets.

    Args:
        name: paper, dataset, labeled or not, crop.
        tree: made files: "voc", "cityscapes" or "cityscapes_half".
        labels: what semiseg's stream takes as labels.
        options: augmentation and crop, as on the command line.
        view: of that augmentation.
        original: one item by the published operations, of the position in the dataset.
        recorded: images/s of the published code itself, run on another machine (see docs/results/data.md).
    """

    name: str
    tree: str
    labels: Literal["true", "pseudo"] | None
    options: Sequence[str]
    view: Literal["weak", "strong", "pair"]
    original: Callable[[Tree], Work]
    recorded: float

    def ours(self, dataset: SegDataset, pseudo: PseudoLabels) -> Work:
        """A batch of semiseg, up to the tensors that a training step gets."""
        cfg = compose(Request((*self.options, "dataset=shapes")))
        augment = build.augment(cfg)
        view: View = getattr(augment, self.view)
        labels: Any = pseudo if self.labels == "pseudo" else self.labels
        ids = dataset.ids("train")
        items = [Item(image_id, labels, view) for image_id in ids]

        def work(number: int) -> Any:
            chosen = [items[(BATCH * number + slot) % len(items)] for slot in range(BATCH)]
            return collate(dataset, chosen, (0, "benchmark", number))

        return work


@dataclass(frozen=True)
class Rates:
    """Images a second and core of one pipeline.

    Args:
        name: of the pipeline.
        original: the published operations.
        files: semiseg, decoding the files.
        store: semiseg, from the store.
        recorded: see ``Pipeline``.
    """

    name: str
    original: float
    files: float
    store: float
    recorded: float

    @property
    def gain(self) -> float:
        """Rate from the store as a multiple of the original's."""
        return self.store / self.original


@dataclass(frozen=True)
class Files:
    """The files that were measured.

    Args:
        name: of their tree.
        image_bytes: mean size of an image file.
        mask_bytes: mean size of a mask file.
        stored: images with masks a second that filled the store, on all cores.
    """

    name: str
    image_bytes: float
    mask_bytes: float
    stored: float


def measure(
    source: SegDataset, images: int, rounds: int, seconds: float, told: Callable[[str], None]
) -> tuple[list[Rates], list[Files]]:
    """Measure all pipelines on files made of a dataset's training images.

    One thread; CPU time, not wall time; the three ways of a pipeline take turns, and the median of the rounds
    counts. The originals' part ends with the tensors of one image, semiseg's with those of a batch.

    Args:
        source: where pictures come from.
        images: VOC files to make; of Cityscapes a quarter.
        rounds: of each way.
        seconds: CPU time of a round.
        told: called with a line about each pipeline.

    Returns:
        The rates, and facts about the files.

    Raises:
        UserError: the dataset has no training images.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory(prefix="semiseg-benchmark-") as folder:
        root = Path(folder)
        ids = (source.ids("train") * images)[: images + 1]
        trees = {"voc": voc_tree(source, ids, root / "voc", root / "cache")}
        trees["cityscapes"], trees["cityscapes_half"] = cityscapes_tree(
            source, ids[: max(2, images // 4) + 1], root / "cityscapes", root / "cache"
        )
        facts, kept = [], {}
        for name, tree in trees.items():
            began = time.perf_counter()
            kept[name] = stored(tree.dataset, make_split(tree.dataset, "full"))
            rate = len(tree.dataset.ids("train")) / (time.perf_counter() - began)
            facts.append(Files(name, *tree.mean_bytes(), rate))
        found = []
        for pipeline in pipelines():
            tree = trees[pipeline.tree]
            rates = interleaved(
                {
                    "original": (pipeline.original(tree), 1),
                    "files": (pipeline.ours(tree.dataset, tree.pseudo), BATCH),
                    "store": (pipeline.ours(kept[pipeline.tree], tree.pseudo), BATCH),
                },
                rounds,
                seconds,
            )
            found.append(Rates(pipeline.name, **rates, recorded=pipeline.recorded))
            told(f"{found[-1].name}: {found[-1].gain:.1f} times the original")
    return found, facts


def interleaved(ways: Mapping[str, tuple[Work, int]], rounds: int, seconds: float) -> dict[str, float]:
    """Images a second of CPU time of several ways that take turns.

    Args:
        ways: what is called with rising numbers, and the images that a call makes.
        rounds: of each; the median counts.
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


def _files(tree: Tree) -> list[tuple[Path, Path]]:
    pairs = [tree.dataset.files(image_id) for image_id in tree.dataset.ids("train")]
    return [(image, mask) for image, mask in pairs if mask is not None]


def _each(one: Callable[[Path, Path], Any]) -> Callable[[Tree], Work]:
    def made(tree: Tree) -> Work:
        files = _files(tree)
        return lambda number: one(*files[number % len(files)])

    return made


def _pseudo(crop: tuple[int, int]) -> Callable[[Tree], Work]:
    def made(tree: Tree) -> Work:
        images = [(tree.dataset.files(image_id)[0], path) for image_id, path in tree.arrays.items()]
        return lambda number: originals.dmt_pseudo(*images[number % len(images)], crop)

    return made


def _cps(kind: str, crop: int, labeled: bool) -> Callable[[Tree], Work]:
    count = CPS_LENGTHS[kind][0 if labeled else 1]
    names = [f"{number:06d}" for number in range(count)]
    length = CPS_LENGTHS[kind][1]
    edges = kind == "cityscapes"
    return _each(lambda i, m: originals.cps(i, m if labeled else None, crop, names, length, edges))


def _dmt_cityscapes() -> Callable[[Tree], Work]:
    table = torch.full((256,), 255, dtype=torch.int64)
    table[list(LABEL_IDS)] = torch.arange(len(LABEL_IDS))
    return _each(lambda i, m: originals.dmt(i, m, (256, 512), (512, 1024), table))


def pipelines() -> list[Pipeline]:
    """The pipelines of all papers."""
    known = [f"{number:06d}" for number in range(9118)]
    dmt = "augment=dmt"
    voc, city = ("augment=stpp", "trainer.crop_size=321"), ("augment=stpp", "trainer.crop_size=721")
    large = "augment.weak.resize.base=2048"
    cac = ("augment=cac", "trainer.crop_size=320"), ("augment=cac_cityscapes", "trainer.crop_size=720")
    cps = ("augment=cps", "trainer.crop_size=512"), ("augment=cps", "trainer.crop_size=800")
    rows: list[tuple[Any, ...]] = [
        ("DMT VOC labeled 321", "voc", "true", (dmt, "trainer.crop_size=321"), "weak",
         _each(lambda i, m: originals.dmt(i, m, (321, 321), None, None)), 236),
        ("DMT VOC pseudo-labeled 321", "voc", "pseudo", (dmt, "trainer.crop_size=321"), "weak",
         _pseudo((321, 321)), 253),
        ("CPS VOC labeled 512", "voc", "true", cps[0], "weak", _cps("voc", 512, True), 136),
        ("CPS VOC unlabeled 512", "voc", None, cps[0], "weak", _cps("voc", 512, False), 148),
        ("ST++ VOC labeled 321", "voc", "true", voc, "weak",
         _each(lambda i, m: originals.stpp(i, m, 321, 400, known, False)), 286),
        ("ST++ VOC strong 321", "voc", "true", voc, "strong",
         _each(lambda i, m: originals.stpp(i, m, 321, 400, known, True)), 145),
        ("CAC VOC labeled 320", "voc", "true", cac[0], "weak",
         _each(lambda i, m: originals.cac(i, m, 320, 400, False)), 210),
        ("CAC VOC pair 320", "voc", None, cac[0], "pair",
         _each(lambda i, m: originals.cac_pair(i, m, 320, 400)), 92),
        ("DMT Cityscapes labeled 256x512", "cityscapes_half", "true", (dmt, "trainer.crop_size=[256,512]"),
         "weak", _dmt_cityscapes(), 15),
        ("CPS Cityscapes labeled 800", "cityscapes", "true", cps[1], "weak", _cps("cityscapes", 800, True), 9.2),
        ("CPS Cityscapes unlabeled 800", "cityscapes", None, cps[1], "weak",
         _cps("cityscapes", 800, False), 10.9),
        ("ST++ Cityscapes labeled 721", "cityscapes", "true", (*city, large), "weak",
         _each(lambda i, m: originals.stpp(i, m, 721, 2048, known, False)), 14),
        ("ST++ Cityscapes strong 721", "cityscapes", "true", (*city, large), "strong",
         _each(lambda i, m: originals.stpp(i, m, 721, 2048, known, True)), 11),
        ("CAC Cityscapes labeled 720", "cityscapes", "true", cac[1], "strong",
         _each(lambda i, m: originals.cac(i, m, 720, 2048, True)), 9.1),
        ("CAC Cityscapes pair 720", "cityscapes", None, cac[1], "pair",
         _each(lambda i, m: originals.cac_pair(i, m, 720, 2048)), 9.3),
    ]  # fmt: skip
    return [Pipeline(*row) for row in rows]
