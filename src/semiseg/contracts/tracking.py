"""Contracts of trackers, which receive numbers and pictures of a run; needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from semiseg.contracts.dataset import Array, Confidence


@dataclass(frozen=True)
class Sample:
    """One image with the prediction of a network.

    Args:
        id: id of the image.
        image: image ``(H, W, 3) uint8`` RGB.
        truth: label map ``(H, W) uint8`` with 255 ignored; ``None`` for an image without a mask.
        prediction: label map ``(H, W) uint8``.
        confidence: probability of the predicted class, ``(H, W) float32``.
    """

    id: str
    image: Array
    truth: Array | None
    prediction: Array
    confidence: Confidence


class Tracker(Protocol):
    """A receiver of the numbers and pictures of a run.

    Keys of values begin with ``train/``, ``val/``, ``test/``, ``lr/``, ``time/`` or ``pseudo/``. Every record
    belongs to the stage (the step of the recipe) that was started last.
    """

    def start_stage(self, name: str, index: int, total_iterations: int) -> None:
        """Begin a step of the recipe, or continue it after a resume.

        Args:
            name: name of the step.
            index: 0-based position in the recipe.
            total_iterations: work of the step: iterations of a fit, images of a labeling; 0 if unknown.
        """
        ...

    def progress(self, completed: int) -> None:
        """Show how much of the running stage is done, in the unit of its ``total_iterations``; not recorded."""
        ...

    def log(self, values: Mapping[str, float | None], step: int) -> None:
        """Record named scalars.

        Args:
            values: plain numbers by key.
            step: number of optimizer steps in the whole run so far, over all stages.
        """
        ...

    def images(self, key: str, samples: Sequence[Sample], step: int) -> None:
        """Record pictures of some images.

        Args:
            key: name of the group of pictures, for example ``val/samples``.
            samples: images with predictions.
            step: number of optimizer steps, as for ``log``.
        """
        ...

    def summary(self, values: Mapping[str, Any]) -> None:
        """Record the result of the run; its values may be nested."""
        ...

    def close(self, status: str) -> None:
        """End the record; ``status`` is "done", "failed" or "interrupted". Nothing may follow."""
        ...


class Journal(Protocol):
    """A record of a run on disk that can be cut back to the point where a step is resumed."""

    def position(self) -> int:
        """Return the length of the record, after making sure that all of it is on the disk."""
        ...

    def cut(self, position: int) -> None:
        """Drop everything after ``position``, which an earlier ``position()`` returned."""
        ...
