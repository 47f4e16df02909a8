"""Crops of labeled images that are drawn towards rare classes: the best of several random ones is taken."""

import random
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from semiseg.contracts.dataset import IGNORE_INDEX, Array
from semiseg.data.geometry import Placement, RandomCrop
from semiseg.declare import Ge, Gt, Le, checked
from semiseg.errors import UserError


class RareClasses:
    """A rule that draws several crops of a labeled image and takes the one with most of rare classes.

    Without shares the classes of a crop should be as even as possible: the crop is taken whose entropy, times the share
    of its pixels with a label, is largest.
    With the shares of the labeled pixels (``semiseg splits check`` prints them), a crop's score is the sum over its
    classes of their share in the crop, up to ``enough``, divided by their share in the labeled images.

    Args:
        candidates: number of crops that are drawn.
        shares: share of each class among the labeled pixels, in the order of the classes; ``None`` compares entropies.
        enough: share of a crop from which more pixels of a class add nothing, with ``shares``.

    Raises:
        UserError: a value out of range.
    """

    @checked
    def __init__(
        self,
        *,
        candidates: Annotated[int, Ge(1)] = 10,
        shares: Annotated[Sequence[Annotated[float, Ge(0)]], Ge(0)] | None = None,
        enough: Annotated[float, Gt(0), Le(1)] = 0.1,
    ) -> None:
        if shares is not None and not any(shares):
            raise UserError(
                "give the share of each class, at least one above 0.", key="shares", value=list(shares)
            )
        self.candidates, self.enough = candidates, enough
        self.shares = None if shares is None else np.asarray(shares, dtype=np.float64)

    def choose(self, geometry: RandomCrop, label: Array, rng: random.Random) -> Placement:
        """Draw the placements, return the best for a label map ``(H, W) uint8``; of equal ones the first."""
        drawn = [geometry.draw(label.shape[0], label.shape[1], rng) for _ in range(self.candidates)]
        scores = [self.score(placement.map(label, IGNORE_INDEX)) for placement in drawn]
        return drawn[int(np.argmax(scores))]

    def score(self, crop: Array) -> float:
        """Return the score of a crop's label map ``(H, W) uint8``; padding and ignored pixels count as nothing."""
        counts = np.bincount(crop.ravel(), minlength=256)[:IGNORE_INDEX].astype(np.float64)
        parts: NDArray[np.float64] = counts / crop.size
        if self.shares is None:
            found = parts[parts > 0]
            # Times the known share of the crop: padding must not look like variety.
            return float(-(found * np.log(found / found.sum())).sum())
        known = parts[: len(self.shares)]
        possible = self.shares > 0
        return float((np.minimum(known, self.enough)[possible] / self.shares[possible]).sum())
