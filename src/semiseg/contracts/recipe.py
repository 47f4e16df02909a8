"""Contracts of a method: a recipe over the named steps of a lab, and what these steps give and take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from semiseg.contracts.dataset import Array, Confidence, DatasetInfo, SegDataset, Split
from semiseg.contracts.feeding import Augmentation, BatchSource, Budget, StoredLabels
from semiseg.contracts.training import Learner, Network
from semiseg.settings import EvaluatorSettings, TrainerSettings

Module = TypeVar("Module", bound=nn.Module)


Result = TypeVar("Result")


class LabelPolicy(Protocol):
    """Function by which a network labels an image; one that is a ``BatchPolicy`` too labels several at once."""

    def __call__(self, network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
        """Turn ``(1, 3, H, W) uint8`` into ``(H, W) uint8`` labels and ``(H, W) float32`` confidence."""
        ...


@runtime_checkable
class BatchPolicy(Protocol):
    """A policy that can be applied to several images at once, in any order."""

    def batch(self, network: Any, images: Tensor) -> Sequence[Any]:
        """Turn images of one size ``(N, 3, H, W) uint8`` into the N results that it gives for each alone."""
        ...


class Thresholds(Protocol):
    """Finds the smallest confidence of each class while images are labeled."""

    def add(self, label: Array, confidence: Confidence) -> None:
        """Add a labeled image, ``(H, W) uint8`` and ``(H, W) float32``; each is added once, in any order."""
        ...

    def compute(self) -> Sequence[float]:
        """Return the smallest confidence of each class."""
        ...


@runtime_checkable
class SelectivePolicy(LabelPolicy, Protocol):
    """A policy that drops labels of low confidence, once all images are labeled."""

    def thresholds(self, num_classes: int) -> Thresholds:
        """Return what finds the smallest confidence of each class; it is given every image as it is labeled."""
        ...


class FitResult:
    """Networks of a finished fit, loaded when they are read.

    Args:
        load: function that returns a fresh network with the weights of a file of the step.
        select: network to select: "best" (on the validation images) or "last".
        snapshots: files of the snapshots, in order of training.
        score: primary score of the selected network on the validation images; ``None`` without such images.
    """

    def __init__(
        self,
        load: Callable[[str], Network],
        select: str,
        snapshots: Sequence[str],
        score: float | None = None,
    ) -> None:
        self.score = score
        self._load = load
        self._select = select
        self._snapshots = snapshots

    @property
    def best(self) -> Network:
        """The network of the best evaluation on the validation images."""
        return self._load("best.pt")

    @property
    def last(self) -> Network:
        """The network after the last iteration."""
        return self._load("last.pt")

    @property
    def selected(self) -> Network:
        """The network that ``trainer.select`` names; a recipe passes it to later steps or reports it."""
        return self._load(f"{self._select}.pt")

    @property
    def snapshots(self) -> list[Network]:
        """The snapshots of the training, in their order."""
        return [self._load(name) for name in self._snapshots]


@dataclass(frozen=True)
class ReusedFit:
    """Description of a finished fit of another run, which a recipe uses instead of training one.

    Args:
        run: run directory.
        step: name of the fit.
        accepted_runs: kinds of runs that have such a fit, for messages.
        supervised: whether the fit of a run of ``supervised`` is accepted too.
        must_match: keys of the method that must agree, except with ``supervised``.
        snapshots: fractions of the fit at which it must have kept its network.
        role: key of the method that describes its network, such as "partner"; ``None`` for that of the run.
    """

    run: str
    step: str
    accepted_runs: str
    supervised: bool
    must_match: Sequence[str] = ()
    snapshots: Sequence[float] = ()
    role: str | None = None


class Lab(Protocol):
    """Runs and remembers the named steps of a recipe; a finished step returns what it stored."""

    @property
    def dataset(self) -> SegDataset:
        """Images and masks."""
        ...

    @property
    def info(self) -> DatasetInfo:
        """Classes of the dataset."""
        ...

    @property
    def split(self) -> Split:
        """Labeled, unlabeled, validation and test ids."""
        ...

    @property
    def class_shares(self) -> NDArray[np.float64]:
        """Share of each class among the labeled pixels, above 0; the first use reads the masks of the labeled images.

        One pixel of each class is added to those of the masks.
        """
        ...

    @property
    def augment(self) -> Augmentation:
        """Weak and strong views."""
        ...

    @property
    def trainer(self) -> TrainerSettings:
        """Batch sizes and lengths."""
        ...

    @property
    def evaluator(self) -> EvaluatorSettings:
        """Settings by which networks are applied to whole images."""
        ...

    @property
    def budget(self) -> Budget:
        """Length of every fit."""
        ...

    @property
    def seed(self) -> int:
        """Seed of the run."""
        ...

    def network(
        self,
        tag: str,
        weights: str | None = None,
        *,
        differs_from: str | None = None,
        role: str | None = None,
        probe_rounds: int = 0,
    ) -> Network:
        """Build a network whose random weights depend on (seed, tag) alone.

        Args:
            tag: name of the network; equal tags give equal networks.
            weights: initial backbone weights; ``None`` takes the configured ones.
            differs_from: tag of a network that this one learns with and has to differ from, which matters where both
                begin as the network of ``init_from``; ``None`` for no such network.
            role: key of the method that may describe another network (``semiseg.settings.OTHER_NETWORKS``): its
                backbone, decoder and optimizer are used where it does. ``None`` for a network of the run's own kind.
            probe_rounds: rounds of self-training of the probe that its classifier begins as (``init_head=probe``).
        """
        ...

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
        """Train a learner; return its best and last network and the snapshots.

        Args:
            name: name of the step, unique in the recipe.
            learner: networks to train, and their losses.
            streams: batches, and the length of the fit.
            snapshots: fractions of the fit at which the network is kept, for example ``(1/3, 2/3, 1)``.
            lr: base learning rate of this fit; ``None`` takes ``optimizer.lr``.
            eval_every: iterations between its evaluations; ``None`` takes ``trainer.eval_every``.
        """
        ...

    def take(self, name: str, given: ReusedFit) -> FitResult:
        """Copy a finished fit of another run instead of training one.

        Args:
            name: name of the step, the same as ``fit`` would get.
            given: description of the wanted fit.

        Raises:
            UserError: there is no such fit, or this run could not have made it.
        """
        ...

    def compute(
        self, name: str, network: Network, gather: Callable[[], object], finish: Callable[[], object]
    ) -> Network:
        """Compute weights of a network without training, and store it; return the stored network.

        Args:
            name: name of the step.
            network: fresh network.
            gather: function that reads images by ``predict``, which the plan can time.
            finish: function that then sets the weights in place; the plan, which reads one image, leaves it out.
        """
        ...

    def label(
        self,
        name: str,
        network: Network,
        ids: Sequence[str],
        policy: LabelPolicy,
        *,
        keep_confidence: bool = True,
    ) -> StoredLabels:
        """Label images with a network; resume at the first image that is not stored yet.

        Args:
            name: name of the step.
            network: network that labels.
            ids: images to label; the labels have this order.
            policy: function that labels one image, or as a ``BatchPolicy`` several; a ``SelectivePolicy`` gives
                thresholds too, which apply whenever a label is read.
            keep_confidence: whether the confidence of every pixel is stored too: five bytes a pixel instead of one.
        """
        ...

    def memo(self, name: str, compute: Callable[[], Any], planned: Callable[[], Any]) -> Any:
        """Compute a JSON value once and remember it.

        Args:
            name: name of the step.
            compute: function that returns the value.
            planned: function that returns a placeholder of the same shape, for the plan that is made before training.
                It may be ``compute`` itself where that reads images by ``predict`` alone, which the plan can time.
        """
        ...

    def predict(
        self, network: Module, ids: Sequence[str], policy: Callable[[Module, Tensor], Result]
    ) -> Iterator[tuple[str, Result]]:
        """Apply a policy to images, in evaluation mode, and give id and result of each; a stop request ends it.

        Images are read ahead in a thread. A policy that is no ``BatchPolicy`` gets them one by one, in the order of the
        ids. On an accelerator a ``BatchPolicy`` gets up to ``evaluator.batch_size`` images of one size at once, and the
        results come in another order. On a CPU, where batches change the last bits of results, it gets
        one as well.

        Args:
            network: one network, or a module of several.
            ids: images to read.
            policy: function of the network and an image ``(1, 3, H, W) uint8`` on its device.
        """
        ...

    def release(self, labels: StoredLabels) -> None:
        """Delete the files of pseudo-labels that no later step reads; manifest and statistics stay."""
        ...


class Method(Protocol):
    """A training method: straight-line code over the named steps of a lab."""

    needs_unlabeled: ClassVar[bool]

    def run(self, lab: Lab) -> Network:
        """Train and return the network to report."""
        ...


@runtime_checkable
class ChecksBatches(Protocol):
    """A method that knows which batches pass through a network at once."""

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Return the number of images in each batch, by the keys that give it; may raise ``UserError``."""
        ...


@runtime_checkable
class ChecksSplit(Protocol):
    """A method that cannot learn from every split."""

    def check_split(self, split: Split) -> None:
        """Raise ``UserError`` on a split that the method cannot learn from."""
        ...


@runtime_checkable
class ReusesFits(Protocol):
    """A method that may use fits of other runs."""

    def reused_fits(self) -> list[ReusedFit]:
        """Return descriptions of the fits of other runs that it uses."""
        ...
