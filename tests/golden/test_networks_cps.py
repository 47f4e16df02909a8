"""Numbers recorded from the original CPS networks, in double precision."""

import math

import pytest
import torch
from sine_fill import fill, image
from torch import nn

from semiseg.engine.optim import SGD
from semiseg.models.bundle import segmentation_model
from semiseg.models.deeplabv3plus_cps import DeepLabV3PlusCPS
from semiseg.models.resnet import ResNet, pyramid
from semiseg.models.segmodel import SegModel

pytestmark = pytest.mark.golden("CPS network")


def network(depth: int) -> SegModel:
    backbone = ResNet(depth, output_stride=16, stem="deep", multi_grid=(1, 2, 4))
    return segmentation_model(backbone, DeepLabV3PlusCPS, 21)


EXPECTED = {
    50: {
        "features": (0.402181037, 0.579479534),
        "logits": (-0.003180983, 0.622230442),
        "samples": (0.5169619, 0.2712703, 0.0279110, -0.0304002),
    },
    101: {
        "features": (0.402656405, 0.579840043),
        "logits": (-0.002423734, 0.625040689),
        "samples": (-0.0649252, 0.5649311, 0.0701531, 0.4863124),
    },
}


def test_input() -> None:
    assert image().mean().item() == pytest.approx(-0.013116921, abs=1e-9)
    assert image().std().item() == pytest.approx(0.707502009, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [50, 101])
def test_training_mode(depth: int) -> None:
    expected = EXPECTED[depth]
    model = fill(network(depth)).train()
    with torch.no_grad():
        features = model.decoder(model.backbone(image()))
        logits = model.classify(features, (64, 96))
    assert features.shape == (2, 256, 16, 24)
    assert (features.mean().item(), features.std().item()) == pytest.approx(expected["features"], abs=2e-9)
    assert (logits.mean().item(), logits.std().item()) == pytest.approx(expected["logits"], abs=2e-9)
    samples = (logits[0, 0, 0, 0], logits[0, 5, 10, 20], logits[1, 20, 63, 95], logits[1, 7, 31, 47])
    assert tuple(sample.item() for sample in samples) == pytest.approx(expected["samples"], abs=1e-7)


def test_counts() -> None:
    with torch.device("meta"):
        small, large = network(50), network(101)
    parts = (small, small.backbone, small.decoder, small.classifier, large)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [40_475_957, 23_631_808, 16_838_752, 5_397, 59_468_085]
    assert sum(isinstance(module, nn.Conv2d) for module in small.modules()) == 66
    assert sum(isinstance(module, nn.BatchNorm2d) for module in small.modules()) == 61


def test_dilations_of_the_last_layer() -> None:
    with torch.device("meta"):
        backbone = network(50).backbone
    assert [block.conv2.dilation[0] for block in backbone.layer4] == [2, 4, 8]
    assert [block.conv2.dilation[0] for block in backbone.layer3] == [1] * 6


def test_optimizer_groups() -> None:
    """Conv weights decay; norm layers and biases don't. Six groups there, four here: the classifier is head."""
    with torch.device("meta"):
        model = network(50)
    groups = SGD(lr=0.01, weight_decay=1e-4, decay="conv").groups(model)
    convs, norms = (
        [sum(isinstance(m, kind) for m in part.modules()) for part in (model.backbone, model)]
        for kind in (nn.Conv2d, nn.BatchNorm2d)
    )
    assert (convs[1], norms[1]) == (66, 61)
    assert {g["name"]: (g["lr"], g["weight_decay"], len(g["params"])) for g in groups} == {
        "backbone": (0.01, 1e-4, convs[0]),
        "backbone_no_decay": (0.01, 0.0, 2 * norms[0]),
        "head": (0.01, 1e-4, 66 - convs[0]),
        "head_no_decay": (0.01, 0.0, 2 * (61 - norms[0]) + 1),
    }
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d)}


def test_initialization_of_the_head() -> None:
    torch.manual_seed(0)
    decoder = DeepLabV3PlusCPS(pyramid((256, 512, 1024, 2048), 16))
    classifier = decoder.make_classifier(21)
    assert decoder.branches[2].weight.std().item() == pytest.approx(math.sqrt(2 / (2048 * 9)), rel=0.01)
    assert classifier.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.05)
    assert classifier.bias.abs().max().item() <= 1 / 16
