"""Decoders and ways of applying them, exported and compared at sizes that tracing did not see."""

import math

import pytest
import torch
from torch import Tensor, nn

from semiseg.errors import RunFailed, UserError
from semiseg.export import graph as export_network
from semiseg.export.verification import compare_predictions
from semiseg.models.bundle import segmentation_model
from semiseg.models.deeplabv2 import DeepLabV2
from semiseg.models.deeplabv3plus_cps import DeepLabV3PlusCPS
from semiseg.models.light import Light
from semiseg.models.pspnet import PSPNet
from semiseg.models.segmodel import SegModel
from semiseg.models.tiny import Tiny
from semiseg.settings import EvaluatorSettings

SMALL = {"channels": 8, "low_channels": 4}
REFLECTED = {"pad": "multiple", "pad_to": 8, "pad_value": "reflect"}
CASES = {
    "pspnet": (PSPNet, {"pool_channels": 4, "channels": 8}, {"scales": [0.7], "flip": True}, "onnx"),
    "pixel_shuffle": (
        PSPNet,
        {"pool_channels": 4, "channels": 8, "classifier": "pixel_shuffle"},
        REFLECTED,
        "onnx",
    ),
    "deeplabv2": (DeepLabV2, {}, {"resize_to": [40, 72]}, "onnx"),
    "light": (Light, {"channels": 8}, {"scales": [1.0, 1.5]}, "onnx"),
    "cps": (DeepLabV3PlusCPS, SMALL, REFLECTED, "torch"),
}


def network(decoder: type[nn.Module], options: dict[str, object]) -> SegModel:
    torch.manual_seed(0)
    model = segmentation_model(Tiny(4), lambda stages: decoder(stages=stages, **options), 5)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    if isinstance(model.classifier, nn.Conv2d):
        nn.init.normal_(model.classifier.weight, 0, 0.1)  # of light, a part begins at 0
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_right_at_sizes_that_were_not_traced(case: str) -> None:
    pytest.importorskip("onnxruntime")
    decoder, options, changes, form = CASES[case]
    model, settings = network(decoder, options), EvaluatorSettings(**changes)
    smallest = export_network.smallest_side(model, settings)
    write = export_network.as_onnx if form == "onnx" else export_network.as_torch
    content = write(export_network.trace(model, settings), {})
    found = compare_predictions(export_network.opened(content, form), model, settings, smallest)
    assert [each.images for each in found] == [1, 2, 1]
    assert max(each.difference for each in found) < 1e-4


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "values",
            r"is not the trained one: for 1 image of \d+x16 pixels its probabilities differ by up to 0\.",
        ),
        ("nan", "differ by up to nan"),
        ("shape", r"gives probabilities of shape \(1, 5, 16, 75\)"),
        ("error", r"fails at 1 image of 74x16 pixels, .*RuntimeError: no kernel"),
    ],
)
def test_a_network_that_predicts_otherwise_is_refused(fault: str, message: str) -> None:
    def faulty(images: Tensor) -> list[Tensor]:
        if fault == "error":
            raise RuntimeError("no kernel")
        count, height, width = images.shape[:3]
        maps = torch.zeros(count, 5, height, width + (fault == "shape"))
        maps[:, 0] = math.nan if fault == "nan" else 1
        return [torch.zeros(count, height, width, dtype=torch.uint8), maps[:, 0], maps]

    model = network(DeepLabV2, {})
    with pytest.raises(RunFailed, match=message):
        compare_predictions(faulty, model, EvaluatorSettings(), 16)


class OwnPool(nn.Module):
    """A decoder whose result depends on the values in a way that no program can be made of."""

    out_channels = 20

    def __init__(self, **shape: object) -> None:
        super().__init__()

    def forward(self, features: list[Tensor]) -> Tensor:
        return features[-1] * float(features[-1].sum())

    def make_classifier(self, num_classes: int) -> nn.Module:
        return nn.Conv2d(20, num_classes, 1)


def test_a_network_that_cannot_be_followed_is_named() -> None:
    with pytest.raises(UserError, match=r"torch\.export cannot follow Tiny and OwnPool: \w+: \S+"):
        export_network.trace(network(OwnPool, {}), EvaluatorSettings())


@pytest.mark.parametrize(
    ("changes", "smallest"),
    [
        ({}, 16),
        ({"scales": [0.5]}, 32),
        ({"scales": [2.0]}, 16),
        ({"resize_to": [40, 72]}, 2),
        ({"pad": "size", "pad_to": 96}, 2),
        ({"pad": "size", "pad_to": 96, "pad_value": "reflect"}, 96),
    ],
)
def test_smallest_images(changes: dict[str, object], smallest: int) -> None:
    model = network(DeepLabV2, {})
    assert export_network.smallest_side(model, EvaluatorSettings(**changes)) == smallest


def test_padding_in_whole_numbers_is_that_of_timm() -> None:
    padding = pytest.importorskip("timm.layers.padding")
    former = padding.get_same_padding
    with export_network._open_sizes():
        for kernel, stride, dilation in ((3, 2, 1), (5, 2, 2), (1, 2, 1), (2, 3, 1), (3, 1, 2)):
            for side in range(1, 70):
                reach = (kernel - 1) * dilation + 1
                expected = max((math.ceil(side / stride) - 1) * stride + reach - side, 0)
                assert padding.get_same_padding(side, kernel, stride, dilation) == expected
                assert former(side, kernel, stride, dilation) == expected
    assert padding.get_same_padding is former
