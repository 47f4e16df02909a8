"""Where two networks disagree: both predict the same images, which are ranked and drawn."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semiseg.contracts.dataset import Array
from semiseg.errors import UserError
from semiseg.report.compare_picture import counted_pixels, draw
from semiseg.runs.predictor import load
from semiseg.runs.use import FinishedRun


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


class Duel:
    """The reported networks of two finished runs before the same images, each as its run evaluates it.

    Images and masks are those of the first run's dataset; of the second's where the first alone halves images.

    Args:
        a: the first run.
        b: the second run.
        part: "val" or "test".
        device: where to compute: "auto", "cpu", "cuda" or "cuda:N".
        root: folder of the dataset, if it has moved.

    Raises:
        UserError: the runs have other classes, or no image of this part in common.
    """

    def __init__(
        self, a: FinishedRun, b: FinishedRun, part: str, device: str = "auto", root: str | None = None
    ) -> None:
        self.part = part
        networks = [load(run.path, device=device) for run in (a, b)]
        if networks[0].classes != networks[1].classes:
            names = " and ".join(", ".join(each.classes) for each in networks)
            raise UserError(f"The networks name other classes: {names}.")
        first, second = a.data(root), b.data(root)
        halve = [each.half_size for each in networks]
        home, other = (second, first) if halve == [True, False] else (first, second)
        # Never in tiles, as the runs evaluate; what the dataset has halved is not halved again.
        self._a, self._b = (
            replace(each, tiling=None, half_size=each.half_size and not all(halve)) for each in networks
        )
        self.dataset, self.info = home[0], home[0].info
        mine, theirs = (split.val if part == "val" else split.test for _, split in (home, other))
        shared = set(theirs)
        self.ids = tuple(image_id for image_id in mine if image_id in shared)
        """Images of the part that both runs have, in the dataset's order."""
        self.left_out = len(mine) + len(theirs) - 2 * len(self.ids)
        """How many images only one of the runs has."""
        if not self.ids:
            raise UserError(
                f"The runs share no {part} images ({len(mine)} and {len(theirs)}). Choose another --part."
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
        a, b = (each.predict(image).label for each in (self._a, self._b))
        return image, self.dataset.mask(image_id), a, b

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
