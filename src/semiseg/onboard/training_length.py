"""How long to train on a new dataset: by the time that one has, and by the number of labels."""

import math
from typing import NamedTuple

from semiseg.onboard.training_choice import Facts, TrainingChoice
from semiseg.onboard.training_numbers import NUMBERS


class Speed(NamedTuple):
    """Seconds of a run's parts on a machine."""

    step: float
    """Seconds of a step."""
    evaluation: float
    """Seconds of one evaluation of all validation images."""
    rest: float = 0.0
    """Seconds of what comes once: the probe, test images, pictures."""


class Length(NamedTuple):
    """Length of a run."""

    iterations: int
    """Steps."""
    eval_every: int
    """Steps between evaluations."""
    seconds: float | None
    """Expected time; ``None`` where nothing was measured."""
    reason: str
    """Sentence why."""


def training_length(facts: Facts, choice: TrainingChoice, speed: Speed | None) -> Length:
    """Choose the length of a run and its evaluations by the time that one has, and by the number of labels."""
    most = choice.most
    if speed is None:
        iterations = min(NUMBERS.unmeasured, most)
        return Length(
            iterations, _every(iterations, NUMBERS.evaluations[1]), None, "No time could be measured."
        )
    budget = facts.minutes * 60
    fewest, usual = NUMBERS.evaluations
    evaluations = usual if facts.val else 0
    if facts.val and speed.evaluation:
        affordable = int(budget * NUMBERS.evaluation_share / speed.evaluation)
        evaluations = min(max(affordable, fewest), usual)
    fitting = int((budget - speed.rest - evaluations * speed.evaluation) / speed.step)
    iterations = _rounded(max(min(fitting, most), NUMBERS.least))
    if fitting > most:
        reason = f"The most for {facts.labeled:,} labeled images; longer training was not measured."
    elif fitting < NUMBERS.least:
        reason = f"The least that makes sense; {facts.minutes:g} minutes are too short for it."
    else:
        reason = f"What fits into {facts.minutes:g} minutes."
    every = _every(iterations, evaluations)
    done = math.ceil(iterations / every) if facts.val else 0
    seconds = iterations * speed.step + done * speed.evaluation + speed.rest
    return Length(iterations, every, seconds, reason)


def _every(iterations: int, evaluations: int) -> int:
    return math.ceil(iterations / max(evaluations, 1))


def _rounded(iterations: int) -> int:
    """Round down to two digits."""
    digit = 10 ** max(len(str(iterations)) - 2, 0)
    return int(iterations // digit * digit)
