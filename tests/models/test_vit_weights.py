"""Weights files of plain transformers: UniMatch V2, DINOv2, timm and semiseg."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from semiseg.contracts.dataset import DatasetInfo
from semiseg.errors import UserError
from semiseg.models.bundle import bundle, segmentation_model
from semiseg.models.convert import convert
from semiseg.models.dpt import DPT
from semiseg.models.resnet import ResNet
from semiseg.models.segmodel import SegModel
from semiseg.models.vit import ViT

timm = pytest.importorskip("timm")

DINO = "vit_small_patch14_dinov2"
WIDTH, BLOCKS, FEATURES, CHANNELS = 16, 12, 8, (4, 6, 8, 10)
SIZES = {"image_size": 70, "embed_dim": WIDTH, "depth": BLOCKS, "num_heads": 2}
INFO = DatasetInfo("toy", ("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))


def encoder() -> dict[str, tuple[int, ...]]:
    """Names and shapes of an official DINOv2, as its files have them."""
    d = WIDTH
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, d),
        "pos_embed": (1, 26, d),
        "mask_token": (1, d),
        "patch_embed.proj.weight": (d, 3, 14, 14),
        "patch_embed.proj.bias": (d,),
    }
    for number in range(BLOCKS):
        layers = {"attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}
        for name, shape in {**layers, "norm1": (d,), "norm2": (d,)}.items():
            shapes[f"blocks.{number}.{name}.weight"] = shape
            shapes[f"blocks.{number}.{name}.bias"] = shape[:1]
        shapes |= {f"blocks.{number}.{name}.gamma": (d,) for name in ("ls1", "ls2")}
    return shapes | {"norm.weight": (d,), "norm.bias": (d,)}


def published(classes: int = 3) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a UniMatch V2 network."""
    f = FEATURES
    shapes = {f"backbone.{name}": shape for name, shape in encoder().items()}
    weights: dict[str, tuple[int, ...]] = {
        **{f"projects.{n}": (c, WIDTH, 1, 1) for n, c in enumerate(CHANNELS)},
        "resize_layers.0": (4, 4, 4, 4),
        "resize_layers.1": (6, 6, 2, 2),
        "resize_layers.3": (10, 10, 3, 3),
        **{f"scratch.refinenet{n}.out_conv": (f, f, 1, 1) for n in (1, 2, 3, 4)},
        **{
            f"scratch.refinenet{n}.resConfUnit{unit}.conv{conv}": (f, f, 3, 3)
            for n in (1, 2, 3, 4)
            for unit in (1, 2)
            for conv in (1, 2)
        },
        "scratch.output_conv.0": (f, f, 3, 3),
        "scratch.output_conv.2": (classes, f, 1, 1),
    }
    for name, shape in weights.items():
        outputs = shape[1] if name in ("resize_layers.0", "resize_layers.1") else shape[0]
        shapes |= {f"head.{name}.weight": shape, f"head.{name}.bias": (outputs,)}
    return shapes | {f"head.scratch.layer{n}_rn.weight": (f, c, 3, 3) for n, c in enumerate(CHANNELS, 1)}


