"""Low-rank additions to frozen weights: LoRA (Hu et al., arXiv 2106.09685, section 4.1)."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.declare import Ge, Gt, Len, Mark, record
from semiseg.errors import UserError, listed, nearest

DOWN, UP = "lora_down", "lora_up"
"""Names of the added matrices, next to ``weight`` and ``bias`` of their layer."""

ROOT_OF_5 = 5**0.5
"""Slope for which torch's Kaiming rule draws as it does for ``nn.Linear``; the paper draws A at random, and B is 0."""


@record
class LoRA:
    """Low-rank matrices that are trained in place of the weights of a backbone."""

    rank: Annotated[int, Ge(0), Mark(role="tuning")] = 0
    """Rank r of the trained matrices; 0 trains the weights themselves."""
    alpha: Annotated[Annotated[float, Gt(0)] | None, Mark(role="tuning")] = None
    """Scale of the additions, which are multiplied by ``alpha / rank``; ``None`` takes the rank, that is a factor
    of 1."""
    targets: Annotated[
        Annotated[list[str], Len(1)] | None,
        Mark(role="tuning", expected="names of layers such as [qkv,proj], or null"),
    ] = None
    """Layers that get them, by the end of their name: "qkv" and "proj" of attention, "fc1" and "fc2" behind it,
    "attn.proj", or 1x1 convs such as "conv1"; ``None`` takes all linear layers."""

    @property
    def scale(self) -> float:
        """Factor of the product of the two matrices."""
        return (self.rank if self.alpha is None else self.alpha) / self.rank


class LowRankLinear(nn.Linear):
    """A linear layer with a frozen weight and a trained low-rank addition; it begins as the layer that it replaces.

    Args:
        layer: layer to replace, whose parameters it shares, under the same names.
        settings: rank and scale.
    """

    def __init__(self, layer: nn.Linear, settings: LoRA) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.scale = settings.scale
        _share(layer, self)
        self.lora_down, self.lora_up = _matrices(layer.weight, settings.rank)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(..., C)`` to ``(..., D)``."""
        # eq. (3): h = W_0 x + B A x
        return super().forward(input) + F.linear(F.linear(input, self.lora_down), self.lora_up) * self.scale


class LowRankConv(nn.Conv2d):
    """A 1x1 convolution with a frozen weight and a trained low-rank addition; see ``LowRankLinear``.

    Args:
        layer: layer to replace, whose parameters it shares, under the same names.
        settings: rank and scale.
    """

    def __init__(self, layer: nn.Conv2d, settings: LoRA) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            1,
            layer.stride,  # type: ignore[arg-type]
            bias=layer.bias is not None,
            device="meta",
        )
        self.scale = settings.scale
        _share(layer, self)
        self.lora_down, self.lora_up = _matrices(layer.weight, settings.rank)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, D, h, w)``."""
        low = F.conv2d(input, self.lora_down, stride=self.stride)
        return super().forward(input) + F.conv2d(low, self.lora_up) * self.scale


def add_low_rank(root: nn.Module, modules: Iterable[nn.Module], settings: LoRA) -> None:
    """Freeze all parameters of a backbone, and add low-rank matrices to layers in some of its modules, in place.

    Args:
        root: backbone.
        modules: modules in it whose layers may get them.
        settings: rank, scale and layers.

    Raises:
        UserError: a target is no layer that can have them, or there is none.
    """
    root.requires_grad_(False)
    inside = {each for module in modules for each in module.modules()}
    layers = {name: layer for name, layer in root.named_modules() if layer in inside and _suits(layer)}
    targets = settings.targets
    wanted = {
        name: layer
        for name, layer in layers.items()
        if (isinstance(layer, nn.Linear) if targets is None else any(_ends(name, end) for end in targets))
    }
    missing = [end for end in targets or () if not any(_ends(name, end) for name in layers)]
    if missing or not wanted:
        raise _no_such_layers(list(layers), targets, missing)
    for name, layer in wanted.items():
        owner = root.get_submodule(name.rpartition(".")[0])
        _require_called(owner, name)
        made = LowRankLinear if isinstance(layer, nn.Linear) else LowRankConv
        owner.add_module(name.rpartition(".")[-1], made(layer, settings))


