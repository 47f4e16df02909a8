"""AugSeg: what is injected where, its EMA, its switches, and what it does to a run."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from semiseg.contracts.training import Progress, StepOutput
from semiseg.data.augment import Augment
from semiseg.data.geometry import RandomCrop
from semiseg.data.rand_intensity import RandIntensity
from semiseg.engine.step import forward_backward
from semiseg.errors import UserError
from semiseg.methods.augseg import AugSeg, AugSegLearner, inject
from semiseg.methods.confidence import Guess
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.pseudo import Injection, draw_injection, image_confidence
from semiseg.settings import TrainerSettings

Make = Callable[..., Any]
PROGRESS = Progress(iteration=3, total=10, epoch=0, seed=123)
SURE = {"threshold": 0.27}
"""The networks of the tests are hardly sure of anything."""


@pytest.fixture
def make_learner(make_model: Make) -> Callable[..., AugSegLearner]:
    def made(**options: Any) -> AugSegLearner:
        method = AugSeg(**(SURE | options))
        return AugSegLearner(make_model(0), method, LabeledLoss(method)).train()

    return made


@pytest.fixture
def batch(make_batch: Make) -> dict[str, Any]:
    made: dict[str, Any] = make_batch("labeled", "unlabeled")
    own = made["unlabeled"]
    own["strong_1"] = 255 - own["image"]
    own["valid"] = torch.ones(4, 16, 16, dtype=torch.bool)
    own["valid"][0, :, 11:] = False
    return made


def step(learner: AugSegLearner, batch: dict[str, Any], **options: int) -> StepOutput:
    torch.manual_seed(0)
    output: StepOutput = learner(
        batch, Progress(**({"iteration": 3, "total": 10, "epoch": 0, "seed": 123} | options))
    )
    return output


def means(output: StepOutput) -> dict[str, float]:
    return {name: float(term.mean.detach()) for name, term in output.losses.items()}


def box(top: int, left: int, height: int, width: int) -> list[int]:
    return [top, left, height, width]


def test_labeled_pixels_are_seen_through_the_box_of_a_partner() -> None:
    """Image 0 takes the upper left of image 1, whose left column has been replaced by labeled image 0."""
    strong = torch.stack([torch.full((1, 4, 4), value) for value in (1.0, 2.0)])
    known = {
        "image": torch.stack([torch.full((1, 4, 4), value) for value in (10.0, 20.0)]),
        "label": torch.tensor([2, 3])[:, None, None].expand(2, 4, 4).clone(),
    }
    known["label"][0, 1, 0] = 255
    labels = torch.tensor([0, 1])[:, None, None].expand(2, 4, 4)
    valid = torch.ones(2, 4, 4, dtype=torch.bool)
    valid[1, 0] = False
    guess = Guess(labels, torch.full((2, 4, 4), 0.4), torch.zeros(2, 4, 4, dtype=torch.bool), valid)
    drawn = Injection(
        torch.tensor([1, 0]),
        torch.tensor([box(0, 0, 4, 4), box(0, 0, 4, 1)]),
        torch.tensor([box(0, 0, 2, 2), box(0, 0, 0, 0)]),
        torch.tensor([0.5, 0.5]),
    )
    image, target, injected = inject(strong, guess, known, drawn, torch.tensor([0.6, 0.4]))
    expected = torch.ones(4, 4)
    expected[:2, 0], expected[:2, 1] = 10, 2
    assert torch.equal(image[0, 0], expected)
    # What image 1 has of labeled pixels is not seen in itself.
    assert torch.equal(image[1], strong[1])
    assert target.label[0, :2].tolist() == [[2, 1, 0, 0], [255, 1, 0, 0]]
    assert target.keep[0].nonzero().tolist() == [[0, 0], [1, 0]]
    assert target.valid[0].logical_not().nonzero().tolist() == [[0, 1]]
    assert injected[0].nonzero().tolist() == [[0, 0], [1, 0]]
    assert not injected[1].any()


def test_images_that_the_teacher_is_sure_of_get_no_labels(make_learner: Make, batch: dict[str, Any]) -> None:
    learner = make_learner()
    shares = {}
    for chance in (0.0, 1.0):
        drawn = draw_injection(PROGRESS, 4, (16, 16), torch.device("cpu"))
        learner.injection = lambda progress, images, d=drawn, c=chance: d._replace(chance=torch.full((4,), c))
        shares[chance] = float(step(learner, batch).scalars["injected"])
    assert shares[0.0] == 0
    assert shares[1.0] > 0


def test_confidence_is_zero_for_uniform_and_one_for_certain_predictions() -> None:
    logits = torch.zeros(2, 5, 3, 4)
    logits[1, 2] = 100
    assert image_confidence(logits).tolist() == pytest.approx([0, 1], abs=1e-6)


def test_draws_are_those_of_the_images_whatever_the_number_of_ranks() -> None:
    device = torch.device("cpu")
    whole = draw_injection(PROGRESS, 6, (32, 24), device)
    assert sorted(whole.partner.tolist()) == list(range(6))
    for rank in (0, 1):
        own = draw_injection(Progress(3, 10, 0, 123, rank=rank, ranks=2), 3, (32, 24), device)
        rows = slice(3 * rank, 3 * rank + 3)
        for name in ("labeled_box", "box", "chance"):
            assert torch.equal(getattr(own, name), getattr(whole, name)[rows])
        assert sorted(own.partner.tolist()) == [0, 1, 2]
    partners = {
        tuple(draw_injection(Progress(0, 1, 0, seed), 3, (8, 8), device).partner.tolist())
        for seed in range(60)
    }
    assert len(partners) == 6


def test_fewer_labeled_images_serve_all(make_learner: Make, make_batch: Make, batch: dict[str, Any]) -> None:
    batch["labeled"] = make_batch("labeled", n=2)["labeled"]
    assert torch.isfinite(step(make_learner(), batch).total)


def test_padding_counts_or_is_masked(make_learner: Make, batch: dict[str, Any]) -> None:
    found = {}
    for rule in ("counted", "masked"):
        learner = make_learner(pad_in_loss=rule, inject=False, threshold=0)
        found[rule] = step(learner, batch)
        assert found[rule].losses["strong"].count == 4 * 16 * 16
    counted, masked = (each.losses["strong"].sum for each in found.values())
    assert masked < counted
    changed = batch["unlabeled"]["image"].clone()
    changed[0, :, :, 11:] = 0  # other pseudo-labels of the padding
    batch["unlabeled"]["image"] = changed
    for rule, before in (("counted", counted), ("masked", masked)):
        after = step(make_learner(pad_in_loss=rule, inject=False, threshold=0), batch).losses["strong"].sum
        assert (after == before) == (rule == "masked")


def test_without_injection_the_strong_view_is_as_it_is(make_learner: Make, batch: dict[str, Any]) -> None:
    learner, seen = make_learner(inject=False), []
    learner.model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    step(learner, batch)
    assert torch.equal(seen[0], torch.cat([batch["labeled"]["image"], batch["unlabeled"]["strong_1"]]))
    mixing, mixed = make_learner(), []
    mixing.model.register_forward_pre_hook(lambda _, args: mixed.append(args[0]))
    step(mixing, batch)
    assert torch.equal(mixed[0][:4], seen[0][:4])
    assert not torch.equal(mixed[0][4:], seen[0][4:])


def test_weak_views_may_pass_through_the_student(make_learner: Make, batch: dict[str, Any]) -> None:
    counts = []
    for extra in (False, True):
        learner = make_learner(extra_weak_forward=extra, inject=False)
        learner.model.register_forward_pre_hook(lambda _, args: counts.append(len(args[0])))
        output = step(learner, batch)
        weak = learner.average.teacher(batch["unlabeled"]["image"])
        assert torch.isfinite(weak).all()
        assert torch.isfinite(output.total)
    assert counts == [8, 12]


@pytest.mark.parametrize("rule", ["copy", "warm_up"])
def test_the_teacher_of_the_first_epochs(rule: Any, make_learner: Make) -> None:
    learner = make_learner(ema_first_epoch=rule, ema_decay=0.6)
    weight = learner.model.classifier.weight
    expected: Tensor = weight.detach().clone()
    for iteration in range(6):
        epoch = iteration // 3
        with torch.no_grad():
            weight += 1
        learner.after_step(Progress(iteration, 6, epoch, 0))
        decay = 0.0 if rule == "copy" and epoch == 0 else min(1 - 1 / (iteration + 1), 0.6)
        expected = decay * expected + (1 - decay) * weight.detach()
        torch.testing.assert_close(learner.average.teacher.classifier.weight, expected)


@pytest.mark.parametrize(
    ("report", "names", "candidates"),
    [
        ("ema", ["average", "model"], ["average"]),
        ("student", ["model", "average"], ["model"]),
        ("better", ["average", "model"], ["average", "model"]),
    ],
)
def test_reported_networks(report: Any, names: list[str], candidates: list[str], make_learner: Make) -> None:
    learner = make_learner(report=report)
    assert list(learner.predictors()) == names
    assert list(learner.candidates()) == candidates


def test_a_step_waits_for_nothing(make_learner: Make, batch: dict[str, Any], wait_counter: Any) -> None:
    learner = make_learner()
    step(learner, batch)
    learner.after_step(PROGRESS)
    with wait_counter:
        output = step(learner, batch)
        output.total.backward()  # type: ignore[no-untyped-call]
        learner.after_step(PROGRESS)
    assert wait_counter.seen == []


def test_accumulated_losses_are_those_of_the_batch(make_learner: Make, batch: dict[str, Any]) -> None:
    found = []
    for parts in (1, 2):
        learner = make_learner(inject=False).double().eval()
        output = forward_backward(
            learner, batch, PROGRESS, parts, lambda: torch.autocast("cpu", enabled=False)
        )
        found.append((means(output), [each.grad.clone() for each in learner.model.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-10)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other)


def test_bfloat16_is_finite(make_learner: Make, batch: dict[str, Any]) -> None:
    learner = make_learner()
    output = forward_backward(learner, batch, PROGRESS, 1, lambda: torch.autocast("cpu", torch.bfloat16))
    assert all(torch.isfinite(term.mean) for term in output.losses.values())
    assert all(torch.isfinite(each.grad).all() for each in learner.model.parameters())


def test_a_resumed_step_equals_an_uninterrupted_one(make_learner: Make, batch: dict[str, Any]) -> None:
    first = make_learner()
    with torch.no_grad():
        first.model.classifier.weight.mul_(3)
    first.after_step(PROGRESS)
    second = make_learner()
    second.load_state_dict(first.state_dict())
    for learner in (first, second):
        with torch.no_grad():
            learner.model.classifier.weight.mul_(2)
        learner.after_step(PROGRESS)
    assert means(step(first, batch)) == means(step(second, batch))
    assert torch.equal(first.average.teacher.classifier.weight, second.average.teacher.classifier.weight)


def lab_of(make_lab: Make, unlabeled_batch_size: int) -> Any:
    lab = make_lab(labeled=4, unlabeled=6)
    lab.augment = SimpleNamespace(
        geometry=RandomCrop(16), photometric=RandIntensity(), weak=Augment(RandomCrop(16)).weak
    )
    lab.trainer = TrainerSettings(batch_size=2, unlabeled_batch_size=unlabeled_batch_size)
    return lab


def test_a_run_sees_weak_and_strong_views(make_lab: Make) -> None:
    lab = lab_of(make_lab, 3)
    AugSeg(**SURE).run(lab)
    streams = lab.streams["train"]
    assert [(name, count) for name, count, _ in streams.parts] == [("labeled", 2), ("unlabeled", 3)]
    drawn = streams.batch(lab.dataset, 0, "train", 0)["unlabeled"]
    assert set(drawn) == {"image", "strong_1", "valid", "id"}
    assert drawn["valid"].sum((1, 2)).tolist() == [10 * 14] * 3


def test_frozen_pairs_meet_in_every_epoch(make_lab: Make) -> None:
    lab = lab_of(make_lab, 2)
    AugSeg(**SURE, pairing="frozen").run(lab)
    streams, pairs = lab.streams["train"], []
    for epoch in range(3):
        met = set()
        for iteration in range(3):
            drawn = streams.batch(lab.dataset, 0, "train", 3 * epoch + iteration)
            met.update(zip(drawn["labeled"]["id"], drawn["unlabeled"]["id"], strict=True))
        pairs.append(met)
    assert pairs[0] == pairs[1] == pairs[2]
    with pytest.raises(UserError, match=r"needs equal trainer\.batch_size and"):
        AugSeg(pairing="frozen").batch_sizes(TrainerSettings(batch_size=2, unlabeled_batch_size=3))


def test_injected_images_keep_their_type(make_learner: Make, batch: dict[str, Any]) -> None:
    own = batch["unlabeled"]
    guess, sure = make_learner()._label(own)
    drawn = draw_injection(PROGRESS, 4, (16, 16), torch.device("cpu"))
    image, target, _ = inject(own["strong_1"], guess, batch["labeled"], drawn, sure)
    assert image.dtype == torch.uint8
    assert target.label.dtype == torch.int64
    assert np.isin(target.label.numpy(), [0, 1, 2, 3, 255]).all()
