"""Optimizers of networks that have settings of their own, behind one object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from semiseg.contracts.training import Learner, Network, Optimizer, OptimizerSpec, Schedule

ROLE = "role"
"""Key of a parameter group that names the network, or the further module, with settings of its own."""


def further_groups(learner: Learner) -> list[dict[str, Any]]:
    """Return a group for each further module of a learner."""
    return [
        {**each.optimizer.group(name, each.module), ROLE: name} for name, each in learner.further().items()
    ]


def build_optimizer(learner: Learner, spec: OptimizerSpec, groups: list[dict[str, Any]]) -> Optimizer:
    """Build the optimizers of all groups of a learner, those of its further modules too, behind one object.

    Args:
        learner: learner that the groups are of.
        spec: settings of the optimizer of its networks.
        groups: groups of the networks and of ``further_groups``.
    """
    further = learner.further()
    networks = spec.build([group for group in groups if group.get(ROLE) not in further])
    if not further:
        return networks
    own = [
        each.optimizer.build([group for group in groups if group.get(ROLE) == name])
        for name, each in further.items()
    ]
    return JointOptimizer([*(networks.parts if isinstance(networks, JointOptimizer) else [networks]), *own])


def schedules(learner: Learner, schedule: Schedule) -> dict[str, Schedule]:
    """Return the schedule of each further module of a learner by its name, by default that of the run."""
    return {name: each.schedule or schedule for name, each in learner.further().items()}


@dataclass(frozen=True)
class OptimizerByRole:
    """Settings of the optimizers of a fit, whose networks need not have the same ones.

    Args:
        own: settings of the run, for all networks without others.
        by_role: settings of networks of another kind.
    """

    own: OptimizerSpec
    by_role: Mapping[str, OptimizerSpec]

    def groups(self, model: Network) -> list[dict[str, Any]]:
        """Parameter groups of one network; ``partner_head`` is the name of one with settings of its own."""
        if model.role is None or model.role not in self.by_role:
            return self.own.groups(model)
        groups = self.by_role[model.role].groups(model)
        return [{**each, "name": f"{model.role}_{each['name']}", ROLE: model.role} for each in groups]

    def build(self, groups: list[dict[str, Any]]) -> Optimizer:
        """Build one optimizer for each of the settings that the groups have."""
        parts = [
            spec.build(own)
            for role, spec in ((None, self.own), *self.by_role.items())
            if (own := [group for group in groups if group.get(ROLE) == role])
        ]
        return parts[0] if len(parts) == 1 else JointOptimizer(parts)

    def with_lr(self, lr: float) -> Self:
        """Return a copy with another base learning rate; the other ones change in the same ratio."""
        ratio = lr / self.own.lr
        scaled = {role: spec.with_lr(spec.lr * ratio) for role, spec in self.by_role.items()}
        return replace(self, own=self.own.with_lr(lr), by_role=scaled)

    @property
    def lr(self) -> float:
        """Learning rate of the run's own backbone at the first step."""
        return self.own.lr


class JointOptimizer:
    """Several optimizers over different parameters, used as one.

    Args:
        parts: optimizers, in the order in which their state is stored.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = tuple(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts; a change of one changes its optimizer."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def step(self) -> None:
        """Let every part step."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of all parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the states of all parts."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
