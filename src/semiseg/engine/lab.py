"""The lab: everything a recipe may do, as named steps that are stored and skipped when done."""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from semiseg.contracts.dataset import DatasetInfo, SegDataset, Split
from semiseg.contracts.feeding import BatchSource, Budget, StoredLabels
from semiseg.contracts.recipe import FitResult, Lab, LabelPolicy, Module, Result, ReusedFit, SelectivePolicy
from semiseg.contracts.training import Learner, Network
from semiseg.data.augment import Augment
from semiseg.data.pseudo import PseudoLabels, PseudoWriter
from semiseg.engine.checkpoint import save_bundle
from semiseg.engine.labeling import label_meta, label_quality, write_labels
from semiseg.engine.linear_probe import ProbeFit, ProbeSettings, require_linear
from semiseg.engine.loop import Trainer, tidy
from semiseg.engine.moments import snapshot_steps
from semiseg.engine.predicting import predictions
from semiseg.engine.session import Networks, Session
from semiseg.engine.steps import Origin, Step, open_step
from semiseg.errors import UserError
from semiseg.models.bundle import bundle
from semiseg.seeding import derive_seed, seed_everything
from semiseg.settings import EvaluatorSettings, TrainerSettings

JSON = Any
REPORT = "report"
"""Name of the step that follows the recipe: test images, summary, pictures."""

COMPUTED = "network.pt"
"""File of a network whose weights were computed without training."""

log = logging.getLogger(__name__)


class SessionLab:
    """Data and settings of a session, as a lab offers them to a recipe.

    Args:
        session: data, settings and device of the run.
        networks: source of its networks.
    """

    def __init__(self, session: Session, networks: Networks) -> None:
        self.session = session
        self.networks = networks
        self.dataset: SegDataset = session.data.dataset
        self.info: DatasetInfo = session.data.info
        self.split: Split = session.data.split
        self.augment: Augment = session.data.augment
        self.trainer: TrainerSettings = session.training.trainer
        self.evaluator: EvaluatorSettings = session.training.evaluator
        self.budget: Budget = session.training.budget
        self.seed: int = session.training.seed

    def fresh_network(
        self,
        tag: str,
        weights: str | None,
        differs_from: str | None,
        role: str | None,
        probe_rounds: int,
    ) -> Network:
        """Build a network with its first weights; its classifier can be begun as a probe where that is asked for.

        Raises:
            UserError: its decoder can't, see ``require_linear``; or the probe is to train itself, and there is none.
        """
        if probe_rounds and not self.networks.probed:
            raise UserError(
                "is for classifiers that begin as a probe. Give init_head=probe, or 0.",
                key="method.probe_rounds",
                value=probe_rounds,
            )
        network = self.networks.fresh(tag, weights, differs_from, role)
        if self.networks.begins_as_probe(differs_from, role):
            require_linear(network, "init_head=probe")
        return network

    @property
    def _most(self) -> int:
        """Images that a policy gets at once: one on a CPU, where batches would change the last bits of labels."""
        return 1 if self.session.compute.device.type == "cpu" else self.evaluator.batch_size


def first_probe(
    lab: Lab, networks: Networks, network: Network, resample: str | None, rounds: int
) -> ProbeFit | None:
    """Return the fit of the classifier that a fresh network begins with; ``None`` where it has it already.

    Args:
        lab: lab with the images.
        networks: source of the network.
        network: network that ``SessionLab.fresh_network`` has built.
        resample: name of the network where it must differ from another, which would begin equal where their backbones
            do; ``None`` where it need not.
        rounds: rounds of self-training.
    """
    if not networks.begins_as_probe(resample, network.role):
        return None
    return ProbeFit(lab, network, ProbeSettings(rounds=rounds), resample)


