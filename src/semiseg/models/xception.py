"""Aligned Xception-65, the backbone of UniMatch V1 on COCO."""

from typing import Literal

from torch import Tensor, nn

from semiseg.declare import checked
from semiseg.models.convert import convention_of, load_backbone, read_converted
from semiseg.models.resnet import OutputStride, Weights, initialize, pyramid
from semiseg.models.segmodel import Backbone, Converted, InputConvention

STRIDES: dict[int, tuple[int, int, int]] = {8: (2, 1, 1), 16: (2, 2, 1), 32: (2, 2, 2)}
"""Strides of the blocks 2, 3 and 20; the stem and block 1 have stride 4 together."""

NUMBERS = {"unimatch": (1e-5, 3e-4), "tensorflow": (1e-3, 0.1)}
"""Epsilon and momentum of the batch norms."""

MIDDLE = range(4, 20)


class Xception(Backbone):
    """Aligned Xception-65 without pooling and classifier (Chen et al., arXiv 1802.02611, section 4.3).

    In the form of UniMatch V1: LiheYoung/UniMatch, ``model/backbone/xception.py``, whose names it has. Maps normalized
    images ``(N, 3, H, W)`` to c1..c4: the second separable conv of block 2 before its stride (256 channels, stride 4,
    also negative), that of block 3 (728), block 19 (728), and the last conv (2048, ``output_stride``). Where block 3 or
    20 loses its stride, what follows is dilated.

    The form of UniMatch differs from the TensorFlow original, and from timm's ``xception65``, in three ways, each with
    a setting. Convs start from Kaiming-normal weights (fan-out), batch norms from 1 and 0.

    Args:
        output_stride: stride of c4: 8, 16 or 32.
        shortcut: what the shortcut of a block without a conv in it carries: "rectified", the input after the first
            ReLU, which UniMatch applies in place; or "plain", the input (TensorFlow). The default is UniMatch's.
        exit_dilation: dilation of the last three convs, that of the blocks before ("kept", UniMatch, the default) or
            twice that where block 20 loses its stride ("doubled", TensorFlow).
        batch_norm: epsilon and momentum of the batch norms: "unimatch", 1e-5 and 0.0003, the default; or "tensorflow",
            0.001 and 0.1, as timm has them.
        weights: initial weights: "none", or the path of a file in UniMatch's names, of the backbone alone or of a
            whole network, or of a checkpoint of semiseg. Decoder and classifier of a file are loaded too where they
            fit the network that is built on this one.

    Raises:
        UserError: an argument out of range, or weights that are missing, damaged or of another network.
    """

    @checked
    def __init__(
        self,
        *,
        output_stride: OutputStride = 16,
        shortcut: Literal["rectified", "plain"] = "rectified",
        exit_dilation: Literal["kept", "doubled"] = "kept",
        batch_norm: Literal["unimatch", "tensorflow"] = "unimatch",
        weights: Weights = "none",
    ) -> None:
        super().__init__()
        self.convention = InputConvention()
        self.stages = pyramid((256, 728, 728, 2048), output_stride)
        second, third, last = STRIDES[output_stride]
        rate = 2 if third == 1 else 1
        rectified = shortcut == "rectified"
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        self.block1 = XceptionBlock(64, 128, 128, 2, 1, rectified)
        self.block2 = XceptionBlock(128, 256, 256, second, 1, rectified)
        self.block3 = XceptionBlock(256, 728, 728, third, 1, rectified)
        for number in MIDDLE:
            self.add_module(f"block{number}", XceptionBlock(728, 728, 728, 1, rate, rectified))
        self.block20 = XceptionBlock(728, 728, 1024, last, rate, rectified)
        end = 2 * rate if exit_dilation == "doubled" and last == 1 else rate
        self.conv3 = SeparableConv(1024, 1536, 1, end, first_relu=False)
        self.conv4 = SeparableConv(1536, 1536, 1, end, first_relu=False)
        self.conv5 = SeparableConv(1536, 2048, 1, end, first_relu=False)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = NUMBERS[batch_norm]
        # Before the weights are loaded, which must win.
        initialize(self)
        self._weights_file = None if weights == "none" else weights
        if (found := self.read_weights()) is not None:
            load_backbone(self, found, "Xception-65", "Give weights of UniMatch's Xception-65.")
            self.convention = convention_of(found)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return c1..c4 of a normalized image ``(N, 3, H, W)``."""
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        x, _ = self.block1(x)
        x, c1 = self.block2(x)
        x, c2 = self.block3(x)
        for number in MIDDLE:
            x, _ = self.get_submodule(f"block{number}")(x)
        c3 = x
        x, _ = self.block20(x)
        return [c1, c2, c3, self.conv5(self.conv4(self.conv3(x)))]

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return its modules by the stage that they belong to; c1 and c2 come from inside of their last block."""
        middle = [self.get_submodule(f"block{number}") for number in MIDDLE]
        return {
            "stem": [self.conv1, self.bn1, self.conv2, self.bn2],
            "c1": [self.block1, self.block2],
            "c2": [self.block3],
            "c3": middle,
            "c4": [self.block20, self.conv3, self.conv4, self.conv5],
        }

    def read_weights(self) -> Converted | None:
        """Read the file of the initial weights, which may hold those of decoder and classifier too."""
        return None if self._weights_file is None else read_converted(self._weights_file)


class XceptionBlock(nn.Module):
    """Three separable convs and a shortcut; maps ``(N, inputs, H, W)`` to ``(N, outputs, h, w)``.

    Args:
        inputs: channels of the input.
        hidden: channels after the first conv.
        outputs: channels after the second and third.
        stride: stride of the third conv and of the shortcut.
        dilation: dilation of all three.
        rectified: whether a shortcut without a conv carries the input after its ReLU.
    """

    def __init__(
        self, inputs: int, hidden: int, outputs: int, stride: int, dilation: int, rectified: bool
    ) -> None:
        super().__init__()
        self.sepconv1 = SeparableConv(inputs, hidden, 1, dilation)
        self.sepconv2 = SeparableConv(hidden, outputs, 1, dilation)
        self.sepconv3 = SeparableConv(outputs, outputs, stride, dilation)
        self.changes = inputs != outputs or stride != 1
        if self.changes:
            self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.skipbn = nn.BatchNorm2d(outputs)
        self.rectified = rectified

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output, and the map of the second conv, which has the stride of the input."""
        inner = self.sepconv2(self.sepconv1(x))
        result = self.sepconv3(inner)
        if self.changes:
            return result + self.skipbn(self.skip(x)), inner
        return result + (x.relu() if self.rectified else x), inner


class SeparableConv(nn.Module):
    """A 3x3 conv of each channel and a 1x1 conv, each with batch norm; keeps the size at stride 1.

    Args:
        inputs: channels of the input.
        outputs: channels of the result.
        stride: stride of the 3x3 conv.
        dilation: dilation of the 3x3 conv.
        first_relu: whether a ReLU comes before; otherwise one follows each conv.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, dilation: int, first_relu: bool = True
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, dilation, dilation, inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.first_relu = first_relu

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, outputs, h, w)``."""
        x = self.bn1(self.depthwise(x.relu() if self.first_relu else x))
        x = self.bn2(self.pointwise(x if self.first_relu else x.relu()))
        return x if self.first_relu else x.relu()
