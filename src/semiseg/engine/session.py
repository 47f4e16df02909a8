"""What all steps of one run share, in parts: its data, its device, how it trains, and where it writes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from semiseg.contracts.dataset import DatasetInfo, SegDataset, Split, ids_sha256
from semiseg.contracts.task import Scores, Task
from semiseg.contracts.tracking import Journal, Sample, Tracker
from semiseg.contracts.training import Budget, Network, OptimizerSpec, ReusedFit, Schedule, StoredLabels
from semiseg.data.augment import Augment
from semiseg.engine.checkpoint import load_bundle
from semiseg.engine.signals import StopRequest
from semiseg.errors import UserError
from semiseg.models.bundle import restore_heads_and_input
from semiseg.settings import EvaluatorSettings, TrainerSettings

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Data:
    """Images of a run.

    Args:
        dataset: images and masks.
        split: labeled, unlabeled, validation and test ids.
        augment: weak and strong views.
        quality_ids: unlabeled ids whose hidden masks pseudo-labels are measured against.
        sample_ids: validation images that pictures are made of.
    """

    dataset: SegDataset
    split: Split
    augment: Augment
    quality_ids: tuple[str, ...] = ()
    sample_ids: tuple[str, ...] = ()

    @property
    def info(self) -> DatasetInfo:
        """Classes of the dataset."""
        return self.dataset.info

    @property
    def sha256(self) -> dict[str, str]:
        """Hashes of the ids that a result depends on, by kind; a step is resumed only under the same ones."""
        return {kind: ids_sha256(getattr(self.split, kind)) for kind in ("labeled", "unlabeled", "val")}


@dataclass(frozen=True)
class Compute:
    """Device of a run, and what is computed on it how.

    Args:
        device: where networks run.
        precision: "fp32", or "bf16" for autocast.
        memory_format: layout of networks and images.
    """

    device: torch.device
    precision: str = "fp32"
    memory_format: torch.memory_format = torch.contiguous_format

    def place(self, module: Module) -> Module:
        """Move a module onto the device, in the memory format; returns it."""
        return module.to(device=self.device, memory_format=self.memory_format)  # type: ignore[call-overload, no-any-return]

    def autocast(self) -> torch.autocast:
        """The precision of a training step's forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


@dataclass(frozen=True)
class Training:
    """How every fit trains.

    Args:
        trainer: batch sizes, lengths, intervals.
        evaluator: how networks are evaluated.
        optimizer: groups and optimizer.
        schedule: learning-rate factor.
        seed: seed of the run.
    """

    trainer: TrainerSettings
    evaluator: EvaluatorSettings
    optimizer: OptimizerSpec
    schedule: Schedule
    seed: int

    @property
    def budget(self) -> Budget:
        """Length of every fit."""
        return Budget(iterations=self.trainer.iterations, epochs=self.trainer.epochs)


@dataclass(frozen=True)
class Output:
    """Where a run writes.

    Args:
        run_dir: the run directory.
        tracker: where numbers go; the journal is one of its ends.
        journal: the run's metrics.jsonl, cut back when a step resumes from a checkpoint.
        network_config: plain ``backbone`` and ``model`` nodes, stored in every network checkpoint.
        fingerprint: hash of all settings that a result depends on; a step is resumed only under the same one.
        keep_pseudo_labels: keep the files of released pseudo-labels.
    """

    run_dir: Path
    tracker: Tracker
    journal: Journal
    network_config: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    keep_pseudo_labels: bool = False


