"""What a training step takes, measured on a few steps for the plan of a run: time, operations and memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

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


def conv_backward_operations(
    grad_shape: list[int],
    x_shape: list[int],
    w_shape: list[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: list[bool],
    **_: Any,
) -> int:
    """Count the operations of the gradients of a convolution: for input and weight as many as the forward pass each.

    The formula of PyTorch counts the gradient of the weight as if there were no groups, which is many times too much
    for depthwise convolutions.
    """
    return conv_flop_count(x_shape, w_shape, grad_shape, transposed) * sum(map(bool, output_mask[:2]))


CORRECTED = {torch.ops.aten.convolution_backward: conv_backward_operations}
"""Formulas that replace those of PyTorch."""


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
    saved, counter = SavedTensors(learner), FlopCounterMode(display=False, custom_mapping=CORRECTED)
    # The first step also pays for counting, for choosing kernels and for filling caches: its time counts if no other
    # is there.
    with counter, saved.watching():
        seconds = timed(iterations[0])
    seconds = min([seconds, *map(timed, iterations[1:])])
    costs = network_costs(saved, session.training.optimizer, session.output.config_of)
    return StepCost(seconds, counter.get_total_flops(), tuple(costs))
