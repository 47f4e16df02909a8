import builtins
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from semiseg.errors import UserError
from semiseg.models.bundle import segmentation_model
from semiseg.models.deeplabv3plus import DeepLabV3Plus
from semiseg.models.pspnet import PSPNet
from semiseg.models.segformer import SegFormer
from semiseg.models.timm_backbone import Timm

timm = pytest.importorskip("timm")

SMALL = partial(DeepLabV3Plus, channels=32, low_channels=16, rates=(1, 2))


@pytest.mark.parametrize(
    ("name", "output_stride"),
    [("tf_efficientnet_lite0", 8), ("mobilenetv3_small_050", 16), ("resnet10t", 32), ("convnext_atto", 16)],
)
def test_shapes(name: str, output_stride: int) -> None:
    with torch.device("meta"):
        model = segmentation_model(Timm(name, output_stride=output_stride), SMALL, 3)
        batch = torch.empty(2, 3, 64, 96, dtype=torch.uint8)
        maps = model.backbone(model.normalize(batch))
        assert tuple(m.shape[1] for m in maps) == tuple(stage.channels for stage in model.backbone.stages)
        assert maps[0].shape[-2:] == (16, 24)
        assert maps[-1].shape[-2:] == (64 // output_stride, 96 // output_stride)
        assert model(batch).shape == (2, 3, 64, 96)


def test_maps_with_channels_last_are_turned() -> None:
    with torch.device("meta"):
        backbone = Timm("swin_tiny_patch4_window7_224", output_stride=32)
        maps = backbone(torch.empty(1, 3, 224, 224))
        assert [m.shape[1] for m in maps] == [stage.channels for stage in backbone.stages]


@pytest.mark.parametrize(("name", "patch"), [("vit_tiny_patch16_224", 16), ("vit_small_patch14_dinov2", 14)])
def test_a_plain_transformer_takes_multiples_of_its_patches(name: str, patch: int) -> None:
    with torch.device("meta"):
        backbone = Timm(name, output_stride=patch)
        assert [stage.stride for stage in backbone.stages] == [patch] * 4
        assert backbone.size_multiple == patch
        maps = backbone(torch.empty(1, 3, 3 * patch, 5 * patch))
        assert {tuple(m.shape) for m in maps} == {(1, backbone.stages[0].channels, 3, 5)}
        with pytest.raises(UserError, match=f"have {patch}, {patch}, {patch}, {patch}"):
            segmentation_model(backbone, SMALL, 3)
        model = segmentation_model(backbone, partial(PSPNet, pool_channels=8, channels=16), 3)
        batch = torch.empty(2, 3, 3 * patch, 5 * patch, dtype=torch.uint8)
        assert model(batch).shape == (2, 3, 3 * patch, 5 * patch)


SWIN = ("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256")


@pytest.mark.parametrize("decoder", [SMALL, partial(SegFormer, channels=32)], ids=["v3+", "segformer"])
@pytest.mark.parametrize(
    ("name", "output_stride"),
    [("convnext_atto", 32), ("convnext_atto", 16), ("convnextv2_atto", 32), *((name, 32) for name in SWIN)],
)
def test_hierarchical_networks(name: str, output_stride: int, decoder: Any) -> None:
    with torch.device("meta"):
        model = segmentation_model(Timm(name, output_stride=output_stride), decoder, 3)
        assert model.backbone.stages[0].stride == 4
        for size in ((64, 96), (100, 132)):
            assert model(torch.empty(2, 3, *size, dtype=torch.uint8)).shape == (2, 3, *size)


@pytest.mark.parametrize("name", SWIN)
def test_a_swin_transformer_takes_multiples_of_its_patches(name: str) -> None:
    with torch.device("meta"):
        backbone = Timm(name, output_stride=32)
        assert backbone.size_multiple == 4
        maps = backbone(torch.empty(1, 3, 100, 132))
    assert [tuple(each.shape[-2:]) for each in maps] == [(25, 33), (13, 17), (7, 9), (4, 5)]


def test_a_swin_transformer_computes_what_timms_does_at_its_own_size() -> None:
    torch.manual_seed(0)
    whole = timm.create_model(SWIN[0], features_only=True).eval()
    backbone = Timm(SWIN[0], output_stride=32).eval()
    backbone.net.load_state_dict(whole.state_dict())
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        for observed, expected in zip(backbone(x), whole(x), strict=True):
            assert torch.equal(observed, expected.permute(0, 3, 1, 2))


def test_a_swin_transformer_learns_from_images_of_another_size() -> None:
    torch.manual_seed(0)
    model = segmentation_model(Timm(SWIN[0], output_stride=32), partial(SegFormer, channels=16), 3).train()
    logits = model(torch.randint(0, 256, (2, 3, 36, 68), dtype=torch.uint8))
    (logits * torch.randn_like(logits)).sum().backward()
    # Blocks that are skipped at random have gradients of zero.
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert model.backbone.net.patch_embed.proj.weight.grad.abs().sum() > 0


def test_odd_size_and_gradient() -> None:
    model = segmentation_model(Timm("tf_efficientnet_lite0"), SMALL, 3).train()
    logits = model(torch.randint(0, 256, (2, 3, 65, 81), dtype=torch.uint8))
    assert logits.shape == (2, 3, 65, 81)
    (logits * torch.randn_like(logits)).sum().backward()
    assert [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ] == []


def test_convention_is_what_timm_says() -> None:
    with torch.device("meta"):
        lite, mobile = Timm("tf_efficientnet_lite0"), Timm("mobilenetv3_small_050")
    assert (lite.convention.scale, lite.convention.mean, lite.convention.std) == (
        255.0,
        (0.5,) * 3,
        (0.5,) * 3,
    )
    assert mobile.convention.mean == (0.485, 0.456, 0.406)


class TestPretrainedEfficientNet:
    @pytest.fixture
    def weights(self, shared_data: Callable[[str], Path]) -> str:
        return str(shared_data("weights/tf_efficientnet_lite0.safetensors"))

    def test_features_are_timms(self, weights: str) -> None:
        whole = timm.create_model("tf_efficientnet_lite0", checkpoint_path=weights).eval()
        backbone = Timm("tf_efficientnet_lite0", output_stride=32, weights=weights).eval()
        x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = whole.forward_intermediates(x, indices=[1, 2, 3, 4], intermediates_only=True)
            for observed, value in zip(backbone(x), expected, strict=True):
                assert torch.allclose(observed, value, atol=1e-5)

    def test_another_network_is_refused(self, weights: str) -> None:
        with torch.device("meta"), pytest.raises(UserError, match=r"does not fit timm's resnet10t"):
            Timm("resnet10t", weights=weights)


def test_file_without_its_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = timm.create_model("resnet10t")
    state = {key: value for key, value in whole.state_dict().items() if not key.startswith("fc.")}
    torch.save(state, tmp_path / "file.pth")
    backbone = Timm("resnet10t", weights=str(tmp_path / "file.pth"))
    assert all(torch.equal(value, state[key]) for key, value in backbone.net.state_dict().items())


def test_file_with_a_missing_layer_is_refused(tmp_path: Path) -> None:
    state = timm.create_model("resnet10t").state_dict()
    del state["layer3.0.conv1.weight"]
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(
        UserError, match=r"1 entries of the network are not in the file: layer3\.0\.conv1\.weight"
    ):
        Timm("resnet10t", weights=str(tmp_path / "file.pth"))


def test_offline_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(*arguments: Any, pretrained: bool = False, **options: Any) -> Any:
        if pretrained:
            raise OSError("no network")
        return create(*arguments, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"resnet10t \(timm/resnet10t.*backbone\.weights=PATH"):
        Timm("resnet10t", weights="pretrained")


@pytest.mark.parametrize(
    ("name", "output_stride", "named"),
    [
        ("tf_efficientnet_lite9", 16, "Did you mean tf_efficientnet_lite"),
        ("swin_tiny_patch4_window7_224", 16, "output_stride=32"),
        ("vit_tiny_patch16_224", 32, "strides 16, 16, 16, 16"),
        ("levit_128", 16, r"timm gives no four feature maps of it \(.* backbone=vit is for plain"),
    ],
)
def test_unsuitable_networks(name: str, output_stride: int, named: str) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=named):
        Timm(name, output_stride=output_stride)


@pytest.mark.parametrize(
    ("name", "output_stride", "size"),
    [
        ("maxvit_nano_rw_256", 32, (96, 96)),
        ("efficientformer_l1", 32, (96, 128)),
        ("beit_base_patch16_224", 16, (96, 96)),
    ],
)
def test_networks_for_one_size_are_refused_others(
    name: str, output_stride: int, size: tuple[int, int]
) -> None:
    with torch.device("meta"):
        backbone = Timm(name, output_stride=output_stride)
    with pytest.raises(
        UserError, match=rf"^trainer.crop_size=.*{name} cannot take images of {size[0]}x{size[1]}"
    ):
        backbone.require_size("trainer.crop_size", size)
    side = timm.get_pretrained_cfg(name).input_size[-1]
    backbone.require_size("trainer.crop_size", (side, side))


def test_any_size_is_taken() -> None:
    backbone = Timm("resnet10t")
    backbone.require_size("trainer.crop_size", (64, 97))
    assert not any(value.is_meta for value in backbone.parameters())


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "timm":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r'pip install "semiseg\[timm\]"'):
        Timm("resnet10t")
