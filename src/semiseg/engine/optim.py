"""Optimizers and their parameter groups: backbone and head, with and without weight decay."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

import torch
from torch import nn

from semiseg.contracts.training import Network
from semiseg.errors import UserError

Decay = Literal["all", "conv"]


def parameter_groups(
    model: Network, lr: float, weight_decay: float, head_multiplier: float, decay: Decay
) -> list[dict[str, Any]]:
    """Split trained parameters into backbone and head and, with ``decay="conv"``, by weight decay.

    Args:
        model: the network; everything outside ``model.backbone`` is head.
        lr: rate of the backbone.
        weight_decay: L2 factor.
        head_multiplier: the head's rate is ``lr * head_multiplier`` (10 in ST++ and CAC, 1 in CPS).
        decay: "all" decays every parameter (ST++, CAC); "conv" exempts biases and norm layers (CPS).

    Returns:
        Non-empty groups with ``params``, ``lr``, ``initial_lr``, ``weight_decay`` and ``name``.
    """
    exempt = set(_undecayed(model)) if decay == "conv" else set()
    groups = []
    for part, rate in (("backbone", lr), ("head", lr * head_multiplier)):
        for suffix, factor in (("", weight_decay), ("_no_decay", 0.0)):
            params = [
                parameter
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
                and name.startswith("backbone.") == (part == "backbone")
                and (name in exempt) == bool(suffix)
            ]
            if params:
                groups.append(
                    {
                        "params": params,
                        "lr": rate,
                        "initial_lr": rate,
                        "weight_decay": factor,
                        "name": part + suffix,
                    }
                )
    return groups


def _check(lr: float, weight_decay: float, head_multiplier: float, decay: str) -> None:
    """Refuse values out of range, NaN and infinity."""
    for key, value in (("lr", lr), ("head_multiplier", head_multiplier)):
        if not 0 < value < math.inf:
            raise UserError("give a number above 0.", key=f"optimizer.{key}", value=value)
    if not 0 <= weight_decay < math.inf:
        raise UserError("give 0 or more, for example 1e-4.", key="optimizer.weight_decay", value=weight_decay)
    if decay not in get_args(Decay):
        raise UserError(f"choose one of {', '.join(get_args(Decay))}.", key="optimizer.decay", value=decay)


def _check_share(key: str, value: float) -> None:
    if not 0 <= value < 1:
        raise UserError(
            "give 0 or more and less than 1, for example 0.9.", key=f"optimizer.{key}", value=value
        )


def _undecayed(model: nn.Module) -> Iterator[str]:
    for name, parameter in model.named_parameters():
        if parameter.ndim <= 1:
            yield name


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum.

    Args:
        lr: rate of the backbone at the first step.
        momentum: 0.9 in all methods here.
        weight_decay: L2 factor.
        nesterov: off in all methods here.
        head_multiplier: see ``parameter_groups``.
        decay: see ``parameter_groups``.
        name: name of the option.

    Raises:
        UserError: a value out of range.
    """

    lr: float
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = False
    head_multiplier: float = 1.0
    decay: Decay = "all"
    name: str = "sgd"

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay, self.head_multiplier, self.decay)
        _check_share("momentum", self.momentum)
        if self.nesterov and self.momentum == 0:
            raise UserError("needs optimizer.momentum above 0.", key="optimizer.nesterov", value=True)

    def groups(self, model: Network) -> list[dict[str, Any]]:
        """Parameter groups of one network."""
        return parameter_groups(model, self.lr, self.weight_decay, self.head_multiplier, self.decay)

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Build the optimizer over groups of all networks."""
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov)

    def with_lr(self, lr: float) -> Self:
        """Return the same with another base learning rate, for one fit."""
        return replace(self, lr=lr)


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay.

    Args:
        lr: rate of the backbone at the first step.
        beta1: decay of the mean.
        beta2: decay of the squared mean.
        weight_decay: decoupled decay factor.
        head_multiplier: see ``parameter_groups``.
        decay: see ``parameter_groups``.
        name: name of the option.

    Raises:
        UserError: a value out of range.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.01
    head_multiplier: float = 1.0
    decay: Decay = "conv"
    name: str = "adamw"

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay, self.head_multiplier, self.decay)
        _check_share("beta1", self.beta1)
        _check_share("beta2", self.beta2)

    def groups(self, model: Network) -> list[dict[str, Any]]:
        """Parameter groups of one network."""
        return parameter_groups(model, self.lr, self.weight_decay, self.head_multiplier, self.decay)

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Build the optimizer over groups of all networks."""
        return torch.optim.AdamW(groups, lr=self.lr, betas=(self.beta1, self.beta2))

    def with_lr(self, lr: float) -> Self:
        """Return the same with another base learning rate, for one fit."""
        return replace(self, lr=lr)
