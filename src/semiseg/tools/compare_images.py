"""Where two networks disagree: both predict the same images, which are ranked and drawn."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from semiseg.data.dataset import Array
from semiseg.data.splits import Split
from semiseg.engine.inference import predict_labels
from semiseg.errors import UserError
from semiseg.models.segmodel import SegModel
from semiseg.tools.compare_picture import counted_pixels, draw
from semiseg.tools.finished import REPORTED, FinishedRun

if TYPE_CHECKING:
    from semiseg.config.schema import EvaluatorConfig


@dataclass(frozen=True)
class Disagreement:
    """How two networks label one image; all numbers are shares of its counted pixels, 0-1.

    Pixels count that have a true class; where the image has no mask all count, and nothing is known to be right.

    Args:
        id: image id.
        pixels: how many count.
        differ: the networks name other classes.
        right_a: the first is right; None without a mask.
        right_b: the second is right; None without a mask.
        only_a: the first alone is right; None without a mask.
        only_b: the second alone is right; None without a mask.
    """

    id: str
    pixels: int
    differ: float
    right_a: float | None = None
    right_b: float | None = None
    only_a: float | None = None
    only_b: float | None = None


@dataclass(frozen=True)
class Labeler:
    """A run's network as the run evaluates it.

    Args:
        network: on ``device``, in evaluation mode or not.
        settings: the run's own evaluator.
        precision: "fp32" or "bf16".
        device: where it computes.
    """

    network: SegModel
    settings: "EvaluatorConfig"
    precision: str
    device: torch.device

    def label(self, image: Array) -> Array:
        """Return the classes ``(H, W) uint8`` of an image ``(H, W, 3) uint8``, as ``semiseg eval`` finds them."""
        batch = torch.from_numpy(image).to(self.device).permute(2, 0, 1)[None]
        labels = predict_labels(self.network, batch, self.settings, self.precision)
        return labels[0].to(torch.uint8).cpu().numpy()


class Duel:
    """The reported networks of two finished runs before the same images.

    Images and masks are those of the first run's dataset.

    Args:
        a: the first run.
        b: the second run.
        part: "val" or "test".
        device: where to compute.
        root: folder of the dataset, if it has moved.

    Raises:
        UserError: the runs have other classes, or no image of this part in common.
    """

    def __init__(
        self, a: FinishedRun, b: FinishedRun, part: str, device: torch.device, root: str | None = None
    ) -> None:
        self._a, classes = _labeler(a, device)
        self._b, others = _labeler(b, device)
        if classes != others:
            raise UserError(
                f"The networks name other classes: {', '.join(classes)} and {', '.join(others)}. "
                "--no-images compares everything else."
            )
        self.part = part
        self.dataset, split = a.data(root)
        self.info = self.dataset.info
        mine = _ids(split, part)
        shared = set(_ids(b.data(root)[1], part))
        self.ids = tuple(image_id for image_id in mine if image_id in shared)
        """Images of the part that both runs have, in the order of the first."""
        self.left_out = len(mine) + len(shared) - 2 * len(self.ids)
        """How many images only one of the runs has."""
        if not self.ids:
            raise UserError(
                f"The runs share no {part} images ({len(mine)} and {len(shared)}). Choose another --part, "
                "or --no-images to compare everything else."
            )

    def rank(self, progress: Callable[[Sequence[str]], Iterable[str]]) -> list[Disagreement]:
        """Label all images with both networks and order them, the one where most pixels differ first.

        Args:
            progress: is given the ids and hands them on one by one.
        """
        found = [self._disagreement(image_id) for image_id in progress(self.ids)]
        return sorted(found, key=lambda each: -each.differ)

    def picture(self, image_id: str) -> Image.Image:
        """Draw one image with what both networks make of it; see ``compare_picture.draw``."""
        return draw(*self._labeled(image_id), self.info)

    def _labeled(self, image_id: str) -> tuple[Array, Array | None, Array, Array]:
        image = self.dataset.image(image_id)
        return image, self.dataset.mask(image_id), self._a.label(image), self._b.label(image)

    def _disagreement(self, image_id: str) -> Disagreement:
        _, truth, first, second = self._labeled(image_id)
        counted = counted_pixels(truth, first, self.info)
        pixels = int(counted.sum())

        def share(chosen: NDArray[np.bool_]) -> float:
            return float(chosen[counted].sum() / max(pixels, 1))

        differ = share(first != second)
        if truth is None:
            return Disagreement(image_id, pixels, differ)
        right_a, right_b = first == truth, second == truth
        only = share(right_a & ~right_b), share(right_b & ~right_a)
        return Disagreement(image_id, pixels, differ, share(right_a), share(right_b), *only)


def _labeler(run: FinishedRun, device: torch.device) -> tuple[Labeler, list[str]]:
    """Return a run's reported network, and its classes."""
    network, bundle = run.network(REPORTED, device)
    return Labeler(network, run.evaluator(), run.config.trainer.precision, device), list(bundle["classes"])


def _ids(split: Split, part: str) -> tuple[str, ...]:
    return split.val if part == "val" else split.test
