"""Three steps of CAC in sequence against numbers that the original program gave (stub networks)."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semiseg.contracts.training import Progress
from semiseg.methods.cac import CAC, HEAD, CACLearner, FeatureBank
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.models.segmodel import Backbone, InputConvention, SegModel, Stage

pytestmark = pytest.mark.golden("CAC loss")

CHANNELS, CLASSES, IMAGES, HEIGHT, WIDTH = 8, 5, 2, 10, 12

# Per step: L_1, L_2, 0.1 (L_1 + L_2), anchors of each direction, pool, gradient sums of each view.
EXPECTED = [
    (11.0725155, 11.2789040, 2.2351420, (70, 63), 480, (9.8467674, 9.8195772)),
    (11.4488573, 11.5274925, 2.2976348, (71, 64), 960, (9.9730177, 9.1574316)),
    (10.9885845, 11.7759438, 2.2764528, (71, 68), 960, (9.5138359, 9.2077875)),
]


class StubBackbone(Backbone):
    stages = (Stage(CHANNELS, 8),) * 4
    convention = InputConvention()


class StubDecoder(nn.Module):
    out_channels = CHANNELS


class Stub(SegModel):
    """Takes feature maps for images."""

    def features(self, images: Tensor) -> Tensor:
        return images


def make_model() -> Stub:
    k, c = torch.arange(CLASSES).float()[:, None], torch.arange(CHANNELS).float()
    classifier = nn.Conv2d(CHANNELS, CLASSES, 1)
    with torch.no_grad():
        classifier.weight.copy_((3 * torch.sin(1.7 * k * c + 0.6 * k + c))[..., None, None])
        assert classifier.bias is not None
        classifier.bias.copy_(0.1 * torch.cos(k[:, 0]))
    model = Stub(StubBackbone(), StubDecoder(), classifier, CLASSES)
    model.heads[HEAD] = nn.Identity()
    return model


def make_batch(step: int) -> dict[str, Any]:
    b, v, c, y, x = torch.meshgrid(
        *(torch.arange(size).double() for size in (IMAGES, 2, CHANNELS, HEIGHT, WIDTH)), indexing="ij"
    )
    features = torch.sin(
        0.9 * (c + 1) + 0.31 * y * (1 + 0.2 * c) + 0.23 * x + 0.7 * b + 0.45 * v + 0.5 * step + 0.05 * c * x
    ).float()
    return {
        "labeled": {
            "image": torch.zeros(1, CHANNELS, HEIGHT, WIDTH),
            "label": torch.full((1, HEIGHT, WIDTH), 255),
        },
        "unlabeled": {
            "image_1": features[:, 0].clone().requires_grad_(),
            "image_2": features[:, 1].clone().requires_grad_(),
            "box_1": torch.tensor([(0, 24, 64, 96), (16, 0, 80, 72)]),
            "box_2": torch.tensor([(16, 0, 80, 72), (0, 24, 64, 96)]),
            "flip_1": torch.tensor([True, False]),
            "flip_2": torch.tensor([False, True]),
        },
    }


def test_three_steps_equal_the_original() -> None:
    method = CAC(downsample=False)
    learner = CACLearner(make_model(), FeatureBank(960, CHANNELS), method, LabeledLoss(method), stride=8)
    for step, (loss_1, loss_2, unsupervised, anchors, pool, slopes) in enumerate(EXPECTED):
        batch = make_batch(step)
        output = learner(batch, Progress(step, 100, 5, step))
        found = [output.losses[f"contrast_{view}"] for view in (1, 2)]
        assert [int(term.count) for term in found] == list(anchors)
        assert [float(term.mean.detach()) for term in found] == pytest.approx([loss_1, loss_2], rel=1e-5)
        assert float(output.total.detach()) == pytest.approx(unsupervised, rel=1e-5)
        assert int(learner.bank.filled) == pool
        assert float(output.scalars["anchors"]) == sum(anchors)
        assert float(output.scalars["unlabeled_used"]) == pytest.approx(sum(anchors) / 144)
        # The printed sums are those of the losses themselves; the total has them a tenth.
        output.total.backward()
        sums = [10 * float(batch["unlabeled"][f"image_{view}"].grad.abs().sum()) for view in (1, 2)]
        assert sums == pytest.approx(slopes, rel=1e-5)
