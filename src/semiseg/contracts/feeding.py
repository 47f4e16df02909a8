"""Contracts of what feeds a fit: its length, batches, stored pseudo-labels and views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from semiseg.contracts.dataset import Array, Confidence, SegDataset
from semiseg.contracts.training import Batch
from semiseg.errors import UserError


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
