"""Methods of weak and strong views: their batches, partners, labeling networks, groups and masks."""

import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from semiseg.contracts.training import Progress
from semiseg.data.augment import Augment
from semiseg.data.geometry import RandomCrop
from semiseg.data.mix_box import MixBox
from semiseg.engine.step import forward_backward
from semiseg.errors import UserError
from semiseg.methods.fixmatch import FixMatch, FixMatchLearner
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.prevmatch import PrevMatch, PrevMatchLearner
from semiseg.methods.unimatch import UniMatch, UniMatchLearner
from semiseg.methods.unimatch_v2 import UniMatchV2, UniMatchV2Learner
from semiseg.pseudo import channel_masks, complementary_masks, undropped_images
from semiseg.settings import TrainerSettings

PROGRESS = Progress(iteration=3, total=10, epoch=0, seed=5)
METHODS: dict[str, tuple[Any, Any, int]] = {
    "fixmatch": (FixMatch, FixMatchLearner, 1),
    "unimatch": (UniMatch, UniMatchLearner, 2),
    "unimatch_v2": (UniMatchV2, UniMatchV2Learner, 2),
    "prevmatch": (PrevMatch, lambda *parts: PrevMatchLearner(*parts, 10), 2),
}
Make = Callable[..., Any]


def learner_of(name: str, model: Any, **options: Any) -> Any:
    kind, make, _ = METHODS[name]
    method = kind(**options)
    return make(model, method, LabeledLoss(method))


