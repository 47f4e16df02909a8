"""Contracts of training: a learner computes one step, a method is a recipe over the named steps of a lab."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semiseg.contracts.dataset import Array, Confidence, DatasetInfo, SegDataset, Split
from semiseg.errors import UserError
from semiseg.settings import EvaluatorSettings, TrainerSettings

Module = TypeVar("Module", bound=nn.Module)
Result = TypeVar("Result")

StreamBatch = dict[str, Any]
"""One stream's part of a batch: ``image (N, 3, H, W) uint8`` (or the names of the view's images),
``label (N, H, W) int64`` where there are labels, ``id`` a list of N image ids."""

Batch = dict[str, StreamBatch]
"""Stream name to its part."""


@dataclass(frozen=True)
class Progress:
    """Position of a training step in its fit.

    Args:
        iteration: 0-based number of the running iteration.
        total: number of iterations of this fit.
        epoch: 0-based epoch of this fit.
        seed: seed of everything random in this pass, a function of (seed, step name, iteration); with
            ``trainer.accumulate`` each part of the batch has its own. It is the same on all ranks, see
            ``semiseg.pseudo.draws``.
        rank: 0-based number of this process among those that share the pass.
        ranks: number of processes that share the pass. Each holds an equal part of every stream's images, in the
            order of their ranks.
    """

    iteration: int
    total: int
    epoch: int
    seed: int
    rank: int = 0
    ranks: int = 1


class SumCount(NamedTuple):
    """A mean kept as its two parts, so that parts of a batch add up exactly.

    Args:
        total: scalar sum of the losses, with gradient.
        counted: scalar number of pixels (or anchors) that the sum runs over, without gradient.
    """

    total: Tensor
    counted: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean; 0 with zero gradient where nothing is counted."""
        # A crop may hold ignored pixels alone; 0 / 0 would send NaN into every weight.
        return self.total / self.counted.clamp_min(1)

    def plus(self, other: SumCount) -> SumCount:
        """Return the parts of the mean over both."""
        return SumCount(self.total + other.total, self.counted + other.counted)


@dataclass(frozen=True)
class LossTerm:
    """A weighted mean kept as sum and count, so that accumulated batches stay exact.

    Args:
        sum: scalar sum of the per-pixel losses, with gradient.
        count: scalar number of pixels (or anchors) that the sum runs over, without gradient.
        weight: factor of the mean in the total loss.
    """

    sum: Tensor
    count: Tensor
    weight: float = 1.0

    @property
    def mean(self) -> Tensor:
        """The unweighted mean; 0 with zero gradient where nothing is counted."""
        return self.sum / self.count.clamp_min(1)


@dataclass(frozen=True)
class StepOutput:
    """Result of one training step.

    Args:
        losses: named terms; the total loss is the sum of ``weight * sum / count``.
        scalars: named scalars to log, without gradient.
    """

    losses: Mapping[str, LossTerm]
    scalars: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """The loss that is differentiated."""
        terms = [term.weight * term.mean for term in self.losses.values()]
        return sum(terms[1:], terms[0])


class Part(NamedTuple):
    """Parameters of a network that belong together.

    Args:
        name: "backbone.stem", "backbone.c1", ..., "decoder", "classifier", "heads.NAME".
        group: group of the optimizer, "backbone" or "head".
        parameters: parameters of the part; no parameter is in two parts.
    """

    name: str
    group: Literal["backbone", "head"]
    parameters: tuple[nn.Parameter, ...]


