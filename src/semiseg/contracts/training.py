"""Contracts of a training step: batches, losses, networks and the learner that computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

StreamBatch = dict[str, Any]
"""One stream's part of a batch: ``image (N, C, H, W)`` (or the names of the view's images), uint8, or float32 for
bands of 16 and 32 bits; ``label (N, H, W) int64`` where there are labels (uint8 until ``to_device``), ``id`` a list of
N image ids."""

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


def divisor(count: Tensor) -> Tensor:
    """Return a count, or 1 where nothing is counted; a sum of weights may be less than 1."""
    # A crop may hold ignored pixels alone; 0 / 0 would send NaN into every weight.
    return torch.where(count > 0, count, 1)


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
        return self.total / divisor(self.counted)

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
        return self.sum / divisor(self.count)


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
    role: str | None = None
    """Key of the method that describes it, such as "partner"; ``None`` for a network of the run's own kind. Copies of
    the network have it too."""

    @property
    def channels(self) -> int:
        """Number of channels C of the images."""
        return len(self.convention.mean)

    @property
    def mean_color(self) -> Tensor:
        """Pixel ``(1, C, 1, 1)`` of an image that ``normalize`` turns into 0, on the device of the network."""
        raise NotImplementedError

    @property
    def feature_channels(self) -> int:
        """Channels D of the decoder's feature map."""
        raise NotImplementedError

    @property
    def linear_channels(self) -> int:
        """Channels at the beginning of that map that are maps of the backbone, which a linear classifier may use."""
        raise NotImplementedError

    @property
    def map_channels(self) -> tuple[int, ...]:
        """Channels of the backbone's maps c1, c2, ..."""
        raise NotImplementedError

    @property
    def coarsest_stride(self) -> int:
        """Pixels of an image from one position of the coarsest map to the next."""
        raise NotImplementedError

    @property
    def size_multiple(self) -> int:
        """Number that height and width of the images must be multiples of; 1 for all but transformers."""
        raise NotImplementedError

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the backbone's maps of ``(N, C, H, W)`` images, RGB 0-255 (uint8 or float) or bands."""
        raise NotImplementedError

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the decoder's feature map ``(N, D, h, w)`` of the backbone's maps."""
        raise NotImplementedError

    def features(self, images: Tensor) -> Tensor:
        """Return the decoder's feature map ``(N, D, h, w)`` of images."""
        return self.decode(self.encode(images))

    def normalize(self, images: Tensor) -> Tensor:
        """Return the input of the backbone for ``(N, C, H, W)`` images, RGB 0-255 (uint8 or float) or bands."""
        raise NotImplementedError

    def classify(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """Return logits ``(N, K, *size)`` of a decoder feature map, at least float32 under autocast too."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, K, H, W)`` of ``(N, C, H, W)`` images, RGB 0-255 (uint8 or float) or bands."""
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


class Optimizer(Protocol):
    """What the loop asks of an optimizer; those of torch are such ones."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of parameters with their settings, among them "lr"."""
        ...

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters."""
        ...

    def step(self) -> Any:
        """Change the parameters by their gradients."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return state and settings, plain values and tensors."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        ...


class OptimizerSpec(Protocol):
    """Settings of the optimizer, which make the groups of one network and the optimizer over all groups.

    Networks of another ``role`` may have settings of their own.
    """

    @property
    def lr(self) -> float:
        """Base learning rate."""
        ...

    def groups(self, model: Network) -> list[dict[str, Any]]:
        """Return the parameter groups of one network; frozen parameters are left out."""
        ...

    def build(self, groups: list[dict[str, Any]]) -> Optimizer:
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


class ModuleOptimizer(Protocol):
    """Settings of the optimizer of a module that is no network, such as those of ``semiseg.engine.optim``."""

    def group(self, name: str, module: nn.Module) -> dict[str, Any]:
        """Return one group of all trainable parameters of a module."""
        ...

    def build(self, groups: list[dict[str, Any]]) -> Optimizer:
        """Build the optimizer over groups."""
        ...


class Further(NamedTuple):
    """A module of a learner that is no network of the run, such as a discriminator, and what trains it.

    Args:
        module: module with trainable parameters of its own.
        optimizer: kind of its optimizer, with the learning rate.
        schedule: factor of that rate at each step; ``None`` takes the schedule of the run.
    """

    module: nn.Module
    optimizer: ModuleOptimizer
    schedule: Schedule | None = None


class Learner(nn.Module):
    """Networks and losses of one fit; networks, EMA teachers and memory banks are submodules or buffers."""

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute one training step: all forward passes and losses, no backward."""
        raise NotImplementedError

    def after_step(self, progress: Progress) -> None:
        """Update what follows the weights, such as an EMA teacher, after the optimizer has stepped."""

    def after_evaluation(self, new_best: bool, progress: Progress) -> None:
        """Note that the weights of this moment were evaluated; what changes here has to be in the state dict.

        Args:
            new_best: whether the validation score is better than all before.
            progress: last step that was done.
        """

    def predictors(self) -> dict[str, Network]:
        """Return the networks that can be evaluated and exported, by name; the first is the primary one."""
        raise NotImplementedError

    def candidates(self) -> dict[str, Network]:
        """Return the predictors that every evaluation compares to keep the best; by default the primary one alone."""
        name, primary = next(iter(self.predictors().items()))
        return {name: primary}

    def further(self) -> dict[str, Further]:
        """Return the modules that optimizers of their own train, by the names that their rates are logged under.

        All losses are differentiated by one backward pass with the weights of before the step, and then every optimizer
        steps: a loss that must not train a module sees its parameters detached.
        """
        return {}

    def param_groups(self, spec: OptimizerSpec) -> list[dict[str, Any]]:
        """Return the parameter groups of all networks at any depth; frozen parameters are left out.

        A learner with trainable parameters outside of networks overrides this, or ``further``; the loop refuses one
        that forgets.
        """
        # A dict keeps the order, by which the optimizer's state is found again on resume, and drops repeats.
        networks = dict.fromkeys(module for module in self.modules() if isinstance(module, Network))
        return [group for network in networks for group in spec.groups(network)]
