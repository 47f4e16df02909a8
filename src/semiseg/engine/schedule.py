"""Learning-rate schedules per iteration, as a factor of each parameter group's own rate."""

import math
from typing import Annotated

from semiseg.declare import Ge, Le, Lt, record


@record
class Poly:
    """``(1 - step / total) ** power``, the schedule of DeepLab, CPS, CAC and ST++."""

    power: Annotated[float, Ge(0), Lt(math.inf)] = 0.9
    """Exponent; 0.9 in all published methods, 0 keeps the rate."""

    def factor(self, step: int, total: int) -> float:
        """Return 1 at step 0; step ``total`` would get 0 and never runs."""
        return float((1 - step / total) ** self.power)


@record
class Cosine:
    """Half a cosine from 1 down to ``floor``, after a linear warm-up."""

    floor: Annotated[float, Ge(0), Le(1)] = 0.0
    """Factor that the last step comes close to."""
    warmup: Annotated[float, Ge(0), Le(1)] = 0.0
    """Share of the steps that rise linearly from near 0."""

    def factor(self, step: int, total: int) -> float:
        """Return the factor of the step; the first warm-up step gets ``1 / warm-up steps``."""
        rising = int(self.warmup * total)
        if step < rising:
            return (step + 1) / rising
        position = (step - rising) / max(total - rising, 1)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * position))
