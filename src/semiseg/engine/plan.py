"""Plan of a run: the steps of its recipe and their duration, found by walking through it without training."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semiseg.contracts.dataset import Array, Confidence, SegDataset
from semiseg.contracts.feeding import BatchSource, StoredLabels
from semiseg.contracts.recipe import (
    FitResult,
    LabelPolicy,
    Method,
    Module,
    Result,
    ReusedFit,
    SelectivePolicy,
)
from semiseg.contracts.training import Learner, Network, Progress
from semiseg.data.collate import image_tensor
from semiseg.data.pseudo import PseudoLabels
from semiseg.engine.lab import REPORT, SessionLab, first_probe
from semiseg.engine.loop import complete_groups
from semiseg.engine.loss_check import LossNotFinite
from semiseg.engine.moments import evaluation_interval
from semiseg.engine.plan_text import PlannedStep, operations_text
from semiseg.engine.session import Networks, Session
from semiseg.engine.sizes import NetworkSize, trained_networks
from semiseg.engine.step import forward_backward, to_device
from semiseg.engine.step_cost import StepCost, step_cost
from semiseg.engine.step_memory import NetworkCost, mebibytes, networks_of
from semiseg.errors import RunFailed
from semiseg.models.bundle import network_state, restore_heads_and_input

TIMED_STEPS = 2


class PlannedLabels(PseudoLabels):
    """Placeholder for pseudo-labels that do not exist yet: class 0 everywhere, with confidence 1.

    Args:
        ids: labeled images.
        dataset: dataset that knows their sizes.
        size: bytes that the labels will take.
    """

    def __init__(self, ids: Sequence[str], dataset: SegDataset, size: int) -> None:
        super().__init__(Path(), ids)
        self.size = size
        self._dataset = dataset

    def label(self, image_id: str) -> Array:
        """Class 0 in the size that the image's label has."""
        return np.zeros(_label_size(self._dataset, image_id), np.uint8)

    def confidence(self, image_id: str) -> Confidence:
        """Confidence 1 in the same size."""
        return np.ones(_label_size(self._dataset, image_id), np.float32)

    def read(self, image_id: str) -> tuple[Array, Confidence]:
        """Label and confidence."""
        return self.label(image_id), self.confidence(image_id)


