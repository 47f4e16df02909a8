"""What a recipe is going to do and how long that takes, found by walking through it without training."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semiseg.config.schema import TrainerConfig
from semiseg.data.augment import Augment
from semiseg.data.dataset import Array, DatasetInfo, SegDataset
from semiseg.data.pseudo import Confidence, PseudoLabels
from semiseg.data.splits import Split
from semiseg.data.streams import Budget, Streams
from semiseg.engine.evaluate import predict
from semiseg.engine.lab import FitResult, LabelPolicy
from semiseg.engine.loop import evaluation_interval
from semiseg.engine.session import Session
from semiseg.engine.step import forward_backward, to_device
from semiseg.methods.base import Learner, Method, Progress
from semiseg.models.segmodel import SegModel

TIMED_STEPS = 2


@dataclass(frozen=True)
class PlannedStep:
    """One step of the plan.

    Args:
        name: the step's name.
        work: what it does, in words.
        iterations: optimizer steps; 0 for other steps.
        seconds: estimated time.
        bytes: disk that it needs.
    """

    name: str
    work: str
    iterations: int
    seconds: float
    bytes: int


class PlannedLabels(PseudoLabels):
    """Stand-in for pseudo-labels that do not exist yet: class 0 everywhere, with confidence 1."""

    def __init__(self, ids: Sequence[str], dataset: SegDataset) -> None:
        super().__init__(Path(), ids)
        self._dataset = dataset

    def label(self, image_id: str) -> Array:
        """Class 0 in the size of the image."""
        return np.zeros(self._dataset.image(image_id).shape[:2], np.uint8)

    def confidence(self, image_id: str) -> Confidence:
        """Confidence 1 in the size of the image."""
        return np.ones(self._dataset.image(image_id).shape[:2], np.float32)


class PlanLab:
    """Offers a recipe what ``Lab`` offers, times a few training steps of each fit and stores nothing.

    Args:
        session: the run to plan.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.steps: list[PlannedStep] = []
        self.dataset: SegDataset = session.dataset
        self.info: DatasetInfo = session.info
        self.split: Split = session.split
        self.augment: Augment = session.augment
        self.trainer: TrainerConfig = session.trainer
        self.budget: Budget = session.budget
        self.seed = session.seed

    def network(self, tag: str, weights: str | None = None) -> SegModel:
        """Build a network; its weights are of no account."""
        return self.session.network(weights)

    def fit(
        self, name: str, learner: Learner, streams: Streams, snapshots: Sequence[float] = ()
    ) -> FitResult:
        """Time a few steps and one evaluation."""
        session = self.session
        learner.to(device=session.device, memory_format=session.memory_format)  # type: ignore[call-overload]
        learner.train()
        seconds = []
        for iteration in range(min(TIMED_STEPS, streams.iterations)):
            started = time.perf_counter()
            batch = streams.batch(session.dataset, session.seed, name, iteration)
            batch = to_device(batch, session.device, session.memory_format)
            progress = Progress(iteration, streams.iterations, 0, seed=iteration)
            forward_backward(learner, batch, progress, session.trainer.accumulate, nullcontext)
            _synchronize(session.device)
            seconds.append(time.perf_counter() - started)
        model = next(iter(learner.predictors().values()))
        every = evaluation_interval(session.trainer.eval_every, streams, session.trainer.iterations is None)
        evaluations = math.ceil(streams.iterations / every)
        per_image = self._seconds_per_image(model)
        watched = len(session.split.val) + len(session.quality_ids)
        network = _size(model)
        state = sum(_size(child) for child in learner.children()) * 2
        self.steps.append(
            PlannedStep(
                name,
                f"{streams.iterations} iterations, {evaluations} evaluations",
                streams.iterations,
                streams.iterations * min(seconds) + evaluations * watched * per_image,
                2 * state + network * (3 + len(snapshots)),
            )
        )
        fresh: Callable[[str], SegModel] = lambda file: session.network("none")  # noqa: E731
        return FitResult(fresh, "best", ["snapshot"] * len(snapshots))

    def label(
        self,
        name: str,
        network: SegModel,
        ids: Sequence[str],
        policy: LabelPolicy,
        *,
        keep_confidence: bool = True,
    ) -> PseudoLabels:
        """Time the labeling of one image."""
        labels = PlannedLabels(ids, self.dataset)
        if not ids:
            return labels
        image = torch.from_numpy(self.dataset.image(ids[0])).permute(2, 0, 1).unsqueeze(0)
        network = network.to(self.session.device).eval()
        started = time.perf_counter()
        with torch.inference_mode():
            policy(network, image.to(self.session.device))
        _synchronize(self.session.device)
        seconds = (time.perf_counter() - started) * len(ids)
        size = image.shape[-1] * image.shape[-2] * (5 if keep_confidence else 1) * len(ids)
        self.steps.append(PlannedStep(name, f"label {len(ids)} images", 0, seconds, size))
        return labels

    def memo(self, name: str, compute: Callable[[], Any], planned: Callable[[], Any]) -> Any:
        """Take the stand-in."""
        self.steps.append(PlannedStep(name, "compute and remember", 0, 0.0, 0))
        return planned()

    def release(self, labels: PseudoLabels) -> None:
        """Nothing is stored, so nothing is released."""

    def _seconds_per_image(self, model: SegModel) -> float:
        ids = self.split.val or self.split.labeled
        image = torch.from_numpy(self.dataset.image(ids[0])).permute(2, 0, 1).unsqueeze(0)
        model.eval()
        started = time.perf_counter()
        predict(model, image.to(self.session.device), self.session.evaluator)
        _synchronize(self.session.device)
        return time.perf_counter() - started


def _size(model: torch.nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_plan(method: Method, session: Session) -> list[PlannedStep]:
    """Walk through the recipe of a method and return its steps."""
    lab = PlanLab(session)
    method.run(lab)  # type: ignore[arg-type]
    return lab.steps


def render_plan(steps: Sequence[PlannedStep]) -> str:
    """The plan as text: a line a step and the sums."""
    width = max(len(step.name) for step in steps)
    lines = [
        f"  {number}. {step.name:<{width}}  {step.work}, about {_duration(step.seconds)}"
        for number, step in enumerate(steps, start=1)
    ]
    iterations = sum(step.iterations for step in steps)
    total = _duration(sum(step.seconds for step in steps))
    disk = sum(step.bytes for step in steps) / 2**20
    return "\n".join(
        [*lines, f"  in all {iterations} iterations, about {total}, up to {disk:.0f} MiB on disk"]
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
