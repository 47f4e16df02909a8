"""The learners of AdvSemiSeg and s4GAN, and the parts that only they have."""

import copy
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semiseg.contracts.training import Progress
from semiseg.data.geometry import RandomCrop, ScaleChoice, ScaleUniform, map_interpolation
from semiseg.data.stretched import StretchedTo
from semiseg.data.views import Weak
from semiseg.engine.loss_check import LossNotFinite
from semiseg.engine.step import forward_backward
from semiseg.errors import UserError
from semiseg.losses import selected_cross_entropy
from semiseg.methods import adv_semiseg
from semiseg.methods.adv_semiseg import AdvSemiSeg, AdvSemiSegLearner
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.s4gan import S4GAN, S4GANLearner, rescaled
from semiseg.settings import TrainerSettings

Make = Callable[..., Any]
PROGRESS = Progress(iteration=8, total=10, epoch=0, seed=123)
SMALL = {"discriminator_channels": 4}


@pytest.fixture
def batch(make_batch: Make) -> dict[str, Any]:
    made: dict[str, Any] = make_batch("labeled", "unlabeled", size=32)
    made["labeled_2"] = make_batch("labeled", size=32, seed=1)["labeled"]
    made["unlabeled"]["valid"] = torch.ones(4, 32, 32, dtype=torch.bool)
    made["unlabeled"]["valid"][..., 20:] = False
    return made


def adv(make_model: Make, **options: Any) -> AdvSemiSegLearner:
    method = AdvSemiSeg(**{**SMALL, "threshold": 0.5, **options})
    torch.manual_seed(0)
    return AdvSemiSegLearner(make_model(0), method, LabeledLoss(method)).train()


def s4(make_model: Make, **options: Any) -> S4GANLearner:
    method = S4GAN(**{**SMALL, "threshold": 0.4, **options})
    torch.manual_seed(0)
    return S4GANLearner(make_model(0), method, LabeledLoss(method)).train()


LEARNERS = pytest.mark.parametrize("made", [adv, s4])


def gradients(loss: Tensor, module: nn.Module) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True))


@LEARNERS
def test_each_network_learns_its_own_losses_alone(made: Make, make_model: Make, batch: Any) -> None:
    learner = made(make_model)
    output = learner(batch, PROGRESS)
    for name, term in output.losses.items():
        of_judge = name.startswith("discriminator")
        assert all((each is not None) == of_judge for each in gradients(term.mean, learner.discriminator)), (
            name
        )
        assert all((each is None) == of_judge for each in gradients(term.mean, learner.model)), name
    assert {name for name in output.losses if name.startswith("discriminator")} == {
        "discriminator_fake",
        "discriminator_real",
    }


@pytest.mark.parametrize(("made", "first"), [(adv, "unlabeled"), (s4, "labeled")])
def test_order_of_the_passes(made: Make, first: str, make_model: Make, batch: Any) -> None:
    learner, seen = made(make_model), []
    learner.model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    learner(batch, PROGRESS)
    order = ["unlabeled", "labeled"] if first == "unlabeled" else ["labeled", "unlabeled"]
    expected = [learner.model.normalize(batch[name]["image"]) for name in order]
    assert all(torch.equal(*pair) for pair in zip(seen, expected, strict=True))


@LEARNERS
def test_true_labels_of_the_same_batch(made: Make, make_model: Make, batch: Any) -> None:
    third, same = made(make_model), made(make_model, real_labels="same")
    expected = third({**batch, "labeled_2": batch["labeled"]}, PROGRESS)
    del batch["labeled_2"]
    found = same(batch, PROGRESS)
    assert torch.equal(found.total, expected.total)


@LEARNERS
def test_a_step_never_waits_for_the_device(
    made: Make, make_model: Make, batch: Any, wait_counter: Any
) -> None:
    learner = made(make_model)
    with wait_counter:
        learner(batch, PROGRESS).total.backward()
    assert wait_counter.seen == []


@LEARNERS
def test_both_networks_learn_in_half_precision(made: Make, make_model: Make, batch: Any) -> None:
    learner = made(make_model)
    with torch.autocast("cpu", torch.bfloat16):
        output = learner(batch, PROGRESS)
    output.total.backward()
    assert output.total.dtype == torch.float32
    assert all(each.grad.isfinite().all() for each in learner.parameters())
    assert all(each.grad.any() for each in learner.discriminator.parameters())


