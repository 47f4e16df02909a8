import io
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from semiseg.contracts.dataset import DatasetInfo
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
from semiseg.models.deeplabv3plus_cps import DeepLabV3PlusCPS
from semiseg.models.heads import Projector, RepresentationHead
from semiseg.models.resnet import ResNet
from semiseg.models.segmodel import InputConvention, SegModel
from semiseg.models.tiny import Tiny

INFO = DatasetInfo("toy", ("sky", "road", "car"), ((0, 0, 255), (128, 128, 128), (255, 0, 0)))
TINY = {"_target_": "semiseg.models.tiny.Tiny", "name": "tiny", "width": 8}
DECODER = {
    "_target_": "semiseg.models.deeplabv3plus.DeepLabV3Plus",
    "_partial_": True,
    "name": "deeplabv3plus",
    "channels": 16,
    "low_channels": 8,
    "rates": [1, 2],
}
PROJECTOR = {"_target_": "semiseg.models.heads.Projector", "in_channels": 16}
CONFIG = {"backbone": TINY, "model": DECODER}


def network() -> SegModel:
    torch.manual_seed(0)
    model = segmentation_model(Tiny(8), partial(DeepLabV3Plus, channels=16, low_channels=8, rates=(1, 2)), 3)
    with torch.no_grad():  # leaves nothing at its initial value, batch-norm statistics included
        model.train()(torch.randint(0, 256, (2, 3, 33, 33), dtype=torch.uint8))
    return model.eval()


def through_a_file(values: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(values, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def test_a_bundle_gives_equal_logits_back() -> None:
    model = network()
    values = through_a_file(bundle(model, INFO, CONFIG, step="train", iteration=40, miou=0.5))
    again = from_bundle(values)
    images = torch.randint(0, 256, (2, 3, 65, 49), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(again(images), model(images))
    assert not again.training
    assert (values["step"], values["iteration"], values["miou"]) == ("train", 40, 0.5)
    assert values["classes"] == ["sky", "road", "car"]
    assert values["palette"][2] == [255, 0, 0]
    assert values["config"] == CONFIG


def test_the_convention_travels_along() -> None:
    backbone = Tiny(8)
    backbone.convention = InputConvention("BGR", 1.0, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0))
    model = segmentation_model(
        backbone, partial(DeepLabV3Plus, channels=16, low_channels=8, rates=(1, 2)), 3
    ).eval()
    again = from_bundle(through_a_file(bundle(model, INFO, CONFIG)))
    assert again.convention == backbone.convention
    images = torch.randint(0, 256, (1, 3, 33, 33), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(again(images), model(images))


def test_heads_travel_along() -> None:
    model = network()
    model.attach("projector", Projector(16, 4, 5))
    model.attach("representation", RepresentationHead(16, out_channels=6))
    with torch.no_grad():
        model.train().heads["representation"](torch.randn(2, 16, 9, 9))
    model.eval()
    values = through_a_file(bundle(model, INFO, CONFIG))
    again = from_bundle(values)
    assert list(again.heads) == ["projector", "representation"]
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    features = torch.randn(1, 16, 9, 9)
    with torch.inference_mode():
        for name in model.heads:
            assert torch.equal(again.heads[name](features), model.heads[name](features))
        images = torch.randint(0, 256, (1, 3, 33, 33), dtype=torch.uint8)
        assert torch.equal(again(images), model(images))
    assert network_state(again) == network_state(model)


def test_a_fresh_network_is_equipped_like_another() -> None:
    model = network()
    model.attach("projector", Projector(16, 4, 5))
    model.set_convention(InputConvention("BGR", 1.0, (1.0, 2.0, 3.0), (1.0, 1.0, 1.0)))
    fresh = network()
    restore_heads_and_input(fresh, network_state(model))
    fresh.load_state_dict(model.state_dict())
    assert fresh.convention == model.convention
    images = torch.randint(0, 256, (1, 3, 33, 33), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(fresh(images), model(images))


def test_frozen_branches_stay_frozen() -> None:
    decoder = {"_target_": "semiseg.models.deeplabv2.DeepLabV2", "branches": 2, "rates": [1, 2, 3]}
    model = segmentation_model(Tiny(8), partial(DeepLabV2, branches=2, rates=[1, 2, 3]), 3)
    again = from_bundle(bundle(model, INFO, {"backbone": TINY, "model": decoder}))
    assert [conv.weight.requires_grad for conv in again.classifier.convs] == [True, True, False]


def test_a_bundle_does_not_change_with_the_network() -> None:
    model = network()
    values = bundle(model, INFO, CONFIG)
    before = values["state_dict"]["classifier.bias"].clone()
    with torch.no_grad():
        model.classifier.bias.add_(1)
    assert torch.equal(values["state_dict"]["classifier.bias"], before)


def test_initial_weights_are_not_needed_again() -> None:
    backbone = {
        "_target_": "semiseg.models.resnet.ResNet",
        "depth": 18,
        "stem": "deep",
        "weights": "gone.pth",
    }
    decoder = {"_target_": "semiseg.models.deeplabv3plus_cps.DeepLabV3PlusCPS", "channels": 16}
    model = segmentation_model(ResNet(18, stem="deep"), partial(DeepLabV3PlusCPS, channels=16), 3)
    values = bundle(model, INFO, {"backbone": backbone, "model": decoder})
    assert values["config"]["backbone"]["weights"] == "gone.pth"
    again = from_bundle(values)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_config_nodes_become_plain() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    values = bundle(network(), INFO, omegaconf.OmegaConf.create(CONFIG))
    assert type(values["config"]["model"]) is dict
    assert type(values["config"]["model"]["rates"]) is list
    through_a_file(values)


def test_values_that_no_safe_loader_reads_are_refused() -> None:
    with pytest.raises(TypeError, match="not a plain value"):
        bundle(network(), INFO, CONFIG, miou=nn.Identity())


def damaged(change: dict[str, Any]) -> dict[str, Any]:
    return {**bundle(network(), INFO, CONFIG), **change}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": 2}, "format 2"),
        ({"classes": ["sky", "road"]}, "classifier"),
        ({"config": {"backbone": {"_target_": "os.system", "command": "true"}, "model": DECODER}}, "refused"),
        ({"config": {"backbone": TINY, "model": {"_target_": "nowhere.Decoder"}}}, "can't be imported"),
        ({"config": {"backbone": {"_target_": "Tiny"}, "model": DECODER}}, "can't be imported"),
        ({"config": {"backbone": {"_target_": "torch.nn.Identity"}, "model": DECODER}}, "Backbone.*refused"),
        ({"config": {"backbone": {**TINY, "width": 4}, "model": DECODER}}, "another shape"),
        ({"heads": {"extra": {"_target_": "os.system", "command": "true"}}}, "refused"),
        ({"heads": {"extra": {"_target_": "torch.nn.Identity"}}}, "head 'extra' cannot be built"),
        ({"heads": {"extra": {**PROJECTOR, "in_channels": 3}}}, "takes 3 channels"),
        ({"heads": {"extra": {**PROJECTOR, "depth": 3}}}, "head 'extra' cannot be built"),
        ({"heads": {"extra": PROJECTOR}}, "entries of the network are not in the file"),
    ],
)
def test_bundles_that_cannot_be_rebuilt(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        from_bundle(damaged(change))


def test_something_else() -> None:
    with pytest.raises(UserError, match="lacks format, state_dict"):
        from_bundle({"epoch": 1})
