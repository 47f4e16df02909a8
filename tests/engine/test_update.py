"""Scaled losses, clipped gradients, and optimizers that go on from a checkpoint of another device."""

import copy

import pytest
import torch
from torch import nn

from semiseg.contracts.training import Learner
from semiseg.engine.compute import Compute
from semiseg.engine.joint_optimizer import JointOptimizer
from semiseg.engine.optim import kept_fused
from semiseg.engine.update import Update

CPU = torch.device("cpu")


class Two(Learner):
    """Two weights, each with an optimizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))


def update(learner: Two, precision: str = "fp16", clip: float | None = None) -> Update:
    parts = [torch.optim.SGD([each], lr=1.0) for each in (learner.first, learner.second)]
    return Update(learner, JointOptimizer(parts), Compute(CPU, precision).scaler(), clip)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(("clip", "step"), [(None, 3.0), (1.0, 1.0)])
def test_gradients_are_clipped_in_their_own_scale(precision: str, clip: float | None, step: float) -> None:
    learner = Two()
    whole = update(learner, precision, clip)
    whole.scaled(3 * learner.first[0]).backward()
    whole.apply()
    torch.testing.assert_close(learner.first.detach(), torch.tensor([1 - step, 1.0]))
    assert torch.equal(learner.second.detach(), torch.ones(2))


def test_gradients_that_are_not_finite_change_nothing_and_halve_the_scale() -> None:
    learner = Two()
    whole = update(learner, clip=1.0)
    scale = whole.logged()["train/loss_scale"]
    whole.scaled(1e38 * learner.first[0]).backward()
    whole.apply()
    assert torch.equal(learner.first.detach(), torch.ones(2))
    assert whole.logged()["train/loss_scale"] == scale / 2
    resumed = update(Two())
    resumed.restore(whole.state())
    assert resumed.logged() == whole.logged()


def test_without_scaled_losses_nothing_is_stored_or_logged() -> None:
    whole = update(Two(), "bf16")
    assert whole.state() == whole.logged() == {}
    whole.restore({})


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("stored", [True, None])
def test_an_optimizer_keeps_its_kernels_whatever_the_checkpoint_had(
    kind: type[torch.optim.Optimizer], stored: bool | None
) -> None:
    def make(fused: bool | None) -> torch.optim.Optimizer:
        torch.manual_seed(0)
        parameter = nn.Parameter(torch.randn(3))
        parameter.grad = torch.randn(3)
        options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        return kept_fused(kind([parameter], lr=0.1, fused=fused, **options))

    other, own = make(stored), make(not stored or None)
    for optimizer in (other, own):
        optimizer.step()
    before = own.param_groups[0]["fused"]
    own.load_state_dict(copy.deepcopy(other.state_dict()))
    assert own.param_groups[0]["fused"] == before
    for optimizer in (other, own):
        optimizer.step()
    first, second = other.param_groups[0]["params"][0], own.param_groups[0]["params"][0]
    torch.testing.assert_close(first.detach(), second.detach())
