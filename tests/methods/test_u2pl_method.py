"""U2PL as a method: what a step learns from, the teacher, the memory over a resume, and the switches."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from semiseg.contracts.training import Progress, StepOutput
from semiseg.data.geometry import RandomCrop
from semiseg.data.views import Weak
from semiseg.engine.ema import EMA
from semiseg.engine.optim import SGD
from semiseg.engine.step import forward_backward
from semiseg.errors import UserError
from semiseg.methods import u2pl
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.u2pl import U2PL, U2PLLearner
from semiseg.models.heads import ConvStack
from semiseg.models.segmodel import SegModel

Make = Callable[..., Any]
SMALL = {"num_anchors": 6, "num_negatives": 4, "channels": 8, "bank_size": 50, "bank_size_0": 70}


def method(**options: Any) -> U2PL:
    return U2PL(**({"low_rank": 1, "mix_probability": 1, **SMALL} | options))


@pytest.fixture
def make_learner(make_model: Make) -> Make:
    def make(seed: int = 0, epochs: float = 4, **options: Any) -> U2PLLearner:
        settings, model = method(**options), make_model(seed)
        torch.manual_seed(seed)
        if settings.contrast_weight:
            model.attach("representation", ConvStack(8, 8, 8, dropout=0))
        if settings.auxiliary_weight:
            model.attach("auxiliary", ConvStack(8, 8, 4, convs=1, dropout=0), "c3")
        return U2PLLearner(model, settings, LabeledLoss(settings), epochs).train()

    return make


@pytest.fixture
def batch(make_batch: Make) -> dict[str, Any]:
    found: dict[str, Any] = make_batch("labeled", "unlabeled", n=2, size=12)
    valid = torch.ones(2, 12, 12, dtype=torch.bool)
    valid[:, :, 9:] = False
    found["unlabeled"]["valid"] = valid
    return found


def at(epoch: int, iteration: int = 0, seed: int = 3) -> Progress:
    return Progress(iteration, 100, epoch, seed)


def train(learner: U2PLLearner, batch: dict[str, Any], progress: Progress) -> StepOutput:
    """One step with a large rate."""
    optimizer = torch.optim.SGD(SGD(lr=0.1).groups(learner.model))
    optimizer.zero_grad()
    output = learner(batch, progress)
    output.total.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    learner.after_step(progress)
    return output


def weights(network: torch.nn.Module) -> Tensor:
    return torch.cat([each.detach().flatten() for each in network.parameters()])


def test_the_recipe(make_lab: Make) -> None:
    lab = make_lab(8, 12)
    crop = RandomCrop(16, pad="centered")
    lab.augment = SimpleNamespace(weak=Weak(crop), geometry=crop)
    network = method(auxiliary_weight=0.4, warmup_epochs=0, teacher_init="random").run(lab)
    learner = lab.learners["train"]
    assert lab.networks == ["model", "teacher"]
    assert isinstance(network, SegModel)
    assert sorted(network.heads) == sorted(learner.teacher.heads) == ["auxiliary", "representation"]
    assert network.sources["auxiliary"] == "c3"
    assert learner.epochs == 3
    views = {name: each.items[0].view for name, each in lab.streams["train"].streams.items()}
    assert [views["labeled"].valid, views["unlabeled"].valid] == [False, True]


def test_frozen_pairs_meet_again(make_lab: Make) -> None:
    lab = make_lab(3, 8)
    crop = RandomCrop(16)
    lab.augment = SimpleNamespace(weak=Weak(crop), geometry=crop)
    frozen = method(pairing="frozen")
    with pytest.raises(UserError, match=r"batch_size=2 and trainer.unlabeled_batch_size=3"):
        frozen.batch_sizes(lab.trainer)
    lab.trainer.unlabeled_batch_size = 2
    assert frozen.batch_sizes(lab.trainer) == {"trainer.batch_size": 2, "trainer.unlabeled_batch_size": 2}
    streams, pairs = frozen.streams(lab), []
    for iteration in range(2 * streams.iterations_per_epoch):
        found = streams.batch(lab.dataset, 0, "train", iteration)
        pairs += zip(found["unlabeled"]["id"], found["labeled"]["id"], strict=True)
    assert len(pairs) == 16
    assert len(set(pairs)) == 8


@pytest.mark.parametrize("mix", ["cutmix", "cutout", "classmix"])
@pytest.mark.parametrize("published", [False, True])
def test_a_step_never_waits_for_the_device(
    mix: str, published: bool, make_learner: Make, batch: dict[str, Any], wait_counter: Any
) -> None:
    faults = {"onehot": "first_image", "anchor_class": "position", "negatives": "own_label"}
    options = faults | {"padding": "learned"} if published else {}
    learner = make_learner(mix=mix, loss="ohem", auxiliary_weight=0.4, warmup_decay=True, **options)
    learner.after_step(at(1))  # the EMA reads its counter once
    with wait_counter:
        for epoch in (0, 1, 2):
            learner(batch, at(epoch)).total.backward()
            learner.after_step(at(epoch))
    assert wait_counter.seen == []


def test_first_epochs_learn_labels_alone(make_learner: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(warmup_epochs=2, auxiliary_weight=0.4)
    before, teacher = weights(learner.model), weights(learner.teacher)
    norms = learner.teacher.get_buffer("backbone.norm.running_mean").clone()
    output = train(learner, batch, at(1))
    assert sorted(output.losses) == ["auxiliary", "supervised"]
    assert [term.weight for term in output.losses.values()] == [1, 0.4]
    assert not torch.equal(weights(learner.model), before)
    assert torch.equal(weights(learner.teacher), teacher)
    # Its own statistics, of its own passes.
    assert not torch.equal(learner.teacher.get_buffer("backbone.norm.running_mean"), norms)
    assert next(iter(learner.candidates())) == "model"
    assert "contrast" in train(learner, batch, at(2)).losses
    assert next(iter(learner.candidates())) == "average"
    assert list(learner.candidates()) == ["average"]


@pytest.mark.parametrize("decay", [False, True])
def test_decay_of_the_head_in_the_first_epochs(
    decay: bool, make_learner: Make, batch: dict[str, Any]
) -> None:
    learner = make_learner(warmup_decay=decay)
    head = copy.deepcopy(learner.model.heads["representation"])
    optimizer = torch.optim.SGD(SGD(lr=0.1, weight_decay=0.5).groups(learner.model))
    learner(batch, at(0)).total.backward()
    optimizer.step()
    shrunk = weights(learner.model.heads["representation"]) / weights(head)
    expected = torch.full_like(shrunk, 0.95 if decay else 1.0)
    known = weights(head) != 0
    assert torch.allclose(shrunk[known], expected[known])


def test_the_teacher_is_the_student_for_one_epoch_and_follows_it_then(
    make_learner: Make, batch: dict[str, Any]
) -> None:
    learner = make_learner(ema_decay=0.6)
    for iteration in range(2):
        train(learner, batch, at(1, iteration))
        assert torch.equal(weights(learner.teacher), weights(learner.model))
    for decay in (0.6, 0.6):  # 1 - 1/3 and 1 - 1/4 are above it
        teacher = weights(learner.teacher)
        train(learner, batch, at(2))
        expected = decay * teacher + (1 - decay) * weights(learner.model)
        assert torch.allclose(weights(learner.teacher), expected, atol=1e-6)
    slow = make_learner(ema_decay=0.99)
    for epoch in (1, 1, 2):
        teacher = weights(slow.teacher)
        train(slow, batch, at(epoch))
    assert torch.allclose(weights(slow.teacher), teacher * 2 / 3 + weights(slow.model) / 3, atol=1e-6)


def test_the_teacher_labels_in_evaluation_mode_and_compares_in_training_mode(
    make_learner: Make, batch: dict[str, Any]
) -> None:
    learner, modes = make_learner(), []
    learner.teacher.backbone.register_forward_hook(
        lambda module, *_: modes.append((module.training, torch.is_grad_enabled()))
    )
    learner(batch, at(1))
    assert modes == [(False, False), (True, False)]
    assert learner.teacher.training


def test_teacher_of_its_own_weights(make_model: Make) -> None:
    model, other = (make_model(seed) for seed in (0, 1))
    for each in (model, other):
        each.attach("representation", ConvStack(8, 8, 8))
    loss = LabeledLoss(method())
    learner = U2PLLearner(model, method(teacher_init="random"), loss, 4, other)
    assert torch.equal(weights(learner.teacher), weights(other))
    assert not any(each.requires_grad for each in learner.teacher.parameters())
    assert torch.equal(weights(U2PLLearner(model, method(), loss, 4).teacher), weights(model))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_resumed_run_equals_an_uninterrupted_one(
    seed: int, make_learner: Make, batch: dict[str, Any]
) -> None:
    whole = make_learner()
    for iteration in range(4):
        train(whole, batch, at(1, iteration, seed + iteration))
    saved = copy.deepcopy(whole.state_dict())
    resumed = make_learner(seed=7)
    resumed.load_state_dict(saved)
    assert resumed.bank.filled.min() > 0
    for epoch in (1, 2):
        for learner in (whole, resumed):
            torch.manual_seed(epoch)
            found = train(learner, batch, at(epoch, 5, seed))
        again = resumed.state_dict()
        assert [
            name for name, value in whole.state_dict().items() if not torch.equal(value, again[name])
        ] == []
        assert torch.isfinite(found.total)


def test_the_memory_matters(make_learner: Make, batch: dict[str, Any]) -> None:
    learner = make_learner()
    learner(batch, at(1))
    other = copy.deepcopy(learner)
    other.bank.features.neg_()
    losses = [each(batch, at(2)).losses["contrast"].mean for each in (learner, other)]
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("ranks", "classes", "refused"),
    [((3, 20), 4, False), ((3, 20), 3, True), ((3, 20), 2, True), ((1, 20), 2, False), ((5, 5), 21, True)],
)
def test_ranks_that_no_class_has(ranks: tuple[int, int], classes: int, refused: bool) -> None:
    settings = U2PL(low_rank=ranks[0], high_rank=ranks[1])
    if not refused:
        settings.check_ranks(classes)
        return
    with pytest.raises(UserError, match=r"method\.low_rank=.*has to be below .*method\.contrast_weight=0"):
        settings.check_ranks(classes)


def test_too_few_classes_are_refused_unless_there_is_no_contrast(
    make_model: Make, make_learner: Make
) -> None:
    with pytest.raises(UserError, match=r"method\.low_rank=4.*4 classes"):
        make_learner(low_rank=4)
    learner = make_learner(low_rank=4, contrast_weight=0)
    assert learner.bank is None
    assert not learner.model.heads


def test_without_contrast(make_learner: Make, batch: dict[str, Any]) -> None:
    output = make_learner(contrast_weight=0, warmup_decay=True)(batch, at(1))
    assert sorted(output.losses) == ["supervised", "unlabeled"]


@pytest.mark.parametrize(
    ("name", "value"), [("onehot", "first_image"), ("anchor_class", "position"), ("negatives", "own_label")]
)
def test_faults_change_the_contrast_alone(
    name: str, value: str, make_learner: Make, batch: dict[str, Any]
) -> None:
    batch["labeled"]["label"][batch["labeled"]["label"] == 1] = 3  # a class less, so that positions differ
    means = []
    for options in ({}, {name: value}):
        learner = make_learner(**options)
        learner.teacher.classifier.bias.data[1] = -100  # nor is it guessed
        learner._copy_student = lambda progress: None
        learner(batch, at(2))
        output = learner(batch, at(2))
        means.append({key: term.mean for key, term in output.losses.items()})
    assert means[0]["contrast"] != means[1]["contrast"]
    assert means[0]["supervised"] == means[1]["supervised"]
    assert means[0]["unlabeled"] == means[1]["unlabeled"]


def test_padding_of_unlabeled_images(make_learner: Make, batch: dict[str, Any]) -> None:
    for padding, count in (("ignored", 2 * 12 * 9), ("learned", 2 * 12 * 12)):
        learner = make_learner(padding=padding, mix="none")
        _, label, _ = learner.guess(batch["unlabeled"], at(1))
        assert (label != 255).sum() == count


def test_weights_of_the_terms(make_learner: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(weight=2, contrast_weight=3, gradient_scale=0.25)
    losses = learner(batch, at(1)).losses
    assert [losses[name].weight for name in ("supervised", "unlabeled", "contrast")] == [1, 2, 0.75]


def test_percents_fall_with_the_epochs(make_learner: Make, batch: dict[str, Any]) -> None:
    shares = []
    for epoch in (1, 2, 3, 9):
        output = make_learner(mix="none", padding="learned", unreliable_percent=40)(batch, at(epoch))
        shares.append(float(output.scalars["unlabeled_used"]))
    assert shares == pytest.approx([0.7, 0.8, 0.9, 1], abs=0.01)


def test_parts_of_an_accumulated_batch_have_percentiles_of_their_own(
    make_learner: Make, batch: dict[str, Any]
) -> None:
    batch["labeled"]["id"], batch["unlabeled"]["id"] = ["a", "b"], ["c", "d"]
    learner = make_learner(mix="none", padding="learned")
    found = forward_backward(learner, batch, at(1), 2, no_autocast)
    parts = []
    alone = make_learner(mix="none", padding="learned")
    for index in range(2):
        piece = {
            name: {key: value[index : index + 1] for key, value in part.items()}
            for name, part in batch.items()
        }
        parts.append(alone(piece, at(1)).losses["unlabeled"])
    total = sum(part.mean * part.count for part in parts) / sum(part.count for part in parts)
    assert torch.isclose(found.losses["unlabeled"].mean, total, rtol=1e-5)
    assert torch.equal(learner.bank.filled, alone.bank.filled)


def no_autocast() -> Any:
    return torch.autocast("cpu", enabled=False)


def test_bfloat16_is_finite(make_learner: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(auxiliary_weight=0.4)
    for epoch in (0, 1, 2):
        with torch.autocast("cpu", torch.bfloat16):
            output = learner(batch, at(epoch))
        output.total.backward()
        learner.after_step(at(epoch))
        assert output.total.dtype == torch.float32
        assert torch.isfinite(output.total)
    assert all(torch.isfinite(each.grad).all() for each in learner.model.parameters())
    assert learner.bank.features.dtype == torch.float32
    assert learner.bank.features.isfinite().all()


def test_the_memory_gets_the_negatives_of_all_processes(
    make_learner: Make, batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = []
    for copies in (1, 2):
        monkeypatch.setattr(u2pl, "over_ranks", lambda values, copies=copies: torch.cat([values] * copies))
        learner = make_learner(bank_size=5000, bank_size_0=5000)
        learner(batch, at(1))
        filled.append(learner.bank.filled)
    assert filled[0].sum() > 0
    assert torch.equal(filled[1], 2 * filled[0])


def test_ignored_labels_everywhere_are_finite(make_learner: Make, batch: dict[str, Any]) -> None:
    batch["labeled"]["label"].fill_(255)
    batch["unlabeled"]["valid"].fill_(False)
    learner = make_learner(mix="none")
    output = train(learner, batch, at(1))
    assert output.total == 0
    assert isinstance(learner.average, EMA)
    assert torch.isfinite(weights(learner.model)).all()
