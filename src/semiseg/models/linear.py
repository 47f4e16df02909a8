"""A linear classifier of a backbone's last maps."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from semiseg.declare import Ge, checked
from semiseg.errors import UserError
from semiseg.models.map_size import resized
from semiseg.models.segmodel import Decoder, Stage


class Linear(Decoder):
    """The last maps, concatenated and normalized; the classifier is one 1x1 conv on them.

    As in the linear evaluation of DINOv2 (arXiv 2304.07193, section 7.4). Returns ``(N, D, h, w)`` at the size of the
    first of these maps; others are resized to it, bilinearly with aligned corners.

    Args:
        stages: stages of the backbone.
        levels: number of maps that are concatenated, counted from the last: 1 in DINOv2's "linear", 4 in its "+ms".
        norm: "batch" for a batch norm before the classifier, as in DINOv2, or "none".
        name: name of the option in the config; a message names the decoder by it.

    Raises:
        UserError: more maps than the backbone has, or a value out of range.
    """

    @checked
    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        levels: Annotated[int, Ge(1)] = 1,
        norm: Literal["batch", "none"] = "batch",
        name: str = "",
    ) -> None:
        super().__init__(stages, name)
        self.levels = levels
        self.out_channels = joined_channels(stages, levels)
        # In training a batch norm takes the maps away from the scale that a classifier was fitted to.
        self.linear_channels = self.out_channels if norm == "none" else 0
        self.norm = nn.BatchNorm2d(self.out_channels) if norm == "batch" else nn.Identity()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the feature map ``(N, D, h, w)`` at the size of the first of the last maps."""
        result: Tensor = self.norm(joined(maps[-self.levels :]))
        return result


def joined_channels(stages: Sequence[Stage], levels: int) -> int:
    """Return the channels of the last ``levels`` maps together.

    Raises:
        UserError: there are fewer.
    """
    if levels > len(stages):
        raise UserError(f"the backbone has {len(stages)} maps.", key="levels", value=levels)
    return sum(stage.channels for stage in stages[-levels:])


def joined(maps: Sequence[Tensor]) -> Tensor:
    """Concatenate maps ``(N, C, h, w)`` at the size of the first one, bilinearly with aligned corners."""
    first, *others = maps
    enlarged = [resized(each, first.shape[-2:]) for each in others]
    return torch.cat([first, *enlarged], 1)
