"""Contracts of trackers: where numbers and pictures of a run go; needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from semiseg.contracts.dataset import Array, Confidence


@dataclass(frozen=True)
class Sample:
    """One image with what a network makes of it.

    Args:
        id: image id.
        image: ``(H, W, 3) uint8`` RGB.
        truth: ``(H, W) uint8`` label map with 255 ignored; None where there is none.
        prediction: ``(H, W) uint8`` label map.
        confidence: ``(H, W) float32`` probability of the predicted class.
    """

    id: str
    image: Array
    truth: Array | None
    prediction: Array
    confidence: Confidence


class Tracker(Protocol):
    """A destination of what a run reports.

    Keys of values begin with ``train/``, ``val/``, ``test/``, ``lr/``, ``time/`` or ``pseudo/``. Every record
    belongs to the stage (the recipe's step) that was started last.
    """

    def start_stage(self, name: str, index: int, total_iterations: int) -> None:
        """Begin a step of the recipe, or continue it after a resume.

        Args:
            name: name of the step.
            index: 0-based position in the recipe.
            total_iterations: what the step has to do: iterations of a fit, images of a labeling; 0 if unknown.
        """
        ...

    def progress(self, completed: int) -> None:
        """Say how much of the running stage is done, in the unit of its ``total_iterations``; not recorded."""
        ...

    def log(self, values: Mapping[str, float | None], step: int) -> None:
        """Record named scalars.

        Args:
            values: plain numbers by key.
            step: optimizer steps done in the whole run, over all stages.
        """
        ...

    def images(self, key: str, samples: Sequence[Sample], step: int) -> None:
        """Record pictures of some images.

        Args:
            key: name of the group of pictures, for example ``val/samples``.
            samples: images with predictions.
            step: as for ``log``.
        """
        ...

    def summary(self, values: Mapping[str, Any]) -> None:
        """Record the outcome of the run; may hold nested plain values."""
        ...

    def close(self, status: str) -> None:
        """End the record; ``status`` is "done", "failed" or "interrupted". Nothing may follow."""
        ...


class Journal(Protocol):
    """A record of a run on disk that can be cut back to where a step is resumed."""

    def position(self) -> int:
        """Return where the record ends, with everything up to there on the disk."""
        ...

    def cut(self, position: int) -> None:
        """Drop everything after ``position``, which an earlier ``position()`` returned."""
        ...
