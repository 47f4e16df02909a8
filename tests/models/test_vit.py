"""Plain vision transformers against timm, and the decoders that read them."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semiseg.contracts.dataset import DatasetInfo
from semiseg.engine.optim import AdamW
from semiseg.errors import UserError
from semiseg.models.bundle import bundle, from_bundle, segmentation_model
from semiseg.models.deeplabv3plus import DeepLabV3Plus
from semiseg.models.dpt import DPT
from semiseg.models.linear import Linear
from semiseg.models.positions import PositionResize, _by_products, resized_positions
from semiseg.models.segmodel import SegModel
from semiseg.models.timm_backbone import Timm
from semiseg.models.tiny import Tiny
from semiseg.models.tuning import Tuning
from semiseg.models.vit import ViT, usual_levels
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.inference import predict

timm = pytest.importorskip("timm")

SMALL = {"embed_dim": 64, "depth": 4, "num_heads": 4}
KINDS = {
    "vit_small_patch14_dinov2": "class token, layer scale",
    "vit_small_patch14_reg4_dinov2": "registers",
    "vit_small_patch16_dinov3": "rotary positions, registers",
    "vit_base_patch16_clip_224.openai": "a norm before the blocks",
    "vit_base_patch16_224.mae": "masked autoencoder",
    "vit_base_patch16_siglip_224": "no class token, attention pooling",
    "vit_medium_patch16_reg4_gap_256": "no class token, registers",
    "deit_base_distilled_patch16_224": "a second class token",
    "eva02_base_patch14_448": "table and rotary positions, norm behind the mean",
    "vit_base_patch16_rope_mixed_224": "learned rotations of each block",
}
INFO = DatasetInfo("toy", ("sky", "road", "car"), ((0, 0, 255), (128, 128, 128), (255, 0, 0)))


def images(*size: int) -> Tensor:
    return torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def drawn(module: Any) -> Any:
    """Weights of a size that makes attention and layer scales matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module


def small(network: str = "vit_small_patch14_dinov2", **options: Any) -> ViT:
    backbone: ViT = drawn(ViT(network, **SMALL, **{"image_size": 70, **options}))
    return backbone


def model(decoder: Any = DPT, **options: Any) -> SegModel:
    return segmentation_model(small(**options), decoder, 3)


