"""The supervised learner and its method."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from semiseg.contracts.training import Progress
from semiseg.errors import UserError
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.supervised import Supervised, SupervisedLearner

Make = Callable[..., Any]
PROGRESS = Progress(iteration=0, total=1, epoch=0, seed=0)


@pytest.mark.parametrize("kind", ["ce", "ohem"])
def test_it_learns_and_reaches_every_parameter(kind: Any, make_model: Make, make_batch: Make) -> None:
    learner = SupervisedLearner(make_model(0), LabeledLoss(Supervised(loss=kind)))
    batch = make_batch("labeled")
    optimizer = torch.optim.SGD(learner.parameters(), 0.1, momentum=0.9)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        total = learner(batch, PROGRESS).total
        total.backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in learner.parameters())
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("kind", ["ce", "ohem"])
def test_a_batch_without_valid_pixels_changes_nothing(kind: Any, make_model: Make, make_batch: Make) -> None:
    learner = SupervisedLearner(make_model(0), LabeledLoss(Supervised(loss=kind)))
    batch = make_batch("labeled")
    batch["labeled"]["label"].fill_(255)
    output = learner(batch, PROGRESS)
    output.total.backward()
    assert output.total.item() == 0
    assert output.scalars["pixels_used"].item() == 0
    assert all(torch.equal(parameter.grad, torch.zeros_like(parameter)) for parameter in learner.parameters())


def test_the_share_of_used_pixels_is_logged(make_model: Make, make_batch: Make) -> None:
    output = SupervisedLearner(make_model(0))(make_batch("mixed"), PROGRESS)
    assert output.scalars["pixels_used"].item() == pytest.approx(1 - 9 / 256)
    assert output.losses["supervised"].count == 4 * (256 - 9)


def test_a_step_never_waits_for_the_device(make_model: Make, make_batch: Make, wait_counter: Any) -> None:
    learner, batch = (
        SupervisedLearner(make_model(0), LabeledLoss(Supervised(loss="ohem"))),
        make_batch("labeled"),
    )
    with wait_counter:
        learner(batch, PROGRESS).total.backward()
    assert wait_counter.seen == []


@pytest.mark.parametrize("augment", ["weak", "strong"])
def test_the_recipe_is_one_fit(augment: Any, make_lab: Make) -> None:
    lab = make_lab(labeled=6, unlabeled=4)
    model = Supervised(augment=augment, double_below=7).run(lab)
    assert model is lab.fits["train"].selected
    stream = lab.streams["train"].streams["labeled"]
    assert [item.id for item in stream.items] == [*lab.split.labeled, *lab.split.labeled]
    assert {item.view for item in stream.items} == {getattr(lab.augment, augment)}
    assert stream.batch_size == lab.trainer.batch_size


@pytest.mark.parametrize(
    "arguments", [{"augment": "medium"}, {"loss": "dice"}, {"ohem_threshold": 0}, {"ohem_min_kept": -1}]
)
def test_bad_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(arguments))):
        Supervised(**arguments)


def test_the_average_is_reported_and_follows_the_network(make_model: Make, make_batch: Make) -> None:
    learner = SupervisedLearner(make_model(0), ema_decay=0.5)
    optimizer = torch.optim.SGD(learner.model.parameters(), 0.1)
    average = next(iter(learner.predictors().values()))
    before = [parameter.clone() for parameter in average.parameters()]
    learner(make_batch("labeled"), PROGRESS).total.backward()
    optimizer.step()
    learner.after_step(PROGRESS)
    assert average is not learner.model
    for old, now, new in zip(before, average.parameters(), learner.model.parameters(), strict=True):
        torch.testing.assert_close(now, (old + new) / 2)
    assert all(parameter.grad is None for parameter in average.parameters())
