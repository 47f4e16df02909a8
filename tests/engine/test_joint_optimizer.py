"""Optimizers of networks with settings of their own, as one."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from semiseg.contracts.training import Further, Learner
from semiseg.engine.joint_optimizer import JointOptimizer, OptimizerByRole, build_optimizer, schedules
from semiseg.engine.loop import complete_groups
from semiseg.engine.optim import SGD, Adam, AdamW
from semiseg.engine.schedule import Cosine, Poly
from semiseg.engine.sizes import render_sizes, trained_networks
from semiseg.errors import UserError
from semiseg.models.bundle import segmentation_model
from semiseg.models.pspnet import PSPNet
from semiseg.models.segmodel import SegModel
from semiseg.models.tiny import Tiny


def network(seed: int, role: str | None = None) -> SegModel:
    torch.manual_seed(seed)
    made = segmentation_model(Tiny(), lambda stages: PSPNet(stages, pool_channels=4, channels=8), 3)
    made.role = role
    return made


def gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def train(optimizers: list[Any], networks: list[SegModel], steps: range) -> None:
    for step in steps:
        for each in optimizers:
            each.zero_grad()
        for model in networks:
            gradients(model, step)
        for each in optimizers:
            for group in each.param_groups:
                group["lr"] = group["initial_lr"] * 0.9**step
            each.step()


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


PAIRS = [
    (SGD(lr=0.1), AdamW(lr=0.01)),
    (SGD(lr=0.1, momentum=0.5), SGD(lr=0.02, momentum=0.9, weight_decay=0.1, head_multiplier=3.0)),
    (AdamW(lr=0.1, beta1=0.5), AdamW(lr=0.01)),
]


@pytest.mark.parametrize(("own", "other"), PAIRS)
def test_each_network_is_trained_by_its_own_settings(own: Any, other: Any) -> None:
    spec = OptimizerByRole(own, {"partner": other})
    together = [network(0), network(1, "partner")]
    joint = spec.build([group for each in together for group in spec.groups(each)])
    train([joint], together, range(3))
    apart = [network(0), network(1)]
    train(
        [each.build(each.groups(model)) for each, model in zip((own, other), apart, strict=True)],
        apart,
        range(3),
    )
    assert all(map(same, together, apart))
    assert [group["name"] for group in joint.param_groups if group["lr"] == group["initial_lr"]] == []
    assert {group["name"].split("_")[0] for group in joint.param_groups} == {"backbone", "head", "partner"}


@pytest.mark.parametrize(("own", "other"), PAIRS)
def test_going_on_from_a_stored_state_is_exact(own: Any, other: Any) -> None:
    spec = OptimizerByRole(own, {"partner": other})

    def made() -> tuple[list[SegModel], Any]:
        networks = [network(0), network(1, "partner")]
        return networks, spec.build([group for each in networks for group in spec.groups(each)])

    straight, optimizer = made()
    train([optimizer], straight, range(2))
    weights = [copy.deepcopy(each.state_dict()) for each in straight]
    state = copy.deepcopy(optimizer.state_dict())
    train([optimizer], straight, range(2, 5))
    resumed, again = made()
    for model, values in zip(resumed, weights, strict=True):
        model.load_state_dict(values)
    again.load_state_dict(state)
    train([again], resumed, range(2, 5))
    assert all(map(same, straight, resumed))


def test_one_kind_of_network_has_one_optimizer_of_torch() -> None:
    spec = OptimizerByRole(SGD(lr=0.1), {"partner": AdamW(lr=0.01)})
    assert isinstance(spec.build(spec.groups(network(0))), torch.optim.SGD)
    assert isinstance(spec.build(spec.groups(network(0, "partner"))), torch.optim.AdamW)
    # A role without settings of its own has those of the run.
    assert isinstance(spec.build(spec.groups(network(0, "student"))), torch.optim.SGD)
    both = [group for role in (None, "partner") for group in spec.groups(network(0, role))]
    assert isinstance(spec.build(both), JointOptimizer)


def test_another_rate_of_a_fit_changes_all_in_the_same_ratio() -> None:
    spec = OptimizerByRole(SGD(lr=0.1), {"partner": AdamW(lr=0.004)}).with_lr(0.05)
    assert spec.lr == 0.05
    assert {group["lr"] for group in spec.groups(network(0, "partner"))} == {0.002}


class Judged(Learner):
    """A network, and a module that is none."""

    def __init__(self, given: bool = True) -> None:
        super().__init__()
        self.model, self.judge, self.given = network(0), nn.Conv2d(3, 4, 1), given

    def further(self) -> dict[str, Further]:
        return {"judge": Further(self.judge, Adam(lr=0.01, beta2=0.99), Cosine())} if self.given else {}


def test_further_modules_are_trained_by_optimizers_of_their_own() -> None:
    spec = SGD(lr=0.1, head_multiplier=10)
    learner = Judged()
    alone = copy.deepcopy(learner)
    joint = build_optimizer(learner, spec, complete_groups(learner, spec))
    apart = [
        spec.build(spec.groups(alone.model)),
        torch.optim.Adam(alone.judge.parameters(), 0.01, (0.9, 0.99)),
    ]
    apart[1].param_groups[0]["initial_lr"] = 0.01
    for step in range(3):
        train([joint], [learner.model, learner.judge], range(step, step + 1))  # type: ignore[list-item]
        train(apart, [alone.model, alone.judge], range(step, step + 1))  # type: ignore[list-item]
    assert same(learner, alone)
    assert [group["name"] for group in joint.param_groups] == ["backbone", "head", "judge"]
    assert schedules(learner, Poly()) == {"judge": Cosine()}


def test_the_state_of_further_optimizers_is_stored() -> None:
    spec, first, second = SGD(lr=0.1), Judged(), Judged()
    joint = build_optimizer(first, spec, complete_groups(first, spec))
    train([joint], [first.model, first.judge], range(2))  # type: ignore[list-item]
    second.load_state_dict(first.state_dict())
    resumed = build_optimizer(second, spec, complete_groups(second, spec))
    resumed.load_state_dict(copy.deepcopy(joint.state_dict()))
    train([joint], [first.model, first.judge], range(2, 4))  # type: ignore[list-item]
    train([resumed], [second.model, second.judge], range(2, 4))  # type: ignore[list-item]
    assert same(first, second)


def test_a_module_without_an_optimizer_is_refused() -> None:
    with pytest.raises(UserError, match=r"judge\.weight.*further"):
        complete_groups(Judged(given=False), SGD(lr=0.1))


def test_further_modules_are_in_the_table_of_parameters() -> None:
    assert "judge: other 16 trained" in render_sizes(trained_networks(Judged()))
