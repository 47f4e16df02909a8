"""Mix transformers, the hierarchical backbones of SegFormer."""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.declare import Ge, Lt, checked
from semiseg.models.convert import convention_of, load_backbone, read_converted
from semiseg.models.resnet import Weights, pyramid
from semiseg.models.segmodel import Backbone, Converted, InputConvention

CHANNELS = {"b0": (32, 64, 160, 256)}
WIDE = (64, 128, 320, 512)
"""Channels of c1..c4 from b1 on."""

BLOCKS = {
    "b0": (2, 2, 2, 2),
    "b1": (2, 2, 2, 2),
    "b2": (3, 4, 6, 3),
    "b3": (3, 4, 18, 3),
    "b4": (3, 8, 27, 3),
    "b5": (3, 6, 40, 3),
}
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
GROWTH = 4
"""Width of the layers between the convs of a block, as a multiple of its channels."""


class MixTransformer(Backbone):
    """Transformer in four stages without position codes: MiT-B0 to B5 (Xie et al., arXiv 2105.15203).

    Maps normalized images ``(N, 3, H, W)``, of any size from 32x32 on, to c1..c4 with strides 4, 8, 16 and 32. Names of
    the entries are those of NVlabs/SegFormer, ``mmseg/models/backbones/mix_transformer.py``, and so are the initial
    weights: linear layers from a truncated normal (deviation 0.02), convs normal (fan-out), biases 0.

    Args:
        size: "b0" to "b5".
        drop_path: probability of skipping a block for an image in training: that of the last block, from which it falls
            linearly to 0 at the first; 0.1 in the original.
        weights: initial weights: "none", or the path of a file of NVlabs, of the backbone alone or of a whole
            SegFormer, or of a checkpoint of semiseg. Decoder and classifier of a file are loaded too where they fit the
            network that is built on this one.

    Raises:
        UserError: an argument out of range, or weights that are missing, damaged or of another network.
    """

    @checked
    def __init__(
        self,
        size: Literal["b0", "b1", "b2", "b3", "b4", "b5"],
        *,
        drop_path: Annotated[float, Ge(0), Lt(1)] = 0.1,
        weights: Weights = "none",
    ) -> None:
        super().__init__()
        self.convention = InputConvention()
        channels, counts = CHANNELS.get(size, WIDE), BLOCKS[size]
        self.stages = pyramid(channels, 32)
        rates = torch.linspace(0, drop_path, sum(counts), device="cpu").tolist()
        inputs = 3
        for number, (width, count) in enumerate(zip(channels, counts, strict=True), 1):
            own, rates = rates[:count], rates[count:]
            heads, reduction = HEADS[number - 1], REDUCTIONS[number - 1]
            self.add_module(f"patch_embed{number}", MixPatches(inputs, width, 7 if number == 1 else 3))
            blocks = nn.ModuleList(MixBlock(width, heads, reduction, rate) for rate in own)
            self.add_module(f"block{number}", blocks)
            self.add_module(f"norm{number}", nn.LayerNorm(width, eps=1e-6))
            inputs = width
        self.apply(_initialize)
        self._weights_file = None if weights == "none" else weights
        if (found := self.read_weights()) is not None:
            load_backbone(self, found, f"MiT-{size.upper()}", "Choose the backbone that it was made for.")
            self.convention = convention_of(found)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return c1..c4 of a normalized image ``(N, 3, H, W)``."""
        maps = []
        for number in range(1, 5):
            patches, blocks, norm = self._stage(number)
            x = patches(x)
            size = x.shape[-2:]
            tokens = patches.get_submodule("norm")(x.flatten(2).transpose(1, 2))
            for block in blocks.children():
                tokens = block(tokens, size)
            x = norm(tokens).transpose(1, 2).unflatten(2, size)
            maps.append(x)
        return maps

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return its modules by the stage that they belong to."""
        return {f"c{number}": list(self._stage(number)) for number in range(1, 5)}

    def read_weights(self) -> Converted | None:
        """Read the file of the initial weights, which may hold those of decoder and classifier too."""
        return None if self._weights_file is None else read_converted(self._weights_file)

    def _stage(self, number: int) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Return the overlapping patches, the blocks and the norm of a stage."""
        patches, blocks, norm = (
            self.get_submodule(f"{name}{number}") for name in ("patch_embed", "block", "norm")
        )
        return patches, blocks, norm


class MixPatches(nn.Module):
    """A conv whose patches overlap, of stride 4 (7x7) or 2 (3x3); the norm after it is applied to tokens by its owner.

    Args:
        inputs: channels of the input.
        width: channels of the result.
        kernel: side of the patches.
    """

    def __init__(self, inputs: int, width: int, kernel: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, width, kernel, kernel // 2 + 1, kernel // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, width, h, w)``."""
        result: Tensor = self.proj(x)
        return result


class MixBlock(nn.Module):
    """Attention and a perceptron with a depthwise 3x3 conv, each after a norm and with a shortcut.

    Args:
        width: channels.
        heads: number of attention heads.
        reduction: side of the windows that keys and values are taken from.
        drop_path: probability of skipping the block for an image in training.
    """

    def __init__(self, width: int, heads: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = MixAttention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MixPerceptron(width)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        """Map tokens ``(N, h w, width)`` of a map of ``size`` to the same shape."""
        x = x + self._kept(self.attn(self.norm1(x), size))
        return x + self._kept(self.mlp(self.norm2(x), size))

    def _kept(self, x: Tensor) -> Tensor:
        """Drop all of some images, and scale the others up."""
        if not self.training or self.drop_path == 0:
            return x
        keep = 1 - self.drop_path
        return x * (x.new_empty(len(x), 1, 1).bernoulli_(keep) / keep)


class MixAttention(nn.Module):
    """Attention of all positions to the means that a strided conv makes of windows.

    Args:
        width: channels.
        heads: number of heads.
        reduction: side of the windows; 1 attends to all positions.
    """

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        """Map tokens ``(N, h w, width)`` of a map of ``size`` to the same shape."""
        source = x
        if self.reduction > 1:
            windows = self.sr(x.transpose(1, 2).reshape(len(x), -1, *size))
            source = self.norm(windows.flatten(2).transpose(1, 2))
        query = self.q(x).reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
        key, value = self.kv(source).reshape(*source.shape[:2], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        result = F.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.proj(result.transpose(1, 2).flatten(2))
        return mixed


class MixPerceptron(nn.Module):
    """Two linear layers with a depthwise 3x3 conv and a GELU between, which tell positions apart.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = GROWTH * width
        self.fc1 = nn.Linear(width, hidden)
        self.dwconv = nn.ModuleDict({"dwconv": nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)})
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        """Map tokens ``(N, h w, width)`` of a map of ``size`` to the same shape."""
        inner = self.dwconv["dwconv"](self.fc1(x).transpose(1, 2).unflatten(2, size))
        result: Tensor = self.fc2(F.gelu(inner).flatten(2).transpose(1, 2))
        return result


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan))
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
