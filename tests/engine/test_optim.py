from collections.abc import Callable

import pytest
import torch
from torch import nn

from semiseg.engine.ema import EMA
from semiseg.engine.optim import SGD, AdamW
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
