"""The two contracts of a method: a learner that computes one training step, and a recipe of steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor, nn

from semiseg.models.segmodel import SegModel

if TYPE_CHECKING:
    from semiseg.engine.lab import Lab
    from semiseg.engine.optim import OptimizerSpec

StreamBatch = dict[str, Any]
"""One stream's part of a batch: ``image (N, 3, H, W) uint8`` (or the names of the view's images),
``label (N, H, W) int64`` where there are labels, ``id`` a list of N image ids."""

Batch = dict[str, StreamBatch]
"""Stream name to its part."""


@dataclass(frozen=True)
class Progress:
    """Where a fit stands.

    Args:
        iteration: 0-based number of the running iteration.
        total: iterations of this fit.
        epoch: 0-based epoch of this fit.
        seed: seed of everything random in this iteration, a function of (seed, step name, iteration).
    """

    iteration: int
    total: int
    epoch: int
    seed: int


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
    """What one training step returns.

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


class Learner(nn.Module):
    """What the loop optimizes; networks, EMA teachers and memory banks are submodules or buffers."""

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute one training step: all forward passes and losses, no backward."""
        raise NotImplementedError

    def after_step(self, progress: Progress) -> None:
        """Run after the optimizer has stepped: EMA, bank update."""

    def predictors(self) -> dict[str, SegModel]:
        """Name what can be evaluated and exported; the first is the primary one."""
        raise NotImplementedError

    def contenders(self) -> dict[str, SegModel]:
        """Name the predictors of which every evaluation keeps the best; the primary one alone, unless overridden."""
        name, primary = next(iter(self.predictors().items()))
        return {name: primary}

    def param_groups(self, spec: OptimizerSpec) -> list[dict[str, Any]]:
        """Parameter groups of all trained networks; frozen parameters are left out."""
        return [
            group for model in self.children() if isinstance(model, SegModel) for group in spec.groups(model)
        ]


class Method(Protocol):
    """A training method: straight-line code over the named steps of a lab.

    A method may have three more functions, by which a config is refused before anything is read:
    ``batch_sizes(trainer)`` gives the number of images in each batch of its streams, as a mapping from the
    keys that it follows from; ``check_split(split)`` raises ``UserError`` on a split that it cannot learn from;
    ``given_fits()`` lists the fits of other runs that it takes (``semiseg.runs.given.GivenFit``).
    """

    name: str
    needs_unlabeled: ClassVar[bool]

    def run(self, lab: Lab) -> SegModel:
        """Train and return the network to report."""
        ...
