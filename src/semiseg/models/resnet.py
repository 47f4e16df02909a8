"""ResNet backbones of torchvision's blocks, with any output stride, deep stem and multi-grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from semiseg.declare import Mark, checked
from semiseg.errors import UserError
from semiseg.models.convert import convention_of, load_backbone, read_converted
from semiseg.models.formats import CONVENTIONS
from semiseg.models.segmodel import Backbone, Converted, InputConvention, Stage
from semiseg.models.weights import State, coco_file, published_file, timm_file

Block = type[BasicBlock] | type[Bottleneck]
BLOCKS: dict[int, tuple[Block, tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}
ADVICE = "Choose the backbone that it was made for (backbone=NAME, backbone.stem=plain|deep)."
OutputStride = Literal[8, 16, 32]
Weights = Annotated[str, Mark(role="file")]
STRIDES: dict[int, tuple[int, int, int, int]] = {8: (1, 2, 1, 1), 16: (1, 2, 2, 1), 32: (1, 2, 2, 2)}


class ResNet(Backbone):
    """ResNet-18, 34, 50 or 101 without pooling and classifier.

    Maps normalized images ``(N, 3, H, W)`` to the outputs c1..c4 of its four layers; c1 has stride 4 and
    c4 ``output_stride``. Where a layer loses its stride, its 3x3 convs see every second pixel instead and
    those that follow are dilated, so that the same weights compute the same features on a denser grid:
    dilations 1, 2, 2 and 2, 4, 4 at output stride 8 (LiheYoung/ST-PlusPlus, ``model/backbone/resnet.py``).

    State-dict names are torchvision's; the deep stem's are ``conv1.0 conv1.1 conv1.3 conv1.4 conv1.6 bn1``, as in
    timm's ``resnet50s``. Convs start from Kaiming-normal weights (fan-out), batch norms from 1 and 0.

    Args:
        depth: number of layers: 18, 34, 50 or 101.
        output_stride: stride of c4: 8, 16 or 32.
        stem: first layers, "plain" (7x7 conv, 64 channels) or "deep" (three 3x3 convs of 64, 64 and 128 channels,
            CPS, UniMatch).
        multi_grid: factors of the last layer's dilation, one for each block, the first included: CPS has
            (1, 2, 4) at output stride 16, that is dilations 2, 4, 8. ``None`` keeps the rule above.
        ceil_pool: whether the size after the pooling of the stem is rounded up, which adds a row and a column to the
            maps of images whose sides are multiples of 4 (CutMix-Seg, U2PL, AugSeg).
        stride_in: conv of a Bottleneck that has its stride, "3x3" (torchvision) or "1x1", the first one (Caffe's
            ResNet: CutMix-Seg's DeepLabV2, the network that the COCO weights were trained in).
        dilate_first: whether the first block of a layer that loses its stride has the dilation of the others, as in
            the same network: 2, 2, 2 and 4, 4, 4 at output stride 8; ``False`` is the rule above.
        zero_init: whether the last batch norm of each block starts at weight 0, so that blocks begin as identities
            (U2PL, AugSeg).
        weights: initial weights: "none"; "imagenet", torchvision's V1 file, with the deep stem that of timm's
            ``resnet50s`` or ``resnet101s``; "coco", AdvSemiSeg's DeepLabV2 that was trained on COCO, for ResNet-101;
            or the path of a file in one of the formats of ``convert``. Decoder and classifier of a file are loaded
            too where they fit the network that is built on this one. The COCO file is of a ResNet with
            stride_in=1x1, dilate_first=true and ceil_pool=true; DMT and ST++ load it into the default form.
        convention: input that the network gets, "imagenet" (RGB, 0-1, ImageNet's mean and deviation) or
            "coco" (BGR, 0-255, mean alone); ``None`` takes that of the weights, ImageNet's for "none". ST++ has
            weights=coco with convention=imagenet. A checkpoint of DST-CBC or DMTC does not say it.

    Raises:
        UserError: an argument out of range, or weights that are missing, damaged or of another network.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    @checked
    def __init__(
        self,
        depth: Literal[18, 34, 50, 101],
        *,
        output_stride: OutputStride = 16,
        stem: Literal["plain", "deep"] = "plain",
        multi_grid: Sequence[int] | None = None,
        ceil_pool: bool = False,
        stride_in: Literal["3x3", "1x1"] = "3x3",
        dilate_first: bool = False,
        zero_init: bool = False,
        weights: Weights = "none",
        convention: Literal["imagenet", "coco"] | None = None,
    ) -> None:
        super().__init__()
        block, counts = BLOCKS[depth]
        _check_multi_grid(depth, multi_grid)
        _check_stride_in(depth, stride_in)
        self.depth, self.stem = depth, stem
        self.convention = InputConvention() if convention is None else CONVENTIONS[convention]
        inputs = 64 if stem == "plain" else 128
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False) if stem == "plain" else _deep_stem()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1, ceil_mode=ceil_pool)
        grids = (None, None, None, multi_grid)
        dilation = 1
        for number, (count, stride, grid) in enumerate(
            zip(counts, STRIDES[output_stride], grids, strict=True), 1
        ):
            first = dilation
            dilation *= 2 if stride == 1 and number > 1 else 1
            first = dilation if dilate_first else first
            dilations = [(first, dilation)] + [(dilation, dilation)] * (count - 1)
            if grid is not None:
                dilations = [(dilation * factor, dilation * factor) for factor in grid]
            width = 64 * 2 ** (number - 1)
            layer = residual_layer(block, inputs, width, stride, dilations)
            if stride_in == "1x1":
                _stride_in_first_conv(layer)
            self.add_module(f"layer{number}", layer)
            inputs = width * block.expansion
        self.stages = pyramid([64 * 2**power * block.expansion for power in range(4)], output_stride)
        # Before the weights are loaded, which must win; where they replace all, draws of later modules stay the same.
        initialize(self)
        if zero_init:
            self._start_as_identities()
        self._weights_file = None if weights == "none" else self._file(weights)
        if (found := self.read_weights()) is not None:
            load_backbone(self, found, f"ResNet-{self.depth} with a {self.stem} stem", ADVICE, _describe)
            if convention is None:
                self.convention = convention_of(found)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return c1..c4 of a normalized image ``(N, 3, H, W)``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return its modules by the stage that they belong to."""
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        return {"stem": [self.conv1, self.bn1], **{f"c{n}": [layer] for n, layer in enumerate(layers, 1)}}

    def read_weights(self) -> Converted | None:
        """Read the file of the initial weights, which may hold those of decoder and classifier too."""
        return None if self._weights_file is None else read_converted(self._weights_file)

    def _start_as_identities(self) -> None:
        for block in self.modules():
            if isinstance(block, BasicBlock | Bottleneck):
                last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
                nn.init.zeros_(last.weight)

    def _file(self, weights: str) -> str | Path:
        if weights == "imagenet" and self.stem == "deep":
            if self.depth in (50, 101):
                return timm_file(f"resnet{self.depth}s")
            raise UserError(
                "there is no published file for the deep stem of this depth. Give your own with "
                "backbone.weights=PATH, or use backbone.stem=plain.",
                key="weights",
                value=weights,
            )
        if weights == "imagenet":
            return published_file(
                torchvision.models.get_model_weights(f"resnet{self.depth}")["IMAGENET1K_V1"].url
            )
        return coco_file() if weights == "coco" else weights


def pyramid(channels: Sequence[int], output_stride: int) -> tuple[Stage, ...]:
    """Return stages from stride 4 on, each with twice the stride of the previous one, up to the output stride."""
    return tuple(Stage(each, min(4 * 2**power, output_stride)) for power, each in enumerate(channels))


def residual_layer(
    block: Block, inputs: int, width: int, stride: int, dilations: Sequence[tuple[int, int]]
) -> nn.Sequential:
    """Return a layer of residual blocks with ``width * block.expansion`` output channels.

    Args:
        block: torchvision's BasicBlock or Bottleneck.
        inputs: number of input channels.
        width: channels of the 3x3 convs.
        stride: stride of the first block.
        dilations: pair for each block, of its first and second 3x3 conv; a Bottleneck has only the first.
    """
    blocks = []
    outputs = width * block.expansion
    for number, pair in enumerate(dilations):
        shortcut = None
        if number == 0 and (stride != 1 or inputs != outputs):
            shortcut = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
        made = block(inputs if number == 0 else outputs, width, stride if number == 0 else 1, shortcut)
        # Set afterwards because torchvision's BasicBlock refuses a dilation in its constructor.
        convs = [
            conv for conv in made.children() if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3)
        ]
        for conv, dilation in zip(convs, pair, strict=False):
            conv.dilation = conv.padding = (dilation, dilation)
        blocks.append(made)
    return nn.Sequential(*blocks)


def initialize(module: nn.Module) -> None:
    """Draw Kaiming-normal conv weights (fan-out, ReLU); torch's batch norms start at 1 and 0 already."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