@pytest.mark.parametrize("name", KINDS)
def test_maps_are_those_of_timm(name: str) -> None:
    rule = "antialiased" if name == "vit_small_patch14_dinov2" else None
    backbone = drawn(ViT(name, position_resize=rule, **SMALL)).eval()
    whole = timm.create_model(name, num_classes=0, dynamic_img_size=True, **SMALL).eval()
    state = {key.removeprefix("net."): value for key, value in backbone.state_dict().items()}
    assert {key.split(".")[0] for key in whole.load_state_dict(state, strict=False).missing_keys} <= {
        "attn_pool"
    }
    if isinstance(whole.norm, nn.Identity):
        whole.norm = whole.fc_norm
    patch = backbone.size_multiple
    x = torch.randn(2, 3, 3 * patch, 5 * patch)
    with torch.inference_mode():
        expected = whole.forward_intermediates(
            x, indices=list(backbone.levels), norm=True, intermediates_only=True
        )
        found = backbone(x)
    assert len(found) == 4
    for one, other, stage in zip(found, expected, backbone.stages, strict=True):
        assert one.shape == (2, stage.channels, 3, 5)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_every_parameter_is_trained_and_has_a_part(name: str) -> None:
    backbone = drawn(ViT(name, **SMALL)).train()
    side = 2 * backbone.size_multiple
    sum(each.square().mean() for each in backbone(torch.randn(1, 3, side, 3 * side // 2))).backward()
    assert [key for key, value in backbone.named_parameters() if value.grad is None] == []
    parts = backbone.part_modules()
    assert list(parts) == ["embed", "block_1", "block_2", "block_3", "block_4"]
    listed = [value for modules in parts.values() for module in modules for value in module.parameters()]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(backbone.parameters())


def test_parts_of_the_network() -> None:
    network = model()
    names = [part.name for part in network.parts()]
    blocks = [f"backbone.block_{number}" for number in range(1, 5)]
    assert names == ["backbone.embed", *blocks, "decoder", "classifier"]
    listed = [value for part in network.parts() for value in part.parameters]
    assert [id(each) for each in listed] == [id(each) for each in network.parameters()]
    groups = AdamW(lr=1e-3).groups(network)
    assert sum(len(group["params"]) for group in groups) == len(listed)


@pytest.mark.parametrize("rule", ["scale_offset", "antialiased"])
@pytest.mark.parametrize("grid", [(5, 5), (3, 6), (7, 5), (9, 2), (1, 1), (11, 16), (25, 1)])
def test_position_rules_as_products(rule: PositionResize, grid: tuple[int, int]) -> None:
    """Exported networks resize by products of matrices, which is the same."""
    table = torch.randn(1, 26, 8, generator=torch.Generator().manual_seed(0))
    expected = resized_positions(table, grid, (5, 5), 1, rule)
    assert torch.equal(expected[:, :1], table[:, :1])
    patches = table[:, 1:].reshape(1, 5, 5, 8).permute(0, 3, 1, 2)
    found = _by_products(patches, grid, (5, 5), rule).permute(0, 2, 3, 1).reshape(1, -1, 8)
    torch.testing.assert_close(found, expected[:, 1:], rtol=0, atol=1e-5)
    if grid == (5, 5):
        assert torch.equal(expected, table)
        assert torch.equal(found, table[:, 1:])


def test_the_rule_of_the_originals_is_not_that_of_timm() -> None:
    table = torch.randn(1, 26, 8, generator=torch.Generator().manual_seed(0))
    one, other = (
        resized_positions(table, (7, 6), (5, 5), 1, rule) for rule in ("scale_offset", "antialiased")
    )
    assert (one - other).norm() > 0.03 * one.norm()
    doubled = resized_positions(table.double(), (7, 6), (5, 5), 1, "scale_offset")
    assert doubled.dtype == torch.float64
    assert torch.equal(doubled.float(), one)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("vit_small_patch14_dinov2.lvd142m", "scale_offset"),
        ("vit_small_patch14_reg4_dinov2.lvd142m", "antialiased"),
        ("vit_base_patch16_224.mae", "antialiased"),
        ("vit_small_patch16_dinov3", None),
    ],
)
def test_usual_rule(name: str, rule: str | None) -> None:
    with torch.device("meta"):
        assert ViT(name).position_resize == rule


@pytest.mark.parametrize(
    ("depth", "levels"),
    [
        (12, (2, 5, 8, 11)),
        (24, (4, 11, 17, 23)),
        (40, (9, 19, 29, 39)),
        (32, (7, 15, 23, 31)),
        (6, (1, 2, 4, 5)),
    ],
)
def test_usual_levels(depth: int, levels: tuple[int, ...]) -> None:
    assert usual_levels(depth) == levels


def test_chosen_levels_and_norm() -> None:
    x = torch.randn(1, 3, 28, 42)
    every = small(levels=[0, 1, 2, 3], final_norm=False).eval()
    two = small(levels=[0, 2], final_norm=False).eval()
    assert len(two.net.blocks) == 3
    assert len(two.stages) == 2
    two.load_state_dict({key: value for key, value in every.state_dict().items() if key in two.state_dict()})
    with torch.inference_mode():
        raw = every(x)
        assert all(torch.equal(one, raw[n]) for one, n in zip(two(x), (0, 2), strict=True))
        normed = small(levels=[0, 1, 2, 3]).eval()
        normed.load_state_dict(every.state_dict(), strict=False)
        expected = normed.net.norm(raw[1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        torch.testing.assert_close(normed(x)[1], expected)


@pytest.mark.parametrize("network", ["vit_small_patch14_dinov2", "vit_small_patch16_dinov3"])
def test_checkpointed_gradients_are_equal(network: str) -> None:
    plain = small(network, drop_path=0.3).train()
    saving = small(network, drop_path=0.3).tune(Tuning(checkpoint=True)).train()
    side = 2 * plain.size_multiple
    x = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(3))
    results = []
    for backbone in (plain, saving):
        torch.manual_seed(5)
        maps = backbone(x)
        sum((each * each.detach().roll(1, 2)).sum() for each in maps).backward()
        results.append((maps, [value.grad for value in backbone.parameters()]))
    for one, other in zip(*(maps for maps, _ in results), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(*(gradients for _, gradients in results), strict=True):
        assert torch.equal(one, other)


def test_stochastic_depth_is_for_training_only() -> None:
    backbone, whole = small(drop_path=0.5), small()
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in backbone.net.blocks]
    assert rates == pytest.approx([0, 0.5 / 3, 1 / 3, 0.5])
    x = torch.randn(8, 3, 28, 28)
    with torch.no_grad():
        assert torch.equal(backbone.eval()(x)[-1], whole.eval()(x)[-1])
        assert not torch.equal(backbone.train()(x)[-1], whole.eval()(x)[-1])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"network": "resnet18"}, r"network=resnet18: .*backbone=timm backbone\.name=resnet18"),
        ({"network": "beit_base_patch16_224"}, "no plain transformer that takes images of any size"),
        ({"network": "vit_base_r50_s16_224"}, "no plain transformer"),
        ({"network": "vit_smal_patch14_dinov2"}, "Did you mean vit_small_patch14_dinov2"),
        ({"network": "vit_small_patch14_dinov2.none"}, "no weights none of .* There are lvd142m"),
        ({"levels": [3, 12]}, r"levels=\[3, 12\]: the network has 12 blocks\. Give numbers from 0 to 11"),
        ({"levels": [5, 2]}, "ascending order"),
        ({"network": "vit_small_patch16_dinov3", "position_resize": "antialiased"}, "has rotary positions"),
        ({"weights": "pretrained", "depth": 4}, "Leave out image_size"),
        ({"embed_dim": 50}, "timm cannot build it"),
        ({"drop_path": 1.0}, "expected a number of at least 0 and below 1"),
    ],
)
def test_what_cannot_serve_is_refused(arguments: dict[str, Any], named: str) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=named):
        ViT(**{"network": "vit_small_patch14_dinov2", **arguments})


