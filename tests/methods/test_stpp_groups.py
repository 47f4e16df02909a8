"""Batch norm of ST++ in groups, as two devices under DataParallel compute it; ST++ with another network."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semiseg.cli import main
from semiseg.contracts.training import Progress
from semiseg.errors import UserError
from semiseg.losses import cross_entropy
from semiseg.methods.stpp import SelfTraining
from semiseg.methods.supervised import NormGroups, Supervised, SupervisedLearner
from semiseg.models.bundle import segmentation_model
from semiseg.models.deeplabv3plus import DeepLabV3Plus
from semiseg.models.grouped_norm import GroupedBatchNorm2d
from semiseg.models.segmodel import SegModel
from semiseg.models.tiny import Tiny
from semiseg.settings import TrainerSettings

Make = Callable[..., Any]
PROGRESS = Progress(iteration=0, total=1, epoch=0, seed=0)
MIXED = "trainer.batch_size + trainer.unlabeled_batch_size"


def network(seed: int = 0) -> SegModel:
    torch.manual_seed(seed)
    decoder = partial(DeepLabV3Plus, channels=8, low_channels=4, rates=(1, 2), aspp_dropout=0.0, dropout=0.0)
    return segmentation_model(Tiny(8), decoder, 4).train()


def replicas(model: nn.Module, images: Tensor, devices: int) -> Tensor:
    """What ``DataParallel`` computes: slices of the batch; the first replica's statistics are the network's."""
    outputs = []
    for device, part in enumerate(images.chunk(devices)):
        buffers = dict(model.named_buffers())
        if device > 0:
            buffers = {name: value.clone() for name, value in buffers.items()}
        outputs.append(torch.func.functional_call(model, buffers, (part,)))
    return torch.cat(outputs)


def norms(model: nn.Module) -> list[GroupedBatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, GroupedBatchNorm2d)]


def grouped_learner(make_lab: Make, step: str = "teacher") -> SupervisedLearner:
    """The learner that the recipe makes for a step."""
    lab = make_lab(labeled=8, unlabeled=16)
    lab.trainer.batch_size = lab.trainer.unlabeled_batch_size = 4
    lab.trainer.accumulate = 1
    lab.network = lambda tag, weights=None: network()
    SelfTraining(plus=False, scales=[1.0], bn_group_size=4).run(lab)
    learner: SupervisedLearner = lab.learners[step]
    learner.load_state_dict({f"model.{key}": value for key, value in network().state_dict().items()})
    learner.zero_grad()
    return learner.double().train()


@pytest.mark.parametrize("step", ["teacher", "student"])
def test_a_step_is_that_of_two_devices(step: str, make_lab: Make, make_batch: Make) -> None:
    learner = grouped_learner(make_lab, step)
    assert {(norm.groups, norm.running) for norm in norms(learner.model)} == {(2, "first")}
    other = network().double()
    outputs: list[Tensor] = []
    learner.model.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    for seed in (1, 2):
        part = make_batch("labeled", n=8, size=33, seed=seed)["labeled"]
        learner({"labeled": part}, PROGRESS).total.backward()
        logits = replicas(other, part["image"], devices=2)
        cross_entropy(logits, part["label"]).backward()
        assert torch.equal(outputs[-1], logits)
    for name, value in learner.model.named_buffers():
        assert torch.equal(value, other.get_buffer(name)), name
    for name, parameter in learner.model.named_parameters():
        expected = other.get_parameter(name).grad
        # Sums over the batch and over its halves run in another order.
        torch.testing.assert_close(
            parameter.grad, expected, rtol=1e-11, atol=1e-12 * expected.abs().max().item(), msg=name
        )


def test_the_whole_batch_gives_other_statistics(make_lab: Make, make_batch: Make) -> None:
    learner, plain = grouped_learner(make_lab), network().double()
    images = make_batch("labeled", n=8, size=33)["labeled"]["image"]
    assert not torch.allclose(learner.model(images), plain(images))


def test_every_fit_of_stpp_has_groups(make_lab: Make) -> None:
    lab = make_lab(labeled=4, unlabeled=8)
    lab.trainer.batch_size, lab.trainer.unlabeled_batch_size, lab.trainer.accumulate = 2, 4, 1
    SelfTraining(scales=[1.0], bn_group_size=2).run(lab)
    assert len(lab.learners) == 3
    assert {norm.groups for learner in lab.learners.values() for norm in norms(learner.model)} == {3}


@pytest.mark.parametrize("method", [SelfTraining(plus=False, scales=[1.0]), Supervised()])
def test_batch_norm_is_plain_by_default(method: Any, make_lab: Make) -> None:
    lab = make_lab(labeled=4, unlabeled=8)
    method.run(lab)
    assert not any(norms(learner.model) for learner in lab.learners.values())


def test_the_supervised_baseline_takes_groups_too(make_lab: Make) -> None:
    lab = make_lab(labeled=8, unlabeled=8)
    lab.trainer.batch_size, lab.trainer.accumulate = 8, 1
    Supervised(bn_group_size=4).run(lab)
    assert {norm.groups for norm in norms(lab.learners["train"].model)} == {2}


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("method", [SelfTraining, Supervised])
def test_small_groups_are_refused(method: Any, size: int) -> None:
    with pytest.raises(
        UserError, match=f"bn_group_size={size}: expected a whole number of at least 2 or null"
    ):
        method(bn_group_size=size)


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"batch_size": 6, "unlabeled_batch_size": 6}, "the 12 images"),
        ({"batch_size": 8, "unlabeled_batch_size": 8, "accumulate": 4}, "the 4 images"),
    ],
)
def test_uneven_groups_are_refused_early(sizes: dict[str, int], named: str) -> None:
    with pytest.raises(UserError, match=rf"method\.bn_group_size=8: no divisor of {named}"):
        SelfTraining(bn_group_size=8).batch_sizes(TrainerSettings(**sizes))


def test_groups_of_a_pass_with_accumulation() -> None:
    trainer = TrainerSettings(batch_size=8, unlabeled_batch_size=8, accumulate=2)
    assert SelfTraining(bn_group_size=8).batch_sizes(trainer) == {MIXED: 16}


@pytest.mark.slow
def test_stpp_with_deeplabv2_and_groups_by_config(tmp_path: Path) -> None:
    overrides = (
        "method=stpp",
        "method.scales=[1.0]",
        "method.bn_group_size=2",
        "model=deeplabv2",
        "model.branches=4",
        "model.init=normal",
        "dataset.train=16",
        "dataset.val=2",
        "dataset.test=0",
        "dataset.size=32",
        "split=1/4",
        "trainer.iterations=2",
        "trainer.eval_every=2",
        "trainer.batch_size=2",
        "trainer.unlabeled_batch_size=2",
        "trainer.crop_size=32",
        "trainer.threads=1",
        "tracker.mode=disabled",
    )
    run = tmp_path / "run"
    assert main(["train", f"run_dir={run}", *overrides]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["method"], summary["model"]) == ("stpp", "deeplabv2")
    assert list(summary["fits"]) == ["teacher", "student-reliable", "student"]
    state = torch.load(run / "checkpoints/best.pt", weights_only=True)["state_dict"]
    assert state["classifier.convs.3.weight"].shape == (7, 80, 3, 3)
    # Two steps, of which each counts its first group alone.
    assert state["backbone.stem.1.num_batches_tracked"] == 2
    assert main(["train", f"run_dir={tmp_path / 'odd'}", *overrides, "method.bn_group_size=3"]) == 2


def test_a_batch_smaller_than_a_group_is_refused_where_no_config_was_checked() -> None:
    with pytest.raises(UserError, match=r"bn_group_size=8: no divisor of the 4 images"):
        NormGroups(8).apply(network(), 4, TrainerSettings())
