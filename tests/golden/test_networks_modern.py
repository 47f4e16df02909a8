"""Numbers recorded from the original networks of U2PL, AugSeg and CutMix-Seg, in double precision."""

from collections.abc import Iterable, Sequence
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from wave_inputs import PLAIN, fill, images, labels, moments

from semiseg.models.bundle import segmentation_model
from semiseg.models.deeplabv2 import DeepLabV2
from semiseg.models.deeplabv3plus import DeepLabV3Plus
from semiseg.models.deeplabv3plus_u2pl import DeepLabV3PlusU2PL
from semiseg.models.heads import ConvStack
from semiseg.models.resnet import ResNet
from semiseg.models.segmodel import SegModel

SIZE = (65, 81)
LABEL = labels(2, *SIZE, 21, 0)


def close(values: Sequence[float] | float) -> object:
    return pytest.approx(values, rel=1e-6)


def filled(model: SegModel) -> SegModel:
    fill(model.double())
    model.set_convention(PLAIN)
    return model.eval()


def norm(*parts: nn.Module | Iterable[nn.Parameter]) -> float:
    parameters = [p for part in parts for p in (part.parameters() if isinstance(part, nn.Module) else part)]
    return torch.linalg.vector_norm(
        torch.stack([p.grad.norm() for p in parameters if p.grad is not None])
    ).item()


