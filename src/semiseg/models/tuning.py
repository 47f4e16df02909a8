"""How a pretrained backbone is trained: frozen stages and norms, low-rank additions, activations computed again."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import field
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from semiseg.declare import Ge, Mark, record
from semiseg.errors import UserError, listed
from semiseg.models.lora import LoRA, add_low_rank
from semiseg.models.strides import safe_convolutions

Parts = Mapping[str, Sequence[nn.Module]]
"""Modules of a backbone by stage, from input to output."""

CONTAINERS = (nn.Sequential, nn.ModuleList)


@record
class Tuning:
    """Settings of every backbone that leave what it computes as it is, and say what of it is trained."""

    freeze: Annotated[
        Literal["all"] | Annotated[int, Ge(0)] | None,
        Mark(role="tuning", expected='"all", a number of stages or null'),
    ] = None
    """Stages that are not trained: "all", or the first n from the input on, the stem included; ``None`` trains the
    whole backbone. They stay in evaluation mode."""
    freeze_norm: Annotated[bool, Mark(role="tuning")] = False
    """Keep batch norm of the backbone in evaluation mode, and the scales and shifts of all its norms as they are."""
    checkpoint: Annotated[bool, Mark("nothing", "tuning")] = False
    """Keep the inputs of the backbone's blocks only, and compute their inside again for the gradients: less memory,
    more time, the same result."""
    lora: Annotated[LoRA, Mark(role="tuning", expected="settings such as {rank: 8}")] = field(
        default_factory=LoRA
    )
    """Low-rank matrices that are trained in place of the backbone's weights."""

    @property
    def structure(self) -> "Tuning":
        """The settings that add layers; all others say nothing of the use of a network."""
        return Tuning(freeze=self.freeze, lora=self.lora) if self.lora.rank else Tuning()

    def conflicts(self) -> Iterator[UserError]:
        """Find values that are wrong together."""
        if self.freeze == "all" and self.lora.rank:
            yield UserError(
                "trains low-rank matrices of the backbone, and backbone.freeze=all trains nothing of it. Leave one of "
                "them out: the weights themselves are frozen by LoRA already.",
                key="backbone.lora.rank",
                value=self.lora.rank,
            )


def tuning_of(values: Mapping[str, Any]) -> Tuning:
    """Return the record of plain values by name, as a config node holds them."""
    given = dict(values)
    if isinstance(lora := given.get("lora"), Mapping):
        given["lora"] = LoRA(**{name: value for name, value in lora.items() if name != "_target_"})
    return Tuning(**given)


def tune(backbone: nn.Module, parts: Parts, settings: Tuning) -> None:
    """Freeze and change a fresh backbone, in place, as settings say.

    Args:
        backbone: backbone with its initial weights.
        parts: its modules by stage.
        settings: what is trained of it, and how.

    Raises:
        UserError: there are fewer stages, no layers for low-rank matrices, or no blocks to compute again.
    """
    _require_stages(parts, settings.freeze)
    trained = _trained(backbone, parts, settings.freeze)
    if settings.freeze is not None and settings.freeze != 0:
        # What no stage names, such as position tables, belongs to the input.
        kept = {each for module in trained for each in module.parameters()}
        for parameter in backbone.parameters():
            parameter.requires_grad_(parameter.requires_grad and parameter in kept)
    if settings.lora.rank:
        add_low_rank(backbone, trained, settings.lora)
    if settings.freeze_norm:
        for module in backbone.modules():
            if _is_norm(module):
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(False)
    if settings.checkpoint:
        _checkpoint_blocks(backbone)


def keep_still(backbone: nn.Module, parts: Parts, settings: Tuning) -> None:
    """Put back into evaluation mode what stays in it while the backbone is trained."""
    if settings.freeze == "all":
        backbone.eval()
        return
    for modules in list(parts.values())[: settings.freeze or 0]:
        for module in modules:
            module.eval()
    if settings.freeze_norm:
        for module in backbone.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def _require_stages(parts: Parts, freeze: Literal["all"] | int | None) -> None:
    if not isinstance(freeze, int) or freeze <= len(parts):
        return
    there = f"has {len(parts)} stages: {listed(list(parts))}" if parts else "does not say what its stages are"
    numbers = f'"all", null or a number up to {len(parts)}' if parts else '"all" or null'
    raise UserError(f"the backbone {there}. Give {numbers}.", key="backbone.freeze", value=freeze)


def _trained(backbone: nn.Module, parts: Parts, freeze: Literal["all"] | int | None) -> list[nn.Module]:
    """Return the modules that are not frozen."""
    if not freeze:
        return [backbone]
    later = [] if freeze == "all" else list(parts.values())[freeze:]
    return [module for modules in later for module in modules]


def _is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm layer, of torch, timm or others, which all say so in their names."""
    return "norm" in type(module).__name__.lower()


def _checkpoint_blocks(backbone: nn.Module) -> None:
    blocks = list(_blocks(backbone))
    if not blocks:
        raise UserError(
            "the backbone has no blocks in an nn.Sequential or nn.ModuleList, whose inside could be computed again.",
            key="backbone.checkpoint",
            value=True,
        )
    for block in blocks:
        # Of the instance, so that classes and names in the state dict stay; a partial can be copied with its module.
        block.forward = partial(_forward_again, block)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost modules of several layers that are items of a list or sequence of modules."""
    for child in module.children():
        is_block = len(list(child.children())) > 0 and not isinstance(child, CONTAINERS)
        if isinstance(module, CONTAINERS) and is_block:
            yield child
        else:
            yield from _blocks(child)


def _forward_again(block: nn.Module, *arguments: Any, **named: Any) -> Any:
    """Compute a block without keeping its activations where gradients will be asked of it."""
    if not torch.is_grad_enabled():
        return type(block).forward(block, *arguments, **named)
    contexts = partial(_contexts, block)
    return checkpoint(_computed, block, *arguments, use_reentrant=False, context_fn=contexts, **named)


def _computed(block: nn.Module, *arguments: Any, **named: Any) -> Any:
    # Not that of ``SegModel.encode``, which has ended when gradients are asked for.
    device = next((parameter.device for parameter in block.parameters()), torch.device("cpu"))
    with safe_convolutions(device):
        return type(block).forward(block, *arguments, **named)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of the first pass through a block and of the second one."""
    return nullcontext(), _SecondPass(block)


class _SecondPass(AbstractContextManager[None]):
    """Compute as in the first pass: in the modes of that time, and without another update of running statistics.

    It can be entered again: each loss of an accumulated batch has a second pass of its own.

    Args:
        block: block before its first pass.
    """

    def __init__(self, block: nn.Module) -> None:
        self.modes = {module: module.training for module in block.modules()}
        self.restore = ExitStack()

    def __enter__(self) -> None:
        for module, training in self.modes.items():
            self.restore.callback(setattr, module, "training", module.training)
            module.training = training
            if training and isinstance(module, _BatchNorm):
                self.restore.callback(setattr, module, "momentum", module.momentum)
                module.momentum = 0.0  # the old statistics times 1, the new ones times 0
                if (counter := module.num_batches_tracked) is not None:
                    self.restore.callback(counter.copy_, counter.clone())

    def __exit__(self, *error: object) -> None:
        self.restore.close()
