"""Numbers recorded from the original DMT and DMTC networks, in double precision."""

import math
from functools import partial
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from semiseg.engine.optim import SGD
from semiseg.models.bundle import segmentation_model
from semiseg.models.deeplabv2 import DeepLabV2, DilatedSum
from semiseg.models.heads import RepresentationHead
from semiseg.models.resnet import ResNet, pyramid
from semiseg.models.segmodel import SegModel

pytestmark = pytest.mark.golden("DMT network")

Network = TypeVar("Network", bound=nn.Module)


def network(classes: int = 21, depth: int = 101, **options: int) -> SegModel:
    return segmentation_model(ResNet(depth, output_stride=8), partial(DeepLabV2, **options), classes)


def fill(module: Network) -> Network:
    """A sine over each tensor, whose phase is the tensor's place among the sorted names."""
    state = module.double().state_dict()
    names = sorted(name for name in state if not name.endswith("num_batches_tracked"))
    for place, name in enumerate(names):
        value = state[name]
        index = torch.arange(value.numel(), dtype=torch.float64).view(value.shape)
        if value.ndim == 4:
            value.copy_(torch.sin(0.37 * index + place) * math.sqrt(2 / value[0].numel()))
        elif name.endswith(("running_var", "weight")):
            value.fill_(1)
        elif name.endswith("bias"):
            value.copy_(0.01 * torch.sin(index + place))
        else:
            value.zero_()
    return module


def sines(factor: float, *shape: int) -> Tensor:
    return torch.sin(factor * torch.arange(math.prod(shape), dtype=torch.float64)).view(shape)


@pytest.mark.parametrize(
    ("branches", "total", "absolute"), [(2, 33.153356706, 82.949748453), (4, 33.504855913, 82.720404324)]
)
def test_classifier_alone(branches: int, total: float, absolute: float) -> None:
    classifier = fill(DilatedSum(4, 3, (6, 12, 18, 24), branches))
    with torch.inference_mode():
        out = classifier(sines(0.05, 2, 4, 9, 11))
    assert (out.sum().item(), out.abs().sum().item()) == pytest.approx((total, absolute), abs=2e-9)
    if branches == 2:
        published = [-0.093930071, -0.114324512, -0.076515495]
        assert out[0, :, 4, 5].tolist() == pytest.approx(published, abs=1e-9)


@pytest.mark.slow
def test_whole_network() -> None:
    model = fill(network())
    x = sines(0.01, 2, 3, 65, 97)
    with torch.inference_mode():
        features = model.decoder(model.backbone.eval()(x))
        out = model.classifier(features)
        train_features = model.decoder(model.backbone.train()(x))
        train_out = model.classifier(train_features)
    assert features.shape == (2, 2048, 9, 13)
    assert features.sum().item() == pytest.approx(3739.127, abs=5e-4)
    assert out.sum().item() == pytest.approx(0.4414746, abs=5e-8)
    assert out.abs().sum().item() == pytest.approx(32.74491, abs=5e-6)
    assert out[0, :3, 4, 5].tolist() == pytest.approx([-4.746548e-3, 4.741316e-3, 1.097493e-2], rel=5e-7)
    # In training mode 101 layers of these weights amplify rounding: 1e-13 of noise on the input moves the sums by 2 to
    # 5 %, other instructions of the processor by up to 5 %. What is left to compare with the record is their size.
    assert train_features.sum().item() == pytest.approx(4.669946e5, rel=0.1)
    assert train_out.abs().sum().item() == pytest.approx(103.8573, rel=0.1)


@pytest.mark.parametrize(
    ("classes", "whole", "head"), [(21, 44_048_532, 1_548_372), (19, 43_901_068, 1_400_908)]
)
def test_counts(classes: int, whole: int, head: int) -> None:
    with torch.device("meta"):
        model = network(classes)
    counts = [sum(p.numel() for p in part.parameters()) for part in (model, model.backbone, model.classifier)]
    assert counts == [whole, 42_500_160, head]
    state = model.state_dict()
    assert len(state) == 632
    assert sum(not name.endswith("num_batches_tracked") for name in state) == 528
    assert len(list(model.parameters())) == 320


def test_counts_with_the_representation_head() -> None:
    with torch.device("meta"):
        model = network(19)
        model.attach("representation", RepresentationHead(model.feature_channels))
        maps = model.heads["representation"](torch.empty(2, 2048, 32, 64))
    assert sum(p.numel() for p in model.heads.parameters()) == 4_757_654
    assert sum(p.numel() for p in model.parameters()) == 48_658_722
    assert maps.shape == (2, 150, 32, 64)


@pytest.mark.parametrize(("branches", "trained"), [(2, 4), (4, 8)])
def test_optimizer_groups(branches: int, trained: int) -> None:
    """One rate and weight decay for everything; convs that are not summed are never touched."""
    with torch.device("meta"):
        model = network(branches=branches)
    groups = SGD(lr=0.001, weight_decay=5e-4).groups(model)
    assert [(g["name"], g["lr"], g["weight_decay"], len(g["params"])) for g in groups] == [
        ("backbone", 0.001, 5e-4, 312),
        ("head", 0.001, 5e-4, trained),
    ]


def test_convs_that_are_not_summed_change_nothing() -> None:
    classifier = DilatedSum(4, 3, (1, 2, 3, 4), 2)
    x = sines(0.05, 2, 4, 9, 11).float()
    before = classifier(x)
    before.sum().backward()
    assert [conv.weight.grad is not None for conv in classifier.convs] == [True, True, False, False]
    for conv in classifier.convs[2:]:
        nn.init.normal_(conv.weight)
    assert torch.equal(classifier(x), before)


def test_initialization() -> None:
    torch.manual_seed(0)
    classifier = DeepLabV2(pyramid((256, 512, 1024, 2048), 8)).make_classifier(21)
    bound = 1 / math.sqrt(2048 * 9)
    for conv in classifier.convs:
        assert bound * 0.999 < conv.weight.abs().max().item() <= bound
        assert conv.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
        assert conv.bias.abs().max().item() <= bound


@pytest.mark.parametrize(
    ("size", "expected"), [((321, 321), (41, 41)), ((505, 505), (64, 64)), ((256, 512), (32, 64))]
)
def test_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    with torch.device("meta"):
        model = network()
        features = model.features(torch.empty(1, 3, *size, dtype=torch.uint8))
    assert features.shape == (1, 2048, *expected)
    dilations = [
        [block.conv2.dilation[0] for block in layer] for layer in list(model.backbone.children())[-4:]
    ]
    assert dilations == [[1] * 3, [1] * 4, [1] + [2] * 22, [2, 4, 4]]