def _deep_stem() -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 64, 2), (64, 64, 1), (64, 128, 1)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers[:-2])


def _check_multi_grid(depth: int, multi_grid: Sequence[int] | None) -> None:
    count = BLOCKS[depth][1][3]
    if multi_grid is not None and (len(multi_grid) != count or min(multi_grid) < 1):
        raise UserError(
            f"the last layer of ResNet-{depth} has {count} blocks; give {count} factors of at least 1, for example "
            f"{[1, 2, 4][:count]}, or null.",
            key="multi_grid",
            value=list(multi_grid),
        )


def _check_stride_in(depth: int, stride_in: str) -> None:
    if stride_in == "1x1" and BLOCKS[depth][0] is BasicBlock:
        raise UserError(
            f"the blocks of ResNet-{depth} have no 1x1 conv before the 3x3 convs; give 3x3, or depth 50 or 101.",
            key="stride_in",
            value=stride_in,
        )


def _stride_in_first_conv(layer: nn.Sequential) -> None:
    """Move the stride of a layer's first Bottleneck from its 3x3 conv to the 1x1 conv before."""
    first = layer[0]
    assert isinstance(first, Bottleneck)
    first.conv1.stride, first.conv2.stride = first.conv2.stride, (1, 1)


def _describe(state: State) -> str:
    """Return the name of the ResNet that a state dict belongs to; empty where it is none."""
    counts = tuple(
        len({key.split(".")[1] for key in state if key.startswith(f"layer{number}.") and key.count(".") > 1})
        for number in range(1, 5)
    )
    block = Bottleneck if any(".conv3." in key for key in state) else BasicBlock
    stem = "deep" if "conv1.0.weight" in state else "plain"
    return next(
        (f"ResNet-{depth}, {stem} stem" for depth, known in BLOCKS.items() if known == (block, counts)), ""
    )
