"""A small residual backbone for small images, tests and machines without an accelerator."""

from typing import Annotated

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from semiseg.declare import Ge, checked
from semiseg.models.resnet import STRIDES, OutputStride, initialize, pyramid, residual_layer
from semiseg.models.segmodel import Backbone, InputConvention


class Tiny(Backbone):
    """Four layers of one residual block each, about 200 000 parameters at the default width.

    Maps normalized images ``(N, 3, H, W)`` to c1..c4 with ``2, 3, 4, 5`` times ``width`` channels, c1 at
    stride 4, c4 at ``output_stride``. It is meant for images of about 96x96, where c4 is 12x12 at stride 8:
    choose a decoder with small dilation rates.

    Args:
        width: number of channels of the stem.
        output_stride: stride of c4: 8, 16 or 32.

    Raises:
        UserError: another output stride, or a width below 1.
    """

    @checked
    def __init__(self, width: Annotated[int, Ge(1)] = 16, *, output_stride: OutputStride = 8) -> None:
        super().__init__()
        self.convention = InputConvention()
        self.stages = pyramid([2 * width, 3 * width, 4 * width, 5 * width], output_stride)
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        layers, inputs, dilation = [], width, 1
        for stage, stride in zip(self.stages, (2, *STRIDES[output_stride][1:]), strict=True):
            first, dilation = dilation, dilation * (2 if stride == 1 else 1)
            layers.append(residual_layer(BasicBlock, inputs, stage.channels, stride, [(first, dilation)]))
            inputs = stage.channels
        self.layers = nn.ModuleList(layers)
        initialize(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return c1..c4 of a normalized image ``(N, 3, H, W)``."""
        x = self.stem(x)
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return its modules by the stage that they belong to."""
        return {"stem": [self.stem], **{f"c{number}": [layer] for number, layer in enumerate(self.layers, 1)}}
