"""Optimizers and their parameter groups: backbone and head, with and without weight decay."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

import torch

from semiseg.contracts.training import Network, Part
from semiseg.declare import Ge, Gt, Le, Lt, Mark, record
from semiseg.errors import UserError, listed, nearest

Decay = Literal["all", "conv", "no_tokens"]
Finite = Lt(math.inf)
Rate = Annotated[float, Gt(0), Finite]
Share = Annotated[float, Ge(0), Lt(1)]

TOKEN = re.compile(r"token|class_embedding|(pos|position|positional)_?(embed|bias)|rel_pos")
"""Names of tokens and position tables among the parameters of a transformer, in timm and elsewhere."""


def parameter_groups(
    model: Network,
    lr: float,
    weight_decay: float,
    head_multiplier: float,
    decay: Decay,
    layer_decay: float = 1.0,
    multipliers: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Split trained parameters into backbone and head, by their rates, and by weight decay unless ``decay="all"``.

    Args:
        model: network, whose ``parts`` say what is backbone and what is head.
        lr: learning rate of the backbone.
        weight_decay: factor of the L2 penalty.
        head_multiplier: factor of the head's learning rate (10 in ST++ and CAC, 1 in CPS).
        decay: parameters that decay, see ``GroupSettings``.
        layer_decay: factor of the rate of each stage of the backbone, relative to the one behind it.
        multipliers: further factors by the first words of a part's name.

    Returns:
        Non-empty groups with ``params``, ``lr``, ``initial_lr``, ``weight_decay`` and ``name``. Parts of the usual
        rate make up the groups "backbone" and "head"; each part of another rate is one of its own name.

    Raises:
        UserError: a multiplier is for no part of the network.
    """
    parts = model.parts()
    factors = part_factors(parts, layer_decay, multipliers or {})
    exempt = _exempt(model, decay)
    groups = []
    for group, rate in (("backbone", lr), ("head", lr * head_multiplier)):
        named: dict[tuple[str, float], list[torch.nn.Parameter]] = {}
        for part in parts:
            if part.group == group:
                factor = factors[part.name]
                held = named.setdefault((group if factor == 1 else part.name, factor), [])
                held += [each for each in part.parameters if each.requires_grad]
        for (name, factor), trained in named.items():
            for suffix, decayed in (("", weight_decay), ("_no_decay", 0.0)):
                params = [each for each in trained if (each in exempt) == bool(suffix)]
                if params:
                    groups.append(
                        {
                            "params": params,
                            "lr": rate * factor,
                            # The loop computes every rate from this one, so that rounding never adds up.
                            "initial_lr": rate * factor,
                            "weight_decay": decayed,
                            "name": name + suffix,
                        }
                    )
    return groups


def part_factors(
    parts: Sequence[Part], layer_decay: float, multipliers: Mapping[str, float]
) -> dict[str, float]:
    """Return the factor of the learning rate of each part, by its name.

    A part of the backbone gets ``layer_decay ** d``: its last stage has the distance d = 1 from the head, the one
    before it 2, and so on; what no stage names, such as position tables, belongs to the input. Of the multipliers that
    a name begins with, the longest holds.

    Raises:
        UserError: a multiplier is for no part.
    """
    stages = [part.name for part in parts if part.name.startswith("backbone.")] or ["backbone"]
    distance = {name: len(stages) - index for index, name in enumerate(stages)}
    distance.setdefault("backbone", len(stages))
    factors = {part.name: layer_decay ** distance.get(part.name, 0) for part in parts}
    words = [*factors, "backbone", "decoder", "classifier", "heads"]
    for prefix in multipliers:
        # Not all networks of a method have the same heads.
        if not any(_begins(name, prefix) for name in words) and not _begins(prefix, "heads"):
            near = nearest(prefix, words)
            raise UserError(
                f"multipliers of the learning rate are for parts of the network, which has: {listed(list(factors))}."
                + (f" Did you mean {near}?" if near else ""),
                key="optimizer.multipliers",
                value=prefix,
            )
    for name in factors:
        if fitting := [prefix for prefix in multipliers if _begins(name, prefix)]:
            factors[name] *= multipliers[max(fitting, key=len)]
    return factors


