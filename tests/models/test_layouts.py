"""Layouts of maps: channels-last images stay channels-last through every backbone and decoder."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_class
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from semiseg.models.bundle import segmentation_model
from semiseg.models.mit import MixTransformer
from semiseg.models.resnet import ResNet
from semiseg.models.segmodel import Backbone, SegModel
from semiseg.models.timm_backbone import Timm
from semiseg.models.tiny import Tiny
from semiseg.models.vit import ViT
from semiseg.models.xception import Xception

CONF = Path(__file__).resolve().parents[2] / "conf"
DECODERS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
NARROW = {"channels": 16, "low_channels": 16, "pool_channels": 16}


def decoder(name: str, **widths: Any) -> Any:
    """The decoder of an option of ``model``, narrow."""
    node = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
    kind = get_class(node.pop("_target_"))
    names = inspect.signature(kind).parameters
    return partial(kind, **(node | {key: width for key, width in NARROW.items() if key in names} | widths))


def layouts(net: SegModel, side: int = 64) -> dict[str, bool]:
    """Whether the input of each conv is channels-last, in a training pass of channels-last images.

    Tensors are fake ones of a GPU, without data: on the CPU not all layouts are kept.
    """
    found = {}

    def note(name: str, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        # Of maps without the class token, which are parts of a tensor, one asks for the order alone.
        found[name] = given[0].stride(1) == 1 or given[0].shape[1] == 1

    for name, module in net.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_pre_hook(partial(note, name))
    net.train().to(memory_format=torch.channels_last)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        images = torch.empty((2, 3, side, side), dtype=torch.uint8, device="cuda")
        net.to("cuda")(images.contiguous(memory_format=torch.channels_last))
    return found


def lost(net: SegModel, side: int = 64) -> list[str]:
    found = layouts(net, side)
    assert found
    # A pixel shuffle gives the default layout; its maps have as many channels as there are classes.
    return [name for name, last in found.items() if not last and not name.startswith("classifier.enlarge")]


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "dpt"])
def test_decoders_keep_channels_last(name: str) -> None:
    assert lost(segmentation_model(Tiny(16), decoder(name), 4)) == []


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "tiny": Tiny,
    "resnet18": partial(ResNet, 18),
    "resnet50": partial(ResNet, 50),
    "resnet50s": partial(ResNet, 50, stem="deep"),
    "mit_b0": partial(MixTransformer, "b0"),
    "xception65": Xception,
    "timm": partial(Timm, "tf_efficientnet_lite0"),
    "dinov3_convnext": partial(Timm, "convnext_atto"),
}
"""One backbone of each kind of option; the others differ from it in numbers of channels and layers alone."""


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_keep_channels_last(name: str) -> None:
    assert lost(segmentation_model(BACKBONES[name](), decoder("pspnet", pools=[1, 2]), 4)) == []


def test_transformer_with_dpt_keeps_channels_last() -> None:
    size = {"image_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 4, "num_heads": 2}
    backbone = ViT("vit_tiny_patch16_224", levels=[0, 1, 2, 3], **size)
    assert lost(segmentation_model(backbone, decoder("dpt", channels=[16] * 4, features=16), 4)) == []