def batch_of(n: int = 4, size: int = 16, partner: bool = False, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def image() -> Tensor:
        return torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)

    def views(name: str) -> dict[str, Any]:
        valid = torch.ones(n, size, size, dtype=torch.bool)
        valid[:, :2] = False
        boxes = torch.tensor([[2, 3, 8, 5], [0, 0, 0, 0]]).repeat(n // 2, 1)
        return {
            "image": image(),
            "strong_1": image(),
            "strong_2": image(),
            "valid": valid,
            "box_1": boxes,
            "box_2": boxes.flip(0),
            "id": [f"{name}{index}" for index in range(n)],
        }

    known = image()
    label = (known[:, 0] // 128 * 2 + known[:, 1] // 128).long()
    label[:, :3, :3] = 255
    batch = {"labeled": {"image": known, "label": label, "id": [f"l{index}" for index in range(n)]}}
    batch["unlabeled"] = views("u")
    return batch | ({"partner": views("p")} if partner else {})


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("partner", ["same_images", "reversed", "independent"])
@pytest.mark.parametrize("pairing", ["frozen", "independent"])
def test_a_recipe_gives_the_streams_of_its_settings(
    name: str, partner: Any, pairing: Any, make_lab: Make
) -> None:
    kind, _, strong = METHODS[name]
    lab = make_lab(5, 12)
    lab.augment = Augment(RandomCrop(8))
    lab.trainer = TrainerSettings(batch_size=2, unlabeled_batch_size=2)
    kind(partner=partner, pairing=pairing).run(lab)
    streams = lab.streams["train"]
    assert set(streams.streams) == {"labeled", "unlabeled"} | (
        {"partner"} if partner != "reversed" else set()
    )
    part = streams.batch(lab.dataset, 0, "train", 0)["unlabeled"]
    assert {key for key in part if key.startswith(("strong", "box"))} == {
        f"{key}_{number}" for key in ("strong", "box") for number in range(1, strong + 1)
    }
    ids = {key: [batch_ids(lab, key, step) for step in range(6)] for key in streams.streams}
    if partner != "reversed":
        assert (ids["partner"] == ids["unlabeled"]) == (partner == "same_images")
    # Every unlabeled image once an epoch.
    assert sorted(each for step in ids["unlabeled"] for each in step) == sorted(lab.split.unlabeled)


def batch_ids(lab: Any, stream: str, iteration: int) -> list[str]:
    return [item.id for item in lab.streams["train"].items(stream, 0, "train", iteration)]


def test_frozen_pairs_meet_again_in_every_epoch(make_lab: Make) -> None:
    def pairs(pairing: Any, epoch: int) -> set[tuple[str, str]]:
        lab = make_lab(5, 12)
        lab.augment, lab.trainer = (
            Augment(RandomCrop(8)),
            TrainerSettings(batch_size=2, unlabeled_batch_size=2),
        )
        FixMatch(pairing=pairing).run(lab)
        steps = range(6 * epoch, 6 * epoch + 6)
        return {
            pair
            for step in steps
            for pair in zip(batch_ids(lab, "labeled", step), batch_ids(lab, "unlabeled", step), strict=True)
        }

    assert pairs("frozen", 0) == pairs("frozen", 1)
    assert pairs("independent", 0) != pairs("independent", 1)


def test_frozen_pairs_need_equal_batches() -> None:
    with pytest.raises(UserError, match="unlabeled_batch_size"):
        FixMatch(pairing="frozen").batch_sizes(TrainerSettings(batch_size=2, unlabeled_batch_size=4))
    with pytest.raises(UserError, match="groups"):
        FixMatch(groups=3).batch_sizes(TrainerSettings(batch_size=6, unlabeled_batch_size=4))


def test_an_image_alone_has_no_partner_in_its_batch() -> None:
    alone = TrainerSettings(batch_size=2, unlabeled_batch_size=2, accumulate=2)
    with pytest.raises(UserError, match="partner=independent"):
        FixMatch().batch_sizes(alone)
    FixMatch(partner="independent").batch_sizes(alone)
    FixMatch(box_probability=0).batch_sizes(alone)


def test_the_gate_takes_images_away_from_training(make_lab: Make) -> None:
    lab = make_lab(10, 12)
    lab.augment, lab.trainer = Augment(RandomCrop(8)), TrainerSettings(batch_size=2, unlabeled_batch_size=2)
    FixMatch(gate_share=0.2).run(lab)
    streams = lab.streams["train"].streams
    known, held = ({item.id for item in streams[name].items} for name in ("labeled", "held_out"))
    assert known | held == set(lab.split.labeled)
    assert not known & held
    assert len(held) == 2


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("teacher", ["student_train", "student_eval", "ema"])
def test_which_network_labels_and_is_reported(name: str, teacher: Any, make_model: Make) -> None:
    learner = learner_of(name, make_model(0), teacher=teacher, partner="reversed", threshold=0.0)
    output = learner(batch_of(), PROGRESS)
    output.total.backward()
    assert all(parameter.grad is not None for parameter in learner.model.parameters())
    names = list(learner.predictors())
    assert names == (["average", "model"] if teacher == "ema" else ["model"])
    if teacher == "ema":
        assert not any(parameter.requires_grad for parameter in learner.average.parameters())
        student = learner_of(name, make_model(0), teacher=teacher, report="student")
        assert list(student.predictors()) == ["model", "average"]
        assert len(learner_of(name, make_model(0), teacher=teacher, report="better").candidates()) == 2
        assert len(learner.candidates()) == 1


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_read_back_from_the_device(name: str, make_model: Make, wait_counter: Any) -> None:
    learner = learner_of(name, make_model(0))
    learner.after_evaluation(True, PROGRESS)
    batch = batch_of(partner=learner.method.partner != "reversed")
    with wait_counter:
        learner(batch, PROGRESS).total.backward()
    assert wait_counter.seen == []
    learner.after_step(PROGRESS)


@pytest.mark.parametrize("name", METHODS)
def test_bf16_gives_a_finite_loss_near_that_of_fp32(name: str, make_model: Make) -> None:
    totals = []
    for context in (nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        learner = learner_of(name, make_model(0), threshold=0.0)
        with context:
            totals.append(float(learner(batch_of(partner=True), PROGRESS).total.detach()))
    assert totals[1] == pytest.approx(totals[0], rel=0.05)


def test_groups_average_their_losses_and_reverse_within(make_model: Make) -> None:
    """Two groups of two images are two GPUs with two images each."""
    batch = batch_of()
    halves = [
        {stream: {key: value[half] for key, value in part.items()} for stream, part in batch.items()}
        for half in (slice(0, 2), slice(2, 4))
    ]
    whole_method, method = (FixMatch(threshold=0.5, teacher="student_eval", groups=count) for count in (2, 1))
    # Without batch norm, whose statistics are those of the whole batch.
    model = make_model(0)
    model.backbone.norm = torch.nn.Identity()
    whole = FixMatchLearner(model, whole_method, LabeledLoss(whole_method))(batch, PROGRESS)
    parts = [FixMatchLearner(model, method, LabeledLoss(method))(half, PROGRESS) for half in halves]
    for key in ("labeled", "strong"):
        means = [float(part.losses[key].mean.detach()) for part in parts]
        assert float(whole.losses[key].mean.detach()) == pytest.approx(sum(means) / 2)


def test_accumulated_batches_sum_up_to_the_whole_one(make_model: Make) -> None:
    """With partners of their own stream and no batch norm, the parts of a batch are independent."""
    found = []
    for parts in (1, 2):
        model = make_model(0)
        model.backbone.norm = torch.nn.Identity()
        method = FixMatch(threshold=0.4, partner="independent", teacher="student_eval")
        learner = FixMatchLearner(model, method, LabeledLoss(method))
        output = forward_backward(learner, batch_of(partner=True), PROGRESS, parts, nullcontext)
        found.append((output, [parameter.grad for parameter in model.parameters()]))
    for key in ("labeled", "strong"):
        torch.testing.assert_close(
            found[0][0].losses[key].mean.detach(), found[1][0].losses[key].mean.detach()
        )
    for whole, piece in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(whole, piece)


def test_perturbed_features_reach_the_statistics_of_the_decoder_alone(make_model: Make) -> None:
    learner = UniMatchLearner(make_model(0), UniMatch(), LabeledLoss(UniMatch()))
    maps = learner.model.encode(batch_of()["unlabeled"]["image"])
    masks = learner.feature_masks(maps, PROGRESS)
    assert all(mask.shape == (4, each.shape[1]) for mask, each in zip(masks, maps, strict=True))
    assert {float(value) for mask in masks for value in mask.flatten()} == {0.0, 2.0}


@pytest.mark.parametrize(("rule", "expected"), [("half", 0.5), ("bernoulli", 0.5), ("none", 0.0)])
def test_complementary_masks(rule: Any, expected: float) -> None:
    generator = torch.Generator().manual_seed(0)
    undropped = undropped_images(generator, 400, rule)
    first, second = complementary_masks(generator, undropped, 64).chunk(2)
    assert (first + second == 2).all()
    assert (first[undropped] == 1).all()
    assert set(first[~undropped].unique().tolist()) <= {0.0, 2.0}
    share = float(undropped.float().mean())
    assert share == (expected if rule != "bernoulli" else pytest.approx(expected, abs=0.08))
    assert undropped_images(generator, 1).tolist() == [False]
    assert undropped_images(generator, 10, groups=2).view(2, 5).sum(1).tolist() == [2, 2]
    assert float(channel_masks(generator, 400, 64).mean()) == pytest.approx(1.0, abs=0.05)


def test_draws_do_not_depend_on_the_number_of_processes(make_model: Make) -> None:
    method = UniMatchV2(undropped="bernoulli")
    learner = UniMatchV2Learner(make_model(0), method, LabeledLoss(method))
    maps = learner.model.encode(torch.cat([batch_of()["unlabeled"]["image"]] * 2))
    whole = learner.feature_masks(maps, PROGRESS)[0].view(2, 4, -1)
    for rank in (0, 1):
        part = Progress(3, 10, 0, 5, rank=rank, ranks=2)
        own = learner.feature_masks([each[:4] for each in maps], part)[0].view(2, 2, -1)
        assert torch.equal(own, whole[:, 2 * rank : 2 * rank + 2])


def test_prevmatch_goes_on_with_its_earlier_networks(make_model: Make) -> None:
    method = PrevMatch(previous=2)
    learner = PrevMatchLearner(make_model(0), method, LabeledLoss(method), 10)
    for _ in range(3):
        learner.after_evaluation(True, PROGRESS)
    learner.after_evaluation(False, PROGRESS)
    assert len(learner.previous) == 2
    fresh = PrevMatchLearner(make_model(1), method, LabeledLoss(method), 10)
    fresh.load_state_dict(learner.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(learner.parameters(), fresh.parameters(), strict=True))
    expected = learner(batch_of(partner=True), PROGRESS).total
    assert torch.equal(fresh(batch_of(partner=True), PROGRESS).total, expected)


@pytest.mark.parametrize(
    ("size", "area"), [((16, 400), (0.3, 0.4)), ((40, 4), (0.4, 0.4)), ((33, 33), (1.0, 1.0))]
)
def test_boxes_that_hardly_fit_are_cut(size: tuple[int, int], area: tuple[float, float]) -> None:
    rule = MixBox(1.0, area)
    for seed in range(5):
        top, left, height, width = rule(size, random.Random(seed), np.random.RandomState(seed))
        assert 0 <= top <= size[0] - height
        assert 0 <= left <= size[1] - width
        assert height * width > 0.7 * area[0] * size[0] * size[1]


@pytest.mark.parametrize("name", METHODS)
def test_a_warm_up_learns_the_labeled_images_alone(name: str, make_model: Make) -> None:
    learner = learner_of(name, make_model(0), warmup=0.25)
    learner.train()
    plain = learner_of(name, make_model(0))
    plain.load_state_dict(learner.state_dict())
    plain.train()
    early, late = (Progress(iteration=number, total=8, epoch=0, seed=5) for number in (1, 2))
    batch, other = batch_of(seed=0), batch_of(seed=1)
    other["labeled"] = batch["labeled"]

    first = learner(batch, early)
    assert list(first.losses) == ["labeled"]
    torch.testing.assert_close(first.total, learner(other, early).total)
    logits = learner.model(batch["labeled"]["image"])
    expected = torch.nn.functional.cross_entropy(logits, batch["labeled"]["label"], ignore_index=255)
    torch.testing.assert_close(first.losses["labeled"].mean, expected)

    plain.load_state_dict(learner.state_dict())
    torch.testing.assert_close(learner(batch, late).total, plain(batch, late).total)
