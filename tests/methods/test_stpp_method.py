"""The recipes of ST and ST++ and their labeling."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from semiseg.errors import UserError
from semiseg.methods.stpp import MeanOfViews, SelfTraining

Make = Callable[..., Any]


def test_st_labels_everything_once(make_lab: Make) -> None:
    lab = make_lab(labeled=3, unlabeled=8)
    model = SelfTraining(plus=False, scales=[1.0]).run(lab)
    assert lab.steps == ["teacher", "label", "student"]
    assert model is lab.fits["student"].selected
    assert lab.fits["teacher"].asked == ()
    labeler, store = lab.labelings["label"]
    assert labeler is lab.fits["teacher"].selected
    assert store.ids == lab.split.unlabeled
    assert lab.released == [store]


def test_stpp_learns_the_reliable_half_first(make_lab: Make) -> None:
    lab = make_lab(labeled=3, unlabeled=9)
    model = SelfTraining(scales=[1.0], snapshots=(0.25, 0.5, 1.0)).run(lab)
    assert lab.steps == ["teacher", "rank", "label-reliable", "student-reliable", "label-rest", "student"]
    assert model is lab.fits["student"].selected
    assert lab.fits["teacher"].asked == (0.25, 0.5, 1.0)

    ranking = lab.memos["rank"]
    assert len(ranking["reliable"]) == 4
    assert sorted(ranking["reliable"] + ranking["rest"]) == sorted(lab.split.unlabeled)
    assert min(ranking["scores"][i] for i in ranking["reliable"]) >= max(
        ranking["scores"][i] for i in ranking["rest"]
    )

    (first_labeler, reliable), (second_labeler, rest) = lab.labelings.values()
    assert (first_labeler, second_labeler) == (
        lab.fits["teacher"].selected,
        lab.fits["student-reliable"].selected,
    )
    assert reliable.ids == tuple(ranking["reliable"])
    assert rest.ids == tuple(ranking["rest"])
    assert lab.released == [reliable, rest]

    def pseudo_labels(step: str) -> dict[str, Any]:
        items = lab.streams[step].streams["mixed"].items
        return {item.id: item.labels for item in items if item.labels != "true"}

    assert pseudo_labels("student-reliable") == dict.fromkeys(reliable.ids, reliable)
    assert pseudo_labels("student") == dict.fromkeys(reliable.ids, reliable) | dict.fromkeys(rest.ids, rest)


def test_every_fit_starts_from_a_network_of_its_own(make_lab: Make) -> None:
    lab = make_lab(labeled=3, unlabeled=8)
    SelfTraining(scales=[1.0]).run(lab)
    assert lab.networks == ["teacher", "student-reliable", "student"]
    assert len({id(learner.model) for learner in lab.learners.values()}) == 3


def test_labeled_images_stay_weak_and_balance_the_others(make_lab: Make) -> None:
    lab = make_lab(labeled=3, unlabeled=8)
    SelfTraining(plus=False, scales=[1.0], teacher_augment="strong").run(lab)
    teacher = lab.streams["teacher"].streams["labeled"]
    student = lab.streams["student"].streams["mixed"]
    assert {item.view for item in teacher.items} == {lab.augment.strong}
    assert len(teacher.items) == 6
    assert {item.view for item in student.items if item.labels == "true"} == {lab.augment.weak}
    assert {item.view for item in student.items if item.labels != "true"} == {lab.augment.strong}
    assert [item.labels for item in student.items].count("true") == 9
    assert teacher.batch_size == student.batch_size == 5


def test_labeled_images_among_the_unlabeled_keep_their_true_labels(make_lab: Make) -> None:
    lab = make_lab(labeled=3, unlabeled=4)
    lab.split = replace(lab.split, unlabeled=lab.split.labeled + lab.split.unlabeled)
    SelfTraining(plus=False, scales=[1.0]).run(lab)
    assert lab.labelings["label"][1].ids == ("u0", "u1", "u2", "u3")


def test_equal_scores_keep_the_order_of_the_ids() -> None:
    ranking = SelfTraining(reliable_fraction=0.6).split_by_stability(
        {"c": 0.5, "a": 0.5, "b": 0.7, "d": 0.5, "e": 0.1}
    )
    assert (ranking["reliable"], ranking["rest"]) == (["b", "c", "a"], ["d", "e"])


def test_too_few_unlabeled_images_for_a_ranking(make_lab: Make) -> None:
    with pytest.raises(UserError, match="method=st"):
        SelfTraining(scales=[1.0]).run(make_lab(labeled=3, unlabeled=1))


@pytest.mark.parametrize(
    "arguments",
    [
        {"reliable_fraction": 1},
        {"snapshots": [1.0]},
        {"snapshots": [1.0, 0.5]},
        {"snapshots": [0.0, 0.5]},
        {"snapshots": [0.5, 1.5]},
        {"scales": []},
        {"scales": [1.0, 0.0]},
        {"teacher_augment": "none"},
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(arguments))):
        SelfTraining(**arguments)


def test_labeling_sums_softmax_maps_of_all_passes(make_model: Make) -> None:
    torch.manual_seed(0)
    model = make_model(0).eval()
    images = torch.randint(0, 256, (1, 3, 11, 13), dtype=torch.uint8)
    total = torch.zeros(1, 4, 11, 13)
    with torch.no_grad():
        for scale in (0.5, 1.0, 1.5):
            size = [int(11 * scale), int(13 * scale)]
            scaled = F.interpolate(images.float(), size=size, mode="bilinear", align_corners=True)
            for flip in (False, True):
                logits = model(scaled.flip(3)).softmax(1).flip(3) if flip else model(scaled).softmax(1)
                total += F.interpolate(logits, size=(11, 13), mode="bilinear", align_corners=True)
    label, confidence = MeanOfViews([0.5, 1.0, 1.5], flip=True)(model, images)
    torch.testing.assert_close(confidence, total[0].max(0).values / 6)
    assert torch.equal(label, total[0].argmax(0).to(torch.uint8))
