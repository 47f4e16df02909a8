"""Every backbone with every decoder."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semiseg.errors import UserError
from semiseg.models.bundle import segmentation_model
from semiseg.models.deeplabv2 import DeepLabV2
from semiseg.models.deeplabv3plus import DeepLabV3Plus
from semiseg.models.deeplabv3plus_cac import DeepLabV3PlusCAC
from semiseg.models.deeplabv3plus_cps import DeepLabV3PlusCPS
from semiseg.models.deeplabv3plus_u2pl import DeepLabV3PlusU2PL
from semiseg.models.heads import ConvStack, Projector, RepresentationHead
from semiseg.models.light import Light
from semiseg.models.pspnet import PSPNet, region_means
from semiseg.models.resnet import ResNet, pyramid
from semiseg.models.segformer import SegFormer
from semiseg.models.segmodel import InputConvention, SegModel
from semiseg.models.tiny import Tiny

DECODERS: dict[str, Callable[..., nn.Module]] = {
    "deeplabv2": DeepLabV2,
    "deeplabv3plus": DeepLabV3Plus,
    "deeplabv3plus_cac": DeepLabV3PlusCAC,
    "deeplabv3plus_cps": DeepLabV3PlusCPS,
    "deeplabv3plus_augseg": partial(DeepLabV3Plus, low_bias=True, pool_place="first"),
    "deeplabv3plus_u2pl": DeepLabV3PlusU2PL,
    "light": Light,
    "pspnet": PSPNet,
    "segformer": SegFormer,
}
SMALL_DECODERS: dict[str, Callable[..., nn.Module]] = {
    "deeplabv2": partial(DeepLabV2, branches=4, rates=(1, 2, 3, 4)),
    **{
        name: partial(DECODERS[name], channels=32, low_channels=8, rates=(1, 2, 3))
        for name in DECODERS
        if name.startswith("deeplabv3plus")
    },
    "light": partial(Light, channels=16),
    "pspnet": partial(PSPNet, pool_channels=8, channels=32),
    "segformer": partial(SegFormer, channels=32),
}
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


STRIDES = [
    ("resnet50", 16),
    *((backbone, stride) for backbone in ("resnet18", "resnet50-deep", "tiny") for stride in (8, 16, 32)),
]
SHAPES = [
    *((*each, decoder) for each in STRIDES for decoder in DECODERS),
    *((backbone, 16, "deeplabv3plus") for backbone in ("resnet34", "resnet101")),
]


@pytest.mark.parametrize(("backbone", "output_stride", "decoder"), SHAPES)
def test_shapes(backbone: str, output_stride: int, decoder: str) -> None:
    with torch.device("meta"):
        model = segmentation_model(BACKBONES[backbone](output_stride), DECODERS[decoder], 7)
        for height, width in SIZES:
            batch = torch.empty(2, 3, height, width, dtype=torch.uint8)
            maps = model.backbone(model.normalize(batch))
            assert tuple(m.shape[1] for m in maps) == tuple(stage.channels for stage in model.backbone.stages)
            assert maps[0].shape[-2:] == (-(-height // 4), -(-width // 4))
            assert maps[-1].shape[-2:] == (-(-height // output_stride), -(-width // output_stride))
            features = model.decoder(maps)
            refined = maps[0] if decoder.startswith(("deeplabv3plus", "segformer")) else maps[-1]
            refined = maps[1] if decoder == "light" else refined
            assert features.shape == (2, model.feature_channels, *refined.shape[-2:])
            assert model.classify(features, batch.shape[-2:]).shape == (2, 7, height, width)


@pytest.mark.parametrize(
    ("backbone", "decoder"),
    [
        *(("tiny", decoder) for decoder in DECODERS),
        *(("resnet18", decoder) for decoder in ("deeplabv3plus", "pspnet")),
        *(("resnet50-deep", decoder) for decoder in ("deeplabv3plus_cps", "segformer")),
    ],
)
def test_gradient_reaches_every_parameter(backbone: str, decoder: str) -> None:
    torch.manual_seed(0)
    model = segmentation_model(BACKBONES[backbone](16), SMALL_DECODERS[decoder], 4).train()
    if isinstance(model.classifier, nn.Conv2d):
        nn.init.normal_(model.classifier.weight)  # that of light begins at 0 in part
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
    model = small(decoder=SMALL_DECODERS[decoder]).eval()
    with torch.inference_mode():
        expected = model(images(65, 81))
        with torch.autocast("cpu", torch.bfloat16):
            observed = model(images(65, 81))
    assert observed.dtype == torch.float32
    assert (observed - expected).abs().mean() < 0.05 * expected.abs().mean() + 0.01


@pytest.mark.parametrize("decoder", DECODERS)
def test_channels_last(decoder: str) -> None:
    model = small(decoder=SMALL_DECODERS[decoder]).eval()
    batch = images(65, 81)
    with torch.inference_mode():
        expected = model(batch)
        observed = model.to(memory_format=torch.channels_last)(
            batch.contiguous(memory_format=torch.channels_last)
        )
    assert torch.allclose(observed, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decoder", "autocast"),
    [
        *((decoder, False) for decoder in DECODERS),
        *((decoder, True) for decoder in ("deeplabv3plus", "pspnet", "segformer")),
    ],
)
def test_training_compiles_as_one_graph(decoder: str, autocast: bool) -> None:
    model = small(decoder=SMALL_DECODERS[decoder]).train()
    model.attach("projector", Projector(model.feature_channels, 4, 4))
    compiled = torch.compile(copy.deepcopy(model), backend="eager", fullgraph=True)
    results = []
    torch._dynamo.reset()
    for network in (compiled, model):
        torch.manual_seed(0)  # of dropout
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            results.append(network(images(65, 81)))
        results[-1].square().mean().backward()
    assert torch.equal(*results)
    gradients = [
        [p.grad for p in network.parameters() if p.grad is not None] for network in (compiled, model)
    ]
    assert all(torch.allclose(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("decoder", DECODERS)
def test_exports_for_images_of_any_size(decoder: str) -> None:
    model = small(decoder=SMALL_DECODERS[decoder]).eval()
    sides = {axis: torch.export.Dim(name, min=32, max=512) for axis, name in ((2, "h"), (3, "w"))}
    exported = torch.export.export(model, (images(65, 81),), dynamic_shapes=(sides,)).module()
    with torch.inference_mode():
        for size in ((65, 81), (49, 97)):
            assert torch.allclose(exported(images(*size)), model(images(*size)), atol=1e-5)


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


def test_the_convention_can_be_replaced() -> None:
    convention = InputConvention("BGR", 1.0, (104.0, 117.0, 123.0), (1.0, 2.0, 4.0))
    backbone = Tiny(width=8)
    backbone.convention = convention
    expected = segmentation_model(backbone, SMALL, 5).normalize(images(8, 8))
    model = small()
    model.set_convention(convention)
    assert model.convention == convention
    assert torch.equal(model.normalize(images(8, 8)), expected)
    assert not {"mean", "std"} & set(model.state_dict())


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
    features = [
        torch.randn(2, stage.channels, s, s)
        for stage, s in zip(model.backbone.stages, (12, 6, 6, 6), strict=True)
    ]
    with torch.no_grad():
        model.decoder.eval()
        assert torch.equal(model.decoder(features), model.decoder(features))
        model.decoder.train()
        assert not torch.equal(model.decoder(features), model.decoder(features))


def test_usual_rates_follow_the_output_stride() -> None:
    for stride, rates in ((8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))):
        with torch.device("meta"):
            plain = DeepLabV3Plus(pyramid([8] * 4, stride))
            cps = DeepLabV3PlusCPS(pyramid([8] * 4, stride))
            cac = DeepLabV3PlusCAC(pyramid([8] * 4, stride))
            classifier = DeepLabV2(pyramid([8] * 4, stride)).make_classifier(3)
        assert tuple(branch[0].dilation[0] for branch in plain.branches[1:]) == rates
        assert tuple(branch.dilation[0] for branch in cps.branches[1:]) == rates
        assert tuple(branch[0].dilation[0] for branch in cac.branches[1:]) == rates
        summed = {8: (6, 12, 18, 24), 16: (3, 6, 9, 12), 32: (2, 3, 4, 6)}[stride]
        assert tuple(conv.dilation[0] for conv in classifier.convs) == summed
        assert all(conv.padding == conv.dilation for conv in classifier.convs)


@pytest.mark.parametrize("decoder", [DECODERS[name] for name in DECODERS if name.startswith("deeplab")])
@pytest.mark.parametrize(("stride", "rates"), [(4, None), (8, [0]), (8, [])])
def test_bad_rates(decoder: Callable[..., nn.Module], stride: int, rates: list[int] | None) -> None:
    with pytest.raises(UserError, match=r"^rates"):
        decoder(pyramid([8] * 4, stride), rates=rates)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: DeepLabV2(pyramid([8] * 4, 8), branches=0), r"^branches=0"),
        (lambda: DeepLabV2(pyramid([8] * 4, 8), branches=5), r"^branches=5"),
        (lambda: DeepLabV2(pyramid([8] * 4, 8), init="gauss"), r"^init=gauss"),  # type: ignore[arg-type]
        (lambda: PSPNet(pyramid([8] * 4, 8), pools=[]), r"^pools=\[\]"),
        (lambda: PSPNet(pyramid([8] * 4, 8), pools=[0, 1]), r"^pools=\[0, 1\]"),
        (lambda: PSPNet(pyramid([8] * 4, 8), channels=0), r"^channels=0"),
        (lambda: PSPNet(pyramid([8] * 4, 8), dropout=1), r"^dropout=1"),
        (
            lambda: DeepLabV3PlusCAC(pyramid([8] * 4, 8), classifier_dropout=2),
            "classifier_dropout=2",
        ),
        (lambda: DeepLabV3PlusCAC(pyramid([8] * 4, 8), aspp_dropout=-1), "aspp_dropout=-1"),
    ],
)
def test_bad_arguments(build: Callable[[], nn.Module], named: str) -> None:
    with pytest.raises(UserError, match=named):
        build()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(9, 11), (12, 12), (41, 37), (2, 5), (1, 1)])
def test_region_means_are_those_of_adaptive_pooling(
    size: tuple[int, int], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    pools = (1, 2, 3, 6)
    found, expected = region_means(x, pools), [F.adaptive_avg_pool2d(x, k) for k in pools]
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-14)
    weights = [torch.randn_like(one) for one in found]
    gradients = [
        torch.autograd.grad(sum((w * m).sum() for w, m in zip(weights, maps, strict=True)), x)[0]
        for maps in (found, expected)
    ]
    assert torch.allclose(*gradients, rtol=0, atol=1e-14)


def test_region_means_of_large_maps_in_bfloat16() -> None:
    """A count above 256 has no bfloat16; the mean of ones is still 1."""
    (mean,) = region_means(torch.ones(1, 1, 41, 37, dtype=torch.bfloat16), (1,))
    assert mean.dtype == torch.bfloat16
    assert mean.item() == pytest.approx(1, rel=2**-8)


def test_the_pyramid_of_cac_is_resized_without_aligned_corners() -> None:
    torch.manual_seed(0)
    aligned = PSPNet(pyramid([8] * 4, 8), pool_channels=2, channels=4).eval()
    plain = PSPNet(pyramid([8] * 4, 8), pool_channels=2, channels=4, align_corners=False).eval()
    plain.load_state_dict(aligned.state_dict())
    maps = [torch.randn(1, 8, 12, 12)]
    with torch.no_grad():
        assert not torch.equal(aligned(maps), plain(maps))
        joined = [maps[0]]
        for branch, k in zip(plain.branches, (1, 2, 3, 6), strict=True):
            joined.append(F.interpolate(branch(F.adaptive_avg_pool2d(maps[0], k)), (12, 12), mode="bilinear"))
        assert torch.allclose(plain(maps), plain.fuse(torch.cat(joined, 1)), atol=1e-5)


HEADS: dict[str, Callable[[int], nn.Module]] = {
    "projector": lambda channels: Projector(channels, 6, 7),
    "representation": lambda channels: RepresentationHead(channels, 6, 7),
    "stack": lambda channels: ConvStack(channels, 6, 7),
    "shallow stack": lambda channels: ConvStack(channels, 6, 7, convs=1, dropout=0.0),
}


@pytest.mark.parametrize("name", HEADS)
def test_an_attached_head_is_part_of_the_network(name: str) -> None:
    model = small().train()
    before = model.eval()(images(33, 33))
    model.attach(name.split()[-1], HEADS[name](model.feature_channels))
    name = name.split()[-1]
    assert torch.equal(model(images(33, 33)), before)
    assert {key for key in model.state_dict() if key.startswith(f"heads.{name}.")}
    features = model.train().features(images(33, 33))
    result = model.heads[name](features)
    assert result.shape == (2, 7, *features.shape[-2:])
    result.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.heads.parameters())
    assert model.backbone.stem[0].weight.grad.abs().sum() > 0
    with torch.autocast("cpu", torch.bfloat16):
        assert model.heads[name](features).dtype == torch.bfloat16


def test_heads_that_do_not_fit_are_refused() -> None:
    model = small()
    with pytest.raises(ValueError, match="takes 16 channels; the decoder gives 32"):
        model.attach("projector", Projector(16))
    model.attach("projector", Projector(32))
    with pytest.raises(ValueError, match="has a head 'projector' already"):
        model.attach("projector", Projector(32))
    with pytest.raises(ValueError, match=r"'plain' \(Conv2d\) needs in_channels and config"):
        model.attach("plain", nn.Conv2d(32, 4, 1))
    with pytest.raises(ValueError, match="at least 1"):
        Projector(32, 0)
    with pytest.raises(ValueError, match="convs 0"):
        ConvStack(32, convs=0)


@pytest.mark.parametrize("head", [ConvStack(8, 6, 7, convs=1, dropout=0.25), ConvStack(8), Projector(8)])
def test_heads_can_be_built_again_from_their_config(head: nn.Module) -> None:
    arguments = dict(head.config())
    assert arguments.pop("_target_") == f"{type(head).__module__}.{type(head).__qualname__}"
    again = type(head)(**arguments)
    assert again.config() == head.config()
    assert str(again) == str(head)
    again.load_state_dict(head.state_dict())


@pytest.mark.parametrize(
    ("decoder", "aligned"),
    [(SMALL, True), (partial(SMALL, align_corners=False), False), (partial(SegFormer, channels=8), False)],
)
def test_the_decoder_says_how_logits_are_resized(decoder: Callable[..., nn.Module], aligned: bool) -> None:
    model = small(decoder=decoder).eval()
    with torch.inference_mode():
        coarse = model.classifier(model.features(images(33, 49)))
        expected = F.interpolate(coarse, (33, 49), mode="bilinear", align_corners=aligned)
        assert torch.equal(model(images(33, 49)), expected)


def test_dropout_of_the_pyramid_drops_channels_or_elements() -> None:
    kinds = {"channels": nn.Dropout2d, "elements": nn.Dropout}
    for drops, kind in kinds.items():
        assert type(small(decoder=partial(SMALL, aspp_drops=drops)).decoder.project[1]) is kind


def test_kaiming_initialization_draws_decoder_and_classifier() -> None:
    plain, drawn = small(decoder=SMALL), small(decoder=partial(SMALL, init="kaiming"))
    for model, gain in ((plain, 1 / 3), (drawn, 2)):
        for conv in (model.decoder.fuse[0][0], model.classifier):
            fan = conv.weight[0].numel()
            assert conv.weight.std().item() == pytest.approx((gain / fan) ** 0.5, rel=0.15)