def values(shapes: dict[str, tuple[int, ...]], seed: int = 0, prefix: str = "") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {prefix + key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def network(weights: str = "none", classes: int = 3, **options: Any) -> SegModel:
    backbone = ViT(DINO, weights=weights, **SIZES, **options)
    return segmentation_model(backbone, partial(DPT, features=FEATURES, channels=list(CHANNELS)), classes)


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    content = {
        "model": values(published(), 1, "module."),
        "model_ema": values(published(), 2, "module."),
        "optimizer": {"state": {}, "param_groups": [{"lr": 5e-6, "params": [0]}]},
        "epoch": 59,
        "previous_best": 86.3,
    }
    torch.save(content, tmp_path / "best.pth")
    return str(tmp_path / "best.pth")


@pytest.mark.parametrize(("ema", "seed"), [(True, 2), (False, 1)])
def test_a_checkpoint_of_unimatch_v2(
    checkpoint: str, ema: bool, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = network(checkpoint, ema=ema)
    expected = values(published(), seed)
    unused = {"backbone.mask_token"} | {key for key in expected if "refinenet4.resConfUnit1" in key}
    found = model.state_dict()
    assert len(found) == len(expected) - len(unused)
    pairs = {
        "backbone.net.blocks.11.attn.qkv.weight": "backbone.blocks.11.attn.qkv.weight",
        "backbone.net.pos_embed": "backbone.pos_embed",
        "decoder.projects.2.bias": "head.projects.2.bias",
        "decoder.resizes.1.weight": "head.resize_layers.1.weight",
        "decoder.resizes.3.weight": "head.resize_layers.3.weight",
        "decoder.reduces.0.weight": "head.scratch.layer1_rn.weight",
        "decoder.fusions.0.skip.conv2.bias": "head.scratch.refinenet1.resConfUnit1.conv2.bias",
        "decoder.fusions.3.unit.conv1.weight": "head.scratch.refinenet4.resConfUnit2.conv1.weight",
        "decoder.fusions.2.project.weight": "head.scratch.refinenet3.out_conv.weight",
        "decoder.output.weight": "head.scratch.output_conv.0.weight",
        "classifier.weight": "head.scratch.output_conv.2.weight",
    }
    for own, theirs in pairs.items():
        assert torch.equal(found[own], expected[theirs]), own
    assert sorted(value.sum().item() for value in found.values()) == pytest.approx(
        sorted(value.sum().item() for key, value in expected.items() if key not in unused)
    )
    line = next(record.message for record in caplog.records if "UniMatch V2" in record.message)
    assert ("its model_ema" in line) == ema
    assert "decoder loaded" in line
    assert "classifier loaded" in line


def test_other_classes_keep_a_random_classifier(checkpoint: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    network(checkpoint, classes=7)
    assert "classifier keeps its first weights (2 entries have another shape" in caplog.text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("extra", r"it looks like UniMatch V2, but 1 of its 2\d\d entries are unknown there: head\.more"),
        (
            "missing",
            r"does not fit timm's vit_small.*1 entries of the network are not in the file: net\.norm\.bias",
        ),
        ("unknown block", r"1 entries of the file are not in the network: net\.blocks\.0\.attn\.rel"),
        ("size", r"net\.pos_embed 1x26x16 in the file, 1x37x16 in the network"),
        ("nan", "not finite"),
    ],
)
def test_what_differs_is_refused(tmp_path: Path, change: str, named: str) -> None:
    state, options = values(published()), {}
    if change == "extra":
        state["head.more"] = torch.zeros(1)
    elif change == "missing":
        del state["backbone.norm.bias"]
    elif change == "unknown block":
        state["backbone.blocks.0.attn.rel"] = torch.zeros(1)
    elif change == "nan":
        state["backbone.norm.bias"][0] = torch.nan
    else:
        options = {"image_size": 84}
    torch.save({"model": state}, tmp_path / "file.pth")
    with pytest.raises(UserError, match=f"(?s){named}"):
        ViT(DINO, weights=str(tmp_path / "file.pth"), **{**SIZES, **options})


def test_official_dinov2_is_that_of_timm(tmp_path: Path) -> None:
    from timm.models.vision_transformer import checkpoint_filter_fn

    state = values(encoder())
    torch.save(state, tmp_path / "dinov2_vits14_pretrain.pth")
    backbone = ViT(DINO, weights=str(tmp_path / "dinov2_vits14_pretrain.pth"), **SIZES)
    expected = checkpoint_filter_fn(dict(state), backbone.net)
    found = backbone.net.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)
    assert backbone.convention.mean == (0.485, 0.456, 0.406)


def test_official_registers_and_swiglu_are_those_of_timm(tmp_path: Path) -> None:
    from timm.models.vision_transformer import checkpoint_filter_fn

    name, sizes = "vit_giant_patch14_reg4_dinov2", {**SIZES, "embed_dim": 24, "depth": 2}
    backbone = ViT(name, levels=[0, 1], **sizes)
    own = backbone.net.state_dict()
    shapes: dict[str, tuple[int, ...]] = {"mask_token": (1, 24), "register_tokens": (1, 4, 24)}
    for key, value in own.items():
        official = key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        shapes[official] = (1, 26, 24) if key == "pos_embed" else tuple(value.shape)
    del shapes["reg_token"]
    state = values(shapes)
    torch.save(state, tmp_path / "file.pth")
    found = ViT(name, weights=str(tmp_path / "file.pth"), levels=[0, 1], **sizes).net.state_dict()
    expected = checkpoint_filter_fn(dict(state), backbone.net)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "vit_base_patch16_siglip_224", DINO])
def test_files_in_timms_names(tmp_path: Path, name: str) -> None:
    sizes = {"embed_dim": 16, "depth": 4, "num_heads": 2}
    torch.manual_seed(0)
    whole = timm.create_model(name, num_classes=7, **sizes)
    torch.save(whole.state_dict(), tmp_path / "file.pth")
    backbone = ViT(name, weights=str(tmp_path / "file.pth"), levels=[0, 1, 2], **sizes)
    assert len(backbone.net.blocks) == 3
    state = whole.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in backbone.net.state_dict().items())
    with pytest.raises(UserError, match="does not fit ResNet-18"):
        ResNet(18, weights=str(tmp_path / "file.pth"))


def test_a_checkpoint_of_semiseg(tmp_path: Path) -> None:
    first = network()
    nodes = {
        "backbone": {"_target_": "semiseg.models.vit.ViT", "network": DINO, **SIZES},
        "model": {"_target_": "semiseg.models.dpt.DPT"},
    }
    torch.save(bundle(first, INFO, nodes), tmp_path / "best.pt")
    again = network(str(tmp_path / "best.pt"))
    state = first.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())


def test_conversion_in_memory() -> None:
    found = convert(values(published(), prefix="module."))
    assert found.format == "UniMatch V2"
    assert found.left_out == {"backbone": 1, "head": 4}
    assert set(found.classifier) == {"weight", "bias"}
