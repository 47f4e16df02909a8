"""Networks for images with any number of channels: the first convolution of an RGB network, extended."""

from torch import Tensor, nn

from semiseg.contracts.dataset import Bands
from semiseg.errors import UserError
from semiseg.models.segmodel import Backbone, InputConvention

RGB = 3


def extend_input(backbone: Backbone, channels: int) -> None:
    """Let a backbone of RGB images take another number of channels, pretrained or not.

    The filters of the first convolution are repeated in the order R, G, B, R, ... and multiplied by ``3 / channels``,
    which keeps the size of what follows; for one channel they are added up. This is the rule of timm's
    ``adapt_input_conv``.

    Args:
        backbone: backbone with its initial weights, which is changed.
        channels: number of channels; with 3 nothing is changed.

    Raises:
        UserError: the backbone has no plain convolution of 3 channels.
    """
    if channels == RGB:
        return
    first = next((each for each in backbone.modules() if isinstance(each, nn.Conv2d)), None)
    if first is None or first.in_channels != RGB or first.groups != 1:
        raise UserError(
            f"images of {channels} channels: the first layer of {type(backbone).__name__} is no convolution of the 3 "
            "channels of RGB, which could be extended. Choose another backbone, such as resnet50."
        )
    # Frozen filters stay frozen.
    trained = first.weight.requires_grad
    first.weight = nn.Parameter(extended_filters(first.weight.detach(), channels), requires_grad=trained)
    first.in_channels = channels


def extended_filters(weight: Tensor, channels: int) -> Tensor:
    """Return filters ``(N, channels, h, w)`` of RGB filters ``(N, 3, h, w)``; see ``extend_input``."""
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // RGB), 1, 1)[:, :channels]
    return (repeated * (RGB / channels)).contiguous()


def band_convention(bands: Bands) -> InputConvention:
    """Return the normalization by the mean and deviation of each channel, in the number range of the files."""
    return InputConvention("bands", 1.0, tuple(bands.mean), tuple(bands.std))
