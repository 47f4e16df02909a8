"""Mix transformers and the decoder of SegFormer."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from semiseg.errors import UserError
from semiseg.models.bundle import segmentation_model
from semiseg.models.convert import convert
from semiseg.models.deeplabv3plus import DeepLabV3Plus
from semiseg.models.mit import MixTransformer
from semiseg.models.segformer import SegFormer
from semiseg.models.segmodel import SegModel

PARAMETERS = {
    "b0": (3_319_392, 3_752_694),
    "b1": (13_151_424, 13_715_798),
    "b2": (24_196_288, 27_461_974),
    "b3": (44_072_128, 47_337_814),
    "b4": (60_842_688, 64_108_374),
    "b5": (81_443_008, 84_708_694),
}
"""Of the backbone, and of the network for 150 classes."""


def network(size: str = "b0", classes: int = 7, **options: object) -> SegModel:
    channels = 256 if size in ("b0", "b1") else 768
    return segmentation_model(MixTransformer(size, **options), partial(SegFormer, channels=channels), classes)


@pytest.mark.parametrize("size", PARAMETERS)
def test_counts_and_shapes(size: str) -> None:
    with torch.device("meta"):
        model = network(size, 150)
        maps = model.backbone(torch.empty(2, 3, 97, 130))
    counts = [sum(p.numel() for p in part.parameters()) for part in (model.backbone, model)]
    assert tuple(counts) == PARAMETERS[size]
    expected = [
        (2, stage.channels, -(-97 // stage.stride), -(-130 // stage.stride))
        for stage in model.backbone.stages
    ]
    assert [tuple(each.shape) for each in maps] == expected


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = network().train()
    logits = model(torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8))
    assert logits.shape == (2, 7, 64, 96)
    (logits * torch.randn_like(logits)).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    named = [p for modules in model.backbone.part_modules().values() for m in modules for p in m.parameters()]
    assert len(named) == len(list(model.backbone.parameters()))


def test_blocks_are_skipped_in_training_only() -> None:
    torch.manual_seed(0)
    backbone, plain = MixTransformer("b0", drop_path=0.9), MixTransformer("b0", drop_path=0)
    plain.load_state_dict(backbone.state_dict())
    rates = [block.drop_path for number in range(1, 5) for block in backbone.get_submodule(f"block{number}")]
    assert rates == pytest.approx([0.9 * i / 7 for i in range(8)])
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = plain.train()(x)[-1]
        assert torch.equal(backbone.eval()(x)[-1], expected)
        assert not torch.allclose(backbone.train()(x)[-1], expected)


def test_decoder_joins_all_maps_without_aligned_corners() -> None:
    torch.manual_seed(0)
    model = network().eval()
    maps = model.backbone(torch.randn(1, 3, 64, 96))
    decoder = model.decoder
    resized = [
        nn.functional.interpolate(
            layer(each.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
            (16, 24),
            mode="bilinear",
            align_corners=False,
        )
        for layer, each in zip(decoder.linear, maps, strict=True)
    ]
    with torch.no_grad():
        expected = decoder.fuse(torch.cat([*reversed(resized)], 1))
        assert torch.allclose(decoder(maps), expected, atol=1e-5)
    assert model.align_corners is False
    assert isinstance(decoder.dropout, nn.Dropout2d)


def test_it_works_below_a_deeplabv3plus() -> None:
    with torch.device("meta"):
        model = segmentation_model(MixTransformer("b1"), DeepLabV3Plus, 3)
        assert model(torch.empty(2, 3, 65, 81, dtype=torch.uint8)).shape == (2, 3, 65, 81)


class TestWeights:
    """In the names of NVlabs/SegFormer."""

    def test_backbone_of_imagenet(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        state = dict(MixTransformer("b0").state_dict())
        assert {
            "patch_embed1.proj.weight",
            "block1.0.attn.kv.bias",
            "block1.0.attn.sr.weight",
            "norm4.bias",
        } <= set(state)
        assert "block4.1.mlp.dwconv.dwconv.weight" in state
        torch.save(
            state | {"head.weight": torch.zeros(9, 256), "head.bias": torch.zeros(9)}, tmp_path / "b0.pth"
        )
        backbone = MixTransformer("b0", weights=str(tmp_path / "b0.pth"))
        assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())
        with torch.device("meta"), pytest.raises(UserError, match=r"does not fit MiT-B1(?s:.*)another shape"):
            MixTransformer("b1", weights=str(tmp_path / "b0.pth"))

    def test_whole_network(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        model = network()
        places = {"fuse.0": "linear_fuse.conv", "fuse.1": "linear_fuse.bn"}
        places |= {f"linear.{number}": f"linear_c{number + 1}.proj" for number in range(4)}
        state = {f"backbone.{key}": value for key, value in model.backbone.state_dict().items()}
        for key, value in model.decoder.state_dict().items():
            part, name = key.rsplit(".", 1)
            state[f"decode_head.{places[part]}.{name}"] = value
        for key, value in model.classifier.state_dict().items():
            state[f"decode_head.linear_pred.{key}"] = value
        state["decode_head.conv_seg.weight"] = torch.zeros(7, 256, 1, 1)
        found = convert(state)
        assert (found.format, dict(found.left_out)) == ("SegFormer", {"decode_head": 1})
        torch.save({"state_dict": state, "meta": {}}, tmp_path / "segformer.pth")
        torch.manual_seed(1)
        again = network(weights=str(tmp_path / "segformer.pth"))
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())


def test_bad_arguments() -> None:
    with torch.device("meta"), pytest.raises(UserError, match="b0, b1"):
        MixTransformer("b6")  # type: ignore[arg-type]
    with torch.device("meta"), pytest.raises(UserError, match="drop_path=1"):
        MixTransformer("b0", drop_path=1.0)
