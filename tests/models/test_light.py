"""The decoder ``light``: its shapes, its beginning as a linear classifier, its training."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semiseg.engine.ema import EMA
from semiseg.engine.optim import SGD
from semiseg.errors import UserError
from semiseg.models.bundle import segmentation_model
from semiseg.models.light import DAMPING, Light
from semiseg.models.linear import Linear
from semiseg.models.resnet import ResNet
from semiseg.models.segmodel import Backbone, SegModel
from semiseg.models.tiny import Tiny
from semiseg.models.vit import ViT

CLASSES = 5
BACKBONES: dict[str, Callable[[], Backbone]] = {
    "tiny": lambda: Tiny(width=8),
    "resnet18": lambda: ResNet(18, output_stride=16),
    "resnet50": lambda: ResNet(50, output_stride=8),
    "vit": lambda: ViT(
        "vit_tiny_patch16_224", image_size=64, patch_size=8, embed_dim=16, depth=4, num_heads=2
    ),
}


def images(height: int = 64, width: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, height, width), generator=generator, dtype=torch.uint8)


def small(seed: int = 0, **options: float) -> SegModel:
    torch.manual_seed(seed)
    return segmentation_model(Tiny(width=8), partial(Light, channels=8, **options), CLASSES)


def shape_of(backbone: Backbone, **options: int) -> tuple[SegModel, torch.Size]:
    model = segmentation_model(backbone, partial(Light, **options), CLASSES)
    batch = torch.empty(2, 3, 64, 96, dtype=torch.uint8)
    assert model(batch).shape == (2, CLASSES, 64, 96)
    return model, model.features(batch).shape


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", BACKBONES)
def test_maps_of_the_backbone_come_first(name: str, levels: int) -> None:
    with torch.device("meta"):
        model, shape = shape_of(BACKBONES[name](), levels=levels, channels=16)
        assert model.linear_channels == sum(model.map_channels[-levels:])
        assert model.feature_channels == model.linear_channels + 16
        first = model.encode(torch.empty(2, 3, 64, 96))[-levels]
        assert shape == (2, model.feature_channels, *first.shape[-2:])


def test_networks_of_timm() -> None:
    timm = pytest.importorskip("semiseg.models.timm_backbone")
    with torch.device("meta"):
        for name, stride in (("tf_efficientnet_lite0", 16), ("vit_tiny_patch16_224", 16)):
            model, shape = shape_of(timm.Timm(name, output_stride=stride))
            assert shape[1] == sum(model.map_channels[-3:]) + 128


def test_faults_of_its_settings_are_told_together() -> None:
    stages = Tiny(width=8).stages
    with pytest.raises(UserError, match="the backbone has 4 maps") as found:
        Light(stages, levels=5)
    assert (found.value.key, found.value.value) == ("levels", 5)
    with pytest.raises(UserError) as found:
        Light(stages, levels=0, channels=0, dropout=1.0)
    assert {each.key for each in found.value.errors} == {"levels", "channels", "dropout"}


def test_it_begins_as_a_linear_classifier_of_the_maps() -> None:
    model = small().train()
    maps = model.encode(images())
    linear = Linear(model.backbone.stages, levels=3, norm="none")(maps) / DAMPING
    width = model.linear_channels
    classifier = model.classifier
    assert isinstance(classifier, nn.Conv2d)
    expected = F.conv2d(linear, classifier.weight[:, :width], classifier.bias)
    assert classifier.weight[:, :width].any()
    assert torch.equal(model.decode(maps)[:, :width], linear)
    torch.testing.assert_close(model.classifier(model.decode(maps)), expected)


def test_all_of_it_is_trained() -> None:
    model = small(dropout=0.0).train()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    target = torch.randint(0, CLASSES, (2, 64, 96), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(model(images()), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    still = [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    assert still == []


def test_an_average_follows_the_branch() -> None:
    model = small().train()
    average = EMA(model, 0.5, first="constant")
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1)
    weight = copy.deepcopy(average.teacher.classifier.weight)
    average.update(model)
    torch.testing.assert_close(average.teacher.classifier.weight, weight + 0.5)


def test_its_parts_have_rates_of_their_own() -> None:
    model = small()
    spec = SGD(lr=1.0, head_multiplier=10.0, multipliers={"classifier": 0.5, "decoder": 2})
    rates = {group["name"]: group["lr"] for group in spec.groups(model)}
    assert rates == {"backbone": 1.0, "decoder": 20.0, "classifier": 5.0}
    assert [part.name for part in model.parts() if part.group == "head"] == ["decoder", "classifier"]
