"""Images per second and core of each paper's data pipeline: as published, and semiseg's from files and store.

    python benchmarks/data.py dataset=camvid dataset.root=PATH

The files that are read are made of the images of that dataset, in the sizes and formats of VOC and Cityscapes.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

import originals
from made_files import Tree, cityscapes_tree, voc_tree
from semiseg.benchmark.reading import StoreFill, Work, batches, fill_store, interleaved, one_thread
from semiseg.cli.arguments import Parser
from semiseg.cli.benchmark import add_measuring_options, benchmark_config, fill_table, publish, report_line
from semiseg.config import build
from semiseg.config.compose import Request, compose
from semiseg.contracts.dataset import SegDataset
from semiseg.contracts.feeding import View
from semiseg.data.cityscapes import LABEL_IDS
from semiseg.data.mix_box import MixBox
from semiseg.data.pseudo import PseudoLabels
from semiseg.data.views import WeakStrong
from semiseg.errors import UserError
from semiseg.splits.split import make_split

BATCH = 8
CPS_LENGTHS = {"voc": (1323, 9259), "cityscapes": (372, 2603)}
"""Labeled and unlabeled images of CPS's partitions 1/8."""


@dataclass(frozen=True)
class Pipeline:
    """One way of a paper from files to what its network gets.

    Args:
        name: Paper, dataset, labeled or not, crop.
        tree: Made files: "voc", "cityscapes" or "cityscapes_half".
        labels: Labels of semiseg's stream.
        options: Augmentation and crop, as on the command line.
        view: View of that augmentation.
        original: One item by the published operations, by its position in the dataset.
        recorded: Images/s of the published code itself, run on another machine (see docs/results/data.md); ``None``
            where it was not run.
    """

    name: str
    tree: str
    labels: Literal["true", "pseudo"] | None
    options: Sequence[str]
    view: Literal["weak", "strong", "pair", "weak and strong"]
    original: Callable[[Tree], Work]
    recorded: float | None

    def ours(self, dataset: SegDataset, pseudo: PseudoLabels) -> Work:
        """A batch of semiseg, up to the tensors that a training step gets."""
        augment = build.augment(compose(Request((*self.options, "dataset=shapes"))))
        view: View
        if self.view == "weak and strong":
            view = WeakStrong(augment.geometry, augment.photometric, k=2, valid=True, box=MixBox())
        else:
            view = getattr(augment, self.view)
        labels = pseudo if self.labels == "pseudo" else self.labels
        return batches(dataset, dataset.ids("train"), labels, view, BATCH)


@dataclass(frozen=True)
class PipelineRates:
    """Images per second and core of one pipeline.

    Args:
        name: Name of the pipeline.
        original: Rate of the published operations.
        files: Rate of semiseg, decoding the files.
        store: Rate of semiseg, from the store.
        recorded: Rate of the published code, see ``Pipeline``.
    """

    name: str
    original: float
    files: float
    store: float
    recorded: float | None

    @property
    def gain(self) -> float:
        """Rate from the store as a multiple of the original's."""
        return self.store / self.original


def main(arguments: Sequence[str]) -> None:
    """Measure and write the report.

    Raises:
        UserError: wrong settings, or a dataset without images.
    """
    options = _parser().parse_intermixed_args(arguments)
    source = build.dataset(benchmark_config(options))
    if not source.ids("train"):
        raise UserError(f"dataset {source.info.name} has no training images to make files of.")
    rates, fills = measure_pipelines(source, options.images, options.rounds, options.seconds, report_line)
    lines = [
        "| pipeline | original | files | store | store / original | original, recorded |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.name} | {each.original:.3g} | {each.files:.3g} | {each.store:.4g} | **{each.gain:.1f}** "
        f"| {'' if each.recorded is None else f'{each.recorded:g}'} |"
        for each in rates
    ]
    publish(["python benchmarks/data.py", *arguments], [*lines, "", *fill_table(fills)], options.output)


def _parser() -> Parser:
    parser = Parser(
        prog="python benchmarks/data.py",
        description="Measure the data pipelines of all papers against the published operations, on files made of "
        "the images of a dataset.",
        epilog="Example: python benchmarks/data.py dataset=camvid dataset.root=PATH --seconds 0.5",
    )
    add_measuring_options(parser, "VOC files to make; of Cityscapes a quarter")
    return parser


def measure_pipelines(
    source: SegDataset, images: int, rounds: int, seconds: float, report_line: Callable[[str], None]
) -> tuple[list[PipelineRates], list[StoreFill]]:
    """Measure all pipelines on files made of a dataset's training images.

    One thread; CPU time, not wall time; the three ways of a pipeline take turns, and the median of the rounds
    counts. The originals' part ends with the tensors of one image, semiseg's with those of a batch.

    Args:
        source: Dataset with the pictures.
        images: VOC files to make; of Cityscapes a quarter.
        rounds: Rounds of each way.
        seconds: CPU time of a round.
        report_line: Called with a line about each pipeline.

    Returns:
        The rates, and facts about the files.
    """
    with tempfile.TemporaryDirectory(prefix="semiseg-benchmark-") as folder, one_thread():
        trees = make_trees(source, images, Path(folder))
        stores, fills = {}, []
        for name, tree in trees.items():
            stores[name], fill = fill_store(name, tree.dataset, make_split(tree.dataset, "full"))
            fills.append(fill)
        found = []
        for pipeline in pipelines():
            tree = trees[pipeline.tree]
            rates = interleaved(
                {
                    "original": (pipeline.original(tree), 1),
                    "files": (pipeline.ours(tree.dataset, tree.pseudo), BATCH),
                    "store": (pipeline.ours(stores[pipeline.tree], tree.pseudo), BATCH),
                },
                rounds,
                seconds,
            )
            found.append(PipelineRates(pipeline.name, **rates, recorded=pipeline.recorded))
            report_line(f"{found[-1].name}: {found[-1].gain:.1f} times the original")
    return found, fills


def make_trees(source: SegDataset, images: int, root: Path) -> dict[str, Tree]:
    """Make the files of all pipelines, by the names that these give them."""
    ids = (source.ids("train") * images)[: images + 1]
    voc = voc_tree(source, ids, root / "voc", root / "cache")
    few = ids[: max(2, images // 4) + 1]
    full, half = cityscapes_tree(source, few, root / "cityscapes", root / "cache")
    return {"voc": voc, "cityscapes": full, "cityscapes_half": half}


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
        ("UniMatch VOC unlabeled 321", "voc", None, ("augment=unimatch", "trainer.crop_size=321"),
         "weak and strong", _each(lambda i, m: originals.unimatch(i, m, 321)), None),
        ("UniMatch V2 VOC unlabeled 518", "voc", None, ("augment=unimatch", "trainer.crop_size=518"),
         "weak and strong", _each(lambda i, m: originals.unimatch(i, m, 518)), None),
        ("UniMatch V2 Cityscapes unlabeled 798", "cityscapes", None,
         ("augment=unimatch", "trainer.crop_size=798"), "weak and strong",
         _each(lambda i, m: originals.unimatch(i, m, 798)), None),
    ]  # fmt: skip
    return [Pipeline(*row) for row in rows]


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"data.py: {error}", file=sys.stderr)
        sys.exit(2)