def merge_low_rank(module: nn.Module) -> nn.Module:
    """Replace every layer with a low-rank addition by a plain one of the sum, in place; return the module.

    The network computes the same, up to rounding, and its state dict no longer has the added matrices.
    """
    for name, child in module.named_children():
        if isinstance(child, LowRankLinear | LowRankConv):
            module.add_module(name, _merged(child))
        else:
            merge_low_rank(child)
    return module


def is_low_rank(key: str) -> bool:
    """Whether an entry of a state dict is one of the added matrices."""
    return key.rsplit(".", 1)[-1] in (DOWN, UP)


def merged_state(state: Mapping[str, Tensor], settings: LoRA) -> dict[str, Tensor]:
    """Return a state dict whose added matrices are merged into the weights.

    Args:
        state: names and tensors.
        settings: scale of its added matrices.
    """
    merged = {key: value for key, value in state.items() if not is_low_rank(key)}
    for key, down in state.items():
        owner, _, last = key.rpartition(".")
        if last == DOWN:
            weight = f"{owner}.weight"
            merged[weight] = _sum(state[weight], down, state[f"{owner}.{UP}"], settings.scale)
    return merged


def _sum(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """Return W + alpha / r B A of a layer."""
    return weight + ((up.flatten(1) @ down.flatten(1)) * scale).view_as(weight)


def _merged(layer: LowRankLinear | LowRankConv) -> nn.Module:
    down, up = layer.lora_down.detach(), layer.lora_up.detach()
    weight = _sum(layer.weight.detach(), down, up, layer.scale)
    plain: nn.Module
    if isinstance(layer, LowRankLinear):
        plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    else:
        stride: Sequence[int] = layer.stride
        plain = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            1,
            stride,  # type: ignore[arg-type]
            bias=layer.bias is not None,
            device="meta",
        )
    _share(layer, plain)
    plain.weight = nn.Parameter(weight)
    return plain


def _matrices(weight: Tensor, rank: int) -> Iterator[nn.Parameter]:
    """Yield A ``(rank, C)``, random, and B ``(D, rank)``, zero, with the further axes of a 1x1 conv."""
    outputs, inputs, *rest = weight.shape
    down = nn.Parameter(weight.new_empty(rank, inputs, *rest))
    nn.init.kaiming_uniform_(down, a=ROOT_OF_5)
    yield down
    yield nn.Parameter(weight.new_zeros(outputs, rank, *rest))


def _share(layer: nn.Module, other: nn.Module) -> None:
    """Give a layer the parameters and the mode of another one."""
    for name, parameter in layer.named_parameters(recurse=False):
        if name not in (DOWN, UP):
            other.register_parameter(name, parameter)
    other.training = layer.training


def _suits(layer: nn.Module) -> bool:
    # Exactly these classes: one that is derived from them may compute something else.
    if type(layer) is nn.Conv2d:
        return layer.kernel_size == (1, 1) and layer.groups == 1 and layer.padding == (0, 0)
    return type(layer) is nn.Linear


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _no_such_layers(names: Sequence[str], targets: Sequence[str] | None, missing: Sequence[str]) -> UserError:
    ends = dict.fromkeys(re.search(r"[^.]+(\.\d+)*$", name)[0] for name in names)  # type: ignore[index]
    if targets is None:
        convs = f". Name its 1x1 convs: {listed(list(ends))}" if ends else ""
        found = f"no linear layers, which null stands for{convs}"
        return UserError(
            f"the trained stages of the backbone have {found}.", key="backbone.lora.targets", value=None
        )
    near = nearest(missing[0], list(ends)) if missing else None
    there = f" Did you mean {near}?" if near else f" There are: {listed(list(ends))}." if ends else ""
    return UserError(
        f"the trained stages of the backbone have no linear layer or 1x1 conv of the name {missing[0]}.{there}",
        key="backbone.lora.targets",
        value=list(targets),
    )


def _require_called(owner: nn.Module, name: str) -> None:
    """Refuse layers of timm whose weight is used without calling them, so that an addition would have no effect."""
    fused = getattr(owner, "q_bias", None) is not None and not getattr(owner, "qkv_bias_separate", False)
    if fused and _ends(name, "qkv"):
        raise UserError(
            f"{type(owner).__name__} takes the weight of qkv with a bias of its own, so that an addition would have no "
            "effect. Choose other layers, such as [proj,fc1,fc2], or a network with plain attention, such as DINOv2.",
            key="backbone.lora.targets",
            value=name,
        )