def test_timm_names_the_option_for_plain_transformers() -> None:
    with torch.device("meta"), pytest.raises(UserError, match="backbone=vit is for plain transformers"):
        Timm("vit_tiny_patch16_224", output_stride=32)
    with torch.device("meta"):
        assert Timm("option", network="convnext_atto").name == "convnext_atto"


@pytest.mark.parametrize("decoder", [DPT, Linear, partial(Linear, levels=4, norm="none")])
def test_decoders(decoder: Any) -> None:
    network = model(decoder).train()
    logits = network(images(42, 70))
    assert logits.shape == (2, 3, 42, 70)
    (logits * torch.randn_like(logits)).sum().backward()
    assert [key for key, value in network.named_parameters() if value.grad is None] == []
    found = predict(network, images(37, 45), EvaluatorSettings())
    assert found.shape == (2, 3, 37, 45)


def test_decoders_refuse_what_they_cannot_read() -> None:
    with pytest.raises(UserError, match=r"model=DPT: needs four maps of one stride.* have 4, 8, 8, 8"):
        segmentation_model(Tiny(4), DPT, 3)
    with pytest.raises(UserError, match="four maps of one stride"):
        model(levels=[3])
    with pytest.raises(UserError, match=r"levels=5: the backbone has 4 maps"):
        model(partial(Linear, levels=5))
    with pytest.raises(UserError, match="such as pspnet or linear, or dpt"):
        model(DeepLabV3Plus)


def test_linear_joins_maps_of_a_pyramid() -> None:
    network = segmentation_model(Tiny(4), partial(Linear, levels=4), 3)
    assert network.decoder.out_channels == 8 + 12 + 16 + 20
    assert network.features(images(64, 64)).shape == (2, 56, 16, 16)


def test_maps_between_encoder_and_decoder() -> None:
    network = model().eval()
    maps = network.encode(images(42, 70))
    assert [tuple(each.shape) for each in maps] == [(2, 64, 3, 5)] * 4
    masks = torch.ones(2, 64)
    masks[0] = 0
    with torch.inference_mode():
        changed = network.classify(network.decode([each * masks[..., None, None] for each in maps]), (42, 70))
        expected = network(images(42, 70))
    torch.testing.assert_close(changed[1], expected[1])
    assert not torch.allclose(changed[0], expected[0])


def test_a_bundle_builds_it_again() -> None:
    network = model(partial(DPT, features=8)).eval()
    config = {
        "backbone": {
            "_target_": "semiseg.models.vit.ViT",
            "name": "tiny",
            "network": "vit_small_patch14_dinov2",
            "image_size": 70,
            "weights": "pretrained",
            **SMALL,
        },
        "model": {"_target_": "semiseg.models.dpt.DPT", "features": 8},
    }
    config["backbone"].pop("weights")
    again = from_bundle(bundle(copy.deepcopy(network), INFO, config))
    with torch.inference_mode():
        assert torch.equal(again(images(42, 56)), network(images(42, 56)))