def test_adv_semiseg_accumulates_exactly(make_model: Make, batch: Any) -> None:
    # Batch norm alone sees the smaller batches.
    before = adv(make_model).double()
    before.model.eval()
    middle = float(before(batch, PROGRESS).scalars["discriminator_confidence"])
    whole = adv(make_model, threshold=middle).double()
    whole.model.eval()
    parts = copy.deepcopy(whole)
    one = forward_backward(whole, batch, PROGRESS, 1, lambda: torch.autocast("cpu", enabled=False))
    two = forward_backward(parts, batch, PROGRESS, 2, lambda: torch.autocast("cpu", enabled=False))
    torch.testing.assert_close(two.total, one.total.detach())
    assert 0 < one.scalars["unlabeled_used"] < 1
    for each, other in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(each.grad, other.grad)


@LEARNERS
def test_a_broken_discriminator_is_found(made: Make, make_model: Make, batch: Any) -> None:
    learner = made(make_model)
    with torch.no_grad():
        learner.discriminator.convs[-1].bias.fill_(float("nan"))
    with pytest.raises(LossNotFinite, match="discriminator_fake nan"):
        forward_backward(learner, batch, PROGRESS, 1, lambda: torch.autocast("cpu", enabled=False))


def test_self_training_begins_after_a_share_of_the_iterations(make_model: Make, batch: Any) -> None:
    learner = adv(make_model, semi_from=0.3)
    names = [set(learner(batch, Progress(step, 10, 0, 0)).losses) for step in (0, 2, 3)]
    assert ["semi" in found for found in names] == [False, False, True]
    assert all("adversarial_unlabeled" in found for found in names)


@pytest.mark.parametrize(("rule", "left"), [("dropped", False), ("kept", True)])
def test_steps_without_confident_pixels(rule: str, left: bool, make_model: Make, batch: Any) -> None:
    learner = adv(make_model, threshold=1.0, adversarial_without_pixels=rule)
    output = learner(batch, PROGRESS)
    found = gradients(output.losses["adversarial_unlabeled"].mean, learner.model)
    assert all(each is not None and bool(each.any()) == left for each in found)
    assert output.losses["semi"].mean == 0


def test_confident_pixels_of_other_ranks_keep_the_loss(
    make_model: Make, batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adv_semiseg, "over_ranks", lambda values: torch.cat([values, values + 1]))
    output = adv(make_model, threshold=1.0, adversarial_without_pixels="dropped")(batch, PROGRESS)
    assert output.losses["semi"].mean == 0
    assert output.losses["adversarial_unlabeled"].mean > 0


