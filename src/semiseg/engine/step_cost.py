"""What a training step takes, measured on a few steps for the plan of a run: time, operations and memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch.utils.flop_counter import FlopCounterMode

from semiseg.contracts.training import Learner
from semiseg.engine.session import Session
from semiseg.engine.step_memory import NetworkCost, SavedTensors, network_costs


@dataclass(frozen=True)
class StepCost:
    """Cost of a training step.

    Args:
        seconds: time of the fastest of the measured steps.
        operations: floating-point operations of matrix products and convolutions, forward and backward; a
            multiplication and its addition count as two.
        networks: networks of the learner, by kind, with their memory.
    """

    seconds: float
    operations: int
    networks: tuple[NetworkCost, ...]


def step_cost(
    learner: Learner, session: Session, timed: Callable[[int], float], iterations: Sequence[int]
) -> StepCost:
    """Measure steps.

    Args:
        learner: learner that they train.
        session: session of the fit.
        timed: function that does the step of an iteration and returns its seconds.
        iterations: iterations to measure, one or more.
    """
    saved, counter = SavedTensors(learner), FlopCounterMode(display=False)
    # The first step also pays for counting, for choosing kernels and for filling caches: its time counts if no other
    # is there.
    with counter, saved.watching():
        seconds = timed(iterations[0])
    seconds = min([seconds, *map(timed, iterations[1:])])
    costs = network_costs(saved, session.training.optimizer, session.output.config_of)
    return StepCost(seconds, counter.get_total_flops(), tuple(costs))
