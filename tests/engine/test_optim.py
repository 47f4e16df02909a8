from collections.abc import Callable

import pytest
import torch
from torch import nn

from semiseg.engine.ema import EMA
from semiseg.engine.optim import SGD, Adam, AdamW
from semiseg.errors import UserError
from semiseg.models.segmodel import Backbone, InputConvention, SegModel, Stage


class Pixels(Backbone):
    """A backbone of one convolution with batch norm."""

    stages = (Stage(4, 1),) * 4
    convention = InputConvention()

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.norm(self.conv(x))] * 4


class Last(nn.Module):
    out_channels = 4

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return features[-1]


@pytest.fixture
def model() -> SegModel:
    torch.manual_seed(0)
    return SegModel(Pixels(), Last(), nn.Conv2d(4, 3, 1), 3)


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: SGD(lr=0), "lr"),
        (lambda: SGD(lr=float("nan")), "lr"),
        (lambda: AdamW(lr=float("inf")), "lr"),
        (lambda: SGD(lr=1, momentum=1), "momentum"),
        (lambda: SGD(lr=1, momentum=0, nesterov=True), "nesterov"),
        (lambda: SGD(lr=1, weight_decay=-1), "weight_decay"),
        (lambda: SGD(lr=1, head_multiplier=0), "head_multiplier"),
        (lambda: AdamW(lr=1, decay="none"), "decay"),  # type: ignore[arg-type]
        (lambda: AdamW(lr=1, beta2=-0.1), "beta2"),
        (lambda: Adam(lr=1, eps=0), "eps"),
        (lambda: SGD(lr=1, layer_decay=1.1), "layer_decay"),
        (lambda: SGD(lr=1, multipliers={"decoder": 0}), "multipliers"),
    ],
)
def test_values_out_of_range_are_named(build: Callable[[], object], key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}="):
        build()


def test_head_gets_its_multiple_of_the_rate(model: SegModel) -> None:
    groups = {group["name"]: group for group in SGD(lr=0.01, head_multiplier=10).groups(model)}
    assert groups["backbone"]["lr"] == 0.01
    assert groups["head"]["lr"] == pytest.approx(0.1)
    assert {name: len(group["params"]) for name, group in groups.items()} == {"backbone": 3, "head": 2}


def test_conv_decay_exempts_norms_and_biases(model: SegModel) -> None:
    groups = {group["name"]: group for group in SGD(lr=0.01, weight_decay=0.1, decay="conv").groups(model)}
    assert {name: (len(group["params"]), group["weight_decay"]) for name, group in groups.items()} == {
        "backbone": (1, 0.1),
        "backbone_no_decay": (2, 0.0),
        "head": (1, 0.1),
        "head_no_decay": (1, 0.0),
    }


def test_frozen_parameters_are_left_out(model: SegModel) -> None:
    model.backbone.requires_grad_(False)
    assert [group["name"] for group in AdamW(lr=0.01, decay="all").groups(model)] == ["head"]


def test_adamw_steps(model: SegModel) -> None:
    spec = AdamW(lr=0.01)
    optimizer = spec.build(spec.groups(model))
    before = model.classifier.weight.detach().clone()  # type: ignore[union-attr, operator]
    model(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.classifier.weight)  # type: ignore[arg-type]


def test_ema_follows_the_student_and_never_trains() -> None:
    student = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(student.weight)
    ema = EMA(student, decay=0.9)
    nn.init.ones_(student.weight)
    expected = 0.0
    for count in range(1, 30):
        ema.update(student)
        decay = min(0.9, 1 - 1 / (count + 1))
        expected = decay * expected + (1 - decay)
    assert ema.teacher.weight.item() == pytest.approx(expected, rel=1e-5)
    assert not any(parameter.requires_grad for parameter in ema.parameters())


def test_ema_goes_on_from_its_state() -> None:
    student = nn.BatchNorm1d(2)
    first, second = EMA(student, 0.5), EMA(student, 0.5)
    nn.init.constant_(student.weight, 3.0)
    first.update(student)
    second.load_state_dict(first.state_dict())
    first.update(student)
    second.update(student)
    assert torch.equal(first.teacher.weight, second.teacher.weight)