def size_of(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def upsampled(maps: Tensor) -> Tensor:
    return F.interpolate(maps, SIZE, mode="bilinear", align_corners=True)


def cross_entropy(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, LABEL, ignore_index=255)


def trained(model: SegModel, frozen: bool = False) -> float:
    """Loss of a training step, which leaves its gradients."""
    model.train()
    for module in model.backbone.modules():
        if frozen and isinstance(module, nn.BatchNorm2d):
            module.eval()
    loss = cross_entropy(model(images(2, *SIZE, 0)))
    loss.backward()
    return loss.item()


def u2pl(depth: int, auxiliary: bool) -> SegModel:
    backbone = ResNet(
        depth, output_stride=8, stem="deep", multi_grid=(1, 2, 4), ceil_pool=True, zero_init=True
    )
    model = segmentation_model(backbone, partial(DeepLabV3PlusU2PL, dropout=0.0), 21)
    model.attach("representation", ConvStack(model.feature_channels, dropout=0.0))
    if auxiliary:
        model.attach("auxiliary", ConvStack(1024, 256, 21, convs=1, dropout=0.0), "c3")
    return model


def u2pl_outputs(model: SegModel, x: Tensor) -> list[Tensor]:
    maps = model.encode(x)
    features = model.decode(maps)
    return [model.classifier(features), *(model.apply_head(name, maps, features) for name in model.heads)]


U2PL = {
    50: {
        "parameters": 47_833_322,
        "eval": (
            (-0.04560272797, 0.1727518123, 1065.605556),
            (-0.007080592135, 0.1422928149, 10340.12937),
            (0.1886662006, 0.6764856728, 1155.485657),
        ),
        "even": (-0.04546423103, 0.1727124745, 1064.577778),
        "loss": 4.900198545,
        "norms": (142.3879662, 2.586464119, 0.6387268576),
        "after": (-0.0545829941, 0.1672246764, 948.8524652),
    },
    101: {
        "parameters": 64_459_989,
        "eval": (
            (-0.08873423640, 0.7309646886, 4721.296683),
            (-0.02691696109, 0.5942494119, 42972.50805),
        ),
        "even": (-0.08862789260, 0.7309186569, 4721.067297),
        "loss": 3.501115681,
        "norms": (164.9922853, 2.163072424),
        "after": (-0.05008912432, 0.1692106146, 965.0204505),
    },
}  # fmt: skip


@pytest.mark.golden("U2PL network")
@pytest.mark.slow
@pytest.mark.parametrize("depth", [50, 101])
def test_u2pl(depth: int) -> None:
    expected = U2PL[depth]
    model = u2pl(depth, auxiliary=depth == 50)
    assert size_of(model) == expected["parameters"]
    assert size_of(model.heads["representation"]) == 1_836_800
    filled(model)
    with torch.no_grad():
        outputs = u2pl_outputs(model, images(1, *SIZE, 4))
        # 64 and 80 pixels: without rounding up, the maps would have 16x20.
        even = u2pl_outputs(model, images(1, 64, 80, 6))[0]
    assert [tuple(each.shape[1:]) for each in outputs] == [(21, 17, 21), (256, 17, 21), (21, 9, 11)][
        : len(outputs)
    ]
    assert even.shape[-2:] == (17, 21)
    for output, values in zip(outputs, expected["eval"], strict=True):
        assert moments(output) == close(values)
    assert moments(even) == close(expected["even"])

    prediction, representation, *auxiliary = u2pl_outputs(model.train(), images(2, *SIZE, 0))
    loss = cross_entropy(upsampled(prediction)) + 0.001 * representation.square().mean()
    loss = loss + sum(0.4 * cross_entropy(upsampled(each)) for each in auxiliary)
    loss.backward()
    assert loss.item() == close(expected["loss"])
    decoder = (model.decoder, model.classifier, model.heads["representation"])
    assert sum(len(list(part.parameters())) for part in decoder) == 42
    others = [norm(model.heads["auxiliary"])] if auxiliary else []
    assert [norm(model.backbone), norm(*decoder), *others] == close(expected["norms"])
    with torch.no_grad():
        after = u2pl_outputs(model.eval(), images(1, *SIZE, 4))[0]
    assert moments(after) == close(expected["after"])


@pytest.mark.golden("AugSeg network")
def test_augseg() -> None:
    backbone = ResNet(50, stem="deep", multi_grid=(1, 2, 4), ceil_pool=True, zero_init=True)
    decoder = partial(DeepLabV3Plus, low_bias=True, pool_place="first", aspp_dropout=0.0, dropout=0.0)
    model = filled(segmentation_model(backbone, decoder, 21))
    assert size_of(model) == 40_476_005
    with torch.no_grad():
        assert moments(model(images(1, *SIZE, 4))) == close((-0.03848146493, 0.1749589424, 15010.47165))
        assert moments(model(images(1, 64, 80, 6))) == close((-0.03847639439, 0.1748296909, 14580.67859))
    assert trained(model) == close(3.572205720)
    observed = (norm(model.backbone), norm(model.decoder, model.classifier))
    assert observed == close((75.65176105, 3.036200823))


@pytest.mark.golden("CutMix-Seg networks")
@pytest.mark.slow
def test_deeplabv2_of_cutmix_seg() -> None:
    backbone = ResNet(101, output_stride=8, ceil_pool=True, stride_in="1x1", dilate_first=True)
    model = segmentation_model(backbone, partial(DeepLabV2, init="normal"), 21)
    assert size_of(model) == 44_048_532
    filled(model)
    with torch.no_grad():
        assert moments(model(images(1, *SIZE, 4))) == close((-1.825741734, 10.07853630, 875383.3588))
        assert moments(model(images(1, 64, 80, 6))) == close((-1.826383081, 10.03481258, 848367.4130))
    assert trained(model, frozen=True) == close(21.33098483)
    convs = (
        p for module in model.backbone.modules() if isinstance(module, nn.Conv2d) for p in module.parameters()
    )
    assert (norm(convs), norm(model.classifier)) == close((185.3990813, 483.1825043))


@pytest.mark.golden("CutMix-Seg networks")
@pytest.mark.slow
def test_deeplabv3plus_of_cutmix_seg() -> None:
    decoder = partial(
        DeepLabV3Plus,
        aspp_drops="elements",
        aspp_dropout=0.0,
        dropout=0.0,
        align_corners=False,
        init="kaiming",
    )
    model = segmentation_model(ResNet(101, output_stride=8), decoder, 21)
    assert size_of(model) == 59_344_309
    assert len(list(model.parameters())) == 341
    filled(model)
    with torch.no_grad():
        assert moments(model(images(1, *SIZE, 4))) == close((-0.02088150564, 1.025569562, 89821.98846))
    assert (trained(model, frozen=True), norm(model)) == close((3.559891533, 6.236128755))
