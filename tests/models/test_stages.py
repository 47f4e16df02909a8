"""Backbones of any stages, what decoders need of them, heads on their maps, and the parts of a network."""

import copy
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semiseg.contracts.dataset import DatasetInfo
from semiseg.engine.optim import SGD
from semiseg.errors import UserError
from semiseg.models.bundle import (
    bundle,
    from_bundle,
    network_state,
    restore_heads_and_input,
    segmentation_model,
)
from semiseg.models.deeplabv2 import DeepLabV2
from semiseg.models.deeplabv3plus import DeepLabV3Plus
from semiseg.models.deeplabv3plus_cac import DeepLabV3PlusCAC
from semiseg.models.deeplabv3plus_cps import DeepLabV3PlusCPS
from semiseg.models.heads import Projector, RepresentationHead
from semiseg.models.pspnet import PSPNet
from semiseg.models.resnet import ResNet, pyramid
from semiseg.models.segmodel import (
    Backbone,
    Decoder,
    InputConvention,
    SegModel,
    Stage,
    require_multiple,
)
from semiseg.models.tiny import Tiny
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.inference import predict, predict_labels

PATCH = 14
INFO = DatasetInfo("toy", ("sky", "road", "car"), ((0, 0, 255), (128, 128, 128), (255, 0, 0)))
CONFIG = {
    "backbone": {"_target_": "semiseg.models.tiny.Tiny", "width": 8},
    "model": {
        "_target_": "semiseg.models.deeplabv3plus.DeepLabV3Plus",
        "_partial_": True,
        "channels": 16,
        "low_channels": 8,
        "rates": [1, 2],
    },
}
SMALL = partial(DeepLabV3Plus, channels=16, low_channels=8, rates=(1, 2))


class Patches(Backbone):
    """A plain transformer as far as its neighbors can tell: one map, of patches."""

    stages = (Stage(6, PATCH),)
    convention = InputConvention()
    size_multiple = PATCH

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 6, PATCH, PATCH)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> list[Tensor]:
        assert x.shape[-2] % PATCH == 0
        assert x.shape[-1] % PATCH == 0
        self.seen.append(tuple(x.shape[-2:]))
        return [self.embed(x)]


class Linear(Decoder):
    """Hands on the last map."""

    def __init__(self, stages: tuple[Stage, ...], name: str = "") -> None:
        super().__init__(stages, name)
        self.out_channels = stages[-1].channels

    def forward(self, maps: list[Tensor]) -> Tensor:
        return maps[-1]

    def make_classifier(self, num_classes: int) -> nn.Module:
        return nn.Conv2d(self.out_channels, num_classes, 1)


def images(*size: int) -> Tensor:
    return torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def network(seed: int = 0) -> SegModel:
    torch.manual_seed(seed)
    return segmentation_model(Tiny(8), SMALL, 3)


def plain_transformer() -> SegModel:
    torch.manual_seed(0)
    return segmentation_model(Patches(), Linear, 3).eval()