class Network(nn.Module):
    """A network that normalizes its own input: backbone, decoder, classifier and auxiliary heads.

    ``forward(images)`` is ``classify(decode(encode(images)), size)``. ``heads`` is empty until something is attached;
    predictions never use it.
    """

    num_classes: int
    backbone: nn.Module
    decoder: nn.Module
    classifier: nn.Module
    heads: nn.ModuleDict
    sources: dict[str, str]
    """Map that each head reads, see ``attach``."""
    convention: Any
    """Input that the weights expect; ``semiseg.models.segmodel.InputConvention``."""

    @property
    def feature_channels(self) -> int:
        """Channels D of the decoder's feature map."""
        raise NotImplementedError

    @property
    def coarsest_stride(self) -> int:
        """Pixels of an image from one position of the backbone's last map to the next."""
        raise NotImplementedError

    @property
    def size_multiple(self) -> int:
        """Number that height and width of the images must be multiples of; 1 for all but transformers."""
        raise NotImplementedError

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the backbone's maps of ``(N, 3, H, W)`` RGB images 0-255, uint8 or float."""
        raise NotImplementedError

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the decoder's feature map ``(N, D, h, w)`` of the backbone's maps."""
        raise NotImplementedError

    def features(self, images: Tensor) -> Tensor:
        """Return the decoder's feature map ``(N, D, h, w)`` of RGB images 0-255."""
        return self.decode(self.encode(images))

    def classify(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """Return logits ``(N, K, *size)`` of a decoder feature map, at least float32 under autocast too."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, K, H, W)`` of ``(N, 3, H, W)`` RGB images 0-255, uint8 or float."""
        return self.classify(self.features(images), images.shape[-2:])

    def attach(self, name: str, head: nn.Module, source: str = "features") -> None:
        """Add an auxiliary head; it is trained, saved and loaded with the network.

        Args:
            name: key of the head in ``heads``.
            head: module with ``in_channels`` and ``config``.
            source: map that it reads: "features" of the decoder, or "c1", "c2", ... of the backbone.
        """
        raise NotImplementedError

    def apply_head(self, name: str, maps: Sequence[Tensor], features: Tensor) -> Tensor:
        """Return the output of a head for its source among the maps of ``encode`` and ``decode``."""
        raise NotImplementedError

    def parts(self) -> list[Part]:
        """Return all parameters by part, in the order of ``parameters()``."""
        raise NotImplementedError

    def set_convention(self, convention: Any) -> None:
        """Normalize images in future as other weights expect it."""
        raise NotImplementedError


class OptimizerSpec(Protocol):
    """Settings of the optimizer, which make the groups of one network and the optimizer over all groups."""

    def groups(self, model: Network) -> list[dict[str, Any]]:
        """Return the parameter groups of one network; frozen parameters are left out."""
        ...

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Build the optimizer over groups of all networks."""
        ...

    def with_lr(self, lr: float) -> Self:
        """Return a copy with another base learning rate, for one fit."""
        ...


class Schedule(Protocol):
    """A factor of the learning rate as a function of the step."""

    def factor(self, step: int, total: int) -> float:
        """Return the factor of the 0-based optimizer step ``step`` of ``total``."""
        ...


class Learner(nn.Module):
    """Networks and losses of one fit; networks, EMA teachers and memory banks are submodules or buffers."""

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute one training step: all forward passes and losses, no backward."""
        raise NotImplementedError

    def after_step(self, progress: Progress) -> None:
        """Update what follows the weights, such as an EMA teacher, after the optimizer has stepped."""

    def predictors(self) -> dict[str, Network]:
        """Return the networks that can be evaluated and exported, by name; the first is the primary one."""
        raise NotImplementedError

    def candidates(self) -> dict[str, Network]:
        """Return the predictors that every evaluation compares to keep the best; by default the primary one alone."""
        name, primary = next(iter(self.predictors().items()))
        return {name: primary}

    def param_groups(self, spec: OptimizerSpec) -> list[dict[str, Any]]:
        """Return the parameter groups of all networks at any depth; frozen parameters are left out.

        A learner with trainable parameters outside of networks overrides this; the loop refuses one that forgets.
        """
        # A dict keeps the order, by which the optimizer's state is found again on resume, and drops repeats.
        networks = dict.fromkeys(module for module in self.modules() if isinstance(module, Network))
        return [group for network in networks for group in spec.groups(network)]


@dataclass(frozen=True)
class Budget:
    """Length of a fit: iterations or epochs, exactly one of them.

    Raises:
        UserError: none or both are given, or less than 1.
    """

    iterations: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.iterations, self.epochs) if value is not None]
        if len(given) != 1 or given[0] < 1:
            raise UserError(
                f"The length of training is iterations={self.iterations}, epochs={self.epochs}; "
                "expected one of the two, 1 or more."
            )

    def total(self, iterations_per_epoch: int) -> int:
        """Iterations of the fit."""
        return self.iterations if self.iterations is not None else (self.epochs or 0) * iterations_per_epoch


