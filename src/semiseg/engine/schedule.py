"""Learning-rate schedules per iteration, as a factor of each parameter group's own rate."""

import math
from dataclasses import dataclass

from semiseg.errors import UserError


@dataclass(frozen=True)
class Poly:
    """``(1 - step / total) ** power``, the schedule of DeepLab, CPS, CAC and ST++.

    Args:
        power: 0.9 in all of these; 0 keeps the rate.
        name: name of the option.

    Raises:
        UserError: a negative power.
    """

    power: float = 0.9
    name: str = "poly"

    def __post_init__(self) -> None:
        if not 0 <= self.power < math.inf:
            raise UserError("give 0 or more, for example 0.9.", key="schedule.power", value=self.power)

    def factor(self, step: int, total: int) -> float:
        """Return 1 at step 0; step ``total`` would get 0 and never runs."""
        return float((1 - step / total) ** self.power)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 down to ``floor``, after a linear warm-up.

    Args:
        floor: factor that the last step comes close to.
        warmup: share of the steps (0 to 1) that rise linearly from near 0.
        name: name of the option.

    Raises:
        UserError: a value outside 0 to 1.
    """

    floor: float = 0.0
    warmup: float = 0.0
    name: str = "cosine"

    def __post_init__(self) -> None:
        for key, value in (("floor", self.floor), ("warmup", self.warmup)):
            if not 0 <= value <= 1:
                raise UserError("give a share from 0 to 1.", key=f"schedule.{key}", value=value)

    def factor(self, step: int, total: int) -> float:
        """Return the factor of the step; the first warm-up step gets ``1 / warm-up steps``."""
        rising = int(self.warmup * total)
        if step < rising:
            return (step + 1) / rising
        position = (step - rising) / max(total - rising, 1)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * position))
