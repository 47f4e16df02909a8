"""Optimizers and their parameter groups: backbone and head, with and without weight decay."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

import torch

from semiseg.contracts.training import Network
from semiseg.declare import Ge, Gt, Lt, record
from semiseg.errors import UserError

Decay = Literal["all", "conv"]
Finite = Lt(math.inf)
Rate = Annotated[float, Gt(0), Finite]
Share = Annotated[float, Ge(0), Lt(1)]


def parameter_groups(
    model: Network, lr: float, weight_decay: float, head_multiplier: float, decay: Decay
) -> list[dict[str, Any]]:
    """Split trained parameters into backbone and head and, with ``decay="conv"``, by weight decay.

    Args:
        model: network, whose ``parts`` say what is backbone and what is head.
        lr: learning rate of the backbone.
        weight_decay: factor of the L2 penalty.
        head_multiplier: factor of the head's learning rate (10 in ST++ and CAC, 1 in CPS).
        decay: parameters that decay: "all" (ST++, CAC), or "conv", all but biases and norm layers (CPS).

    Returns:
        Non-empty groups with ``params``, ``lr``, ``initial_lr``, ``weight_decay`` and ``name``.
    """
    parts = model.parts()
    groups = []
    for group, rate in (("backbone", lr), ("head", lr * head_multiplier)):
        trained = [
            each for part in parts if part.group == group for each in part.parameters if each.requires_grad
        ]
        for suffix, factor in (("", weight_decay), ("_no_decay", 0.0)):
            exempt = bool(suffix)
            # Biases and the weights of norm layers are the parameters with a single axis.
            params = [each for each in trained if (decay == "conv" and each.ndim <= 1) == exempt]
            if params:
                groups.append(
                    {
                        "params": params,
                        "lr": rate,
                        # The loop computes every rate from this one, so that rounding never adds up.
                        "initial_lr": rate,
                        "weight_decay": factor,
                        "name": group + suffix,
                    }
                )
    return groups


@record
class SGD:
    """Stochastic gradient descent with momentum."""

    lr: Rate
    """Learning rate of the backbone at the first step."""
    momentum: Share = 0.9
    """Momentum; 0.9 in all published methods."""
    weight_decay: Annotated[float, Ge(0), Finite] = 1e-4
    """Factor of the L2 penalty."""
    nesterov: bool = False
    """Nesterov's form of momentum; off in all published methods."""
    head_multiplier: Rate = 1.0
    """Factor of the head's learning rate: 10 in ST++ and CAC, 1 in CPS."""
    decay: Decay = "all"
    """Parameters that decay: "all" (ST++, CAC), or "conv", all but biases and norm layers (CPS)."""

    def conflicts(self) -> Iterator[UserError]:
        """Find values that are wrong together."""
        if self.nesterov and self.momentum == 0:
            yield UserError("needs momentum above 0.", key="nesterov", value=True)

    def groups(self, model: Network) -> list[dict[str, Any]]:
        """Parameter groups of one network."""
        return parameter_groups(model, self.lr, self.weight_decay, self.head_multiplier, self.decay)

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Build the optimizer over groups of all networks."""
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov)

    def with_lr(self, lr: float) -> Self:
        """Return the same with another base learning rate, for one fit."""
        return replace(self, lr=lr)


@record
class AdamW:
    """Adam with decoupled weight decay."""

    lr: Rate
    """Learning rate of the backbone at the first step."""
    beta1: Share = 0.9
    """Decay of the mean of the gradients."""
    beta2: Share = 0.999
    """Decay of the mean of the squared gradients."""
    weight_decay: Annotated[float, Ge(0), Finite] = 0.01
    """Decoupled decay factor."""
    head_multiplier: Rate = 1.0
    """Factor of the head's learning rate."""
    decay: Decay = "conv"
    """Parameters that decay: "all", or "conv", all but biases and norm layers."""

    def groups(self, model: Network) -> list[dict[str, Any]]:
        """Parameter groups of one network."""
        return parameter_groups(model, self.lr, self.weight_decay, self.head_multiplier, self.decay)

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Build the optimizer over groups of all networks."""
        return torch.optim.AdamW(groups, lr=self.lr, betas=(self.beta1, self.beta2))

    def with_lr(self, lr: float) -> Self:
        """Return the same with another base learning rate, for one fit."""
        return replace(self, lr=lr)
