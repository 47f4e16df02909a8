"""The steps, labelings and evaluations of presets on fake CUDA tensors.

Runs in a process that has the runtime of ``fake_runtime`` loaded:

    python tests/fake_cuda/fake_runs.py OUTPUT PRESET ...

A line of JSON is written for each case.
"""

import gc
import json
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fake_recorder import HostValues, Recorder, make_fakes_usable
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from presets import POOLS
from semiseg.assembly import open_session
from semiseg.benchmark.bare_passes import FitRecorder, RecordedFit
from semiseg.benchmark.step_times import MARGIN, SyntheticImages, info_of
from semiseg.config import build
from semiseg.config.check import Checker
from semiseg.config.compose import Composed, Request
from semiseg.config.prepare import checked
from semiseg.contracts.dataset import DatasetInfo
from semiseg.contracts.recipe import LabelPolicy
from semiseg.contracts.training import Batch, Network
from semiseg.data.streams import Streams
from semiseg.engine.loop import Trainer
from semiseg.engine.plan import PlannedLabels
from semiseg.engine.session import Compute, Networks, Session
from semiseg.engine.signals import StopRequest
from semiseg.engine.step import count_images, to_device
from semiseg.runs.directory import RunDir
from semiseg.settings import EvaluatorSettings
from semiseg.splits.split import make_split
from semiseg.tasks.segmentation import Segmentation
from semiseg.tasks.tiles import Tiling, predict_tiled

Case = dict[str, Any]
"""Preset, kind and name of a piece of work, what it did (``fake_recorder.Work``), and perhaps its ``error``."""


NEEDED = dict.fromkeys(("few_labels", "supervised_few_labels"), ("dataset=camvid",))
"""What a preset leaves open."""

EVALUATED = "supervised_cps_voc"
"""Preset whose network is also evaluated with measurements of no preset, and predicts."""


class FakeLab(FitRecorder):
    """Lab that records the labelings of a recipe too.

    Args:
        session: Session that the recipe is walked through with.
        networks: Where its networks come from.
        measured: called with the kind and name of a piece of work, and the work.
    """

    def __init__(
        self, session: Session, networks: Networks, measured: Callable[[str, str, Callable[[], object]], None]
    ) -> None:
        super().__init__(session, networks)
        self._measured = measured
        self._labelings: set[Any] = set()

    def label(
        self,
        name: str,
        network: Network,
        ids: Sequence[str],
        policy: LabelPolicy,
        *,
        keep_confidence: bool = True,
    ) -> PlannedLabels:
        """Label one image with each kind of policy, as far as the arrays that are written."""

        def work() -> None:
            for _, (label, confidence) in self.predict(network, ids[:1], policy):
                label.cpu()
                confidence.cpu()

        kind = getattr(policy, "__qualname__", type(policy).__qualname__)
        if kind not in self._labelings:
            self._labelings.add(kind)
            self._measured("label", name, work)
        return super().label(name, network, ids, policy, keep_confidence=keep_confidence)

    def _warm(self, work: Callable[[], object]) -> float:
        """Do once what a plan would do twice for its time."""
        work()
        return 0.0


def place_fakes(compute: Compute, module: nn.Module) -> nn.Module:
    """Move a module as ``Compute.place`` does; its own way exchanges tensors, which fake ones refuse."""
    moved: dict[int, Any] = {}

    def move(value: Any) -> Any:
        if value is None or value.device.type == compute.device.type:
            return value
        if id(value) not in moved:
            layout = compute.memory_format if value.dim() == 4 else torch.preserve_format
            new = torch.empty_like(value, device=compute.device, memory_format=layout, requires_grad=False)
            moved[id(value)] = (
                nn.Parameter(new, value.requires_grad) if isinstance(value, nn.Parameter) else new
            )
        return moved[id(value)]

    for each in module.modules():
        for table in (each._parameters, each._buffers):
            table.update({name: move(value) for name, value in table.items()})
    return module


def full_batch(fit: RecordedFit, iteration: int) -> Batch:
    """Return a batch of fake tensors of the host in its full size, of which one image of each stream was made."""
    streams = fit.streams
    assert isinstance(streams, Streams)
    single = replace(
        streams, streams={name: replace(each, batch_size=1) for name, each in streams.streams.items()}
    )
    made = single.batch(fit.session.data.dataset, fit.session.training.seed, fit.name, iteration)
    sizes = {name: each.batch_size for name, each in streams.streams.items()}
    return {
        name: {key: _repeated(value, sizes[name]) for key, value in part.items()}
        for name, part in made.items()
    }


def _repeated(value: Any, count: int) -> Any:
    if not isinstance(value, Tensor):
        return value * count
    shape = (count, *value.shape[1:])
    if value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last):
        return torch.empty(shape, dtype=value.dtype, memory_format=torch.channels_last)
    return torch.empty(shape, dtype=value.dtype)


def config_of(preset: str) -> Composed:
    """Compose a preset in bf16 on the fake device."""
    own = (f"experiments={preset}", "trainer.device=cuda", "trainer.precision=bf16", "trainer.threads=1")
    if preset.startswith("dmt"):
        # All phases do the same; the networks of each take as long to build as a step.
        own = (*own, "method.ratios=[1.0]")
    return checked(Request((*own, *NEEDED.get(preset, ()))), Checker(), settings_only=True)


