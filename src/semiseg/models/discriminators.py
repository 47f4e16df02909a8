"""Networks that tell predictions from true label maps: at each position (AdvSemiSeg), or of a whole image (s4GAN)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from semiseg.errors import UserError
from semiseg.settings import TrainerSettings


def _halving(channels: Sequence[int]) -> nn.ModuleList:
    """Return convs that halve height and width, each from one number of channels to the next."""
    return nn.ModuleList(nn.Conv2d(*pair, 4, stride=2, padding=1) for pair in pairwise(channels))


def _precise(values: Tensor) -> Tensor:
    """Return values in float32 at least, under autocast too."""
    return values if values.dtype == torch.float64 else values.float()


class MapDiscriminator(nn.Module):
    """Fully convolutional discriminator of label maps (AdvSemiSeg, arXiv 1802.07934, section 3.1).

    Five 4x4 convs with stride 2 and leaky ReLU 0.2 between them, from K channels to 64, 128, 256, 512 and 1; no norm.

    Args:
        num_classes: number of classes K.
        channels: channels behind the first conv.
    """

    smallest: ClassVar[int] = 32
    """Side of the smallest maps, which one position is left of."""

    def __init__(self, num_classes: int, channels: int = 64) -> None:
        super().__init__()
        self.convs = _halving([num_classes, *(channels * factor for factor in (1, 2, 4, 8)), 1])

    def raw(self, maps: Tensor) -> Tensor:
        """Return logits of being true at a 32nd of the size, ``(N, 1, h, w)``, before they are enlarged."""
        # Published code: model/discriminator.py, FCDiscriminator.
        for conv in self.convs[:-1]:
            maps = F.leaky_relu(conv(maps), 0.2)
        found: Tensor = self.convs[-1](maps)
        return _precise(found)

    def forward(self, maps: Tensor) -> Tensor:
        """Return logits of being true ``(N, H, W)``, at least float32, of probabilities ``(N, K, H, W)``.

        Height and width are 32 or more.
        """
        return F.interpolate(self.raw(maps), maps.shape[-2:], mode="bilinear", align_corners=True)[:, 0]


class ImageDiscriminator(nn.Module):
    """Discriminator of whole images with their label maps (s4GAN, arXiv 1908.05724, section 3.1).

    Four 4x4 convs with stride 2 and leaky ReLU 0.2, from the channels of the input to 64, 128, 256 and 512; channels
    behind the first three are dropped at random; the mean over the image, and a linear layer.

    Args:
        in_channels: channels of the input, classes and image together.
        channels: channels behind the first conv.
    """

    smallest: ClassVar[int] = 16
    """Side of the smallest maps, which one position is left of."""

    def __init__(self, in_channels: int, channels: int = 64) -> None:
        super().__init__()
        widths = [channels * factor for factor in (1, 2, 4, 8)]
        self.convs = _halving([in_channels, *widths])
        self.linear = nn.Linear(widths[-1], 1)
        self.dropped = tuple(widths[:3])
        """Channels of the maps that are dropped from."""

    def forward(self, maps: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return logits of being true ``(N,)`` and the features that they are of ``(N, 8 * channels)``.

        Args:
            maps: label map and image ``(N, in_channels, H, W)``, height and width 16 or more.
            masks: factors ``(N, sum(dropped))`` of the channels behind the first three convs, side by side; ``None``
                drops nothing.
        """
        # Published code: model/discriminator.py, s4GAN_discriminator; its windows of pooling cover the whole image.
        factors = [] if masks is None else torch.split(masks, list(self.dropped), dim=1)
        for index, conv in enumerate(self.convs):
            maps = F.leaky_relu(conv(maps), 0.2)
            if index < len(factors):
                maps = maps * factors[index][:, :, None, None].to(maps.dtype)
        features = _precise(maps).mean((2, 3))
        return _precise(self.linear(features))[:, 0], features


def with_fixed_weights(module: nn.Module, *inputs: Tensor | None) -> Tensor | tuple[Tensor, ...]:
    """Call a module so that gradients pass through it to its inputs, and none reaches its own parameters."""
    fixed = {name: parameter.detach() for name, parameter in module.named_parameters()}
    found: Tensor | tuple[Tensor, ...] = functional_call(module, fixed, inputs)
    return found


def require_crop(trainer: TrainerSettings, smallest: int) -> None:
    """Refuse crops that a discriminator leaves nothing of.

    Raises:
        UserError: a side of the crop is smaller.
    """
    size = trainer.crop_size
    if min([size] if isinstance(size, int) else size) < smallest:
        raise UserError(
            f"the discriminator needs crops of {smallest} pixels or more.",
            key="trainer.crop_size",
            value=size,
        )
