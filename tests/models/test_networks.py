"""Every backbone with every decoder."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semiseg.errors import UserError
from semiseg.models.build import segmentation_model
from semiseg.models.deeplabv3plus import DeepLabV3Plus
from semiseg.models.deeplabv3plus_cps import DeepLabV3PlusCPS
from semiseg.models.resnet import ResNet
from semiseg.models.segmodel import InputConvention, SegModel
from semiseg.models.tiny import Tiny

DECODERS = {"deeplabv3plus": DeepLabV3Plus, "deeplabv3plus_cps": DeepLabV3PlusCPS}
BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    **{
        f"resnet{depth}": lambda stride, depth=depth: ResNet(depth, output_stride=stride)
        for depth in (18, 34, 50, 101)
    },
    "resnet50-deep": lambda stride: ResNet(50, output_stride=stride, stem="deep", multi_grid=(1, 2, 4)),
    "tiny": lambda stride: Tiny(output_stride=stride),
}
SMALL = partial(DeepLabV3Plus, channels=32, low_channels=16, rates=(1, 2))
SIZES = [(65, 81), (33, 50)]


def small(seed: int = 0, decoder: Callable[..., nn.Module] = SMALL) -> SegModel:
    torch.manual_seed(seed)
    return segmentation_model(Tiny(width=8), decoder, 5)


def images(*size: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_shapes(backbone: str, decoder: str, output_stride: int) -> None:
    with torch.device("meta"):
        model = segmentation_model(BACKBONES[backbone](output_stride), DECODERS[decoder], 7)
        for height, width in SIZES:
            batch = torch.empty(2, 3, height, width, dtype=torch.uint8)
            maps = model.backbone(model.normalize(batch))
            assert tuple(m.shape[1] for m in maps) == model.backbone.channels
            assert maps[0].shape[-2:] == (-(-height // 4), -(-width // 4))
            assert maps[-1].shape[-2:] == (-(-height // output_stride), -(-width // output_stride))
            features = model.decoder(maps)
            assert features.shape == (2, 256, *maps[0].shape[-2:])
            assert model.classify(features, batch.shape[-2:]).shape == (2, 7, height, width)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50-deep", "tiny"])
def test_gradient_reaches_every_parameter(backbone: str, decoder: str) -> None:
    torch.manual_seed(0)
    factory = partial(DECODERS[decoder], channels=32, low_channels=8, rates=(1, 2, 3))
    model = segmentation_model(BACKBONES[backbone](16), factory, 4).train()
    target = torch.randint(0, 4, (2, 49, 65))
    F.cross_entropy(model(images(49, 65)), target).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_batch_norm_has_the_published_settings(backbone: str) -> None:
    with torch.device("meta"):
        model = segmentation_model(BACKBONES[backbone](16), DeepLabV3Plus, 4)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.1, 1e-5)}


@pytest.mark.parametrize("decoder", DECODERS)
def test_bfloat16_autocast(decoder: str) -> None:
    model = small(decoder=partial(DECODERS[decoder], channels=32, low_channels=16, rates=(1, 2))).eval()
    with torch.inference_mode():
        expected = model(images(65, 81))
        with torch.autocast("cpu", torch.bfloat16):
            observed = model(images(65, 81))
    assert observed.dtype == torch.float32
    assert (observed - expected).abs().mean() < 0.05 * expected.abs().mean() + 0.01


@pytest.mark.parametrize("decoder", DECODERS)
def test_channels_last(decoder: str) -> None:
    model = small(decoder=partial(DECODERS[decoder], channels=32, low_channels=16, rates=(1, 2))).eval()
    batch = images(65, 81)
    with torch.inference_mode():
        expected = model(batch)
        observed = model.to(memory_format=torch.channels_last)(
            batch.contiguous(memory_format=torch.channels_last)
        )
    assert torch.allclose(observed, expected, atol=1e-4)


def test_the_network_normalizes_its_input() -> None:
    model = small()
    batch = images(8, 8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (batch.permute(0, 2, 3, 1) / 255 - mean) / std
    assert torch.allclose(model.normalize(batch).permute(0, 2, 3, 1), expected, atol=1e-6)
    assert torch.equal(model.normalize(batch.float()), model.normalize(batch))


def test_bgr_convention_in_the_range_of_the_pixels() -> None:
    backbone = Tiny(width=8)
    backbone.convention = InputConvention("BGR", 1.0, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0))
    model = segmentation_model(backbone, SMALL, 5)
    batch = images(8, 8)
    expected = batch.float()[:, [2, 1, 0]] - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
    assert torch.equal(model.normalize(batch), expected)


def test_convention_survives_plain_values() -> None:
    convention = InputConvention("BGR", 1.0, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert InputConvention.from_dict(convention.as_dict()) == convention


def test_normalization_is_no_weight() -> None:
    assert not {"mean", "std"} & set(small().state_dict())


def test_equal_seeds_give_equal_networks() -> None:
    first, again, other = (small(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_dropout_is_active_in_training_only() -> None:
    model = small()
    features = [torch.randn(2, c, s, s) for c, s in zip(model.backbone.channels, (12, 6, 6, 6), strict=True)]
    with torch.no_grad():
        model.decoder.eval()
        assert torch.equal(model.decoder(features), model.decoder(features))
        model.decoder.train()
        assert not torch.equal(model.decoder(features), model.decoder(features))


def test_usual_rates_follow_the_output_stride() -> None:
    for stride, rates in ((8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))):
        with torch.device("meta"):
            plain = DeepLabV3Plus((8, 8, 8, 8), output_stride=stride)
            cps = DeepLabV3PlusCPS((8, 8, 8, 8), output_stride=stride)
        assert tuple(branch[0].dilation[0] for branch in plain.branches[1:]) == rates
        assert tuple(branch.dilation[0] for branch in cps.branches[1:]) == rates


@pytest.mark.parametrize("decoder", DECODERS.values())
@pytest.mark.parametrize(
    "arguments", [{"output_stride": 4}, {"output_stride": 8, "rates": [0]}, {"output_stride": 8, "rates": []}]
)
def test_bad_rates(decoder: Callable[..., nn.Module], arguments: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"model\.rates"):
        decoder((8, 8, 8, 8), **arguments)
