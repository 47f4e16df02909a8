"""Numbers recorded from the original UniMatch V2 networks, in double precision."""

from functools import partial
from typing import Any

import pytest
import torch
from noise_fill import complementary_masks, fill, images
from torch import Tensor

from semiseg.models.bundle import segmentation_model
from semiseg.models.dpt import DPT
from semiseg.models.positions import resized_positions
from semiseg.models.segmodel import SegModel
from semiseg.models.vit import ViT

pytest.importorskip("timm")
pytestmark = pytest.mark.golden("UniMatch V2 network")

TINY = {"image_size": 70, "embed_dim": 16, "depth": 12, "num_heads": 2}
NEAR = {"rel": 1e-6, "abs": 3e-6}


def network(size: str) -> SegModel:
    return fill(segmentation_model(ViT(f"vit_{size}_patch14_dinov2"), DPT, 21)).eval()


def tiny() -> SegModel:
    backbone = ViT("vit_small_patch14_dinov2", **TINY)
    model = fill(segmentation_model(backbone, partial(DPT, features=8, channels=[4, 6, 8, 10]), 5)).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(0.15)
    return model


@torch.no_grad()
def passed(model: SegModel, inputs: Tensor, masks: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
    """The levels as tokens ``(N, L, D)``, and the logits, of normalized images."""
    maps = model.backbone(inputs)
    if masks is not None:
        maps = [each * masks[:, :, None, None] for each in maps]
    features = model.decode(maps)
    assert features.shape[-2:] == tuple(8 * side for side in maps[0].shape[-2:])
    tokens = [each.flatten(2).transpose(1, 2) for each in maps]
    return tokens, model.classify(features, inputs.shape[-2:])


def ends(values: Tensor) -> list[float]:
    flat = values.flatten()
    return [flat[index].item() for index in (0, len(flat) // 2, -1)]


REAL: dict[tuple[str, int, int, int], dict[str, Any]] = {
    ("small", 70, 98, 41): {
        "std": (1.012866520, 1.019255157, 1.020013826, 1.019332922),
        "first": (0.461375923, 1.662303430, 1.765523487),
        "last": (0.489324498, 0.406911621, -0.009613416),
        "logits": (7.52299795, 33.42415796, 26.23389035, -8.90485092, 5.33426889),
    },
    ("small", 518, 518, 40): {
        "std": (1.012670079, 1.020759719, 1.023155168, 1.023376566),
        "first": (0.332837980, 1.224147281, -0.144490476),
        "last": (0.426433233, -0.164249053, -1.186393088),
        "logits": (12.06094382, 52.41773101, 26.01275471, -5.15412732, 8.18385472),
    },
    ("base", 56, 70, 41): {
        "std": (1.010216319, 1.007128866, 1.006192864, 1.006612338),
        "first": (0.203911660, 1.052488536, 1.247626155),
        "last": (1.331675934, 1.538641316, 1.134201843),
        "logits": (-7.61329556, 55.01235529, -9.77955824, -5.34602343, -18.96588576),
    },
    ("large", 42, 70, 40): {
        "std": (1.012270406, 1.013060671, 1.014510979, 1.015536928),
        "first": (-0.628006495, 0.992899899, 0.268763480),
        "last": (0.031266650, 1.974218970, 0.298094562),
        "logits": (4.01684450, 32.68233566, -10.63774353, 9.08048572, 17.61098790),
    },
}


@pytest.mark.parametrize(
    ("size", "height", "width", "phase"),
    [each if each[:2] == ("small", 70) else pytest.param(*each, marks=pytest.mark.slow) for each in REAL],
)
def test_published_sizes(size: str, height: int, width: int, phase: int) -> None:
    expected = REAL[size, height, width, phase]
    tokens, logits = passed(network(size), images(1, height, width, phase))
    assert [each.std().item() for each in tokens] == pytest.approx(expected["std"], **NEAR)
    assert ends(tokens[0]) == pytest.approx(expected["first"], **NEAR)
    assert ends(tokens[-1]) == pytest.approx(expected["last"], **NEAR)
    assert logits.shape == (1, 21, height, width)
    found = [logits.mean().item(), logits.std().item(), *ends(logits)]
    assert found == pytest.approx(expected["logits"], **NEAR)


@pytest.mark.parametrize(
    ("count", "height", "width", "phase", "positions", "std", "logits"),
    [
        (
            *(2, 70, 70, 20),
            (5.755258594654704, 107.34089513611245, 0.2532425583660506, -0.14273756927624698),
            (0.9897055819493923, 0.9922662148334668, 0.989557268960743, 0.989569600851381),
            (
                -5.737413596683669,
                5.370919902175747,
                -18.59864329414818,
                -15.259506432066186,
                1.7618911121790768,
            ),
        ),
        (
            *(1, 42, 84, 21),
            (4.5440495267394, 57.10101364698494, 0.07293126732110977, -0.11840303987264633),
            (0.9935079462036761, 0.9853444478641141, 0.9867794404585327, 0.9888612389550846),
            (
                -3.9027179581225004,
                4.217633167162549,
                -7.143989234087057,
                -3.7416257844038463,
                0.396359974044914,
            ),
        ),
        (
            *(1, 98, 70, 22),
            (8.151730552315712, 134.8057878757827, 0.30034491419792175, -0.14017702639102936),
            (0.9989310772353343, 0.9973002967641922, 0.9933573904803242, 0.9922540771130813),
            (
                -6.414298286704726,
                5.352949979113221,
                -17.985095817958243,
                -9.032409056350552,
                1.8873291009362407,
            ),
        ),
    ],
)
def test_tiny_network(
    count: int,
    height: int,
    width: int,
    phase: int,
    positions: tuple[float, ...],
    std: tuple[float, ...],
    logits: tuple[float, ...],
) -> None:
    model = tiny()
    table = resized_positions(
        model.backbone.net.pos_embed.detach(), (height // 14, width // 14), (5, 5), 1, "scale_offset"
    )
    patches = table[:, 1:].flatten()
    found = [table.sum().item(), table.abs().sum().item(), patches[0].item(), patches[-1].item()]
    assert found == pytest.approx(positions, rel=1e-5, abs=1e-5)
    tokens, found_logits = passed(model, images(count, height, width, phase))
    assert [each.std().item() for each in tokens] == pytest.approx(std, rel=1e-6, abs=1e-6)
    found = [found_logits.mean().item(), found_logits.std().item(), *ends(found_logits)]
    assert found == pytest.approx(logits, rel=1e-6, abs=1e-6)


def test_complementary_masks_on_all_levels() -> None:
    masks = complementary_masks(2, 16, 1)
    assert masks.sum() == 64
    _, logits = passed(tiny(), images(4, 70, 70, 33), masks)
    found = [logits.mean().item(), logits.std().item(), *ends(logits)]
    expected = (
        -5.736930542501585,
        6.097756947761925,
        -20.696961944165324,
        -17.72929776548751,
        1.4211325628661702,
    )
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("size", "width", "features", "encoder", "head", "entries"),
    [
        ("small", 384, 64, 22_056_576, 2_739_061, 237),
        ("base", 768, 128, 86_580_480, 10_948_309, 237),
        ("large", 1024, 256, 304_368_640, 31_210_517, 405),
        ("giant", 1536, 384, 1_136_480_768, 122_267_925, 629),
    ],
)
def test_counts(size: str, width: int, features: int, encoder: int, head: int, entries: int) -> None:
    """The published network also holds a mask token and a unit that it never uses."""
    with torch.device("meta"):
        model = segmentation_model(ViT(f"vit_{size}_patch14_dinov2"), DPT, 21)
    unused = 2 * (9 * features * features + features)
    sizes = [value.numel() for value in model.parameters()]
    assert sum(value.numel() for value in model.backbone.parameters()) + width == encoder
    assert sum(sizes) - encoder + width + unused == head
    assert len(model.state_dict()) + 1 + 4 == entries
    assert list(model.buffers()) == [model.mean, model.std]


@pytest.mark.parametrize(
    ("size", "count"), [("small", 22_057_344), ("base", 86_582_016), ("large", 304_370_688)]
)
def test_counts_with_registers(size: str, count: int) -> None:
    with torch.device("meta"):
        backbone = ViT(f"vit_{size}_patch14_reg4_dinov2")
    assert sum(value.numel() for value in backbone.parameters()) == count


def test_levels_of_the_originals() -> None:
    with torch.device("meta"):
        found = [ViT(f"vit_{size}_patch14_dinov2").levels for size in ("small", "base", "large", "giant")]
    assert found == [(2, 5, 8, 11), (2, 5, 8, 11), (4, 11, 17, 23), (9, 19, 29, 39)]