class RunLab(SessionLab):
    """Runs and remembers the steps of a recipe; its methods are described in ``semiseg.contracts.recipe.Lab``.

    Args:
        session: data, settings and device of the run.
        networks: source of its networks.
        status: function that is called with a step's name and the iterations of the run, when an unfinished step
            begins and whenever training state has been saved.
    """

    def __init__(
        self,
        session: Session,
        networks: Networks,
        status: Callable[[str, int], None] = lambda name, iterations: None,
    ) -> None:
        super().__init__(session, networks)
        self.output = session.output
        # Weak: a recipe loads many networks, and one that it has dropped must not stay in memory.
        self.origins: WeakKeyDictionary[Network, Origin] = WeakKeyDictionary()
        self.fits: dict[str, dict[str, Any]] = {}
        self.taken: dict[str, dict[str, Any]] = {}
        self.labelings: dict[str, dict[str, Any]] = {}
        self.iterations = 0
        self._count = 0
        self._status = status

    @cached_property
    def class_shares(self) -> NDArray[np.float64]:
        """Share of each class among the labeled pixels; a stop request ends the count between two masks."""
        # One pixel more of each class: one that has none has a finite logarithm then.
        counts = np.ones(self.info.num_classes, np.int64)
        for image_id in self.split.labeled:
            self.session.stop.check()
            mask = self.dataset.mask(image_id)
            assert mask is not None  # a labeled image has one
            counts += np.bincount(mask.ravel(), minlength=256)[: len(counts)]
        shares: NDArray[np.float64] = counts / counts.sum()
        return shares

    def network(
        self,
        tag: str,
        weights: str | None = None,
        *,
        differs_from: str | None = None,
        role: str | None = None,
        probe_rounds: int = 0,
    ) -> Network:
        """Build a network whose random weights depend on (seed, tag) and its structure alone."""
        initial = self.networks.initial
        if initial is not None and differs_from is not None and initial.begins(role):
            log.warning(initial.identical_start_warning(tag, differs_from))
        # Seeded anew for each: a network must not depend on how many were built or loaded before it.
        seed_everything(derive_seed(self.seed, "network", tag))
        network = self.fresh_network(tag, weights, differs_from, role, probe_rounds)
        if (
            probe := first_probe(self, self.networks, network, differs_from and tag, probe_rounds)
        ) is not None:
            probe.gather()
            probe.finish()
        return network

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
        """Train a learner; return its best and last network and the snapshots."""
        steps = snapshot_steps(snapshots, streams)
        step = self._step(name)
        if not step.done:
            self.output.tracker.start_stage(name, step.index, streams.iterations)
            offset = self.iterations
            trainer = Trainer(
                self.session.for_fit(lr, eval_every),
                name,
                step.directory,
                offset,
                learner,
                streams,
                steps,
                step.journal,
                lambda completed: self._status(name, offset + completed),
            )
            files = [f"snapshot-{count}.pt" for count in steps]
            result = {"kind": "fit", "offset": offset, "snapshots": files}
            step.finish(result | asdict(trainer.run()))
        # Outside of the condition: a run may have been killed after its step was stored and before this.
        tidy(step.directory)
        self.iterations += streams.iterations
        self.fits[name] = step.result
        return self._networks(step)

    def take(self, name: str, given: ReusedFit) -> FitResult:
        """Copy a finished fit of another run instead of training one."""
        step = self._step(name)
        if not step.done:
            # A killed process may have begun this step and logged for it already.
            self.output.journal.cut(step.journal)
            self.output.tracker.start_stage(name, step.index, 0)
            fit = self.networks.find_fit(given)
            if fit.remark is not None:
                log.warning(fit.remark)
            step.finish(fit.copy_to(step.directory))
        self.taken[name] = step.result
        return self._networks(step, given)

    def compute(
        self, name: str, network: Network, gather: Callable[[], object], finish: Callable[[], object]
    ) -> Network:
        """Compute weights of a network without training, and store it; return the stored network."""
        step = self._step(name)
        if not step.done:
            self.output.journal.cut(step.journal)
            self.output.tracker.start_stage(name, step.index, 0)
            gather()
            finish()
            values = bundle(network, self.info, self.output.config_of(network), step=name, iteration=0)
            save_bundle(step.directory / COMPUTED, values)
            step.finish({"kind": "compute"})
        return self._load(step, COMPUTED)

    def label(
        self,
        name: str,
        network: Network,
        ids: Sequence[str],
        policy: LabelPolicy,
        *,
        keep_confidence: bool = True,
    ) -> PseudoLabels:
        """Label images with a network; resume at the first image that is not stored yet."""
        if isinstance(policy, SelectivePolicy) and not keep_confidence:
            raise ValueError(f"{type(policy).__name__} has thresholds, which need keep_confidence=True")
        step = self._step(name)
        store = step.directory / "labels"
        if not step.done:
            self.output.tracker.start_stage(name, step.index, len(ids))
            self.output.journal.cut(step.journal)
            found = policy.thresholds(self.info.num_classes) if isinstance(policy, SelectivePolicy) else None
            meta = label_meta(self.session, name, ids)
            with PseudoWriter(store, meta, keep_confidence=keep_confidence) as writer:
                results = self._predictions(network, ids, policy, frozenset(writer.done))
                progress, stop = self.output.tracker.progress, self.session.stop.check
                write_labels(writer, results, found, self._most, progress, stop)
                chosen = None if found is None else [float(value) for value in found.compute()]
                labels = PseudoLabels(writer.seal(ids).path, thresholds=chosen)
            quality = label_quality(self.session, labels)
            self.output.tracker.log(quality, self.iterations)
            result = {"kind": "label", "images": len(ids), "quality": quality}
            step.finish(result | {"thresholds": labels.thresholds})
        self.labelings[name] = step.result
        return PseudoLabels(store, thresholds=step.result["thresholds"])

    def memo(self, name: str, compute: Callable[[], JSON], planned: Callable[[], JSON]) -> JSON:
        """Compute a JSON value once and remember it."""
        step = self._step(name)
        if not step.done:
            self.output.journal.cut(step.journal)
            self.output.tracker.start_stage(name, step.index, 0)
            step.finish({"kind": "memo", "value": compute()})
        return step.result["value"]

    @contextmanager
    def report(self) -> Iterator[None]:
        """Enclose the work after the recipe as a step; a run that is killed in it does all of it again."""
        step = self._step(REPORT)
        self.output.journal.cut(step.journal)
        self.output.tracker.start_stage(REPORT, step.index, 0)
        yield
        step.finish({"kind": "report"})

    def predict(
        self, network: Module, ids: Sequence[str], policy: Callable[[Module, Tensor], Result]
    ) -> Iterator[tuple[str, Result]]:
        """Apply a policy to images, in evaluation mode; a stop request ends it between two batches."""
        return self._predictions(network, ids, policy)

    def _predictions(
        self,
        network: Module,
        ids: Sequence[str],
        policy: Callable[[Module, Tensor], Result],
        done: frozenset[str] = frozenset(),
    ) -> Generator[tuple[str, Result]]:
        network = self.session.compute.place(network)
        network.eval()
        device, stop = self.session.compute.device, self.session.stop.check
        return predictions(network, self.dataset, ids, policy, device, most=self._most, stop=stop, done=done)

    def release(self, labels: StoredLabels) -> None:
        """Delete the files of pseudo-labels that no later step reads; manifest and statistics stay."""
        if not self.output.keep_pseudo_labels:
            labels.delete()

    def _step(self, name: str) -> Step:
        step = open_step(self.session.output, self.session.data, self._count, name)
        self._count += 1
        if not step.done:
            self._status(name, self.iterations)
        return step

    def _networks(self, step: Step, taken_as: ReusedFit | None = None) -> FitResult:
        select = self.trainer.select
        score = self.session.task.names.value(step.result[select])
        return FitResult(
            lambda file: self._load(step, file, taken_as), select, step.result["snapshots"], score
        )

    def _load(self, step: Step, file: str, taken_as: ReusedFit | None = None) -> Network:
        path = step.directory / file
        model = self.networks.restored(path, taken_as)
        self.origins[model] = Origin(step.name, file, path)
        return model
