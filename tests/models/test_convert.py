"""Weights of other code bases: made-up files with the names and shapes of the real ones."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn

from semiseg.config.build import network_factory
from semiseg.contracts.dataset import DatasetInfo
from semiseg.errors import UserError
from semiseg.models import convert as module
from semiseg.models.bundle import bundle, from_bundle, segmentation_model
from semiseg.models.convert import convert, read_converted
from semiseg.models.deeplabv2 import DeepLabV2
from semiseg.models.deeplabv3plus import DeepLabV3Plus
from semiseg.models.deeplabv3plus_cac import DeepLabV3PlusCAC
from semiseg.models.deeplabv3plus_cps import DeepLabV3PlusCPS
from semiseg.models.pspnet import PSPNet
from semiseg.models.resnet import ResNet, pyramid
from semiseg.models.segmodel import InputConvention, SegModel
from semiseg.models.weights import misfits
from semiseg.models.xception import Xception

COCO = InputConvention("BGR", 1.0, (104.008, 116.669, 122.675), (1.0, 1.0, 1.0))
Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]


def conv(name: str, inputs: int, outputs: int, kernel: int = 1, bias: bool = False) -> Shapes:
    shapes = {f"{name}.weight": (outputs, inputs, kernel, kernel)}
    return shapes | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, channels: int) -> Shapes:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{each}": (channels,) for each in names} | {f"{name}.num_batches_tracked": ()}


def bottlenecks(*counts: int, deep: bool = False) -> Shapes:
    shapes: Shapes = {}
    if deep:
        for number, (inputs, outputs) in zip((0, 3, 6), ((3, 64), (64, 64), (64, 128)), strict=True):
            shapes |= conv(f"conv1.{number}", inputs, outputs, 3)
        shapes |= norm("conv1.1", 64) | norm("conv1.4", 64) | norm("bn1", 128)
    else:
        shapes |= conv("conv1", 3, 64, 7) | norm("bn1", 64)
    inputs = 128 if deep else 64
    for layer, (count, width) in enumerate(zip(counts, (64, 128, 256, 512), strict=True), 1):
        for block in range(count):
            place = f"layer{layer}.{block}"
            shapes |= conv(f"{place}.conv1", inputs, width) | norm(f"{place}.bn1", width)
            shapes |= conv(f"{place}.conv2", width, width, 3) | norm(f"{place}.bn2", width)
            shapes |= conv(f"{place}.conv3", width, 4 * width) | norm(f"{place}.bn3", 4 * width)
            if block == 0:
                shapes |= conv(f"{place}.downsample.0", inputs, 4 * width)
                shapes |= norm(f"{place}.downsample.1", 4 * width)
            inputs = 4 * width
    return shapes


def xception() -> Shapes:
    """The names of UniMatch's file."""

    def separable(name: str, inputs: int, outputs: int) -> Shapes:
        depthwise = {f"{name}.depthwise.weight": (inputs, 1, 3, 3)} | norm(f"{name}.bn1", inputs)
        return depthwise | conv(f"{name}.pointwise", inputs, outputs) | norm(f"{name}.bn2", outputs)

    shapes = conv("conv1", 3, 32, 3) | norm("bn1", 32) | conv("conv2", 32, 64, 3) | norm("bn2", 64)
    widths = [(64, 128, 128), (128, 256, 256), (256, 728, 728), *[(728, 728, 728)] * 16, (728, 728, 1024)]
    for number, (inputs, hidden, outputs) in enumerate(widths, 1):
        shapes |= separable(f"block{number}.sepconv1", inputs, hidden)
        shapes |= separable(f"block{number}.sepconv2", hidden, outputs)
        shapes |= separable(f"block{number}.sepconv3", outputs, outputs)
        if inputs != outputs:
            shapes |= conv(f"block{number}.skip", inputs, outputs) | norm(f"block{number}.skipbn", outputs)
    for number, (inputs, outputs) in enumerate(((1024, 1536), (1536, 1536), (1536, 2048)), 3):
        shapes |= separable(f"conv{number}", inputs, outputs)
    return shapes


def classifiers(name: str, high: int = 2048, classes: int = 21) -> Shapes:
    """The four dilated convs of DeepLabV2."""
    return {
        key: shape for i in range(4) for key, shape in conv(f"{name}.{i}", high, classes, 3, True).items()
    }


