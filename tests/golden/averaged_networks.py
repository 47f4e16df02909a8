"""The small network with which numbers of Mean Teacher and CutMix-Seg were recorded."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from wave_inputs import PLAIN, fill

from semiseg.models.segmodel import Backbone, Decoder, SegModel, Stage


class FrozenNorm(nn.BatchNorm2d):
    """A batch norm that keeps its running statistics, and uses them."""

    def train(self, mode: bool = True) -> "FrozenNorm":
        return super().train(False)


class OneMap(Backbone):
    stages = (Stage(8, 2),)
    # The recorded images are normalized.
    convention = PLAIN

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm = FrozenNorm(8).requires_grad_(False) if frozen else nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.relu(self.norm(self.conv(x)))]


class Passed(Decoder):
    out_channels = 8

    def forward(self, maps: list[Tensor]) -> Tensor:  # type: ignore[override]
        return maps[0]


def tiny(classes: int, gain: float, frozen: bool = False) -> SegModel:
    """Network in double precision whose classifier is multiplied by ``gain``."""
    model = SegModel(OneMap(frozen), Passed(OneMap.stages), nn.Conv2d(8, classes, 1), classes).double()
    fill(model)
    with torch.no_grad():
        model.classifier.weight.mul_(gain)
    model.train()
    return model


def absolute_sum(model: nn.Module) -> float:
    return sum(float(each.detach().abs().sum()) for each in model.parameters())


def square_sum(model: nn.Module) -> float:
    return sum(float(each.detach().square().sum()) for each in model.parameters())
