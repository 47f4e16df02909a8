"""AdvSemiSeg and s4GAN against numbers recorded from their published code."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from wave_inputs import digest, fill, images, l1, labels, logits, moments, noise, tiny

from semiseg.contracts.training import Learner, Progress
from semiseg.engine.joint_optimizer import build_optimizer, schedules
from semiseg.engine.loop import complete_groups
from semiseg.engine.optim import SGD
from semiseg.engine.schedule import Poly
from semiseg.losses import (
    adversarial_loss,
    confident_cross_entropy,
    feature_matching,
    selected_cross_entropy,
)
from semiseg.methods.adv_semiseg import AdvSemiSeg, AdvSemiSegLearner
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.s4gan import S4GAN, S4GANLearner, rescaled
from semiseg.models.discriminators import ImageDiscriminator, MapDiscriminator
from semiseg.pseudo import one_hot

CLASSES = 5


@torch.no_grad()
def filled(module: nn.Module) -> Any:
    module.double()
    fill(module)
    for each in module.modules():
        if isinstance(each, nn.Linear):
            o, i = each.weight.shape
            each.weight.copy_((noise(o * i, o + 3 * i + 11) * (6 / i) ** 0.5).view(o, i))
            each.bias.copy_(0.05 * noise(o, 5))
    return module


def squares(tensors: Iterator[nn.Parameter]) -> float:
    return sum(float(each.detach().square().sum()) for each in tensors)


def close(*expected: float) -> Any:
    return pytest.approx(expected, rel=1e-8)


@pytest.mark.golden("AdvSemiSeg discriminator")
def test_map_discriminator() -> None:
    judge = filled(MapDiscriminator(CLASSES))
    guess = logits(2, CLASSES, 65, 97, 0.3, 3).softmax(1)
    raw = judge.raw(guess)
    assert raw.shape == (2, 1, 2, 3)
    assert moments(raw) == close(-0.1876632758, 0.1691301105, 2.330318362)
    first = (-0.4020288443, -0.2226514024, -0.1680616839, -0.5801822605)
    assert raw.flatten()[:4].tolist() == close(*first)
    assert moments(judge(guess)) == close(-0.1730621957, 0.1268576142, 2190.237332)
    true = one_hot(labels(2, 65, 97, CLASSES, 4), CLASSES)
    assert true.sum() == 10400
    assert moments(judge(true.double())) == close(-0.4648852282, 0.2310917104, 5908.76243)
    assert sum(each.numel() for each in MapDiscriminator(21).parameters()) == 2783169


@pytest.mark.golden("AdvSemiSeg losses")
def test_losses_of_a_map_discriminator() -> None:
    judge = filled(MapDiscriminator(CLASSES))
    guess = logits(2, CLASSES, 65, 97, 0.3, 3).requires_grad_()
    valid = labels(2, 65, 97, CLASSES, 0) != 255
    judged = judge(guess.softmax(1))
    deceived = adversarial_loss(judged, True, valid)
    (gradient,) = torch.autograd.grad(deceived, guess, retain_graph=True)
    assert [deceived.item(), gradient.abs().sum().item()] == close(0.7866051117, 3.961665212)
    assert adversarial_loss(judged, False, valid).item() == pytest.approx(0.6113596727, rel=1e-8)
    target = labels(2, 65, 97, CLASSES, 4)
    true = judge(one_hot(target, CLASSES).double())
    assert adversarial_loss(true, True, target != 255).item() == pytest.approx(0.9541170386, rel=1e-8)


@pytest.mark.golden("AdvSemiSeg losses")
def test_self_training_by_confidence() -> None:
    judge = filled(MapDiscriminator(CLASSES))
    guess = logits(2, CLASSES, 65, 97, 0.9, 4).requires_grad_()
    judged = judge(guess.softmax(1))
    confidence = judged.detach().sigmoid()
    assert [confidence.min().item(), confidence.max().item()] == close(0.3812924517, 0.5236551062)
    keep, label = confidence >= 0.46, guess.detach().argmax(1)
    assert keep.sum() == 6424
    assert digest(label.masked_fill(~keep, 255)) == "53b0d2623635c855"
    learned = confident_cross_entropy(guess, label, keep, torch.ones_like(keep), "confident")
    deceived = adversarial_loss(judged, True)
    assert [learned.item(), deceived.item()] == close(0.3593834972, 0.7914511436)
    (gradient,) = torch.autograd.grad(0.1 * learned + 0.001 * deceived, guess)
    assert gradient.abs().sum().item() == pytest.approx(0.05826025962, rel=1e-8)


class Run:
    """Steps of a learner as the loop makes them.

    Args:
        learner: its learner.
        total: number of steps of the schedule.
    """

    def __init__(self, learner: Learner, total: int) -> None:
        self.learner, self.total = learner, total
        spec = SGD(lr=0.01, weight_decay=5e-4, head_multiplier=10)
        self.optimizer = build_optimizer(learner, spec, complete_groups(learner, spec))
        self.schedules = schedules(learner, Poly())
        self.step_number = 0

    def step(self, batch: dict[str, Any]) -> tuple[dict[str, float], dict[str, float], list[float]]:
        """Means of the losses, statistics and rates of a step."""
        for group in self.optimizer.param_groups:
            schedule = self.schedules.get(group.get("role"), Poly())
            group["lr"] = group["initial_lr"] * schedule.factor(self.step_number, self.total)
        self.learner.train()
        self.optimizer.zero_grad()
        output = self.learner(batch, Progress(self.step_number, self.total, 0, 0))
        output.total.backward()
        self.optimizer.step()
        self.step_number += 1
        means = {name: term.mean.item() for name, term in output.losses.items()}
        values = {name: value.item() for name, value in output.scalars.items()}
        return means, values, [group["lr"] for group in self.optimizer.param_groups]


def frozen_tiny() -> Any:
    """The tiny network with frozen weights of the norm, whose statistics follow the batches."""
    model = tiny(4, 6)
    model.backbone.bn.requires_grad_(False)
    return model


def state(model: Any, judge: nn.Module, side: int) -> list[float]:
    norm = model.backbone.bn
    sizes = [l1(model.parameters()), squares(model.parameters())]
    sizes += [l1(judge.parameters()), squares(judge.parameters())]
    model.eval()
    with torch.no_grad():
        return [
            *sizes,
            norm.running_mean.sum().item(),
            norm.running_var.sum().item(),
            *moments(model(images(1, side, side, 50))),
        ]


def adv_batch(step: int) -> dict[str, Any]:
    return {
        "unlabeled": {"image": images(2, 65, 65, 3 * step + 20)},
        "labeled": {"image": images(2, 65, 65, 3 * step), "label": labels(2, 65, 65, 4, step)},
        "labeled_2": {"label": labels(2, 65, 65, 4, step + 7)},
    }


def adv_run(total: int, **options: Any) -> Run:
    weights = {"labeled_weight": 0.1, "unlabeled_weight": 0.05, "semi_weight": 0.5, "discriminator_lr": 2e-5}
    method = AdvSemiSeg(**{**weights, **options})
    learner = AdvSemiSegLearner(frozen_tiny(), method, LabeledLoss(method)).double()
    filled(learner.discriminator)
    return Run(learner, total)


ADV_TRACE = [
    (7.297253778, 0.8402381719, 0.6673099343, 0, 0.8050935695, 0.01),
    (6.542574372, 0.7800232091, 0.8011324638, 0, 0.914493716, 0.007718895067),
    (6.262556197, 0.9445386536, 0.606589498, 0.08760767785, 0.9442906121, 0.005358867313),
    (5.487894511, 0.8911917361, 0.689189073, 0.1509128937, 0.8847284212, 0.002871745887),
]


@pytest.mark.golden("AdvSemiSeg training")
def test_adv_semiseg_trains_as_published() -> None:
    run = adv_run(4, threshold=0.45, semi_from=0.5, adversarial_without_pixels="dropped")
    for step, expected in enumerate(ADV_TRACE):
        losses, values, rates = run.step(adv_batch(step))
        found = [losses["supervised"], losses["adversarial_labeled"]]
        found += [(losses["discriminator_fake"] + losses["discriminator_real"]) / 2, losses.get("semi", 0.0)]
        assert [*found, losses["adversarial_unlabeled"], rates[0]] == pytest.approx(expected, rel=1e-7)
        assert rates == pytest.approx([rates[0], 10 * rates[0], 0.002 * rates[0]])
        if step >= 2:
            assert values["unlabeled_used"] == pytest.approx((0.1066272189, 0.2786982249)[step - 2], rel=1e-8)
    learner: Any = run.learner
    assert state(learner.model, learner.discriminator, 65) == pytest.approx(
        [
            *(159.366267, 367.8228735, 60128.04499, 1922.80573),
            *(-0.07976984012, 13.3867598, 0.1505232466, 3.179027324, 41106.54887),
        ],
        rel=1e-7,
    )


@pytest.mark.golden("AdvSemiSeg training")
@pytest.mark.parametrize(
    ("rule", "expected"),
    [("dropped", (159.9120739, 371.4624707)), ("kept", (159.9119216, 371.4622521))],
)
def test_adversarial_loss_without_confident_pixels(rule: str, expected: tuple[float, float]) -> None:
    run = adv_run(2, threshold=0.999, semi_from=0.5, adversarial_without_pixels=rule)
    for step in range(2):
        run.step(adv_batch(step))
    model: Any = run.learner.model
    assert [l1(model.parameters()), squares(model.parameters())] == pytest.approx(expected, rel=1e-8)


@pytest.mark.golden("s4GAN discriminator")
def test_image_discriminator() -> None:
    judge = filled(ImageDiscriminator(CLASSES + 3))
    guess = logits(1, CLASSES, 321, 321, 0.3, 3).softmax(1)
    found, features = judge(torch.cat([guess, (images(1, 321, 321, 1) + 1) / 2], 1))
    assert found.sigmoid().tolist() == close(0.4921367236)
    assert moments(features) == close(0.1753977589, 0.2975317501, 122.3600171)
    assert sum(each.numel() for each in ImageDiscriminator(24).parameters()) == 2778561


def fake_input(guess: Tensor) -> Tensor:
    return torch.cat([guess.softmax(1), rescaled(images(3, 48, 64, 2), "own")], 1)


@pytest.mark.golden("s4GAN losses")
def test_predictions_as_the_image_discriminator_sees_them() -> None:
    judge = filled(ImageDiscriminator(CLASSES + 3))
    fake = fake_input(logits(3, CLASSES, 48, 64, 0.3, 3))
    assert moments(fake) == close(0.3135756017, 0.3370669052, 23119.30196)
    found, features = judge(fake)
    assert found.sigmoid().tolist() == close(0.4832453579, 0.4654590088, 0.4896240328)
    assert moments(features) == close(0.156397712, 0.2217875878, 296.5087199)


@pytest.mark.golden("s4GAN losses")
@pytest.mark.parametrize(
    ("rule", "shown", "losses", "scores"),
    [
        (
            "labeled_batch",
            (0.3141907828, 0.2205931019, 8686.746762),
            (0.04697001605, 0.1057646393, 0.7023296506),
            (0.478200624, 0.4834800762, 0.4536786187),
        ),
        (
            "own",
            (0.5027052472, 0.3529489593, 13898.79468),
            (0.03468684303, 0.1067432477, 0.6936055831),
            (0.4858427965, 0.4915420023, 0.4628214904),
        ),
    ],
)
def test_feature_matching(
    rule: str, shown: tuple[float, ...], losses: tuple[float, ...], scores: tuple[float, ...]
) -> None:
    judge = filled(ImageDiscriminator(CLASSES + 3))
    guess = logits(3, CLASSES, 48, 64, 0.3, 3).requires_grad_()
    judged, features = judge(fake_input(guess))
    other = 1.6 * images(3, 48, 64, 11) if rule == "labeled_batch" else None
    image = rescaled(images(3, 48, 64, 7), rule, other)
    assert moments(image) == close(*shown)
    true, expected = judge(torch.cat([one_hot(labels(3, 48, 64, CLASSES, 3), CLASSES).double(), image], 1))
    matched = feature_matching(expected, features)
    (gradient,) = torch.autograd.grad(matched, guess, retain_graph=True)
    learned = (adversarial_loss(judged, False) + adversarial_loss(true, True)) / 2
    assert [matched.item(), gradient.abs().sum().item(), learned.item()] == close(*losses)
    assert true.sigmoid().tolist() == close(*scores)


@pytest.mark.golden("s4GAN losses")
def test_chosen_images() -> None:
    guess = logits(3, CLASSES, 48, 64, 0.3, 3).requires_grad_()
    chosen = torch.tensor([0.61, 0.6, 0.8], dtype=torch.float64) > 0.6
    assert digest(guess.detach().argmax(1)[chosen]) == "392f3fe53280f3c2"
    loss = selected_cross_entropy(guess, chosen)
    (gradient,) = torch.autograd.grad(loss, guess)
    # The original copies the logits into single precision.
    assert [loss.item(), gradient.abs().sum().item()] == pytest.approx([0.4135619217, 0.6481164388], rel=1e-6)


S4_TRACE = [
    (7.253535395, 0.1030233208, 2, 0, 7.459582037, 0.554051754, 0.8442575227),
    (6.103391468, 0.07694418051, 2, 0.1436640056, 6.400943835, 0.5826632542, 0.8400655975),
    (5.694292337, 0.09523746569, 1, 0.1496477873, 6.034415055, 0.5113448429, 0.8882000979),
    (5.151200555, 0.08561472676, 2, 0.1869311059, 5.509361114, 0.5525226061, 0.7990959954),
]
OWN_MATCHING = (0.07619928057, 0.06541158611, 0.06354724015, 0.06090383067)
OWN_REAL = (0.8356792267, 0.7258469453, 0.7334546657, 0.6349193223)


def s4_run(rule: str) -> Run:
    method = S4GAN(
        matching_weight=2.0,
        threshold=0.39,
        real_range=rule,  # type: ignore[arg-type]
        padding="counted",
        score_dropout="train",
        discriminator_dropout=False,
        discriminator_lr=2e-5,
    )
    learner = S4GANLearner(frozen_tiny(), method, LabeledLoss(method)).double()
    filled(learner.discriminator)
    return Run(learner, 4)


def s4_batch(step: int) -> dict[str, Any]:
    known = {"image": 1.5 * images(2, 48, 48, 3 * step), "label": labels(2, 48, 48, 4, step)}
    real = {"image": images(2, 48, 48, 5 * step + 40), "label": labels(2, 48, 48, 4, step + 7)}
    unlabeled = {"image": images(2, 48, 48, 3 * step + 20)}
    return {"labeled": known, "unlabeled": unlabeled, "labeled_2": real}


@pytest.mark.golden("s4GAN training")
def test_s4gan_trains_as_published() -> None:
    run = s4_run("labeled_batch")
    for step, (supervised, matching, chosen, learned, total, fake, real) in enumerate(S4_TRACE):
        losses, values, _ = run.step(s4_batch(step))
        found = [losses["supervised"], losses["matching"], losses.get("self", 0.0)]
        found += [losses["supervised"] + 2 * losses["matching"] + losses.get("self", 0.0)]
        found += [losses["discriminator_fake"], losses["discriminator_real"]]
        assert found == pytest.approx([supervised, matching, learned, total, fake, real], rel=1e-7)
        assert values["unlabeled_used"] == chosen / 2
    learner: Any = run.learner
    assert state(learner.model, learner.discriminator, 48) == pytest.approx(
        [
            *(159.4109039, 368.1780493, 60244.40064, 1922.580908),
            *(-0.08461337874, 16.5893055, 0.2397840135, 2.872689014, 20591.77671),
        ],
        rel=1e-7,
    )


@pytest.mark.golden("s4GAN training")
def test_s4gan_trains_with_the_own_range_of_true_images() -> None:
    run = s4_run("own")
    for step, expected in enumerate(zip(OWN_MATCHING, OWN_REAL, strict=True)):
        losses, _, _ = run.step(s4_batch(step))
        assert (losses["matching"], losses["discriminator_real"]) == pytest.approx(expected, rel=1e-7)
    learner: Any = run.learner
    found = state(learner.model, learner.discriminator, 48)[:3]
    assert found == pytest.approx([159.4155682, 368.1814649, 60244.44238], rel=1e-7)
