"""Session of a run, shared by all of its steps: its data, its device, its training and its output."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from semiseg.contracts.dataset import DatasetInfo, SegDataset, Split, ids_sha256
from semiseg.contracts.feeding import Budget, StoredLabels
from semiseg.contracts.recipe import ReusedFit
from semiseg.contracts.task import Scores, Task
from semiseg.contracts.tracking import Journal, Sample, Tracker
from semiseg.contracts.training import Network, OptimizerSpec, Schedule
from semiseg.data.augment import Augment
from semiseg.engine.checkpoint import load_bundle
from semiseg.engine.compute import Compute
from semiseg.engine.signals import StopRequest
from semiseg.errors import UserError
from semiseg.models.bundle import fitted_state, restore_heads_and_input
from semiseg.models.precision import as_stored
from semiseg.settings import EvaluatorSettings, TrainerSettings


@dataclass(frozen=True)
class Data:
    """Images of a run.

    Args:
        dataset: images and masks.
        split: labeled, unlabeled, validation and test ids.
        augment: weak and strong views.
        quality_ids: unlabeled ids whose hidden masks pseudo-labels are measured against.
        sample_ids: validation images to draw pictures of.
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
class Training:
    """Training settings of every fit.

    Args:
        trainer: batch sizes, lengths, intervals.
        evaluator: settings by which networks are evaluated.
        optimizer: settings of parameter groups and optimizer.
        schedule: factor of the learning rate at each step.
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
    """Directory and trackers that a run writes to.

    Args:
        run_dir: run directory.
        tracker: receiver of all numbers and pictures; it passes them to the journal too.
        journal: record of the run, metrics.jsonl, which is cut back when a step resumes from a checkpoint.
        network_config: plain ``backbone`` and ``model`` nodes, stored in every network checkpoint.
        other_configs: the same of networks of another kind, by their role.
        fingerprint: hash of all settings that a result depends on; a step is resumed only under the same one.
        keep_pseudo_labels: whether the files of released pseudo-labels are kept.
    """

    run_dir: Path
    tracker: Tracker
    journal: Journal
    network_config: Mapping[str, Any] = field(default_factory=dict)
    other_configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fingerprint: str = ""
    keep_pseudo_labels: bool = False

    def config_of(self, network: Network) -> Mapping[str, Any]:
        """Return the nodes ``backbone`` and ``model`` of a network."""
        return self.network_config if network.role is None else self.other_configs[network.role]


@dataclass(frozen=True)
class Session:
    """All that the steps of one run share; made once.

    Args:
        task: kind of prediction that networks learn.
        data: images and their split.
        compute: device and precision.
        training: settings of the fits.
        output: receivers of numbers and files.
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
        """Predict the validation images that pictures are drawn of."""
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

    def __call__(self, weights: str | None = None, role: str | None = None) -> Network:
        """Build with the configured initial weights, or with others; ``role`` names a network of another kind."""
        ...


class InitialNetwork(Protocol):
    """A stored network that the networks of a run begin as."""

    @property
    def given(self) -> str:
        """The key and the value by which it was named, for messages."""
        ...

    @property
    def same_classes(self) -> bool:
        """Whether its classes are those of this run, so that its classifier can be used."""
        ...

    def begins(self, role: str | None) -> bool:
        """Whether a network of this role begins as this one, or has another structure."""
        ...

    def identical_start_warning(self, tag: str, other: str) -> str:
        """Say how two networks of a method differ that both begin as this one."""
        ...

    def load(self, network: Network, whole: bool = True) -> Network:
        """Load its weights into a fresh network and return that; ``whole=False`` keeps the random classifier."""
        ...

    def summary(self) -> dict[str, Any]:
        """Values for the summary of a run."""
        ...


class FinishedFit(Protocol):
    """A finished fit of another run, which a recipe uses instead of training one."""

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
        """Names of those that are snapshots of the training."""
        ...

    @property
    def remark(self) -> str | None:
        """Differences from the training that this run would do; ``None`` where there are none."""
        ...

    def copy_to(self, directory: Path) -> dict[str, Any]:
        """Copy its networks into a step of this run, and return the result of that step."""
        ...


@dataclass(frozen=True)
class Networks:
    """Source of the networks of a run.

    Args:
        build: function that builds a network with the run's backbone and model, and with ``backbone.weights``.
        initial: stored network that all networks of its structure begin as; ``None`` begins them as ``build`` makes
            them.
        find_fit: function that finds a finished fit of another run and checks that this run could have made it.
        probed: whether classifiers begin as a linear probe of the labeled images, and not at random.
    """

    build: NetworkFactory
    initial: InitialNetwork | None
    find_fit: Callable[[ReusedFit], FinishedFit]
    probed: bool = False

    def fresh(
        self,
        tag: str,
        weights: str | None = None,
        differs_from: str | None = None,
        role: str | None = None,
    ) -> Network:
        """Build a network with its first weights.

        Args:
            tag: name of the network in the recipe.
            weights: initial backbone weights; ``None`` takes the configured ones.
            differs_from: name of the network that it learns with and must differ from; ``None`` for no such network.
            role: key of the method that may describe another network; ``None`` for one of the run's own kind.

        Raises:
            UserError: ``weights`` and ``initial`` are both given.
        """
        if self.initial is None or not self.initial.begins(role):
            return self.build(weights, role)
        if weights is not None:
            raise UserError(
                f"{self.initial.given}: gives all weights of network '{tag}', and the method gives it "
                f"backbone.weights={weights}. Leave one of them out."
            )
        return self.initial.load(self.build("none", role), whole=differs_from is None)

    def begins_as_probe(self, differs_from: str | None, role: str | None) -> bool:
        """Whether the classifier of a fresh network begins as a probe: it is asked for, and ``initial`` gives none.

        The network of ``method=probe`` is fitted by its method.

        Args:
            differs_from: name of the network that it learns with and must differ from.
            role: key of the method that may describe another network.
        """
        if not self.probed or role == "probe":
            return False
        initial = self.initial
        begins = initial is not None and initial.begins(role) and initial.same_classes
        return not begins or differs_from is not None

    def restored(self, path: Path, taken_as: ReusedFit | None = None) -> Network:
        """Load a stored network of this run, with its heads and its input convention.

        Args:
            path: file of the network.
            taken_as: description of the fit of another run that it is from; ``None`` for one of this run.

        Raises:
            UserError: the file is missing or damaged.
        """
        bundle = load_bundle(path)
        # "none": pretrained weights would be read, and replaced a moment later.
        model = self.build("none", bundle.get("role") if taken_as is None else taken_as.role)
        # Heads first: the stored weights name theirs, which a fresh network lacks.
        restore_heads_and_input(model, bundle)
        state = fitted_state(bundle, model)
        as_stored(model, state)
        model.load_state_dict(state)
        return model
