"""DPT, the decoder of dense prediction transformers, in the form of UniMatch V2."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from torch import Tensor, nn

from semiseg.declare import Ge, Len, checked
from semiseg.errors import UserError
from semiseg.models.map_size import resized
from semiseg.models.segmodel import Decoder, Stage

WIDTHS = {
    384: (64, (48, 96, 192, 384)),
    768: (128, (96, 192, 384, 768)),
    1024: (256, (256, 512, 1024, 1024)),
    1536: (384, (1536, 1536, 1536, 1536)),
}
"""Channels of the fused map and of the four levels in UniMatch V2, by the channels of the encoder: S, B, L, G."""

LEVELS = 4
Channels = Annotated[int, Ge(1)]


class DPT(Decoder):
    """Four maps of a plain transformer, brought to four sizes and fused from coarse to fine (arXiv 2103.13413).

    In the form of UniMatch V2 (arXiv 2410.10777): LiheYoung/UniMatch-V2, ``model/semseg/dpt.py`` and
    ``model/util/blocks.py``.

    Returns ``(N, features, 8 h, 8 w)`` of maps ``(N, D, h, w)``. Level i passes a 1x1 conv to ``channels[i]`` and a
    transposed conv of stride 4, one of stride 2, nothing, or a 3x3 conv of stride 2; a 3x3 conv without bias brings
    all to ``features``. Every resize is bilinear with aligned corners. The published code also builds a unit for the
    skip connection of the coarsest level, which it never runs; here it is not built.

    Args:
        stages: stages of the backbone, four of one stride.
        features: channels of the fused maps and of the result; ``null`` takes UniMatch V2's for the encoder (S 64, B
            128, L 256, G 384), a sixth of its channels for others, 8 at least.
        channels: channels of the four levels before they are fused; ``null`` takes UniMatch V2's for the encoder (S
            48, 96, 192, 384), an eighth, a quarter, half and all of its channels for others.
        name: name of the option in the config; a message names the decoder by it.

    Raises:
        UserError: the backbone has not four maps of one stride, or a value is out of range.
    """

    reduction: ClassVar[int] = 2

    @checked
    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        features: Channels | None = None,
        channels: Annotated[list[Channels], Len(4, 4)] | None = None,
        name: str = "",
    ) -> None:
        super().__init__(stages, name)
        _require_four(stages, name)
        width = stages[-1].channels
        usual_features, usual_channels = usual_widths(width)
        self.out_channels = features = features or usual_features
        first, second, _, fourth = widths = tuple(channels or usual_channels)
        self.projects = nn.ModuleList(
            nn.Conv2d(stage.channels, each, 1) for stage, each in zip(stages, widths, strict=True)
        )
        self.resizes = nn.ModuleList(
            [
                nn.ConvTranspose2d(first, first, 4, 4),
                nn.ConvTranspose2d(second, second, 2, 2),
                nn.Identity(),
                nn.Conv2d(fourth, fourth, 3, 2, 1),
            ]
        )
        self.reduces = nn.ModuleList(nn.Conv2d(each, features, 3, padding=1, bias=False) for each in widths)
        self.fusions = nn.ModuleList(Fusion(features, skip=number < LEVELS - 1) for number in range(LEVELS))
        self.output = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the feature map ``(N, features, 8 h, 8 w)`` of four maps ``(N, D, h, w)``."""
        levels = [
            reduce(resize(project(level)))
            for level, project, resize, reduce in zip(
                maps, self.projects, self.resizes, self.reduces, strict=True
            )
        ]
        *finer, fused = levels
        fused = self.fusions[-1](fused, finer[-1].shape[-2:])
        for number, level in reversed(list(enumerate(finer))):
            rows, columns = level.shape[-2:]
            size = finer[number - 1].shape[-2:] if number else (2 * rows, 2 * columns)
            fused = self.fusions[number](fused, size, level)
        result: Tensor = self.output(fused).relu()
        return result


class Fusion(nn.Module):
    """A step of DPT: the finer level is added through a residual unit, then a unit, a resize and a 1x1 conv.

    Args:
        channels: channels of all maps.
        skip: whether there is a finer level to add.
    """

    def __init__(self, channels: int, skip: bool) -> None:
        super().__init__()
        if skip:
            self.skip = ResidualUnit(channels)
        self.unit = ResidualUnit(channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, fused: Tensor, size: Sequence[int], level: Tensor | None = None) -> Tensor:
        """Return ``(N, channels, *size)`` of the fused map and, with ``skip``, of a level of its size."""
        if level is not None:
            fused = fused + self.skip(level)
        result: Tensor = self.project(resized(self.unit(fused), size))
        return result


class ResidualUnit(nn.Module):
    """``z + conv(relu(conv(relu(z))))`` with 3x3 convs that have a bias, without batch norm.

    Args:
        channels: channels of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape."""
        result: Tensor = x + self.conv2(self.conv1(x.relu()).relu())
        return result


def usual_widths(width: int) -> tuple[int, tuple[int, ...]]:
    """Return the channels of the fused map and of the four levels for an encoder of ``width`` channels."""
    if width in WIDTHS:
        return WIDTHS[width]
    return max(width // 6, 8), tuple(max(width // part, 1) for part in (8, 4, 2, 1))


def _require_four(stages: Sequence[Stage], name: str) -> None:
    strides = [stage.stride for stage in stages]
    if len(strides) != LEVELS or len(set(strides)) > 1:
        raise UserError(
            f"needs four maps of one stride, as a plain transformer gives them, and those of the backbone have "
            f"{', '.join(map(str, strides))}. Choose backbone=dinov2_small or backbone=vit with four levels, or "
            "a model such as deeplabv3plus for a backbone with a pyramid.",
            key="model",
            value=name or "DPT",
        )