@dataclass(frozen=True)
class Session:
    """What all steps of one run share; made once.

    Args:
        task: what networks learn to predict.
        data: images.
        compute: device.
        training: how fits train.
        output: where numbers and files go.
        stop: requests to stop.
    """

    task: Task
    data: Data
    compute: Compute
    training: Training
    output: Output
    stop: StopRequest

    def evaluate(self, network: Network, ids: Sequence[str]) -> Scores:
        """Measure a network on images; a stop request ends it between two batches."""
        return self.task.evaluate(
            network,
            self.data.dataset,
            ids,
            self.training.evaluator,
            self.compute.device,
            precision=self.compute.precision,
            stop=self.stop.check,
        )

    def label_quality(self, source: Network | StoredLabels) -> dict[str, float | None]:
        """Measure pseudo-labels, stored ones or those that a network would give; empty without hidden masks."""
        found = self.task.label_quality(
            source,
            self.data.dataset,
            self.data.quality_ids,
            self.training.evaluator,
            self.compute.device,
            precision=self.compute.precision,
            stop=self.stop.check,
        )
        return {} if found is None else self.task.names.logged("pseudo", found.as_dict())

    def samples(self, network: Network) -> list[Sample]:
        """Predict the validation images that pictures are made of."""
        return self.task.samples(
            network,
            self.data.dataset,
            self.data.sample_ids,
            self.training.evaluator,
            self.compute.device,
            self.compute.precision,
        )

    def for_fit(self, lr: float | None, eval_every: int | None) -> "Session":
        """Return the session of a fit that has its own learning rate or evaluation interval.

        Args:
            lr: base learning rate; ``None`` keeps the optimizer's.
            eval_every: iterations between evaluations; ``None`` keeps the trainer's.
        """
        training = self.training
        optimizer = training.optimizer if lr is None else training.optimizer.with_lr(lr)
        every = training.trainer.eval_every if eval_every is None else eval_every
        trainer = replace(training.trainer, eval_every=every)
        return replace(self, training=replace(training, optimizer=optimizer, trainer=trainer))


class NetworkFactory(Protocol):
    """Builds a network from the run's config."""

    def __call__(self, weights: str | None = None) -> Network:
        """Build with the configured initial weights, or with others."""
        ...


class InitialNetwork(Protocol):
    """A stored network that the networks of a run begin as."""

    @property
    def given(self) -> str:
        """The key and the value by which it was named, for messages."""
        ...

    def identical_start_warning(self, tag: str, other: str) -> str:
        """Say what keeps two networks of a method apart that begin as this one."""
        ...

    def load(self, network: Network, whole: bool = True) -> Network:
        """Give a fresh network its weights, and return it; ``whole`` is false to keep the classifier."""
        ...

    def summary(self) -> dict[str, Any]:
        """What the summary of a run says about it."""
        ...


class FinishedFit(Protocol):
    """A finished fit of another run, which a recipe takes in place of one of its own."""

    @property
    def directory(self) -> Path:
        """Directory of its step."""
        ...

    @property
    def step(self) -> str:
        """Name of its step."""
        ...

    @property
    def files(self) -> list[str]:
        """Names of its networks' files."""
        ...

    @property
    def snapshots(self) -> list[str]:
        """Those of them that were kept on its way."""
        ...

    @property
    def remark(self) -> str | None:
        """How it was trained otherwise than a fit of this run would be; ``None`` where it was not."""
        ...

    def copy_to(self, directory: Path) -> dict[str, Any]:
        """Copy its networks into a step of this run; returns that step's result."""
        ...


@dataclass(frozen=True)
class Networks:
    """Where the networks of a run come from.

    Args:
        build: builds a network with the run's backbone and model, and with ``backbone.weights``.
        initial: what networks begin as instead; ``None`` begins them as ``build`` makes them.
        find_fit: finds a finished fit of another run, and sees that this run could have made it.
    """

    build: NetworkFactory
    initial: InitialNetwork | None
    find_fit: Callable[[ReusedFit], FinishedFit]

    def fresh(self, tag: str, weights: str | None = None, differs_from: str | None = None) -> Network:
        """Build a network with its first weights.

        Args:
            tag: its name in the recipe.
            weights: other initial backbone weights than the configured ones.
            differs_from: name of the network that it learns with and must differ from.

        Raises:
            UserError: ``weights`` and ``initial`` are both given.
        """
        if self.initial is None:
            return self.build(weights)
        if weights is not None:
            raise UserError(
                f"{self.initial.given}: gives all weights of network '{tag}', and the method gives it "
                f"backbone.weights={weights}. Leave one of them out."
            )
        return self.initial.load(self.build("none"), whole=differs_from is None)

    def restored(self, path: Path) -> Network:
        """Load a stored network of the run's structure, with its heads and its input convention.

        Raises:
            UserError: the file is missing or damaged.
        """
        bundle = load_bundle(path)
        model = self.build("none")
        restore_heads_and_input(model, bundle)
        model.load_state_dict(bundle["state_dict"])
        return model