def dataset_info(cfg: Composed) -> DatasetInfo:
    """Classes of the dataset, without its files."""
    if cfg.dataset.name not in POOLS:
        return info_of(cfg)
    classes = POOLS[cfg.dataset.name][-1]
    return DatasetInfo(cfg.dataset.name, tuple(map(str, range(classes))), ((0, 0, 0),) * classes)


class PresetRun:
    """Everything that a preset does on a GPU, once.

    Args:
        preset: its name.
        folder: empty directory.
        recorder: recorder of operations, active.
    """

    def __init__(self, preset: str, folder: Path, recorder: Recorder) -> None:
        self.preset, self.folder, self.recorder = preset, folder, recorder
        self.cases: list[Case] = []
        self.facts: dict[str, Any] = {}

    def measured(self, kind: str, name: str, work: Callable[[], object]) -> None:
        """Do a piece of work and keep what it did, and the error where it fails."""
        began = time.process_time()
        case: Case = {"preset": self.preset, "kind": kind, "name": name, **self.facts}
        with self.recorder.recording() as seen:
            try:
                work()
            except Exception as error:
                case["error"] = "".join(traceback.format_exception(error)[-8:])
        case |= vars(seen)
        case["seconds"] = round(time.process_time() - began, 2)
        self.cases.append(case)

    def run(self, stop: StopRequest) -> list[Case]:
        """Walk through the recipe; then do a step of each kind of fit, and evaluate."""
        cfg = config_of(self.preset)
        self.facts = {"method": str(cfg.method.name), "channels_last": bool(cfg.trainer.channels_last)}
        crop = cfg.trainer.crop_size
        height, width = (crop, crop) if isinstance(crop, int) else crop
        dataset = SyntheticImages(dataset_info(cfg), (height + MARGIN, width + MARGIN))
        task = Segmentation(build.settings(EvaluatorSettings, cfg.evaluator))
        split = make_split(dataset, "1/4")
        session, networks = open_session(cfg, task, RunDir(self.folder), dataset, split, stop)
        lab = FakeLab(session, networks, self.measured)
        build.method(cfg).run(lab)
        fits = lab.distinct_fits()
        lab.fits.clear()
        if not fits:
            raise ValueError(f"{self.preset} trains nothing")
        model = next(iter(fits[0].learner.predictors().values()))
        session.compute.place(model)
        self.measured("evaluate", cfg.evaluator.name, partial(session.evaluate, model, split.val))
        if self.preset == EVALUATED:
            self.evaluate(session, model)
        del model
        while fits:
            self.step(fits.pop(0))
        return self.cases

    def evaluate(self, session: Session, model: Network) -> None:
        """Evaluate with all measurements; take samples, and predict in tiles."""
        ids, precision = session.data.split.val, session.compute.precision
        device = session.compute.device
        evaluator = EvaluatorSettings(metrics=["boundary_iou", "calibration"])
        changed = replace(session, training=replace(session.training, evaluator=evaluator))
        self.measured("evaluate", "measurements", partial(changed.evaluate, model, ids))
        image, settings = np.zeros((600, 900, 3), np.uint8), session.training.evaluator
        self.measured("predict", "samples", lambda: session.samples(model))
        self.measured(
            "predict",
            "tiles",
            lambda: predict_tiled(model, image, settings, Tiling(512, 128), device, precision),
        )

    def step(self, fit: RecordedFit) -> None:
        """Do a step late in a fit, with the state of the optimizer that earlier steps would have made."""
        session, total = fit.session, fit.streams.iterations
        compute = session.compute
        trainer = Trainer(session, fit.name, self.folder, 0, fit.learner, fit.streams, [])
        trainer.record.completed = max(total * 3 // 4, total - 2)
        give_state(trainer.optimizer)
        # Networks of steps before this one that nothing but a circle of references holds.
        gc.collect()
        cpu = full_batch(fit, trainer.record.completed)

        def work() -> None:
            trainer.step(to_device(cpu, compute.device, compute.memory_format))
            trainer.settle()

        self.measured("step", fit.name, work)
        self.cases[-1]["images"] = count_images(cpu)


def give_state(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer make what it keeps for each parameter."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    for each in parameters:
        each.grad = torch.empty_like(each)
    optimizer.step()
    for each in parameters:
        each.grad = None


INITIAL = re.compile(r"[a-z]\w*[a-z]_")
"""Names of the functions that fill weights."""


def run_presets(presets: Sequence[str]) -> Iterator[Case]:
    """Give the cases of presets."""
    make_fakes_usable()
    Compute.place = place_fakes  # type: ignore[method-assign, assignment]
    for name in filter(INITIAL.fullmatch, dir(nn.init)):
        # There are no values to draw.
        setattr(nn.init, name, lambda tensor, *_, **__: tensor)
    for preset in presets:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="semiseg-fake-"))
            stop = stack.enter_context(StopRequest())
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            recorder = stack.enter_context(Recorder())
            stack.enter_context(HostValues(recorder))
            run = PresetRun(preset, Path(folder), recorder)
            yield from run.run(stop)


def main(output: str, presets: Sequence[str]) -> None:
    """Write the cases of presets."""
    torch.set_num_threads(1)
    with Path(output).open("w", encoding="utf-8", buffering=1) as file:
        for case in run_presets(presets):
            file.write(json.dumps(case) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
    # The threads of the backward pass do not always survive the end of Python on the stand-in.
    os._exit(0)
