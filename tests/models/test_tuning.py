"""Freezing, norms, low-rank matrices and recomputation, for backbones of the package, of timm and of users."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from semiseg.config.targets import check_node, complete
from semiseg.contracts.dataset import DatasetInfo
from semiseg.declare import declared, split_shared
from semiseg.engine.ema import EMA
from semiseg.engine.optim import SGD
from semiseg.errors import UserError
from semiseg.models.bundle import bundle, fitted_state, from_bundle, segmentation_model
from semiseg.models.grouped_norm import group_batch_norm
from semiseg.models.input_channels import extend_input
from semiseg.models.lora import LoRA, is_low_rank, merge_low_rank
from semiseg.models.pspnet import PSPNet
from semiseg.models.resnet import ResNet
from semiseg.models.segmodel import Backbone, InputConvention, SegModel, Stage
from semiseg.models.timm_backbone import Timm
from semiseg.models.tiny import Tiny
from semiseg.models.tuning import Tuning, tuning_of

HEAD = partial(PSPNet, pool_channels=4, channels=8)
INFO = DatasetInfo("three", ("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
VIT = {"name": "test_vit", "output_stride": 16}
TINY = {"_target_": "semiseg.models.tiny.Tiny", "width": 4}


class Own(Backbone):
    """A backbone as a user writes it, without stages."""

    stages = (Stage(4, 4),)
    convention = InputConvention()

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 4, 4)
        self.table = nn.Parameter(torch.zeros(1, 4, 1, 1))
        self.mix = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.mix(self.first(x) + self.table)]


def network(backbone: Backbone, seed: int = 0) -> SegModel:
    torch.manual_seed(seed)
    return segmentation_model(backbone, HEAD, 3).train()


def make(kind: str, **settings: Any) -> SegModel:
    """Return a small network on a backbone of a kind; equal kinds have equal first weights."""
    torch.manual_seed(0)
    if kind == "vit" or kind == "convnext":
        pytest.importorskip("timm")
    kinds: dict[str, Any] = {
        "tiny": lambda: Tiny(4),
        "resnet": lambda: ResNet(18),
        "vit": lambda: Timm(**VIT),
        "convnext": lambda: Timm("test_convnext", output_stride=32),
        "own": Own,
    }
    backbone = kinds[kind]()
    for name, parameter in backbone.named_parameters():
        if name.endswith("gamma"):  # 1e-6 at first, so that blocks would have no effect
            nn.init.ones_(parameter)
    return network(backbone.tune(Tuning(**settings)))


def images(size: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def kept_for_gradients(module: nn.Module) -> int:
    """Number of values that a module keeps for the gradients of a pass."""
    saved: list[int] = []

    def note(value: torch.Tensor) -> torch.Tensor:
        saved.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        module(images().float() / 255)
    return sum(saved)


def step(model: SegModel) -> None:
    """Train one step with a large rate."""
    spec = SGD(lr=0.1)
    optimizer = spec.build(spec.groups(model))
    model.train()
    model(images()).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("tiny", ["stem", "c1"]),
        ("resnet", ["stem", "c1"]),
        ("convnext", ["stem", "c1"]),
        ("vit", ["stem", "block1"]),
    ],
)
def test_the_first_stages_stay_as_they_are(kind: str, first: list[str]) -> None:
    model = make(kind, freeze=2)
    names = {id(each): part.name for part in model.parts() for each in part.parameters}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frozen = {part for part in names.values() if part in [f"backbone.{each}" for each in first]}
    assert len(frozen) == 2
    assert all(
        each.requires_grad == (names[id(each)] not in frozen) or names[id(each)].startswith("decoder")
        for each in model.parameters()
    )
    step(model)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    parameters = dict(model.named_parameters())
    assert not {names[id(parameters[name])] for name in changed if name in parameters} & frozen
    modules = [module for stage in first for module in model.backbone.part_modules()[stage]]
    kept = {id(each) for module in modules for each in module.buffers()}
    assert not [name for name, value in model.named_buffers() if id(value) in kept and name in changed]
    # What the stages compute for images needs no graph, so that no activation is kept.
    assert kept_for_gradients(model.backbone) < kept_for_gradients(make(kind).backbone)
    maps = model.encode(images())
    assert maps[-1].requires_grad
    if kind != "vit":
        assert not maps[0].requires_grad


def test_position_tables_and_tokens_are_frozen_with_the_input() -> None:
    model = make("vit", freeze=1)
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert not [name for name in trained if "pos_embed" in name or "token" in name or "patch_embed" in name]
    assert any(".blocks.0." in name for name in trained)


@pytest.mark.parametrize("kind", ["tiny", "resnet", "convnext", "vit", "own"])
def test_a_wholly_frozen_backbone_gives_what_it_gives_in_evaluation(kind: str) -> None:
    model = make(kind, freeze="all")
    maps = model.encode(images())
    assert not any(each.requires_grad for each in maps)
    assert [group["name"] for group in SGD(lr=1).groups(model)] == ["head"]
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    step(model)
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())
    expected = model.eval().encode(images())
    assert all(torch.equal(one, other) for one, other in zip(maps, expected, strict=True))


def test_norms_can_be_frozen_alone() -> None:
    model = make("resnet", freeze_norm=True)
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert any(module.training for module in model.decoder.modules() if isinstance(module, nn.BatchNorm2d))
    before = copy.deepcopy(norms)
    step(model)
    for norm, kept in zip(norms, before, strict=True):
        assert all(torch.equal(norm.state_dict()[key], value) for key, value in kept.state_dict().items())
    assert model.backbone.layer1[0].conv1.weight.grad is not None
    grouped = group_batch_norm(make("tiny", freeze_norm=True), 2).train()
    kept = [each for each in grouped.backbone.modules() if isinstance(each, nn.BatchNorm2d)]
    assert not any(each.training for each in kept)
    transformer = make("vit", freeze_norm=True)
    names = [name for name, each in transformer.backbone.named_parameters() if not each.requires_grad]
    assert names
    assert all("norm" in name for name in names)


class Stubborn(Own):
    """A backbone whose constructor has an argument of the name of a shared setting, and takes any other."""

    def __init__(self, freeze: str = "never", **others: int) -> None:
        super().__init__()
        self.freeze, self.others = freeze, others


def test_a_constructor_keeps_its_own_arguments() -> None:
    given = {"freeze": "often", "freeze_norm": True, "depth": 3, "lora": {"rank": 1}}
    own, shared = split_shared(Stubborn, given)
    assert own == {"freeze": "often", "depth": 3}
    assert shared == {"freeze_norm": True, "lora": {"rank": 1}}
    assert tuning_of(shared) == Tuning(freeze_norm=True, lora=LoRA(rank=1))
    assert declared(Stubborn)["freeze"].default == "never"
    assert declared(Own)["freeze"].default is None
    node = {"_target_": "semiseg.models.tiny.Tiny", "lora": {"rank": 2}}
    complete(node, "backbone")
    assert node["freeze_norm"] is False
    assert node["lora"] == {"_target_": "semiseg.models.lora.LoRA", "rank": 2, "alpha": None, "targets": None}
    assert [fault.key for fault in check_node({**node, "lora": {"rank": 0.5}}, "backbone")] == [
        "backbone.lora.rank"
    ]


def test_stages_that_are_not_there_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"backbone.freeze=6: the backbone has 5 stages: stem, c1, c2, c3, c4\."
    ):
        Tiny(4).tune(Tuning(freeze=6))
    with pytest.raises(UserError, match=r'does not say what its stages are\. Give "all" or null'):
        Own().tune(Tuning(freeze=1))
    with pytest.raises(UserError, match="no blocks"):
        Own().tune(Tuning(checkpoint=True))
    with pytest.raises(UserError, match="trains nothing of it"):
        Tuning(freeze="all", lora=LoRA(rank=1))


def test_an_average_holds_the_frozen_weights_themselves() -> None:
    model = make("tiny", freeze=2)
    ema = EMA(model, 0.5)
    pairs = list(zip(model.parameters(), ema.teacher.parameters(), strict=True))
    assert {one is other for one, other in pairs if not one.requires_grad} == {True}
    assert not any(one is other for one, other in pairs if one.requires_grad)
    step(model)
    ema.update(model)
    ema.to(torch.float64)
    assert not torch.equal(model.classifier.weight, ema.teacher.classifier.weight)


@pytest.mark.parametrize("kind", ["tiny", "resnet", "convnext", "vit"])
def test_recomputed_blocks_give_the_same_gradients_and_statistics(kind: str) -> None:
    plain, again = make(kind), copy.deepcopy(make(kind, checkpoint=True))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in plain.state_dict().items())
    assert kept_for_gradients(again) < 0.8 * kept_for_gradients(plain)
    for model in (plain, again):
        torch.manual_seed(3)
        loss = model(images()).square().mean()
        # Another mode before the backward pass, as methods choose for the pass of a teacher, changes nothing.
        model.eval()
        loss.backward()
        model.train()
    found = gradients(again)
    assert found.keys() == gradients(plain).keys()
    assert all(torch.equal(value, found[name]) for name, value in gradients(plain).items())
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in plain.state_dict().items())


def test_recomputed_blocks_give_the_gradients_of_several_losses() -> None:
    """As an accumulated batch asks for them: one loss after the other, of one pass."""
    found = []
    for checkpoint in (False, True):
        model = make("tiny", checkpoint=checkpoint)
        logits = model(images())
        parameters = list(model.parameters())
        losses = (logits.square().mean(), logits.sigmoid().mean())
        found.append([torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses])
    assert all(map(torch.equal, [*found[0][0], *found[0][1]], [*found[1][0], *found[1][1]]))


def test_filters_of_more_channels_stay_frozen() -> None:
    backbone = Tiny(4).tune(Tuning(freeze=1))
    extend_input(backbone, 5)
    assert not any(each.requires_grad for each in backbone.stem.parameters())
    assert all(each.requires_grad for each in backbone.layers.parameters())


def test_recomputed_blocks_draw_the_same_stochastic_depth() -> None:
    pytest.importorskip("timm")
    found = []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        backbone = Timm("test_convnext", output_stride=32, drop_path=0.5).tune(Tuning(checkpoint=checkpoint))
        model = network(backbone)
        torch.manual_seed(5)
        model(images()).square().mean().backward()
        found.append(gradients(model))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_stochastic_depth_acts_in_training_alone_and_is_refused_where_there_is_none() -> None:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    model = network(Timm("test_convnext", output_stride=32, drop_path=0.9))
    one, other = model.encode(images())[-1], model.encode(images())[-1]
    assert not torch.equal(one, other)
    model.eval()
    assert torch.equal(model.encode(images())[-1], model.encode(images())[-1])
    with (
        torch.device("meta"),
        pytest.raises(UserError, match=r"drop_path=0.1: timm's densenet121 has no stoch"),
    ):
        Timm("densenet121", output_stride=32, drop_path=0.1)


@pytest.mark.parametrize(
    ("kind", "lora"),
    [
        ("vit", LoRA(rank=2)),
        ("vit", LoRA(rank=3, alpha=6, targets=["qkv", "proj"])),
        ("convnext", LoRA(rank=2, targets=["fc1"])),
        ("resnet", LoRA(rank=2, alpha=1, targets=["downsample.0"])),
    ],
)
def test_low_rank_matrices_are_all_that_is_trained_of_a_backbone(kind: str, lora: LoRA) -> None:
    plain, model = make(kind), make(kind, lora=lora)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for name, value in model.named_parameters():
        assert (
            is_low_rank(name)
            or torch.equal(value, dict(plain.named_parameters())[name])
            or "backbone" not in name
        )
    trained = [name for name, each in model.backbone.named_parameters() if each.requires_grad]
    assert trained
    assert all(map(is_low_rank, trained))
    model.eval()
    plain.eval()
    assert all(
        map(torch.equal, plain.encode(images()), model.encode(images()))
    )  # they begin without an effect
    for _ in range(2):
        step(model)
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert {name for name in changed if name.startswith("backbone.")} == {
        f"backbone.{name}" for name in trained
    }
    model.eval()
    expected = model(images())
    assert not torch.equal(plain.encode(images())[-1], model.encode(images())[-1])
    merged = merge_low_rank(copy.deepcopy(model))
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert torch.allclose(merged(images()), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(merged(images()).argmax(1), expected.argmax(1))


def test_the_product_is_scaled_by_alpha_over_rank() -> None:
    pytest.importorskip("timm")
    model = make("vit", lora=LoRA(rank=2, alpha=6, targets=["fc1"]))
    layer: Any = model.backbone.net.model.blocks[0].mlp.fc1
    nn.init.normal_(layer.lora_up)
    x = torch.randn(5, layer.in_features)
    change = 3 * x @ layer.lora_down.T @ layer.lora_up.T
    assert torch.allclose(layer(x), x @ layer.weight.T + layer.bias + change, atol=1e-5)


def test_frozen_stages_get_no_low_rank_matrices() -> None:
    pytest.importorskip("timm")
    model = make("vit", freeze=2, lora=LoRA(rank=2))
    names = [name for name, _ in model.named_parameters() if is_low_rank(name)]
    assert names
    assert not [name for name in names if ".blocks.0." in name]


def test_layers_that_cannot_have_low_rank_matrices_are_refused() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=r"no linear layers.*1x1 convs: downsample\.0"):
        ResNet(18).tune(Tuning(lora=LoRA(rank=2)))
    with pytest.raises(UserError, match=r"of the name qvk\. Did you mean qkv\?"):
        Timm(**VIT).tune(Tuning(lora=LoRA(rank=2, targets=["proj", "qvk"])))
    with torch.device("meta"), pytest.raises(UserError, match="EvaAttention takes the weight of qkv"):
        Timm("eva02_tiny_patch14_224", output_stride=14).tune(Tuning(lora=LoRA(rank=2, targets=["qkv"])))


def test_a_file_with_low_rank_matrices_is_merged_as_initial_weights(tmp_path: Path) -> None:
    lora = {"rank": 2, "alpha": 6.0, "targets": ["downsample.0"]}
    model = make("resnet", lora=LoRA(**lora))
    step(model)
    step(model)
    backbone = {"_target_": "semiseg.models.resnet.ResNet", "depth": 18, "lora": lora}
    decoder = {"_target_": "semiseg.models.pspnet.PSPNet", "pool_channels": 4, "channels": 8}
    torch.save(bundle(model, INFO, {"backbone": backbone, "model": decoder}), tmp_path / "network.pt")
    other = network(ResNet(18, weights=str(tmp_path / "network.pt")), seed=5).eval()
    assert torch.allclose(other(images()), model.eval()(images()), rtol=1e-4, atol=1e-4)


def test_a_bundle_brings_its_low_rank_matrices_along() -> None:
    pytest.importorskip("timm")
    settings = {"freeze": 2, "checkpoint": True, "lora": {"rank": 2, "alpha": 4.0, "targets": ["qkv"]}}
    model = make("vit", freeze=2, checkpoint=True, lora=LoRA(**settings["lora"]))
    step(model)
    step(model)
    backbone = {"_target_": "semiseg.models.timm_backbone.Timm", **VIT, "weights": "none", **settings}
    decoder = {"_target_": "semiseg.models.pspnet.PSPNet", "pool_channels": 4, "channels": 8}
    values = bundle(model, INFO, {"backbone": backbone, "model": decoder})
    loaded = from_bundle(values)
    expected = model.eval()(images())
    assert torch.equal(loaded(images()), expected)
    # A network with others begins as the merged one; one with the same ones takes them as they are.
    for lora in (LoRA(), LoRA(rank=1)):
        other = make("vit", lora=lora).eval()
        other.load_state_dict(fitted_state(values, other))
        assert torch.allclose(other(images()), expected, rtol=1e-4, atol=1e-4)
    assert fitted_state(values, model) is values["state_dict"]
