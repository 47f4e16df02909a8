"""Numbers recorded from the original CAC networks, in double precision."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from sine_fill import fill, image
from torch import Tensor, nn

from semiseg.engine.optim import SGD
from semiseg.models.bundle import segmentation_model
from semiseg.models.deeplabv3plus_cac import DeepLabV3PlusCAC
from semiseg.models.heads import Projector
from semiseg.models.resnet import ResNet, pyramid
from semiseg.models.segmodel import SegModel

pytestmark = pytest.mark.golden("CAC network")


def network(depth: int, dropout: bool = True) -> SegModel:
    decoder = DeepLabV3PlusCAC
    if not dropout:
        decoder = partial(decoder, aspp_dropout=0.0, dropout=0.0, classifier_dropout=0.0)  # type: ignore[assignment]
    backbone = ResNet(depth, output_stride=16, multi_grid=(1, 2, 4))
    model = segmentation_model(backbone, decoder, 21)
    model.attach("projector", Projector(model.feature_channels))
    return model


EXPECTED = {
    "features": (0.389341628, 0.588905861),
    "logits": (-0.004544683, 0.636213524),
    "samples": (-0.3635138, -0.1314479, -0.0557987, -0.5570758),
    "projected": (0.000274098, 0.088389721),
    "projected samples": (0.0108755, -0.1232703, -0.0802030),
}


def statistics(maps: Tensor) -> tuple[float, float]:
    return maps.mean().item(), maps.std().item()


@pytest.mark.slow
def test_training_mode() -> None:
    expected = EXPECTED
    model = fill(network(50, dropout=False)).train()
    with torch.no_grad():
        features = model.decoder(model.backbone(image()))
        logits = model.classify(features, (64, 96))
        projected = F.normalize(model.heads["projector"](F.avg_pool2d(features, 2)))
    assert features.shape == (2, 256, 16, 24)
    assert statistics(features) == pytest.approx(expected["features"], abs=2e-9)
    assert statistics(logits) == pytest.approx(expected["logits"], abs=2e-9)
    samples = (logits[0, 0, 0, 0], logits[0, 5, 10, 20], logits[1, 20, 63, 95], logits[1, 7, 31, 47])
    assert tuple(sample.item() for sample in samples) == pytest.approx(expected["samples"], abs=1e-7)
    assert projected.shape == (2, 128, 8, 12)
    assert statistics(projected) == pytest.approx(expected["projected"], abs=2e-9)
    samples = (projected[0, 0, 0, 0], projected[0, 64, 3, 5], projected[1, 127, 7, 11])
    assert tuple(s.item() for s in samples) == pytest.approx(expected["projected samples"], abs=1e-7)


def test_counts() -> None:
    with torch.device("meta"):
        small, large = network(50), network(101)
    parts = (small, small.heads, small.classifier, large)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [40_450_869, 98_688, 5_397, 59_442_997]
    assert (
        sum(sum(p.numel() for p in part.parameters()) for part in (small.backbone, small.decoder))
        == 40_346_784
    )


def test_dilations_and_strides() -> None:
    with torch.device("meta"):
        backbone = network(50).backbone
    assert [block.conv2.dilation[0] for block in backbone.layer4] == [2, 4, 8]
    assert [block.conv2.dilation[0] for block in backbone.layer3] == [1] * 6
    layers = (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
    assert [layer[0].conv2.stride[0] for layer in layers] == [1, 2, 2, 1]


def test_places_of_dropout() -> None:
    """0.5 on the pyramid, 0.5 between the last convs, 0.1 before the classifier, all of elements."""
    with torch.device("meta"):
        model = network(50)
    places = {name: part.p for name, part in model.named_modules() if isinstance(part, nn.Dropout)}
    assert places == {"decoder.project.1": 0.5, "decoder.fuse.1": 0.5, "classifier.0": 0.1}


def test_optimizer_groups() -> None:
    """The backbone learns at a tenth of the rate of everything else; weight decay is on all parameters."""
    with torch.device("meta"):
        model = network(50)
    groups = {g["name"]: g for g in SGD(lr=0.001, weight_decay=1e-4, head_multiplier=10).groups(model)}
    assert {name: (g["weight_decay"], len(g["params"])) for name, g in groups.items()} == {
        "backbone": (1e-4, 159),
        # Nine convs with batch norm, the classifier, two convs of the projector.
        "head": (1e-4, 9 * 3 + 2 + 4),
    }
    assert groups["head"]["lr"] == pytest.approx(0.01)


def test_initialization() -> None:
    torch.manual_seed(0)
    decoder = DeepLabV3PlusCAC(pyramid((256, 512, 1024, 2048), 16))
    classifier = decoder.make_classifier(21)
    assert decoder.branches[2][0].weight.std().item() == pytest.approx(math.sqrt(2 / (2048 * 9)), rel=0.01)
    assert decoder.fuse[0][0].weight.std().item() == pytest.approx(math.sqrt(2 / (304 * 9)), rel=0.01)
    assert classifier[1].weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.05)
    assert classifier[1].bias.abs().max().item() <= 1 / 16
    projector = Projector()
    assert projector.layers[0].weight.abs().max().item() <= 1 / 16
    assert projector.layers[0].weight.std().item() == pytest.approx(1 / 16 / math.sqrt(3), rel=0.01)
