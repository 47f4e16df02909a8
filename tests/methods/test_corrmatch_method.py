"""CorrMatch: votes of regions, propagation, its switches, and what it does to a run."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from semiseg.contracts.training import Progress, StepOutput
from semiseg.data.augment import Augment
from semiseg.data.geometry import RandomCrop
from semiseg.engine.step import forward_backward
from semiseg.methods.corrmatch import HEAD, CorrMatch, CorrMatchLearner, attach
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.pseudo import class_peaks, correlated_regions, correlation_map, propagated, region_votes
from semiseg.settings import TrainerSettings

Make = Callable[..., Any]
PROGRESS = Progress(iteration=3, total=10, epoch=0, seed=123)
SURE = {"threshold": 0.27, "regions": 6}
"""The networks of the tests are hardly sure of anything."""


@pytest.fixture
def make_learner(make_model: Make) -> Callable[..., CorrMatchLearner]:
    def made(parts: int = 1, **options: Any) -> CorrMatchLearner:
        model = make_model(0)
        attach(model)
        method = CorrMatch(**(SURE | options))
        return CorrMatchLearner(model, method, LabeledLoss(method), parts).train()

    return made


@pytest.fixture
def batch(make_batch: Make) -> dict[str, Any]:
    made = make_batch("labeled", "unlabeled", "partner")
    for number, name in enumerate(("unlabeled", "partner")):
        part = made[name]
        part["strong_1"] = 255 - part["image"]
        part["valid"] = torch.ones(4, 16, 16, dtype=torch.bool)
        part["valid"][number, :, 11:] = False
        part["box_1"] = torch.tensor([[2, 3, 8, 9], [0, 0, 0, 0], [5, 0, 6, 16], [1, 1, 4, 4]])
    return made


def step(learner: CorrMatchLearner, batch: dict[str, Any]) -> StepOutput:
    torch.manual_seed(0)
    output: StepOutput = learner(batch, PROGRESS)
    return output


def means(output: StepOutput) -> dict[str, float]:
    return {name: float(term.mean.detach()) for name, term in output.losses.items()}


def voted(regions: Tensor, label: Tensor, sure: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """The votes one by one, with the values read back."""
    label, kept = label.clone(), sure.clone()
    for image, own in enumerate(regions):
        for region in own:
            voters = region & sure[image]
            if not voters.any() or voters.sum() / region.sum() < threshold:
                continue
            votes = label[image][voters].bincount()
            winner = int((votes == votes.max()).nonzero()[0])
            if votes[winner] / voters.sum() > threshold:
                label[image][region] = winner
                kept[image] |= region
    return label, kept


@pytest.mark.parametrize("seed", range(6))
def test_votes_equal_those_one_by_one(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand((3, 9, 4, 4), generator=generator) < 0.5
    regions = blocks.repeat_interleave(3, 2).repeat_interleave(3, 3)
    regions[0, 2] = False
    label = torch.randint(0, 3, (3, 12, 12), generator=generator)
    label[torch.rand((3, 12, 12), generator=generator) < 0.4 + 0.08 * seed] = 1
    sure = torch.rand((3, 12, 12), generator=generator) < 0.5
    threshold = 0.3 + 0.03 * seed
    found = region_votes(regions, label, sure, torch.tensor(threshold), 3)
    expected = voted(regions, label, sure, threshold)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert not torch.equal(found[1], sure)


def test_the_lowest_class_wins_a_tie_and_a_share_has_to_exceed_the_threshold() -> None:
    label = torch.tensor([[[2, 2, 1, 1]]])
    region = torch.ones(1, 1, 1, 4, dtype=torch.bool)
    sure = torch.ones(1, 1, 4, dtype=torch.bool)
    changed, _ = region_votes(region, label, sure, torch.tensor(0.4), 3)
    assert changed.tolist() == [[[1, 1, 1, 1]]]
    kept, _ = region_votes(region, label, sure, torch.tensor(0.5), 3)
    assert torch.equal(kept, label)


def test_a_vote_sees_the_labels_of_earlier_votes_but_the_first_voters() -> None:
    label = torch.tensor([[[0, 0, 0, 1, 2, 2]]])
    sure = torch.tensor([[[True, True, True, True, False, False]]])
    first = torch.tensor([True, True, True, True, False, False])
    second = torch.tensor([False, False, False, True, True, False])
    regions = torch.stack([first, second])[None, :, None]
    changed, kept = region_votes(regions, label, sure, torch.tensor(0.5), 3)
    # The fourth pixel is 0 by the first vote, and the only voter of the second region.
    assert changed.tolist() == [[[0, 0, 0, 0, 0, 2]]]
    assert kept.tolist() == [[[True, True, True, True, True, False]]]


def test_positions_that_correlate_equally_have_no_region() -> None:
    torch.manual_seed(0)
    one, two = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    one[0, :, 0, 0] = 0
    two[1] = 3.3
    regions = correlated_regions(correlation_map(one, two), torch.tensor([0, 7]), (4, 5), (13, 11))
    assert regions.shape == (2, 2, 13, 11)
    assert regions.flatten(2).any(2).tolist() == [[False, True], [False, False]]


def test_propagated_logits_are_averages_except_for_scatter() -> None:
    torch.manual_seed(0)
    correlation = correlation_map(torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5))
    torch.testing.assert_close(correlation.sum(2), torch.ones(2, 20))
    same = torch.full((2, 6, 4, 5), 1.5)
    for rule in ("normalized", "gather"):
        torch.testing.assert_close(propagated(same, correlation, rule), same)  # type: ignore[arg-type]
    assert (propagated(same, correlation, "scatter") - same).abs().max() > 0.1
    one_hot = torch.zeros(2, 1, 4, 5)
    one_hot[:, 0, 1, 2] = 1  # position 7
    scattered, gathered = (
        propagated(one_hot, correlation, rule).flatten(2)[:, 0] for rule in ("scatter", "gather")
    )  # type: ignore[arg-type]
    torch.testing.assert_close(scattered, correlation[:, 7])
    torch.testing.assert_close(gathered, correlation[:, :, 7])


def test_peaks_of_classes() -> None:
    confidence = torch.tensor([[[0.5, 0.9, 0.7, 0.8]]])
    label = torch.tensor([[[0, 0, 2, 2]]])
    valid = torch.tensor([[[True, False, True, True]]])
    torch.testing.assert_close(class_peaks(confidence, label, valid, 4), torch.tensor([0.5, 0, 0.8, 0]))


def test_the_terms_and_their_weights(make_learner: Make, batch: dict[str, Any]) -> None:
    output = step(make_learner(partner="same_images", weight=2), batch)
    parts = means(output)
    labeled = (parts["labeled"] + parts["labeled_spread"]) / 2
    spread = (parts["strong_spread"] + parts["weak_spread"]) / 2
    unlabeled = (parts["strong"] + parts["divergence"] + parts["features"] + spread) / 4
    assert float(output.total.detach()) == pytest.approx((labeled + 2 * unlabeled) / 2)
    assert all(value > 0 for value in parts.values())
    assert 0 < output.scalars["unlabeled_used"] < 1
    assert output.scalars["region_pixels"] > 0


def test_spread_predictions_teach_head_and_backbone_but_not_the_classifier(
    make_learner: Make, batch: dict[str, Any]
) -> None:
    learner = make_learner()
    losses = step(learner, batch).losses
    (losses["labeled_spread"].sum + losses["strong_spread"].sum).backward()  # type: ignore[no-untyped-call]
    model = learner.model
    assert all(each.grad is None for each in model.classifier.parameters())
    for part in (model.heads[HEAD], model.backbone):
        assert all(
            each.grad is not None and each.grad.abs().sum() > 0 for each in part.parameters() if each.ndim > 1
        )


def test_the_target_of_the_divergence_differs_inside_of_boxes_alone(
    make_learner: Make, batch: dict[str, Any]
) -> None:
    found = {target: means(step(make_learner(kl_target=target), batch)) for target in ("unmixed", "mixed")}
    differing = [name for name, value in found["mixed"].items() if value != found["unmixed"][name]]
    assert differing == ["divergence"]
    batch["unlabeled"]["box_1"].zero_()
    same = [means(step(make_learner(kl_target=target), batch)) for target in ("unmixed", "mixed")]
    assert same[0] == same[1]


def test_the_threshold_learns_from_pixels_that_are_no_padding(
    make_learner: Make, batch: dict[str, Any]
) -> None:
    batch["unlabeled"]["valid"][:, 2:] = False
    batch["unlabeled"]["box_1"][:] = torch.tensor([0, 0, 16, 16])
    found = []
    for mask, own in (("mixed", False), ("unmixed", False), ("mixed", True)):
        if own:
            batch["partner"]["valid"] = batch["unlabeled"]["valid"]
        learner = make_learner(threshold_mask=mask, partner="same_images", threshold_decay=0.5)
        step(learner, batch)
        found.append(float(learner.threshold.value))
    # Two rows of the weak views are no padding, and nearly all of the mixed ones.
    assert found[0] > found[1]
    assert found[1] == found[2]


def test_a_fixed_threshold_stays(make_learner: Make, batch: dict[str, Any]) -> None:
    moving, fixed = make_learner(), make_learner(threshold_update="fixed")
    for learner in (moving, fixed):
        step(learner, batch)
    assert float(fixed.threshold.value) == 0.27
    assert float(moving.threshold.value) > 0.27
    everything = make_learner(threshold_update="fixed", threshold=0)
    assert step(everything, batch).scalars["unlabeled_used"] == 1


def test_parts_of_a_batch_move_the_threshold_as_far_as_the_whole(
    make_learner: Make, batch: dict[str, Any]
) -> None:
    whole, parts = make_learner(), make_learner(parts=3)
    step(whole, batch)
    for _ in range(3):
        step(parts, batch)
    # Running statistics do not matter: weak views are labeled in the training pass.
    assert float(parts.threshold.value) == pytest.approx(float(whole.threshold.value), abs=1e-9)


@pytest.mark.parametrize("partner", ["same_images", "reversed"])
def test_partners(partner: Any, make_learner: Make, batch: dict[str, Any]) -> None:
    if partner == "reversed":
        del batch["partner"]
    learner = make_learner(partner=partner)
    seen = []
    learner.model.backbone.register_forward_pre_hook(
        lambda _, args: seen.append((len(args[0]), learner.training))
    )
    output = step(learner, batch)
    assert [count for count, _ in seen] == ([4, 8, 4] if partner == "same_images" else [8, 4])
    assert torch.isfinite(output.total)
    assert learner.model.training


@pytest.mark.parametrize("teacher", ["student_train", "student_eval", "ema"])
def test_teachers(teacher: Any, make_learner: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(teacher=teacher)
    output = step(learner, batch)
    output.total.backward()  # type: ignore[no-untyped-call]
    learner.after_step(PROGRESS)
    assert list(learner.predictors()) == (["average", "model"] if teacher == "ema" else ["model"])
    if teacher == "ema":
        assert HEAD in learner.predictors()["average"].heads


def test_a_step_waits_for_nothing(make_learner: Make, batch: dict[str, Any], wait_counter: Any) -> None:
    for options in ({}, {"teacher": "ema", "propagate": "gather", "partner": "same_images"}):
        learner = make_learner(**options)
        with wait_counter:
            output = step(learner, batch)
            output.total.backward()  # type: ignore[no-untyped-call]
    assert wait_counter.seen == []


def test_accumulated_losses_are_those_of_the_batch(make_learner: Make, batch: dict[str, Any]) -> None:
    """In evaluation mode, with a fixed threshold and without draws of its own, parts equal the whole."""
    batch = {name: {key: value.double() if key in ("image", "strong_1") else value for key, value in part.items()}
             for name, part in batch.items()}  # fmt: skip
    found = []
    for parts in (1, 2):
        learner = make_learner(parts, threshold_update="fixed", partner="same_images").double().eval()
        learner.feature_masks = lambda maps, progress: [torch.ones(each.shape[:2]) for each in maps]
        learner.region_rows = lambda positions, progress: torch.arange(0, 60, 10)
        output = forward_backward(
            learner, batch, PROGRESS, parts, lambda: torch.autocast("cpu", enabled=False)
        )
        found.append((means(output), [each.grad.clone() for each in learner.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-10)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other)


def test_bfloat16_is_finite(make_learner: Make, batch: dict[str, Any]) -> None:
    learner = make_learner()
    output = forward_backward(learner, batch, PROGRESS, 1, lambda: torch.autocast("cpu", torch.bfloat16))
    assert all(torch.isfinite(term.mean) for term in output.losses.values())
    assert all(torch.isfinite(each.grad).all() for each in learner.parameters() if each.grad is not None)


def test_padding_alone_teaches_nothing(make_learner: Make, batch: dict[str, Any]) -> None:
    for name in ("unlabeled", "partner"):
        batch[name]["valid"].zero_()
    learner = make_learner(partner="same_images")
    found = means(step(learner, batch))
    assert [value for name, value in found.items() if not name.startswith("labeled")] == [0] * 5
    assert float(learner.threshold.value) == 0.27


def test_a_resumed_step_equals_an_uninterrupted_one(make_learner: Make, batch: dict[str, Any]) -> None:
    first = make_learner(threshold_decay=0.9)
    step(first, batch)
    second = make_learner(threshold_decay=0.9)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.threshold.value, second.threshold.value)
    assert means(step(first, batch)) == means(step(second, batch))


def test_a_run_trains_one_network_with_its_head(make_lab: Make) -> None:
    heads = []
    for seed in (0, 0, 1):
        lab = make_lab(labeled=4, unlabeled=6)
        lab.seed = seed
        lab.augment = SimpleNamespace(
            geometry=RandomCrop(16), photometric=None, weak=Augment(RandomCrop(16)).weak
        )
        lab.trainer = TrainerSettings(batch_size=2, unlabeled_batch_size=3)
        CorrMatch(**SURE).run(lab)
        heads.append(lab.learners["train"].model.heads[HEAD].conv1.weight)
        assert [name for name, _, _ in lab.streams["train"].parts] == ["labeled", "unlabeled"]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_published_streams(make_lab: Make) -> None:
    lab = make_lab(labeled=4, unlabeled=6)
    lab.augment = SimpleNamespace(
        geometry=RandomCrop(16), photometric=None, weak=Augment(RandomCrop(16)).weak
    )
    lab.trainer = TrainerSettings(batch_size=2, unlabeled_batch_size=2)
    method = CorrMatch(
        **SURE, partner="same_images", pairing="frozen", list_rule="shuffled_once", kl_target="unmixed"
    )
    method.run(lab)
    streams = lab.streams["train"]
    drawn = streams.batch(lab.dataset, 0, "train", 1)
    assert drawn["unlabeled"]["id"] == drawn["partner"]["id"]
    assert not torch.equal(drawn["unlabeled"]["image"], drawn["partner"]["image"])


def test_a_network_with_its_head_can_be_stored(make_learner: Make) -> None:
    model = make_learner().model
    config = model.heads[HEAD].config()
    assert type(model.heads[HEAD])(**{key: value for key, value in config.items() if key != "_target_"})
    assert (config["in_channels"], config["features"]) == (8, 4)
    assert model.sources[HEAD] == "c4"