def stpp_v3plus_head(low: int = 256, high: int = 2048, channels: int = 256, reduced: int = 48) -> Shapes:
    shapes = conv("head.b0.0", high, channels) | norm("head.b0.1", channels)
    for number in (1, 2, 3):
        shapes |= conv(f"head.b{number}.0", high, channels, 3) | norm(f"head.b{number}.1", channels)
    shapes |= conv("head.b4.gap.1", high, channels) | norm("head.b4.gap.2", channels)
    shapes |= conv("head.project.0", 5 * channels, channels) | norm("head.project.1", channels)
    shapes |= conv("reduce.0", low, reduced) | norm("reduce.1", reduced)
    shapes |= conv("fuse.0", channels + reduced, channels, 3) | norm("fuse.1", channels)
    shapes |= conv("fuse.3", channels, channels, 3) | norm("fuse.4", channels)
    return shapes | conv("classifier", channels, 21, 1, True)


def stpp_psp_head(high: int = 2048) -> Shapes:
    shapes: Shapes = {}
    for number in range(1, 5):
        shapes |= conv(f"head.conv5.0.conv{number}.0", high, high // 4)
        shapes |= norm(f"head.conv5.0.conv{number}.1", high // 4)
    shapes |= conv("head.conv5.1", 2 * high, high // 4, 3) | norm("head.conv5.2", high // 4)
    return shapes | conv("head.conv5.5", high // 4, 21, 1, True)


def cps_head(low: int = 256, high: int = 2048, channels: int = 256, reduced: int = 48) -> Shapes:
    shapes: Shapes = {}
    for number in range(4):
        shapes |= conv(f"head.aspp.map_convs.{number}", high, channels, 3 if number else 1)
    shapes |= norm("head.aspp.map_bn", 4 * channels)
    shapes |= conv("head.aspp.global_pooling_conv", high, channels)
    shapes |= norm("head.aspp.global_pooling_bn", channels)
    shapes |= conv("head.aspp.red_conv", 4 * channels, channels)
    shapes |= conv("head.aspp.pool_red_conv", channels, channels) | norm("head.aspp.red_bn", channels)
    shapes |= conv("head.reduce.0", low, reduced) | norm("head.reduce.1", reduced)
    shapes |= conv("head.last_conv.0", channels + reduced, channels, 3) | norm("head.last_conv.1", channels)
    shapes |= conv("head.last_conv.3", channels, channels, 3) | norm("head.last_conv.4", channels)
    return shapes | conv("classifier", channels, 21, 1, True)


def cac_head(low: int = 256, high: int = 2048, channels: int = 256, reduced: int = 48) -> Shapes:
    shapes: Shapes = {}
    for number in range(1, 5):
        place = f"encoder.aspp.aspp{number}"
        shapes |= conv(f"{place}.atrous_conv", high, channels, 3 if number > 1 else 1)
        shapes |= norm(f"{place}.bn", channels)
    shapes |= conv("encoder.aspp.global_avg_pool.1", high, channels)
    shapes |= norm("encoder.aspp.global_avg_pool.2", channels)
    shapes |= conv("encoder.aspp.conv1", 5 * channels, channels) | norm("encoder.aspp.bn1", channels)
    shapes |= conv("encoder.decoder.conv1", low, reduced) | norm("encoder.decoder.bn1", reduced)
    last = "encoder.decoder.last_conv"
    shapes |= conv(f"{last}.0", channels + reduced, channels, 3) | norm(f"{last}.1", channels)
    shapes |= conv(f"{last}.4", channels, channels, 3) | norm(f"{last}.5", channels)
    shapes |= conv("project.0", channels, channels, 1, True) | conv("project.2", channels, 128, 1, True)
    return shapes | conv("classifier.1", channels, 21, 1, True)


def prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}{key}": shape for key, shape in shapes.items()}


def without_counters(shapes: Shapes) -> Shapes:
    return {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}


R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)
BRANCH = prefixed("backbone.", bottlenecks(*R50, deep=True)) | cps_head()
FILES: dict[str, tuple[Shapes, ResNet, Callable[..., Any] | None, InputConvention | None]] = {}
with torch.device("meta"):
    plain50, plain101, deep50 = ResNet(50), ResNet(101), ResNet(50, stem="deep")
FC = {"fc.weight": (1000, 2048), "fc.bias": (1000,)}
FILES |= {
    "ResNet of torchvision": (bottlenecks(*R50) | FC, plain50, None, InputConvention()),
    "ResNet v1c with a deep stem": (
        without_counters(bottlenecks(*R50, deep=True)) | FC,
        deep50,
        None,
        InputConvention(),
    ),
    "AdvSemiSeg (DeepLabV2 trained on COCO)": (
        without_counters(bottlenecks(*R101)) | classifiers("layer5.conv2d_list"),
        plain101,
        DeepLabV2,
        COCO,
    ),
    "DST-CBC or DMTC": (
        prefixed("backbone.", bottlenecks(*R101)) | classifiers("classifier.0.convs"),
        plain101,
        DeepLabV2,
        None,
    ),
    "ST++, UniMatch or CorrMatch with DeepLabV3+": (
        prefixed("backbone.", bottlenecks(*R50)) | stpp_v3plus_head(),
        plain50,
        DeepLabV3Plus,
        InputConvention(),
    ),
    "ST++ with PSPNet": (
        prefixed("backbone.", bottlenecks(*R50)) | stpp_psp_head(),
        plain50,
        PSPNet,
        InputConvention(),
    ),
    "ST++ with DeepLabV2": (
        prefixed("backbone.", bottlenecks(*R101)) | classifiers("classifier"),
        plain101,
        partial(DeepLabV2, branches=4),
        InputConvention(),
    ),
    "CPS": (
        prefixed("branch1.", BRANCH) | prefixed("branch2.", BRANCH),
        deep50,
        DeepLabV3PlusCPS,
        InputConvention(),
    ),
    "CAC": (
        prefixed("encoder.backbone.", bottlenecks(*R50)) | cac_head(),
        plain50,
        DeepLabV3PlusCAC,
        InputConvention(),
    ),
}
ENTRIES = {
    "AdvSemiSeg (DeepLabV2 trained on COCO)": 528,
    "DST-CBC or DMTC": 632,
    "ST++, UniMatch or CorrMatch with DeepLabV3+": 374,
    "ST++ with PSPNet": 350,
    "ST++ with DeepLabV2": 632,
}
"""As counted in the original networks."""


def empty(shapes: Shapes) -> State:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", FILES)
def test_names_and_shapes_of_the_originals(name: str, prefix: str) -> None:
    shapes, backbone, decoder, convention = FILES[name]
    assert len(shapes) == ENTRIES.get(name, len(shapes))
    found = convert(empty(prefixed(prefix, shapes)))
    assert found.format == name
    assert found.convention == convention
    assert misfits(backbone.state_dict(), found.backbone) == []
    if decoder is None:
        assert not found.decoder
        assert not found.classifier
        return
    with torch.device("meta"):
        model = segmentation_model(backbone, decoder, 21)
    assert misfits(model.decoder.state_dict(), found.decoder) == []
    assert misfits(model.classifier.state_dict(), found.classifier) == []
    kept = len(found.backbone) + len(found.decoder) + len(found.classifier)
    assert kept + sum(found.left_out.values()) == len(shapes)
    assert set(found.left_out) == {"CPS": {"branch2"}, "CAC": {"project"}}.get(name, set())


UNIMATCH: dict[str, tuple[Shapes, int]] = {
    "resnet50s": (bottlenecks(*R50, deep=True), 386),
    "resnet101s": (bottlenecks(*R101, deep=True), 692),
    "xception65": (xception(), 848),
}
CORRELATION = (
    conv("proj.0", 2048, 256, 3, True)
    | norm("proj.1", 256)
    | {key: shape for n in (1, 2) for key, shape in conv(f"corr.conv{n}", 256, 21, 1, True).items()}
)


@pytest.mark.parametrize("branch", [False, True], ids=["UniMatch", "CorrMatch"])
@pytest.mark.parametrize("name", UNIMATCH)
def test_checkpoints_of_unimatch_and_corrmatch(name: str, branch: bool) -> None:
    shapes, entries = UNIMATCH[name]
    shapes = prefixed("backbone.", shapes) | stpp_v3plus_head()
    assert len(shapes) == entries
    found = convert(empty(prefixed("module.", shapes | (CORRELATION if branch else {}))))
    assert found.convention == InputConvention()
    assert found.left_out == ({"proj": 7, "corr": 4} if branch else {})
    decoder = partial(DeepLabV3Plus, aspp_dropout=0.0, dropout=0.0)
    with torch.device("meta"):
        backbone = Xception() if name == "xception65" else ResNet(int(name[6:-1]), stem="deep")
        model = segmentation_model(backbone, decoder, 21)
    assert misfits(backbone.state_dict(), found.backbone) == []
    assert misfits(model.decoder.state_dict(), found.decoder) == []
    assert misfits(model.classifier.state_dict(), found.classifier) == []


def random(shapes: Shapes, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)

    def draw(key: str, shape: tuple[int, ...]) -> Tensor:
        if key.endswith("num_batches_tracked"):
            return torch.tensor(7)
        values = torch.rand(shape, dtype=torch.float64, generator=generator)
        return values + 0.5 if key.endswith("running_var") else values - 0.4

    return {key: draw(key, shape) for key, shape in shapes.items()}


class Named:
    """Layers of a state dict by name, in evaluation mode."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state

    def conv(self, name: str, x: Tensor, dilation: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        padding = dilation * (weight.shape[-1] // 2)
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), padding=padding, dilation=dilation)

    def norm(self, name: str, x: Tensor) -> Tensor:
        state = self.state
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])

    def block(self, conv: str, norm: str, x: Tensor, dilation: int = 1) -> Tensor:
        return self.norm(norm, self.conv(conv, x, dilation)).relu()


def resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)


RATES = (1, 2, 3, 4)


def stpp_v3plus(net: Named, low: Tensor, high: Tensor) -> Tensor:
    parts = [net.block(f"head.b{i}.0", f"head.b{i}.1", high, RATES[i - 1] if i else 1) for i in range(4)]
    pooled = net.block("head.b4.gap.1", "head.b4.gap.2", high.mean((2, 3), keepdim=True))
    joined = torch.cat([*parts, resized(pooled, high)], 1)
    context = resized(net.block("head.project.0", "head.project.1", joined), low)
    x = torch.cat([net.block("reduce.0", "reduce.1", low), context], 1)
    return net.conv("classifier", net.block("fuse.3", "fuse.4", net.block("fuse.0", "fuse.1", x)))


def stpp_psp(net: Named, low: Tensor, high: Tensor) -> Tensor:
    parts = [high]
    for number, side in enumerate((1, 2, 3, 6), 1):
        place = f"head.conv5.0.conv{number}"
        pooled = net.block(f"{place}.0", f"{place}.1", F.adaptive_avg_pool2d(high, side))
        parts.append(resized(pooled, high))
    x = net.block("head.conv5.1", "head.conv5.2", torch.cat(parts, 1))
    return net.conv("head.conv5.5", x)


def cps(net: Named, low: Tensor, high: Tensor) -> Tensor:
    leaky = partial(F.leaky_relu, negative_slope=0.01)
    maps = [net.conv(f"head.aspp.map_convs.{i}", high, RATES[i - 1] if i else 1) for i in range(4)]
    context = net.conv("head.aspp.red_conv", leaky(net.norm("head.aspp.map_bn", torch.cat(maps, 1))))
    pooled = net.conv("head.aspp.global_pooling_conv", high.mean((2, 3), keepdim=True))
    pooled = net.conv("head.aspp.pool_red_conv", leaky(net.norm("head.aspp.global_pooling_bn", pooled)))
    context = resized(leaky(net.norm("head.aspp.red_bn", context + pooled)), low)
    x = torch.cat([context, net.block("head.reduce.0", "head.reduce.1", low)], 1)
    last = "head.last_conv"
    x = net.block(f"{last}.3", f"{last}.4", net.block(f"{last}.0", f"{last}.1", x))
    return net.conv("classifier", x)


def cac(net: Named, low: Tensor, high: Tensor) -> Tensor:
    aspp, decoder = "encoder.aspp", "encoder.decoder"
    parts = [
        net.block(f"{aspp}.aspp{i}.atrous_conv", f"{aspp}.aspp{i}.bn", high, RATES[i - 2] if i > 1 else 1)
        for i in range(1, 5)
    ]
    pooled = net.block(
        f"{aspp}.global_avg_pool.1", f"{aspp}.global_avg_pool.2", high.mean((2, 3), keepdim=True)
    )
    joined = torch.cat([*parts, resized(pooled, high)], 1)
    context = resized(net.block(f"{aspp}.conv1", f"{aspp}.bn1", joined), low)
    x = torch.cat([context, net.block(f"{decoder}.conv1", f"{decoder}.bn1", low)], 1)
    last = f"{decoder}.last_conv"
    x = net.block(f"{last}.4", f"{last}.5", net.block(f"{last}.0", f"{last}.1", x))
    return net.conv("classifier.1", x)


def deeplabv2(name: str, branches: int, net: Named, low: Tensor, high: Tensor) -> Tensor:
    return sum((net.conv(f"{name}.{i}", high, RATES[i]) for i in range(branches)), torch.zeros(()))


SIZES = {"low": 6, "high": 16, "channels": 5, "reduced": 4}
SMALL = {"channels": 5, "low_channels": 4, "rates": RATES[:3]}
HEADS: dict[str, tuple[Shapes, Callable[..., Tensor], Callable[..., Any]]] = {
    "st++ v3+": (stpp_v3plus_head(**SIZES), stpp_v3plus, partial(DeepLabV3Plus, **SMALL)),
    "st++ psp": (stpp_psp_head(16), stpp_psp, partial(PSPNet, pool_channels=4, channels=4)),
    "st++ v2": (
        classifiers("classifier", 16),
        partial(deeplabv2, "classifier", 4),
        partial(DeepLabV2, rates=RATES, branches=4),
    ),
    "dst-cbc": (
        classifiers("classifier.0.convs", 16),
        partial(deeplabv2, "classifier.0.convs", 2),
        partial(DeepLabV2, rates=RATES, branches=2),
    ),
    "advsemiseg": (
        classifiers("layer5.conv2d_list", 16),
        partial(deeplabv2, "layer5.conv2d_list", 4),
        partial(DeepLabV2, rates=RATES, branches=4),
    ),
    "cps": (cps_head(**SIZES), cps, partial(DeepLabV3PlusCPS, **SMALL)),
    "cac": (cac_head(**SIZES), cac, partial(DeepLabV3PlusCAC, **SMALL)),
}


@pytest.mark.parametrize("name", HEADS)
def test_every_layer_of_a_head_gets_its_place(name: str) -> None:
    shapes, reference, make = HEADS[name]
    state = random(shapes)
    found = convert(state | ({"backbone.conv1.weight": torch.zeros(1)} if name.startswith("st++") else {}))
    decoder = make(pyramid((6, 9, 12, 16), 8))
    head = nn.ModuleDict({"decoder": decoder, "classifier": decoder.make_classifier(21)}).double().eval()
    assert misfits(decoder.state_dict(), found.decoder) == []
    decoder.load_state_dict(found.decoder)
    head["classifier"].load_state_dict(found.classifier)
    generator = torch.Generator().manual_seed(1)
    low, high = (
        torch.randn(2, c, *size, dtype=torch.float64, generator=generator)
        for c, size in ((6, (13, 15)), (16, (7, 8)))
    )
    with torch.no_grad():
        observed = head["classifier"](decoder([low, low, high, high]))
        torch.testing.assert_close(observed, reference(Named(state), low, high), rtol=1e-10, atol=1e-10)


def test_either_branch_of_cps() -> None:
    shapes = cps_head(**SIZES)
    state = {f"branch{n}.{key}": value for n in (1, 2) for key, value in random(shapes, n).items()}
    one, two = (convert(state, branch=branch) for branch in (1, 2))
    assert torch.equal(one.classifier["bias"], state["branch1.classifier.bias"])
    assert torch.equal(two.classifier["bias"], state["branch2.classifier.bias"])
    assert one.left_out == {"branch2": len(shapes)}


def test_unknown_entries_of_a_known_format_are_named_and_counted() -> None:
    state = empty(stpp_v3plus_head()) | {f"extra.{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(UserError, match=r"DeepLabV3\+, but 9 of .* extra\.0, extra\.1, extra\.2 and 6 more"):
        convert(state)


def test_unknown_names_list_what_is_known(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(1)}, tmp_path / "file.pth")
    with pytest.raises(UserError, match=r"file\.pth(?s:.*)encoder\.weight(?s:.*)ST\+\+ with PSPNet"):
        read_converted(tmp_path / "file.pth")


class TestLoading:
    """ResNet-18 stands in for the large ones: formats do not depend on the depth."""

    @pytest.fixture(autouse=True)
    def fresh(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        monkeypatch.setattr(module, "_logged", set())

    def backbone(self) -> State:
        torch.manual_seed(3)
        return dict(ResNet(18).state_dict())

    def coco(self, folder: Path) -> State:
        state = self.backbone() | {
            key: value.float() for key, value in random(classifiers("layer5.conv2d_list", 512)).items()
        }
        path = folder / "checkpoints" / "resnet101COCO-41f33a49.pth"
        path.parent.mkdir()
        torch.save(state, path)
        return state

    def model(self, classes: int = 21, decoder: Any = DeepLabV2, **options: Any) -> SegModel:
        torch.manual_seed(5)
        return segmentation_model(ResNet(18, output_stride=8, **options), decoder, classes)

    def test_coco_brings_its_classifier_and_its_input(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        state = self.coco(tmp_path)
        with caplog.at_level(logging.INFO):
            model, twin = self.model(weights="coco"), self.model(weights="coco")
        for key, value in model.classifier.state_dict().items():
            assert torch.equal(value, state[f"layer5.conv2d_list.{key.removeprefix('convs.')}"])
        assert torch.equal(model.backbone.conv1.weight, state["conv1.weight"])
        assert model.convention == twin.convention == COCO
        (line,) = caplog.messages
        assert "backbone loaded (120 entries); classifier loaded (8 entries)." in line
        assert "\n" not in line

    def test_the_normalized_input_is_caffes(self, tmp_path: Path) -> None:
        self.coco(tmp_path)
        pixel = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
        expected = torch.tensor([30 - 104.008, 20 - 116.669, 10 - 122.675]).view(1, 3, 1, 1)
        torch.testing.assert_close(self.model(weights="coco").normalize(pixel), expected)

    def test_coco_for_other_classes_leaves_the_classifier(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.coco(tmp_path)
        fresh = self.model(19)
        with caplog.at_level(logging.INFO):
            model = self.model(19, weights="coco")
        assert model.convention == COCO
        for key, value in model.classifier.state_dict().items():
            assert torch.equal(value, fresh.classifier.state_dict()[key])
        assert (
            "classifier keeps its first weights (8 entries have another shape: convs.0.weight" in caplog.text
        )

    def test_coco_below_another_decoder(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        state = self.coco(tmp_path)
        with caplog.at_level(logging.INFO):
            model = self.model(decoder=DeepLabV3Plus, weights="coco")
        assert torch.equal(model.backbone.conv1.weight, state["conv1.weight"])
        assert "decoder keeps its first weights (the file has none); classifier keeps" in caplog.text

    def test_stpp_feeds_coco_weights_with_imagenet_input(self, tmp_path: Path) -> None:
        self.coco(tmp_path)
        model = self.model(weights="coco", convention="imagenet")
        assert model.convention == InputConvention()

    def test_coco_convention_travels_with_the_network(self, tmp_path: Path) -> None:
        self.coco(tmp_path)
        model = self.model(weights="coco").eval()
        target = "semiseg.models"
        config = {
            "backbone": {
                "_target_": f"{target}.resnet.ResNet",
                "depth": 18,
                "output_stride": 8,
                "weights": "coco",
            },
            "model": {"_target_": f"{target}.deeplabv2.DeepLabV2"},
        }
        info = DatasetInfo("voc", tuple(map(str, range(21))), ((0, 0, 0),) * 21)
        values = bundle(model, info, config)
        (tmp_path / "checkpoints" / "resnet101COCO-41f33a49.pth").unlink()
        again = from_bundle(values)
        assert again.convention == COCO
        images = torch.randint(0, 256, (1, 3, 33, 33), dtype=torch.uint8)
        with torch.inference_mode():
            assert torch.equal(again(images), model(images))
        torch.save(values, tmp_path / "best.pt")
        started = self.model(weights=str(tmp_path / "best.pt")).eval()
        assert started.convention == COCO
        with torch.inference_mode():
            assert torch.equal(started(images), model(images))

    def test_the_factory_of_a_run_takes_coco(self, tmp_path: Path) -> None:
        self.coco(tmp_path)
        cfg = OmegaConf.create(
            {
                "backbone": {
                    "_target_": "semiseg.models.resnet.ResNet",
                    "name": "r",
                    "depth": 18,
                    "weights": "none",
                },
                "model": {"_target_": "semiseg.models.deeplabv2.DeepLabV2", "name": "deeplabv2"},
            }
        )
        info = DatasetInfo("voc", tuple(map(str, range(21))), ((0, 0, 0),) * 21)
        factory = network_factory(cfg, info)
        assert factory().convention == InputConvention()
        assert factory("coco").convention == COCO

    def test_without_the_coco_file_its_place_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UserError) as caught:
            self.model(weights="coco")
        assert str(tmp_path / "checkpoints" / "resnet101COCO-41f33a49.pth") in str(caught.value)
        assert "nothing is fetched" in str(caught.value)

    def test_coco_for_another_backbone(self, tmp_path: Path) -> None:
        self.coco(tmp_path)
        with pytest.raises(UserError, match=r"looks like ResNet-18.*AdvSemiSeg(?s:.*)does not fit ResNet-34"):
            ResNet(34, weights="coco")

    def dmt(self, folder: Path) -> Path:
        state = {f"module.backbone.{key}": value for key, value in self.backbone().items()}
        state |= {
            f"module.{key}": value for key, value in random(classifiers("classifier.0.convs", 512)).items()
        }
        state["module.rep.representation.0.weight"] = torch.zeros(1)
        torch.save({"model": state, "optimizer": None, "lr_scheduler": None}, folder / "dmt.pt")
        return folder / "dmt.pt"

    def test_a_checkpoint_of_dmt_needs_its_input_named(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = str(self.dmt(tmp_path))
        with pytest.raises(UserError, match=r"does not say(?s:.*)backbone\.convention=coco"):
            self.model(weights=path)
        with caplog.at_level(logging.INFO):
            assert self.model(weights=path, convention="coco").convention == COCO
        assert "classifier loaded (8 entries); not used: rep (1 entries)." in caplog.text

    def test_whole_networks_are_compared_on_the_meta_device(self, tmp_path: Path) -> None:
        path = str(self.dmt(tmp_path))
        with torch.device("meta"):
            model = self.model(weights=path, convention="coco")
            assert model.classifier.convs[0].weight.is_meta
            with pytest.raises(UserError, match="does not fit ResNet-50"):
                ResNet(50, weights=path, convention="coco")

    def test_a_published_resnet_leaves_decoder_and_classifier(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        torch.save(self.backbone() | {"fc.weight": torch.zeros(1000, 512)}, tmp_path / "file.pth")
        with caplog.at_level(logging.INFO):
            self.model(weights=str(tmp_path / "file.pth"))
        assert (
            "classifier keeps its first weights (the file has none); not used: fc (1 entries)." in caplog.text
        )

    def unimatch(self, folder: Path) -> Path:
        """What UniMatch stores, with ResNet-18 as backbone."""
        torch.manual_seed(3)
        state = {
            f"module.backbone.{key}": value for key, value in ResNet(18, stem="deep").state_dict().items()
        }
        head = random(prefixed("module.", stpp_v3plus_head(64, 512, 8, 4)))
        state |= {key: value.float() if value.ndim else value for key, value in head.items()}
        values = {"model": state, "optimizer": {"state": {}}, "epoch": 3, "previous_best": 71.2}
        torch.save(values, folder / "latest.pth")
        return folder / "latest.pth"

    def test_a_checkpoint_of_unimatch(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = str(self.unimatch(tmp_path))
        decoder = partial(DeepLabV3Plus, channels=8, low_channels=4, aspp_dropout=0.0, dropout=0.0)
        with caplog.at_level(logging.INFO):
            model = self.model(decoder=decoder, stem="deep", weights=path)
        state = torch.load(path)["model"]
        assert torch.equal(model.backbone.conv1[6].weight, state["module.backbone.conv1.6.weight"])
        assert torch.equal(model.decoder.fuse[1][0].weight, state["module.fuse.3.weight"])
        assert torch.equal(model.classifier.bias, state["module.classifier.bias"])
        assert "decoder loaded (54 entries); classifier loaded (2 entries)." in caplog.text
        with pytest.raises(
            UserError, match=r"does not fit ResNet-18 with a plain stem(?s:.*)stem=plain\|deep"
        ):
            self.model(decoder=decoder, weights=path)

    def test_unknown_conventions_are_refused(self) -> None:
        with torch.device("meta"), pytest.raises(UserError, match="imagenet, coco or null"):
            ResNet(18, convention="caffe")  # type: ignore[arg-type]