def _begins(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _exempt(model: Network, decay: Decay) -> set[torch.nn.Parameter]:
    """Return the parameters without weight decay."""
    if decay == "all":
        return set()
    return {
        each
        for name, each in model.named_parameters()
        # Biases and the weights of norm layers are the parameters with a single axis.
        if each.ndim <= 1 or (decay == "no_tokens" and TOKEN.search(name.rsplit(".", 1)[-1]))
    }


def fused(groups: Sequence[Mapping[str, Any]]) -> bool | None:
    """Whether one kernel is to change all parameters: on a GPU; ``None``, the usual way of PyTorch, elsewhere."""
    return all(each.is_cuda for group in groups for each in group["params"]) or None


def kept_fused(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return an optimizer that goes on from any checkpoint with its own kernels, not with those of that process."""
    own = optimizer.defaults["fused"]

    def before(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        # Before loading, which moves the number of steps to the device only for such kernels.
        return {**state, "param_groups": [{**group, "fused": own} for group in state["param_groups"]]}

    optimizer.register_load_state_dict_pre_hook(before)
    return optimizer


@record
class GroupSettings:
    """Rates and weight decay of the parts of a network, as all optimizers have them."""

    lr: Rate
    """Learning rate of the backbone at the first step."""
    weight_decay: Annotated[float, Ge(0), Finite] = 0.0
    """Factor of the L2 penalty."""
    head_multiplier: Rate = 1.0
    """Factor of the head's learning rate: 10 in ST++ and CAC, 1 in CPS."""
    decay: Decay = "all"
    """Parameters that decay: "all" (ST++, CAC, UniMatch); "conv", all but biases and norm layers (CPS); or "no_tokens",
    of these all but class tokens, register tokens and position tables of transformers too."""
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    """Factor by which the learning rate of each stage of the backbone is lower than that of the one behind it, the
    last stage's lower than the head's; 1 gives all the same."""
    multipliers: Annotated[
        dict[str, Rate] | None,
        Mark(expected="factors above 0 by part, such as {decoder: 10, backbone.stem: 0.1}, or null"),
    ] = None
    """Further factors of the learning rate by part of the network, such as ``{decoder: 10, backbone.stem: 0.1}``; a
    name holds for all parts that begin with it, unless a longer one does; ``None`` for no factors."""

    def groups(self, model: Network) -> list[dict[str, Any]]:
        """Parameter groups of one network."""
        return parameter_groups(
            model,
            self.lr,
            self.weight_decay,
            self.head_multiplier,
            self.decay,
            self.layer_decay,
            self.multipliers,
        )

    def group(self, name: str, module: torch.nn.Module) -> dict[str, Any]:
        """One group of all trainable parameters of a module that is no network, such as a discriminator."""
        return {
            "params": [each for each in module.parameters() if each.requires_grad],
            "lr": self.lr,
            "initial_lr": self.lr,
            "weight_decay": self.weight_decay,
            "name": name,
        }

    def with_lr(self, lr: float) -> Self:
        """Return the same with another base learning rate, for one fit."""
        return replace(self, lr=lr)


@record
class SGD(GroupSettings):
    """Stochastic gradient descent with momentum."""

    momentum: Share = 0.9
    """Momentum; 0.9 in all published methods."""
    weight_decay: Annotated[float, Ge(0), Finite] = 1e-4
    """Factor of the L2 penalty."""
    nesterov: bool = False
    """Nesterov's form of momentum; off in all published methods."""

    def conflicts(self) -> Iterator[UserError]:
        """Find values that are wrong together."""
        if self.nesterov and self.momentum == 0:
            yield UserError("needs momentum above 0.", key="nesterov", value=True)

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Build the optimizer over groups of all networks."""
        momentum, nesterov = self.momentum, self.nesterov
        sgd = torch.optim.SGD(groups, self.lr, momentum, nesterov=nesterov, fused=fused(groups))
        return kept_fused(sgd)


@record
class Adam(GroupSettings):
    """Adam, whose weight decay is part of the gradient."""

    beta1: Share = 0.9
    """Decay of the mean of the gradients."""
    beta2: Share = 0.999
    """Decay of the mean of the squared gradients."""
    eps: Rate = 1e-8
    """Number that is added to the divisor, the root of the mean square."""

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Build the optimizer over groups of all networks."""
        betas, lr = (self.beta1, self.beta2), self.lr
        return kept_fused(torch.optim.Adam(groups, lr, betas, self.eps, fused=fused(groups)))


@record
class AdamW(GroupSettings):
    """Adam with decoupled weight decay."""

    beta1: Share = 0.9
    """Decay of the mean of the gradients."""
    beta2: Share = 0.999
    """Decay of the mean of the squared gradients."""
    eps: Rate = 1e-8
    """Number that is added to the divisor, the root of the mean square."""
    weight_decay: Annotated[float, Ge(0), Finite] = 0.01
    """Decoupled decay factor."""
    decay: Decay = "conv"
    """Parameters that decay: "all" (UniMatch V2), "conv", all but biases and norm layers, or "no_tokens", of these all
    but class tokens, register tokens and position tables of transformers too."""

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Build the optimizer over groups of all networks."""
        betas, lr = (self.beta1, self.beta2), self.lr
        return kept_fused(torch.optim.AdamW(groups, lr, betas, self.eps, fused=fused(groups)))