class PlanLab(SessionLab):
    """Offers a recipe what ``RunLab`` offers, times a few training steps of each fit and stores nothing.

    Args:
        session: run to plan; its ``stop`` is checked between two steps.
        networks: source of its networks.
    """

    def __init__(self, session: Session, networks: Networks) -> None:
        super().__init__(session, networks)
        self.steps: list[PlannedStep] = []
        self._predicting = 0.0
        self._held = 0
        self._costs: dict[Any, StepCost] = {}

    @property
    def class_shares(self) -> NDArray[np.float64]:
        """Equal shares, since they do not matter for a plan, which is to read few files."""
        classes = self.info.num_classes
        return np.full(classes, 1 / classes)

    def network(
        self,
        tag: str,
        weights: str | None = None,
        *,
        differs_from: str | None = None,
        role: str | None = None,
        probe_rounds: int = 0,
    ) -> Network:
        """Build a network as ``RunLab`` does, but without its seed, since the weights do not matter for a plan."""
        network = self.fresh_network(tag, weights, differs_from, role, probe_rounds)
        if (
            probe := first_probe(self, self.networks, network, differs_from and tag, probe_rounds)
        ) is not None:
            probe.gather()
        return network

    def take(self, name: str, given: ReusedFit) -> FitResult:
        """Return the networks that would be copied."""
        fit = self.networks.find_fit(given)
        size = sum((fit.directory / file).stat().st_size for file in fit.files)
        self._add(name, f"take '{fit.step}' of {given.run}", 0.0, kept=size)
        load = self.networks.restored
        return FitResult(lambda file: load(fit.directory / file, given), self.trainer.select, fit.snapshots)

    def fit(
        self,
        name: str,
        learner: Learner,
        streams: BatchSource,
        snapshots: Sequence[float] = (),
        *,
        lr: float | None = None,
        eval_every: int | None = None,
    ) -> FitResult:
        """Time a few steps, once for fits that look alike, and one evaluation."""
        session = self.session.for_fit(lr, eval_every)
        data, compute, trainer = session.data, session.compute, session.training.trainer
        compute.place(learner).train()
        # Built and dropped: a parameter without a group is to be refused before hours of earlier steps.
        complete_groups(learner, session.training.optimizer)

        def train(iteration: int) -> None:
            batch = streams.batch(self.dataset, self.seed, name, iteration)
            batch = to_device(batch, compute.device, compute.memory_format)
            epoch = iteration // streams.iterations_per_epoch
            progress = Progress(iteration, streams.iterations, epoch, seed=iteration)
            try:
                forward_backward(learner, batch, progress, trainer.accumulate, compute.autocast)
            except LossNotFinite as error:
                raise _before_training(name, error) from error

        # At the end of the fit: losses that begin after a warm-up, however long, are counted by then.
        total = streams.iterations
        late = range(max(total - TIMED_STEPS, 0), total)
        looks = _looks(learner, streams)
        if looks not in self._costs:
            self._costs[looks] = step_cost(learner, session, lambda each: self._timed(train, each), late)
        cost = self._costs[looks]
        model = next(iter(learner.predictors().values()))
        every = evaluation_interval(trainer.eval_every, streams, trainer.iterations is None)
        evaluations = math.ceil(streams.iterations / every) if data.split.val else 0
        # Only images with hidden masks can be compared with them.
        bare = set(data.dataset.ids("unlabeled"))
        hidden = sum(image_id not in bare for image_id in data.quality_ids)
        watched = len(learner.candidates()) * len(data.split.val) + hidden
        evaluating = watched * self._evaluation_seconds(model) if evaluations else 0.0
        network = _size(model)
        # Once for the weights and once for the momentum of the optimizer.
        state = sum(_size(child) for child in learner.children()) * 2
        self._add(
            name,
            f"{total} iterations of {operations_text(cost.operations)}, {evaluations} evaluations",
            # First what the networks have read before the fit.
            self._taken() + total * cost.seconds + evaluations * evaluating,
            iterations=total,
            kept=network * (2 + len(snapshots)),
            passing=2 * state + network,
            sizes=trained_networks(learner),
            networks=cost.networks,
            operations=total * cost.operations,
            step_seconds=cost.seconds,
            evaluation_seconds=evaluating,
        )
        return self._untrained(model, snapshots)

    def compute(
        self, name: str, network: Network, gather: Callable[[], object], finish: Callable[[], object]
    ) -> Network:
        """Read the first image, and add the time of all; the weights stay as they are."""
        gather()
        self._add(name, "compute a network without training", self._taken(), kept=_size(network))
        return network

    def label(
        self,
        name: str,
        network: Network,
        ids: Sequence[str],
        policy: LabelPolicy,
        *,
        keep_confidence: bool = True,
    ) -> PseudoLabels:
        """Time the labeling of one image; a policy whose thresholds can't be found is refused here, not hours later."""
        if isinstance(policy, SelectivePolicy):
            policy.thresholds(self.info.num_classes)
        pixels = 0
        if ids:
            next(self.predict(network, ids, policy))
            pixels = math.prod(_label_size(self.dataset, ids[0]))
        size = pixels * (5 if keep_confidence else 1) * len(ids)
        work = f"label {len(ids)} images in {mebibytes(size)}"
        self._add(name, work, self._taken(), kept=size)
        return PlannedLabels(ids, self.dataset, size)

    def memo(self, name: str, compute: Callable[[], Any], planned: Callable[[], Any]) -> Any:
        """Return the placeholder, and add the time of the predictions that it asks for."""
        value = planned()
        self._add(name, "compute and remember", self._taken())
        return value

    def predict(
        self, network: Module, ids: Sequence[str], policy: Callable[[Module, Tensor], Result]
    ) -> Iterator[tuple[str, Result]]:
        """Time the first image and give its result to all."""
        if not ids:
            return
        self.session.compute.place(network).eval()
        image = self._image(ids[0])
        results: list[Result] = []
        with torch.inference_mode():
            self._predicting += self._warm(lambda: results.append(policy(network, image))) * len(ids)
        for image_id in ids:
            yield image_id, results[0]

    def _image(self, image_id: str) -> Tensor:
        return image_tensor([self.dataset.image(image_id)]).to(self.session.compute.device)

    def release(self, labels: StoredLabels) -> None:
        """Subtract the space that the labels took."""
        if isinstance(labels, PlannedLabels) and not self.session.output.keep_pseudo_labels:
            self._held -= labels.size

    def report(self, network: Network) -> None:
        """Add what follows the recipe: test images and pictures."""
        split, pictures = self.split, self.session.data.sample_ids
        self.session.compute.place(network)
        images = len(split.test) + len(pictures)
        seconds = images * self._evaluation_seconds(network) if images else 0.0
        self._add(REPORT, f"evaluate {len(split.test)} test images, draw {len(pictures)} pictures", seconds)

    def _untrained(self, model: Network, snapshots: Sequence[float]) -> FitResult:
        """Return fresh networks with the heads of a trained one, which later steps of the recipe may need."""

        def fresh(file: str) -> Network:
            network = self.networks.build("none", model.role)
            restore_heads_and_input(network, network_state(model))
            return network

        return FitResult(fresh, "best", ["snapshot"] * len(snapshots))

    def _add(
        self,
        name: str,
        work: str,
        seconds: float,
        iterations: int = 0,
        kept: int = 0,
        passing: int = 0,
        sizes: tuple[NetworkSize, ...] = (),
        networks: tuple[NetworkCost, ...] = (),
        operations: int = 0,
        step_seconds: float = 0.0,
        evaluation_seconds: float = 0.0,
    ) -> None:
        self._held += kept
        size, held = kept + passing, self._held + passing
        self.steps.append(
            PlannedStep(
                *(name, work, iterations, seconds, size, held, sizes, networks),
                *(operations, step_seconds, evaluation_seconds),
            )
        )
        self.session.stop.check()

    def _taken(self) -> float:
        """Seconds of all predictions since the last call."""
        seconds, self._predicting = self._predicting, 0.0
        return seconds

    def _timed(self, work: Callable[[int], object], argument: int) -> float:
        started = time.perf_counter()
        work(argument)
        # A GPU works on after the call returns.
        if (device := self.session.compute.device).type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    def _warm(self, work: Callable[[], object]) -> float:
        """Seconds of a call; on a GPU of the second one, since the first loads kernels and makes their work space."""
        calls = 2 if self.session.compute.device.type == "cuda" else 1
        return [self._timed(lambda _: work(), 0) for _ in range(calls)][-1]

    def _evaluation_seconds(self, model: Network) -> float:
        """Seconds that the evaluation of an image takes."""
        ids = (self.split.val or self.split.labeled)[:1]
        return self._warm(lambda: self.session.evaluate(model, ids))


