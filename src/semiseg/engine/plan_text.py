"""Steps of a planned run, and the text that shows them."""

from collections.abc import Sequence
from dataclasses import dataclass

from semiseg.engine.sizes import NetworkSize, render_sizes
from semiseg.engine.step_memory import NetworkCost, mebibytes


@dataclass(frozen=True)
class PlannedStep:
    """One step of the plan.

    Args:
        name: name of the step.
        work: work of the step, in words.
        iterations: optimizer steps; 0 for steps that train nothing.
        seconds: estimated duration.
        bytes: disk space that it needs.
        held: disk space that the whole run takes up at most during the step: earlier steps keep their networks, and
            their pseudo-labels until they are released.
        sizes: networks that it trains, with their numbers of parameters by part.
        networks: networks that it trains, by kind; empty where it trains none.
        operations: floating-point operations of its training, forward and backward; 0 for steps that train nothing.
        step_seconds: estimated duration of an iteration.
        evaluation_seconds: estimated duration of one evaluation.
    """

    name: str
    work: str
    iterations: int
    seconds: float
    bytes: int
    held: int
    sizes: tuple[NetworkSize, ...] = ()
    networks: tuple[NetworkCost, ...] = ()
    operations: int = 0
    step_seconds: float = 0.0
    evaluation_seconds: float = 0.0


def render_plan(steps: Sequence[PlannedStep]) -> str:
    """The plan as text: one line for each step, and the sums."""
    width = max(len(step.name) for step in steps)
    lines = [
        f"  {number}. {step.name:<{width}}  {step.work}, about {_duration(step.seconds)}"
        for number, step in enumerate(steps, start=1)
    ]
    iterations = sum(step.iterations for step in steps)
    total = _duration(sum(step.seconds for step in steps))
    disk = mebibytes(max(step.held for step in steps))
    work = operations_text(sum(step.operations for step in steps))
    summed = f"  in all {iterations} iterations, {work}, about {total}, up to {disk} on disk"
    parts = render_sizes(size for step in steps for size in step.sizes)
    costs = dict.fromkeys(f"  {each}" for step in steps for each in step.networks)
    return "\n".join([*lines, summed, *costs, *(f"  parameters of {line}" for line in parts)])


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def operations_text(count: float) -> str:
    """Return a number of floating-point operations in words."""
    for unit in ("MFLOP", "GFLOP", "TFLOP", "PFLOP"):
        count /= 1000 if unit != "MFLOP" else 1e6
        if count < 999.5:
            break
    return f"{count:.3g} {unit}"
