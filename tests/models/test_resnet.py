from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from semiseg.errors import UserError
from semiseg.models.resnet import ResNet
from semiseg.models.tiny import Tiny

DEPTHS = (18, 34, 50, 101)


def dilations(layer: nn.Sequential) -> list[list[int]]:
    return [
        [
            conv.dilation[0]
            for conv in block.children()
            if isinstance(conv, nn.Conv2d) and conv.kernel_size[0] == 3
        ]
        for block in layer
    ]


@pytest.mark.parametrize("depth", DEPTHS)
def test_state_dict_is_torchvisions(depth: int) -> None:
    with torch.device("meta"):
        own = ResNet(depth).state_dict()
        theirs = torchvision.models.get_model(f"resnet{depth}").state_dict()
    expected = {key: value.shape for key, value in theirs.items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in own.items()} == expected


@pytest.mark.parametrize("depth", [18, 50])
def test_features_are_torchvisions_at_stride_32(depth: int) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(f"resnet{depth}", weights=None).eval()
    own = ResNet(depth, output_stride=32).eval()
    own.load_state_dict(
        {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    )
    x = torch.randn(1, 3, 33, 49)
    with torch.inference_mode():
        expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for number, observed in enumerate(own(x), 1):
            expected = getattr(theirs, f"layer{number}")(expected)
            assert torch.equal(observed, expected)


@pytest.mark.parametrize("backbone", [18, 50, "tiny"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilation_computes_the_same_features_on_a_denser_grid(
    backbone: int | str, output_stride: int
) -> None:
    def make(stride: int) -> nn.Module:
        made = (
            Tiny(output_stride=stride) if backbone == "tiny" else ResNet(int(backbone), output_stride=stride)
        )
        return made.double().eval()

    torch.manual_seed(0)
    coarse, dense = make(32), make(output_stride)
    dense.load_state_dict(coarse.state_dict())
    x = torch.randn(1, 3, 33, 49, dtype=torch.float64)
    with torch.inference_mode():
        expected, observed = coarse(x)[-1], dense(x)[-1]
    step = 32 // output_stride
    assert torch.allclose(observed[..., ::step, ::step], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("depth", "output_stride", "multi_grid", "third", "fourth"),
    [
        (50, 8, None, [[1]] + [[2]] * 5, [[2], [4], [4]]),
        (50, 16, None, [[1]] * 6, [[1], [2], [2]]),
        (50, 32, None, [[1]] * 6, [[1]] * 3),
        (50, 16, (1, 2, 4), [[1]] * 6, [[2], [4], [8]]),
        (50, 8, (1, 2, 4), [[1]] + [[2]] * 5, [[4], [8], [16]]),
        (18, 8, None, [[1, 2], [2, 2]], [[2, 4], [4, 4]]),
        (18, 16, (1, 2), [[1, 1], [1, 1]], [[2, 2], [4, 4]]),
    ],
)
def test_dilations(
    depth: int,
    output_stride: int,
    multi_grid: Sequence[int] | None,
    third: list[list[int]],
    fourth: list[list[int]],
) -> None:
    with torch.device("meta"):
        backbone = ResNet(depth, output_stride=output_stride, multi_grid=multi_grid)
    assert dilations(backbone.layer3) == third
    assert dilations(backbone.layer4) == fourth


def test_first_blocks_may_be_dilated_like_the_others() -> None:
    with torch.device("meta"):
        backbone = ResNet(50, output_stride=8, dilate_first=True)
        coarse = ResNet(50, output_stride=32, dilate_first=True)
    assert dilations(backbone.layer3) == [[2]] * 6
    assert dilations(backbone.layer4) == [[4]] * 3
    assert dilations(backbone.layer2) == [[1]] * 4
    assert dilations(coarse.layer4) == [[1]] * 3


def test_the_stride_may_be_in_the_first_conv() -> None:
    with torch.device("meta"):
        plain, caffe = ResNet(50, output_stride=32), ResNet(50, output_stride=32, stride_in="1x1")
    for number, stride in ((1, 1), (2, 2), (3, 2), (4, 2)):
        first, usual = caffe.get_submodule(f"layer{number}.0"), plain.get_submodule(f"layer{number}.0")
        assert (first.conv1.stride[0], first.conv2.stride[0]) == (stride, 1)
        assert (usual.conv1.stride[0], usual.conv2.stride[0]) == (1, stride)
        assert first.downsample[0].stride[0] == stride
    assert {each.stride for each in caffe.layer2[1].children() if isinstance(each, nn.Conv2d)} == {(1, 1)}
    assert caffe.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("backbone", [{}, {"stem": "deep"}])
@pytest.mark.parametrize(
    ("side", "down", "up"),
    [
        (321, 81, 81),
        (513, 129, 129),
        (769, 193, 193),
        (801, 201, 201),
        (320, 80, 81),
        (800, 200, 201),
        (322, 81, 81),
    ],
)
def test_rounding_up_in_the_pooling(backbone: dict[str, str], side: int, down: int, up: int) -> None:
    with torch.device("meta"):
        for ceil_pool, expected in ((False, down), (True, up)):
            made = ResNet(18, ceil_pool=ceil_pool, **backbone)
            assert made(torch.empty(1, 3, side, side))[0].shape[-1] == expected


@pytest.mark.parametrize("depth", [18, 50])
def test_blocks_may_begin_as_identities(depth: int) -> None:
    torch.manual_seed(0)
    plain = ResNet(depth)
    torch.manual_seed(0)
    backbone = ResNet(depth, zero_init=True)
    last = "bn3" if depth == 50 else "bn2"
    for name, value in backbone.state_dict().items():
        if name.endswith(f".{last}.weight"):
            assert value.eq(0).all()
        else:
            assert torch.equal(value, plain.state_dict()[name])
    x = torch.rand(1, backbone.stages[1].channels, 5, 5)
    assert torch.equal(backbone.eval().layer2[1](x), x)


def test_deep_stem() -> None:
    with torch.device("meta"):
        backbone = ResNet(50, stem="deep")
    keys = [
        key for key in backbone.state_dict() if key.startswith(("conv1", "bn1")) and key.endswith("weight")
    ]
    assert keys == [f"conv1.{number}.weight" for number in (0, 1, 3, 4, 6)] + ["bn1.weight"]
    shapes = [tuple(backbone.state_dict()[f"conv1.{number}.weight"].shape[:2]) for number in (0, 3, 6)]
    assert shapes == [(64, 3), (64, 64), (128, 64)]
    assert backbone.layer1[0].conv1.in_channels == 128


class TestDeepImageNetWeights:
    """timm publishes those of resnet50s and resnet101s, in the same names."""

    def test_they_come_from_timms_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        timm = pytest.importorskip("timm")
        asked = []

        def fetch(repository: str, file: str) -> str:
            asked.append((repository, file))
            torch.save(timm.create_model("resnet50s").state_dict(), tmp_path / "file")
            return str(tmp_path / "file")

        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
        backbone = ResNet(50, stem="deep", weights="imagenet")
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(tmp_path / "file"))
        again = ResNet(50, stem="deep", weights="imagenet")
        assert torch.equal(again.conv1[0].weight, backbone.conv1[0].weight)
        assert asked == [("timm/resnet50s.gluon_in1k", "model.safetensors")]
        state = torch.load(tmp_path / "file")
        assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())

    def test_they_compute_what_timms_network_computes(self) -> None:
        timm = pytest.importorskip("timm")
        torch.manual_seed(0)
        theirs = timm.create_model("resnet50s", features_only=True, output_stride=16).double().eval()
        own = ResNet(50, stem="deep").double().eval()
        own.load_state_dict(theirs.state_dict())
        x = torch.randn(1, 3, 65, 81, dtype=torch.float64)
        with torch.inference_mode():
            for expected, observed in zip(theirs(x)[1:], own(x), strict=True):
                assert torch.allclose(observed, expected, rtol=1e-9, atol=1e-12)

    def test_without_a_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("timm")

        def offline(*_: object) -> str:
            raise OSError("no network")

        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
        with pytest.raises(
            UserError, match=r"resnet101s \(timm/resnet101s.*no network.*backbone\.weights=PATH"
        ):
            ResNet(101, stem="deep", weights="imagenet")


def test_initialization() -> None:
    torch.manual_seed(0)
    backbone = ResNet(18)
    weight = backbone.layer4[1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert backbone.layer4[1].bn2.weight.eq(1).all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"depth": 20}, "18, 34, 50, 101"),
        ({"depth": 50, "output_stride": 4}, "8, 16, 32"),
        ({"depth": 50, "stem": "deeep"}, "plain, deep"),
        ({"depth": 18, "multi_grid": (1, 2, 4)}, "2 blocks"),
        ({"depth": 50, "multi_grid": (1, 0, 4)}, "at least 1"),
        ({"depth": 18, "stem": "deep", "weights": "imagenet"}, "backbone.stem=plain"),
        ({"depth": 50, "stride_in": "2x2"}, "3x3, 1x1"),
        ({"depth": 34, "stride_in": "1x1"}, "depth 50 or 101"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], named: str) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=named):
        ResNet(**arguments)


@pytest.mark.parametrize(
    ("arguments", "named"), [({"output_stride": 4}, "8, 16, 32"), ({"width": 0}, "at least 1")]
)
def test_bad_arguments_of_tiny(arguments: dict[str, int], named: str) -> None:
    with pytest.raises(UserError, match=named):
        Tiny(**arguments)


def test_size_of_tiny() -> None:
    assert 100_000 < sum(p.numel() for p in Tiny().parameters()) < 300_000
