"""The inputs and the small network with which numbers of FixMatch, UniMatch and UniMatch V2 were recorded."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from noise_fill import fill, images, labels, noise
from torch import Tensor, nn

from semiseg.models.segmodel import Backbone, Decoder, InputConvention, SegModel, Stage

Boxes = Sequence[tuple[int, int, int, int] | None]


def logits(n: int, classes: int, h: int, w: int, salt: int, amplitude: float) -> Tensor:
    return amplitude * noise(n * classes * h * w, salt).reshape(n, classes, h, w)


def box_rows(boxes: Boxes) -> Tensor:
    """Boxes (top, left, height, width), zeros for none."""
    return torch.tensor([box or (0, 0, 0, 0) for box in boxes])


def valid(padding: Sequence[tuple[int, int]], h: int, w: int) -> Tensor:
    """False in the lowest rows and the rightmost columns of each image."""
    result = torch.ones(len(padding), h, w, dtype=torch.bool)
    for image, (rows, columns) in zip(result, padding, strict=True):
        image[h - rows :] = False
        image[:, w - columns :] = False
    return result


class TwoMaps(Backbone):
    stages = (Stage(8, 2), Stage(8, 4))
    # The recorded images are normalized.
    convention = InputConvention("RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> list[Tensor]:
        low = self.bn1(self.conv1(x)).relu()
        return [low, self.bn2(self.conv2(low)).relu()]


class Fused(Decoder):
    out_channels = 10

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__(stages)
        self.reduce, self.bn = nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.fuse, self.bn2 = nn.Conv2d(14, 10, 3, padding=1, bias=False), nn.BatchNorm2d(10)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        low, high = maps
        high = self.bn(self.reduce(high)).relu()
        high = F.interpolate(high, size=low.shape[-2:], mode="bilinear", align_corners=True)
        return self.bn2(self.fuse(torch.cat([low, high], 1))).relu()


def tiny(classes: int, gain: float = 1.0) -> SegModel:
    decoder = Fused(TwoMaps.stages)
    model = SegModel(TwoMaps(), decoder, decoder.make_classifier(classes), classes).double()
    fill(model)
    with torch.no_grad():
        model.classifier.weight.mul_(gain)
    return model


def feature_masks(n: int, step: int, which: int) -> Tensor:
    """Channel masks of 0 and 2 of the first (0) or last (1) map."""
    return 2.0 * (noise(n * 8, 800 + 10 * step + which) > 0).reshape(n, 8).double()


def step_batch(step: int, *, n: int, h: int, w: int, classes: int, salt: int) -> dict[str, Any]:
    """Batch of step 0 to 4 of a recorded training."""
    s = salt + 7 * step
    box_1 = [
        (2 + i + step, 3 + 2 * i, h // 3 + i, w // 3 + step) if (i + step) % 3 != 2 else None
        for i in range(n)
    ]
    box_2 = [(h // 4, i + step, h // 4 + step, w // 2) if (i + step) % 2 == 0 else None for i in range(n)]
    own = {
        "image": images(n, h, w, s + 1),
        "strong_1": images(n, h, w, s + 2),
        "strong_2": images(n, h, w, s + 3),
        "box_1": box_rows(box_1),
        "box_2": box_rows(box_2),
        "valid": valid([(step % 3, 2 * i) for i in range(n)], h, w),
    }
    partner = {
        "image": images(n, h, w, s + 4),
        "strong_1": images(n, h, w, s + 5),
        "strong_2": images(n, h, w, s + 6),
        "valid": valid([(i, step % 2) for i in range(n)], h, w),
    }
    known = {"image": images(n, h, w, s), "label": labels(n, h, w, classes, s)}
    return {"labeled": known, "unlabeled": own, "partner": partner}