class Tokens(Pixels):
    """A backbone with stages, a class token, a position table and a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 9, 4))
        self.gamma = nn.Parameter(torch.ones(4))

    def part_modules(self) -> dict[str, list[nn.Module]]:
        return {"stem": [self.conv], "block1": [self.norm]}


@pytest.fixture
def staged() -> SegModel:
    return SegModel(Tokens(), Last(), nn.Conv2d(4, 3, 1), 3)


def rates(spec: SGD, model: SegModel) -> dict[str, tuple[float, int]]:
    """Rate and number of tensors of each group."""
    return {group["name"]: (pytest.approx(group["lr"]), len(group["params"])) for group in spec.groups(model)}


def test_each_stage_learns_slower_than_the_one_behind_it(staged: SegModel) -> None:
    # Distances from the head: 1 for the last stage, 2 for the stem, and for what no stage names.
    assert rates(SGD(lr=0.1, layer_decay=0.5, head_multiplier=2), staged) == {
        "backbone.stem": (0.025, 1),
        "backbone.block1": (0.05, 2),
        "backbone": (0.025, 3),
        "head": (0.2, 2),
    }
    groups = SGD(lr=0.1, layer_decay=0.5).groups(staged)
    assert all(group["lr"] == group["initial_lr"] for group in groups)
    held = [id(each) for group in groups for each in group["params"]]
    assert sorted(held) == sorted(map(id, staged.parameters()))


def test_rates_have_multipliers_by_part(staged: SegModel, model: SegModel) -> None:
    multipliers = {"backbone": 0.5, "backbone.stem": 0.1, "classifier": 10}
    assert rates(SGD(lr=1, multipliers=multipliers), staged) == {
        "backbone.stem": (0.1, 1),
        "backbone.block1": (0.5, 2),
        "backbone": (0.5, 3),
        "classifier": (10, 2),
    }
    assert rates(SGD(lr=1, layer_decay=0.5, multipliers={"backbone.block1": 3}), staged) == {
        "backbone.stem": (0.25, 1),
        "backbone.block1": (1.5, 2),
        "backbone": (0.25, 3),
        "head": (1, 2),
    }
    # Without stages the backbone is one part; a head that this network lacks may be another network's.
    assert rates(SGD(lr=1, layer_decay=0.5, multipliers={"heads.projector": 2}), model) == {
        "backbone": (0.5, 3),
        "head": (1, 2),
    }
    with pytest.raises(UserError, match=r"multipliers=backbone\.blok1.*Did you mean backbone\.block1\?"):
        SGD(lr=1, multipliers={"backbone.blok1": 2}).groups(staged)
    with pytest.raises(UserError, match=r"multipliers=back"):
        SGD(lr=1, multipliers={"back": 2}).groups(staged)


def test_neither_settings_that_are_off_nor_stages_change_the_groups(staged: SegModel) -> None:
    off = AdamW(lr=0.1, layer_decay=1.0, multipliers={})
    for spec in (off, AdamW(lr=0.1)):
        groups = spec.groups(staged)
        assert [group["name"] for group in groups] == [
            "backbone",
            "backbone_no_decay",
            "head",
            "head_no_decay",
        ]
        held = [id(each) for group in groups for each in group["params"]]
        parts = [each for part in staged.parts() for each in part.parameters]
        backbone, head = parts[:6], parts[6:]
        order = [
            each
            for group in (backbone, head)
            for several in (True, False)
            for each in group
            if (each.ndim > 1) is several
        ]
        assert held == list(map(id, order))


def test_tokens_and_position_tables_can_be_exempt_from_decay(staged: SegModel) -> None:
    names = {id(each): name for name, each in staged.named_parameters()}

    def exempt(decay: str) -> set[str]:
        groups = AdamW(lr=1, decay=decay).groups(staged)  # type: ignore[arg-type]
        return {names[id(each)] for group in groups if group["weight_decay"] == 0 for each in group["params"]}

    assert exempt("all") == set()
    single = {"backbone.gamma", "backbone.norm.weight", "backbone.norm.bias", "classifier.bias"}
    assert exempt("conv") == single
    assert exempt("no_tokens") == single | {"backbone.cls_token", "backbone.pos_embed"}


def test_adam_adds_its_decay_to_the_gradient_and_adamw_does_not() -> None:
    """One step from weight 2 with gradient 1: the first step of Adam has the size of the rate, unless eps counts."""

    def after(spec: Adam | AdamW) -> float:
        weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
        optimizer = spec.build([{"params": [weight], "weight_decay": spec.weight_decay}])
        weight.sum().backward()
        optimizer.step()
        return weight.item()

    assert Adam(lr=0.1).weight_decay == 0
    assert after(Adam(lr=0.1)) == pytest.approx(1.9, abs=1e-8)
    assert after(Adam(lr=0.1, weight_decay=0.5)) == pytest.approx(1.9, abs=1e-8)
    assert after(AdamW(lr=0.1, weight_decay=0.5)) == pytest.approx(2 - 0.1 - 0.1 * 0.5 * 2, abs=1e-8)
    # A step is lr * g / (|g| + eps).
    assert after(Adam(lr=0.1, eps=1.0)) == pytest.approx(1.95, abs=1e-8)
    assert after(AdamW(lr=0.1, weight_decay=0, eps=3.0)) == pytest.approx(1.975, abs=1e-8)
