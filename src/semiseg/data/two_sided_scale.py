"""Scale rule that shrinks as often as it enlarges."""

import random
from dataclasses import dataclass
from typing import Annotated

from semiseg.data.resize import Interpolation
from semiseg.declare import Ge, Gt, Le, check_fields


@dataclass(frozen=True)
class ScaleTwoSided:
    """Scale both sides by one factor, with probability 1/2 uniform in [low, 1), else in [1, high); sides rounded down.

    With the defaults this is the rule of U2PL. ``ScaleUniform`` of the same range enlarges twice as often.

    Args:
        low: smallest factor, at most 1.
        high: largest factor, at least 1.
        interpolation: rule of a library, see ``resized``.

    Raises:
        UserError: a value out of range.
    """

    low: Annotated[float, Gt(0), Le(1)] = 0.5
    high: Annotated[float, Ge(1)] = 2.0
    interpolation: Interpolation = "opencv"

    def __post_init__(self) -> None:
        check_fields(self)

    def size(self, height: int, width: int, rng: random.Random) -> tuple[int, int]:
        """Draw the side and the factor, return the new (height, width)."""
        # Published code of U2PL: u2pl/dataset/augmentation.py, RandResize.
        smaller = rng.random() < 0.5
        scale = rng.uniform(self.low, 1) if smaller else rng.uniform(1, self.high)
        return max(1, int(height * scale)), max(1, int(width * scale))
