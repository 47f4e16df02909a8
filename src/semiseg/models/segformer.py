"""The decoder of SegFormer: linear layers alone."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.declare import checked
from semiseg.models.deeplabv3plus import Channels, Dropout, conv_bn_relu
from semiseg.models.map_size import resized
from semiseg.models.resnet import initialize
from semiseg.models.segmodel import Decoder, Stage


class SegFormer(Decoder):
    """A linear layer on each map, all resized to that of stride 4 and joined (Xie et al., arXiv 2105.15203).

    NVlabs/SegFormer, ``mmseg/models/decode_heads/segformer_head.py``. Returns ``(N, channels, h, w)`` at the size of
    the map of stride 4. The maps are concatenated from the coarsest to the finest; a 1x1 conv with batch norm and ReLU
    joins them, then channel dropout. All bilinear resizes, that of the logits too, have ``align_corners=False``. The
    original reads four maps of a mix transformer (strides 4, 8, 16, 32); this class all maps of any backbone from
    stride 4 on. Linear layers start as PyTorch's default, the conv Kaiming-normal (fan-out), as in mmcv.

    Args:
        stages: stages of the backbone.
        channels: channels of each linear layer and of the result: published 256 for MiT-B0 and B1, 768 from B2 on.
        dropout: probability of dropping a whole channel of the result.
        name: name of the option in the config; a message names the decoder by it.

    Raises:
        UserError: the backbone has no map of stride 4, or a value is out of range.
    """

    needs: ClassVar[tuple[int, ...]] = (4,)
    align_logits = False

    @checked
    def __init__(
        self, stages: Sequence[Stage], *, channels: Channels = 256, dropout: Dropout = 0.1, name: str = ""
    ) -> None:
        super().__init__(stages, name)
        self.out_channels = channels
        read = stages[self.needed[0] :]
        self.linear = nn.ModuleList(nn.Linear(stage.channels, channels) for stage in read)
        self.fuse = conv_bn_relu(len(read) * channels, channels)
        initialize(self.fuse)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the feature map ``(N, channels, h, w)`` at the size of the map of stride 4."""
        read = maps[self.needed[0] :]
        size = read[0].shape[-2:]
        # Published code: SegFormerHead.forward up to the dropout.
        enlarged = [
            resized(_linear(layer, x), size, align_corners=False)
            for layer, x in zip(self.linear, read, strict=True)
        ]
        result: Tensor = self.dropout(self.fuse(torch.cat(enlarged[::-1], 1)))
        return result


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a linear layer to the channels of ``(N, C, h, w)``."""
    assert isinstance(layer, nn.Linear)
    return F.conv2d(x, layer.weight[..., None, None], layer.bias)