def test_small_label_maps_are_stretched_and_not_padded() -> None:
    image = np.zeros((20, 50, 3), np.uint8)
    label = np.repeat(np.arange(20, dtype=np.uint8)[:, None], 50, 1)
    lab: Any = SimpleNamespace(augment=SimpleNamespace(geometry=RandomCrop(40, flip="none"), weak=None))
    stretched = AdvSemiSeg(real_crops="stretched").real_view(lab)
    found = stretched(image, label, (0, "fit", 0, "labeled_2", 0))["label"]
    assert found.shape == (40, 40)
    assert np.array_equal(found[:, 0], np.arange(40) // 2)
    padded = Weak(lab.augment.geometry)(image, label, (0, "fit", 0, "labeled_2", 0))["label"]
    assert (padded[20:] == 255).all()


def test_label_maps_cannot_be_stretched_where_windows_are_cut_before() -> None:
    geometry = RandomCrop(40, ScaleChoice([0.5, 1.5]), window="source")
    lab: Any = SimpleNamespace(augment=SimpleNamespace(geometry=geometry, weak=Weak(geometry)))
    with pytest.raises(UserError, match="real_crops=padded") as found:
        AdvSemiSeg(real_crops="stretched").real_view(lab)
    assert found.value.key == "method.real_crops"
    assert AdvSemiSeg().real_view(lab) is lab.augment.weak


def test_stretched_labels_keep_their_rule() -> None:
    for rule in (None, "opencv", "torch"):
        resize = ScaleUniform(interpolation="pil_bicubic", label_interpolation=rule)  # type: ignore[arg-type]
        assert map_interpolation(StretchedTo(64, 64, resize)) == map_interpolation(resize)
    assert map_interpolation(StretchedTo(64, 64)) == "opencv"


class Halving:
    """A size rule that makes every side half as long again."""

    interpolation: Any = "opencv"

    def size(self, height: int, width: int, rng: random.Random) -> tuple[int, int]:
        return height * 3 // 2, width * 3 // 2


def test_attempts_multiply_their_factors() -> None:
    rule = StretchedTo(64, 64, Halving())
    assert rule.size(30, 100, random.Random(0)) == (67, 225)
    assert rule.size(1, 1, random.Random(0)) == (64, 64)
    assert StretchedTo(64, 64).size(70, 80, random.Random(0)) == (70, 80)


def test_s4gan_refuses_what_its_losses_cannot_do() -> None:
    with pytest.raises(UserError, match="feature matching") as found:
        S4GAN().batch_sizes(TrainerSettings(accumulate=2))
    assert found.value.key == "trainer.accumulate"
    for method, side in ((S4GAN(), 15), (AdvSemiSeg(), 31)):
        with pytest.raises(UserError, match=f"{side + 1} pixels") as small:
            method.batch_sizes(TrainerSettings(crop_size=side))
        assert small.value.key == "trainer.crop_size"


def test_dropout_of_an_image_depends_on_no_other_rank(make_model: Make, batch: Any) -> None:
    learner, images = s4(make_model), batch["labeled"]["image"]
    whole = learner._masks(images, PROGRESS, "name")
    parts = [learner._masks(images[:2], Progress(8, 10, 0, 123, rank, 2), "name") for rank in (0, 1)]
    assert torch.equal(torch.cat([each for each in parts if each is not None]), whole)  # type: ignore[arg-type]
    assert not torch.equal(learner._masks(images, PROGRESS, "other"), whole)  # type: ignore[arg-type]


def test_dropout_of_the_scores(make_model: Make, batch: Any) -> None:
    scores = {
        rule: [
            s4(make_model, score_dropout=rule)(batch, Progress(8, 10, 0, seed)).scalars["discriminator_score"]
            for seed in (0, 1)
        ]
        for rule in ("train", "eval")
    }
    assert scores["eval"][0] == scores["eval"][1]
    assert scores["train"][0] != scores["train"][1]


@pytest.mark.parametrize(("padding", "pixels"), [("counted", 32 * 32), ("masked", 32 * 20)])
def test_padding_in_self_training(padding: str, pixels: int, make_model: Make, batch: Any) -> None:
    output = s4(make_model, padding=padding, threshold=0.0)(batch, PROGRESS)
    assert output.losses["self"].count == 4 * pixels
    assert "self" not in s4(make_model)(batch, Progress(0, 10, 0, 0)).losses
    logits = torch.zeros(2, 3, 4, 4)
    assert selected_cross_entropy(logits, torch.tensor([False, False])) == 0


def test_ranges_of_images() -> None:
    images = torch.stack([torch.arange(12.0).view(3, 2, 2), 20 + 2 * torch.arange(12.0).view(3, 2, 2)])
    assert rescaled(images, "own").flatten()[[0, -1]].tolist() == [0, 1]
    alone = rescaled(images, "per_image")
    assert torch.equal(alone[0], alone[1])
    assert rescaled(images, "labeled_batch", images / 2).max() == 2
    assert rescaled(torch.ones(1, 3, 2, 2), "own").abs().max() == 0


def test_the_range_of_a_learner(make_model: Make, batch: Any) -> None:
    for rule in ("labeled_batch", "own", "per_image"):
        learner = s4(make_model, real_range=rule)
        part, known = batch["labeled_2"], batch["labeled"]["image"] // 2
        found = learner._true(part, known)
        other = learner.model.normalize(known) if rule == "labeled_batch" else None
        assert torch.equal(found[:, 4:], rescaled(learner.model.normalize(part["image"]), rule, other))
        assert (found[:, :4].sum(1) == (part["label"] != 255)).all()