def through_a_file(values: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(values, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("decoder", [DeepLabV3Plus, DeepLabV3PlusCAC, DeepLabV3PlusCPS])
def test_a_backbone_without_a_fine_map_is_refused_by_name(decoder: Callable[..., Decoder]) -> None:
    for options, name in (({}, decoder.__name__), ({"name": "mine"}, "mine")):
        with pytest.raises(UserError, match=rf"^model={name}: needs a map of stride 4, .* have 14\. Choose"):
            segmentation_model(Patches(), partial(decoder, **options), 3)


@pytest.mark.parametrize(
    "decoder",
    [Linear, partial(DeepLabV2, rates=(1, 2)), partial(PSPNet, pool_channels=4, channels=8)],
)
def test_a_backbone_of_one_coarse_map_suits_decoders_of_the_last_map(decoder: Callable[..., Decoder]) -> None:
    model = segmentation_model(Patches(), decoder, 3).train()
    assert model(images(28, 42)).shape == (2, 3, 28, 42)


def test_the_fine_map_is_found_by_its_stride() -> None:
    """Two maps more than usual, one before and one behind the map of stride 4."""
    torch.manual_seed(0)
    decoder = SMALL([Stage(3, 2), Stage(4, 4), Stage(5, 8), Stage(6, 16)]).eval()
    maps = [torch.randn(1, channels, side, side) for channels, side in ((3, 32), (4, 16), (5, 8), (6, 4))]
    assert decoder(maps).shape == (1, 16, 16, 16)


@pytest.mark.parametrize(
    ("stride", "strides"), [(8, [4, 8, 8, 8]), (16, [4, 8, 16, 16]), (32, [4, 8, 16, 32])]
)
def test_stages_say_what_the_maps_are(stride: int, strides: list[int]) -> None:
    for backbone in (Tiny(8, output_stride=stride), ResNet(18, output_stride=stride)):
        assert [stage.stride for stage in backbone.stages] == strides
        for stage, found in zip(backbone.stages, backbone(torch.randn(1, 3, 64, 96)), strict=True):
            assert found.shape == (1, stage.channels, 64 // stage.stride, 96 // stage.stride)
        assert backbone.size_multiple == 1


@pytest.mark.parametrize(
    ("pad", "seen"),
    [("none", (42, 56)), ("size", (42, 56)), ("multiple", (42, 84)), ("center", (42, 56))],
)
def test_images_are_padded_to_what_the_backbone_takes(pad: str, seen: tuple[int, int]) -> None:
    model = plain_transformer()
    settings = EvaluatorSettings(pad=pad, pad_to=0 if pad == "none" else 40)
    found = predict(model, images(37, 45), settings)
    assert found.shape == (2, 3, 37, 45)
    assert model.backbone.seen == [seen]


def test_padding_changes_nothing_where_the_size_fits() -> None:
    model = plain_transformer()
    with torch.inference_mode():
        expected = model(images(28, 42)).argmax(1)
    assert torch.equal(predict_labels(model, images(28, 42), EvaluatorSettings()), expected)


def test_scaled_views_are_padded_each() -> None:
    model = plain_transformer()
    predict(model, images(28, 42), EvaluatorSettings(scales=[0.5, 1.0], flip=True))
    assert model.backbone.seen == [(14, 28), (28, 42)]


def test_windows_have_to_fit() -> None:
    model = plain_transformer()
    assert predict(model, images(30, 50), EvaluatorSettings(mode="slide", window=28)).shape == (2, 3, 30, 50)
    with pytest.raises(UserError, match=r"^evaluator\.window=30: .* multiples of 14 pixels.* 28 or 42"):
        predict(model, images(30, 50), EvaluatorSettings(mode="slide", window=30))


@pytest.mark.parametrize(
    ("sides", "named"),
    [
        ([96], r"^trainer\.crop_size=96: .* multiples of 14 pixels\. Give 84 or 98\."),
        ([98, 100], r"^trainer\.crop_size=\[98,100\]: .* Give 98 or \[98,112\]\."),
        ([5], r"Give 14\."),
    ],
)
def test_sizes_that_the_backbone_cannot_take(sides: list[int], named: str) -> None:
    with pytest.raises(UserError, match=named):
        require_multiple("trainer.crop_size", sides, 14)
    require_multiple("trainer.crop_size", sides, 1)


def test_features_are_decoded_maps() -> None:
    model = network().eval()
    with torch.inference_mode():
        maps = model.encode(images(33, 49))
        assert [m.shape[1] for m in maps] == [stage.channels for stage in model.backbone.stages]
        assert torch.equal(model.decode(maps), model.features(images(33, 49)))
        logits = model.classify(model.decode(maps), (33, 49))
        assert torch.equal(logits, model(images(33, 49)))
        perturbed = [torch.nn.functional.dropout2d(each, 0.5) for each in maps]
        assert not torch.equal(model.decode(perturbed), model.decode(maps))


def test_heads_read_their_sources_and_travel_with_them() -> None:
    model = network()
    model.attach("usual", Projector(16, 4, 5))
    model.attach("last", Projector(40, 4, 5), source="c4")
    model.attach("first", RepresentationHead(16, 4, 5), source="c1")
    model.eval()
    maps = model.encode(images(33, 49))
    features = model.decode(maps)
    assert torch.equal(model.apply_head("usual", maps, features), model.heads["usual"](features))
    assert torch.equal(model.apply_head("last", maps, features), model.heads["last"](maps[3]))
    assert torch.equal(model.apply_head("first", maps, features), model.heads["first"](maps[0]))
    values = through_a_file(bundle(model, INFO, CONFIG))
    assert values["sources"] == {"last": "c4", "first": "c1"}
    for again in (from_bundle(values), copy.deepcopy(model)):
        assert again.sources == model.sources
        assert network_state(again) == network_state(model)
        for name in model.heads:
            found = again.apply_head(name, maps, features)
            assert torch.equal(found, model.apply_head(name, maps, features))
    fresh = network(1)
    restore_heads_and_input(fresh, network_state(model))
    assert fresh.sources == model.sources


def test_checkpoints_from_before_there_were_sources() -> None:
    model = network()
    model.attach("projector", Projector(16, 4, 5))
    values = through_a_file(bundle(model, INFO, CONFIG))
    assert "sources" not in values
    assert from_bundle(values).sources == {"projector": "features"}


@pytest.mark.parametrize(
    ("channels", "source", "named"),
    [
        (16, "c4", "takes 16 channels; c4 gives 40"),
        (40, "features", "takes 40 channels; the decoder gives 16"),
        (16, "c5", "source 'c5': there are features, c1, c2, c3, c4"),
        (16, "4", "source '4': there are"),
    ],
)
def test_heads_that_do_not_suit_their_source(channels: int, source: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        network().attach("projector", Projector(channels), source)


def test_a_checkpoint_with_a_source_that_is_not_there() -> None:
    model = network()
    model.attach("projector", Projector(16), source="c1")
    values = bundle(model, INFO, CONFIG) | {"sources": {"projector": "c7"}}
    with pytest.raises(UserError, match="head 'projector' cannot be built: source 'c7'"):
        from_bundle(values)


def test_a_head_that_was_deleted_leaves_no_source() -> None:
    model = network()
    model.attach("projector", Projector(16), source="c1")
    del model.heads["projector"]
    assert "sources" not in network_state(model)
    model.attach("projector", Projector(16))
    assert "sources" not in network_state(model)


BACKBONES: dict[str, tuple[Callable[[], Backbone], list[str]]] = {
    "tiny": (lambda: Tiny(8), ["stem", "c1", "c2", "c3", "c4"]),
    "resnet18": (lambda: ResNet(18), ["stem", "c1", "c2", "c3", "c4"]),
    "resnet50-deep": (lambda: ResNet(50, stem="deep"), ["stem", "c1", "c2", "c3", "c4"]),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_parts_hold_every_parameter_once_in_order(name: str) -> None:
    make, stages = BACKBONES[name]
    model = segmentation_model(make(), SMALL, 3)
    model.attach("projector", Projector(16))
    parts = model.parts()
    expected = [*(f"backbone.{stage}" for stage in stages), "decoder", "classifier", "heads.projector"]
    assert [part.name for part in parts] == expected
    assert [part.group for part in parts] == ["backbone"] * len(stages) + ["head"] * 3
    found = [each for part in parts for each in part.parameters]
    assert len(found) == len(set(found))
    assert all(one is other for one, other in zip(found, model.parameters(), strict=True))


def test_parts_of_a_backbone_that_names_none() -> None:
    class Scaled(SegModel):
        def __init__(self, *parts: Any) -> None:
            super().__init__(*parts)
            self.factor = nn.Parameter(torch.ones(()))

    backbone = Patches()
    model = Scaled(backbone, Linear(backbone.stages), nn.Conv2d(6, 3, 1), 3)
    assert [(part.name, part.group, len(part.parameters)) for part in model.parts()] == [
        ("backbone", "backbone", 2),
        ("classifier", "head", 2),
        ("network", "head", 1),
    ]
    groups = SGD(lr=0.1).groups(model)
    assert [(group["name"], len(group["params"])) for group in groups] == [("backbone", 2), ("head", 3)]


def test_groups_keep_the_order_of_the_parameters() -> None:
    """Optimizers store their state by position, so that a checkpoint needs this order again."""
    model = network()
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = SGD(lr=0.1, decay="conv").groups(model)
    for group in groups:
        backbone, without_decay = group["name"].startswith("backbone"), group["name"].endswith("no_decay")
        assert [names[each] for each in group["params"]] == [
            name
            for name, each in model.named_parameters()
            if name.startswith("backbone.") == backbone and (each.ndim <= 1) == without_decay
        ]
    assert [group["name"] for group in groups] == ["backbone", "backbone_no_decay", "head", "head_no_decay"]


def test_weights_are_read_for_the_parts_that_are_built_on_them() -> None:
    assert ResNet(18).read_weights() is None
    assert Tiny(8).read_weights() is None
    assert pyramid([1, 2], 32) == (Stage(1, 4), Stage(2, 8))