class BatchSource(Protocol):
    """Source of the batches of a fit; ``semiseg.data.streams.Streams``."""

    @property
    def iterations(self) -> int:
        """Iterations of the whole fit."""
        ...

    @property
    def iterations_per_epoch(self) -> int:
        """Iterations of one epoch."""
        ...

    @property
    def parts(self) -> tuple[tuple[str, int, str], ...]:
        """Name, batch size and kind of view of each stream."""
        ...

    def batch(self, dataset: SegDataset, seed: int, step_name: str, iteration: int) -> Batch:
        """Return the batch of a 0-based iteration; it depends on the arguments alone."""
        ...


@runtime_checkable
class StoredLabels(Protocol):
    """Pseudo-labels of one labeling step; ``semiseg.data.pseudo.PseudoLabels``."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids in the order in which they were labeled."""
        ...

    def label(self, image_id: str) -> Array:
        """Return the label map ``(H, W) uint8``."""
        ...

    def confidence(self, image_id: str) -> Confidence | None:
        """Return the confidence ``(H, W) float32``; ``None`` where it is not stored."""
        ...

    def read(self, image_id: str) -> tuple[Array, Confidence | None]:
        """Return label and confidence of an image."""
        ...

    def delete(self) -> None:
        """Delete labels and confidences; ids and statistics stay."""
        ...


class LabelPolicy(Protocol):
    """Function by which a network labels an image."""

    def __call__(self, network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
        """Turn ``(1, 3, H, W) uint8`` into ``(H, W) uint8`` labels and ``(H, W) float32`` confidence."""
        ...


@runtime_checkable
class SelectivePolicy(LabelPolicy, Protocol):
    """A policy that drops labels of low confidence, once all images are labeled."""

    def thresholds(self, labels: StoredLabels, num_classes: int) -> Sequence[float]:
        """Return the smallest confidence of each class, from the stored labels and confidences."""
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
    """

    run: str
    step: str
    accepted_runs: str
    supervised: bool
    must_match: Sequence[str] = ()
    snapshots: Sequence[float] = ()


DrawKey = tuple[int | str, ...]
"""Key of the random draws of one sample: seed, step name, iteration, stream and slot."""

ViewData = dict[str, NDArray[Any]]
"""Named arrays: images ``(H, W, 3) uint8``, ``label (H, W) uint8``, ``confidence (H, W) float32``, ``valid (H, W)
bool``, boxes, flips."""


class View(Protocol):
    """Function that turns an image into the arrays of a batch; ``semiseg.data.views``."""

    def __call__(
        self, image: Array, label: Array | None, key: DrawKey, confidence: Confidence | None = None
    ) -> ViewData:
        """Apply the random draws of ``key``; without a label or its confidence the result has none."""
        ...


class Augmentation(Protocol):
    """Parts of which a method composes its views; ``semiseg.data.augment.Augment``."""

    geometry: Any
    photometric: Any
    cutout: Any
    pair: Any

    @property
    def weak(self) -> View:
        """Geometry only."""
        ...

    @property
    def strong(self) -> View:
        """Geometry, color changes and cutout."""
        ...


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

    def network(self, tag: str, weights: str | None = None, *, differs_from: str | None = None) -> Network:
        """Build a network whose random weights depend on (seed, tag) alone.

        Args:
            tag: name of the network; equal tags give equal networks.
            weights: initial backbone weights; ``None`` takes the configured ones.
            differs_from: tag of a network that this one learns with and has to differ from, which matters where both
                begin as the network of ``init_from``; ``None`` for no such network.
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
            ids: images to label, in this order.
            policy: function that labels one image; a ``SelectivePolicy`` gives thresholds too, which apply whenever a
                label is read.
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
        """Apply a policy to images one by one, in evaluation mode; a stop request ends it between two.

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
