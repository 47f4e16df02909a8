"""What all steps of one run share."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from semiseg.contracts.dataset import DatasetInfo, SegDataset, Split, ids_sha256
from semiseg.contracts.tracking import Tracker
from semiseg.contracts.training import Budget, Network, OptimizerSpec, Schedule
from semiseg.data.augment import Augment
from semiseg.engine.checkpoint import load_bundle
from semiseg.engine.signals import StopRequest
from semiseg.errors import UserError
from semiseg.models.build import restore_heads_and_input
from semiseg.runs.former import Here
from semiseg.runs.initial import Initial
from semiseg.settings import EvaluatorSettings, TrainerSettings
from semiseg.track.jsonl import JsonlTracker


class NetworkFactory(Protocol):
    """Builds a network from the run's config."""

    def __call__(self, weights: str | None = None) -> Network:
        """Build with the configured initial weights, or with others."""
        ...


@dataclass(frozen=True)
class Session:
    """Data, settings and devices of one run; made once and read by every step.

    Args:
        run_dir: the run directory.
        dataset: images and masks.
        split: labeled, unlabeled, validation and test ids.
        augment: weak and strong views.
        network: builds a network with the run's backbone and model, and with ``backbone.weights``.
        initial: what networks begin as instead; None: as ``network`` builds them.
        network_config: plain ``backbone`` and ``model`` nodes, stored in every network checkpoint.
        optimizer: groups and optimizer of every fit.
        schedule: learning-rate factor of every fit.
        trainer: batch sizes, lengths, intervals, precision.
        evaluator: how networks are evaluated.
        tracker: where numbers go; the journal is one of its ends.
        journal: the run's metrics.jsonl, cut back when a step resumes from a checkpoint.
        stop: requests to stop.
        seed: seed of the run.
        device: where networks run.
        quality_ids: unlabeled ids whose hidden masks pseudo-labels are measured against.
        sample_ids: validation images that pictures are made of.
        keep_pseudo_labels: keep the files of released pseudo-labels.
        settings: dotted keys and values of all that a result depends on.
        fingerprint: hash of them; a step is resumed only under the same one.
    """

    run_dir: Path
    dataset: SegDataset
    split: Split
    augment: Augment
    network: NetworkFactory
    network_config: dict[str, Any]
    optimizer: OptimizerSpec
    schedule: Schedule
    trainer: TrainerSettings
    evaluator: EvaluatorSettings
    tracker: Tracker
    journal: JsonlTracker
    stop: StopRequest
    seed: int
    device: torch.device
    quality_ids: tuple[str, ...] = ()
    sample_ids: tuple[str, ...] = ()
    keep_pseudo_labels: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    initial: Initial | None = None
    memory_format: torch.memory_format = field(init=False)

    def __post_init__(self) -> None:
        layout = torch.channels_last if self.trainer.channels_last else torch.contiguous_format
        object.__setattr__(self, "memory_format", layout)

    @property
    def info(self) -> DatasetInfo:
        """Classes of the dataset."""
        return self.dataset.info

    @property
    def budget(self) -> Budget:
        """Length of every fit."""
        return Budget(iterations=self.trainer.iterations, epochs=self.trainer.epochs)

    @property
    def data_sha256(self) -> dict[str, str]:
        """Hashes of the ids that a result depends on, by kind; a step is resumed only under the same ones."""
        return {kind: ids_sha256(getattr(self.split, kind)) for kind in ("labeled", "unlabeled", "val")}

    @property
    def here(self) -> Here:
        """What former runs are compared with."""
        return Here(self.settings, self.dataset, self.split)

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
            return self.network(weights)
        if weights is not None:
            raise UserError(
                f"{self.initial.given}: gives all weights of network '{tag}', and the method gives it "
                f"backbone.weights={weights}. Leave one of them out."
            )
        return self.initial.load(self.network("none"), whole=differs_from is None)

    def restored(self, path: Path) -> Network:
        """Load a stored network of the run's structure, with its heads and its input convention.

        Raises:
            UserError: the file is missing or damaged.
        """
        bundle = load_bundle(path)
        model = self.network("none")
        restore_heads_and_input(model, bundle)
        model.load_state_dict(bundle["state_dict"])
        return model

    def for_fit(self, lr: float | None, eval_every: int | None) -> "Session":
        """Return the session of a fit that has its own learning rate or evaluation interval.

        Args:
            lr: base learning rate; None keeps the optimizer's.
            eval_every: iterations between evaluations; None keeps the trainer's.
        """
        optimizer = self.optimizer if lr is None else self.optimizer.with_lr(lr)
        every = self.trainer.eval_every if eval_every is None else eval_every
        return replace(self, optimizer=optimizer, trainer=replace(self.trainer, eval_every=every))

    def autocast(self) -> torch.autocast:
        """The precision of a training step's forward pass."""
        enabled = self.trainer.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)