def _before_training(step: str, error: LossNotFinite) -> RunFailed:
    """Say that a network fails with its first weights: neither images nor learning rate have changed it yet."""
    return RunFailed(
        f"The loss of step '{step}' is not finite ({error.terms}) in the trial that times the plan, before anything "
        "was trained. The network gives such values with its first weights: look at backbone.weights or init_from "
        "(none and null begin with random ones), at trainer.precision, and at the loss of the method."
    )


def _label_size(dataset: SegDataset, image_id: str) -> tuple[int, int]:
    height, width = dataset.image(image_id).shape[:2]
    return dataset.info.label_size(height, width)


def _size(model: torch.nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


def _looks(learner: Learner, streams: BatchSource) -> tuple[Any, ...]:
    """Return a key by which fits share one measured time of a step: class and size of the learner, its networks, and
    its streams.
    """
    trained = sum(parameter.numel() for parameter in learner.parameters() if parameter.requires_grad)
    roles = tuple(network.role for network in networks_of(learner))
    return type(learner).__name__, trained, roles, *streams.parts


def make_plan(method: Method, session: Session, networks: Networks) -> list[PlannedStep]:
    """Walk through the recipe of a method and return its steps, and what follows them.

    Raises:
        Interrupted: a stop was requested.
    """
    lab = PlanLab(session, networks)
    lab.report(method.run(lab))
    return lab.steps
