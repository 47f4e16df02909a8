"""Learning-rate schedules per iteration, as a factor of each parameter group's own rate."""

import math
from typing import Annotated, Literal

from semiseg.declare import Ge, Le, Lt, record

RateIndex = Literal["lagged", "exact"]


@record
class Poly:
    """``(1 - step / total) ** power``, the schedule of DeepLab, CPS, CAC and ST++."""

    power: Annotated[float, Ge(0), Lt(math.inf)] = 0.9
    """Exponent; 0.9 in all published methods, 0 keeps the rate."""
    lr_index: RateIndex = "exact"
    """Step that the rate is computed from: "lagged", the previous one, so that the first two steps run at the base
    rate, as UniMatch V1 and V2, CorrMatch and PrevMatch set the rate after a step; or "exact", the step itself, as
    all others do and by default."""

    def factor(self, step: int, total: int) -> float:
        """Return 1 at step 0; step ``total`` would get 0 and never runs."""
        return float((1 - _index(step, self.lr_index) / total) ** self.power)


@record
class Cosine:
    """Half a cosine from 1 down to ``floor``, after a linear warm-up."""

    floor: Annotated[float, Ge(0), Le(1)] = 0.0
    """Factor that the last step comes close to."""
    warmup: Annotated[float, Ge(0), Le(1)] = 0.0
    """Share of the steps that rise linearly from near 0."""
    lr_index: RateIndex = "exact"
    """Step that the rate is computed from: "lagged", the previous one, for programs that set the rate after a step;
    or "exact", the step itself, as CutMix-Seg does and by default."""

    def factor(self, step: int, total: int) -> float:
        """Return the factor of the step; the first warm-up step gets ``1 / warm-up steps``."""
        index = _index(step, self.lr_index)
        rising = int(self.warmup * total)
        if index < rising:
            return (index + 1) / rising
        position = (index - rising) / max(total - rising, 1)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * position))


def _index(step: int, rule: RateIndex) -> int:
    return max(step - 1, 0) if rule == "lagged" else step
