"""The training step of a method as a multiple of the bare passes of its networks over the same images."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from semiseg.assembly import open_session
from semiseg.benchmark.bare_passes import (
    FitRecorder,
    RecordedFit,
    describe_passes,
    record_passes,
    run_passes,
)
from semiseg.config import build
from semiseg.config.compose import Composed
from semiseg.config.environment import free_threads
from semiseg.contracts.dataset import Array, DatasetInfo, Part
from semiseg.contracts.training import Batch
from semiseg.data.palette import bit_color
from semiseg.engine.loop import Trainer
from semiseg.engine.signals import StopRequest
from semiseg.engine.step import count_images, peak_memory, to_device
from semiseg.models.precision import autotuned, set_numerics
from semiseg.runs.directory import RunDir
from semiseg.settings import EvaluatorSettings
from semiseg.splits.split import make_split
from semiseg.tasks.segmentation import Segmentation

IMAGES = 64
LABELED = "1/4"
MARGIN = 32


class SyntheticImages:
    """Noise and blocks of classes in memory, a little larger than the crops.

    Args:
        info: Classes and colors of the dataset.
        size: Height and width of the images.
    """

    def __init__(self, info: DatasetInfo, size: tuple[int, int]) -> None:
        self.info = info
        rng = np.random.default_rng(0)
        blocks = rng.integers(0, info.num_classes, (8, 8), np.uint8)
        self._mask = np.kron(blocks, np.ones((-(-size[0] // 8), -(-size[1] // 8)), np.uint8))
        self._image = rng.integers(0, 256, (*self._mask.shape, 3), np.uint8)

    def ids(self, part: Part) -> tuple[str, ...]:
        """Training images, and two for validation."""
        count = {"train": IMAGES, "val": 2}.get(part, 0)
        return tuple(f"{part}{number}" for number in range(count))

    def image(self, image_id: str) -> Array:
        """The same for every id."""
        return self._image.copy()

    def mask(self, image_id: str) -> Array | None:
        """The same for every id."""
        return self._mask.copy()


@dataclass(frozen=True)
class StepTime:
    """Times of a training step of one fit.

    Args:
        fit: Name of the step of the recipe.
        passes: Passes of the networks, in words.
        images: Images of a step, all views counted.
        step: Seconds of a training step without its data.
        bare: Seconds of the bare passes.
        multiple: Median over the rounds of step / bare, by the clock.
        cpu_multiple: The same by CPU time.
        data: Seconds in which one process makes a batch.
        memory: Peak memory in bytes; without a GPU, the largest that the process ever had.
    """

    fit: str
    passes: str
    images: int
    step: float
    bare: float
    multiple: float
    cpu_multiple: float
    data: float
    memory: int


def measure_steps(cfg: Composed, rounds: int, report_line: Callable[[str], None]) -> list[StepTime]:
    """Measure the fits of a method that differ in learner, networks or batches.

    Step and bare passes take turns. A step is what the training loop does with a batch that is there: losses,
    backward, optimizer, what follows it. The bare passes are those that the step makes of its networks, in the
    same mode and precision and over the same images, upsampling of logits and auxiliary heads included: those with
    gradient forward and, from ones at their outputs, backward; the others forward.

    Args:
        cfg: Config of the run; its dataset gives the classes alone, images are made.
        rounds: Rounds of both.
        report_line: Called with a line about each fit.
    """
    on_cuda = build.device(cfg.trainer.device).type == "cuda"
    torch.set_num_threads(cfg.trainer.threads or free_threads(cfg.trainer.num_workers, on_cuda))
    set_numerics(cfg.trainer.precision, deterministic=cfg.trainer.deterministic)
    crop = cfg.trainer.crop_size
    height, width = (crop, crop) if isinstance(crop, int) else crop
    dataset = SyntheticImages(info_of(cfg), (height + MARGIN, width + MARGIN))
    found = []
    with tempfile.TemporaryDirectory(prefix="semiseg-benchmark-") as folder, StopRequest() as stop:
        task = Segmentation(build.settings(EvaluatorSettings, cfg.evaluator))
        split = make_split(dataset, LABELED)
        session, networks = open_session(cfg, task, RunDir(Path(folder)), dataset, split, stop)
        lab = FitRecorder(session, networks)
        build.method(cfg).run(lab)
        for fit in lab.distinct_fits():
            stop.check()
            found.append(measure_fit(fit, Path(folder), rounds))
            report_line(f"{fit.name}: {found[-1].multiple:.2f} times the bare passes")
    return found


def measure_fit(fit: RecordedFit, folder: Path, rounds: int) -> StepTime:
    """Measure one fit, late in its training, when losses that wait for a warm-up have begun."""
    session, total = fit.session, fit.streams.iterations
    device = session.compute.device
    trainer = Trainer(session, fit.name, folder, 0, fit.learner, fit.streams, [])
    trainer.record.completed = max(total * 3 // 4, total - 2 * rounds - 4, 0)
    began = time.process_time()
    batches = [
        fit.streams.batch(session.data.dataset, session.training.seed, fit.name, number)
        for number in range(2)
    ]
    data = (time.process_time() - began) / len(batches)
    batch: Batch = to_device(batches[0], device, session.compute.memory_format)

    def step() -> None:
        trainer.step(batch)
        # On a GPU the optimizer steps here.
        trainer.settle()

    passes = record_passes(fit.learner, step)
    networks = list({id(each.network): each.network for each in passes}.values())

    def bare() -> None:
        with autotuned(device):
            run_passes(passes, networks, session.compute.autocast)

    works = (step, bare)
    works[1]()
    taken = [[_timed(work, device) for work in works] for _ in range(rounds)]
    return StepTime(
        fit=fit.name,
        passes=describe_passes(passes),
        images=count_images(batch),
        step=statistics.median(step[0] for step, _ in taken),
        bare=statistics.median(bare_[0] for _, bare_ in taken),
        multiple=statistics.median(step[0] / bare_[0] for step, bare_ in taken),
        cpu_multiple=statistics.median(step[1] / bare_[1] for step, bare_ in taken),
        data=data,
        memory=peak_memory(device),
    )


def _timed(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds by the clock and of CPU time."""
    began, used = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, time.process_time() - used


def info_of(cfg: Composed) -> DatasetInfo:
    """Classes of the configured dataset, without its files."""
    names: Sequence[str] | None = cfg.dataset.get("classes")
    if names is None:
        module = import_module(str(cfg.dataset["_target_"]).rpartition(".")[0])
        names = tuple(module.CLASSES) if hasattr(module, "CLASSES") else build.dataset(cfg).info.classes
    colors = tuple(bit_color(label) for label in range(len(names)))
    return DatasetInfo(str(cfg.dataset.get("name", "made")), tuple(names), colors)
