"""The recipe of DMT and its ablations: who labels for whom, from which network each fit starts, what is reported."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from semiseg.contracts.dataset import Split
from semiseg.contracts.feeding import Budget
from semiseg.contracts.training import Progress
from semiseg.errors import UserError
from semiseg.losses import cross_entropy, dynamic_mutual_loss
from semiseg.methods.dmt import DMT, ClassBalanced, MutualLearner
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.models.segmodel import InputConvention, SegModel
from semiseg.pseudo import confident_labels
from semiseg.settings import EvaluatorSettings, TrainerSettings
from semiseg.splits.dms import difference_maximized

Make = Callable[..., Any]
PROGRESS = Progress(0, 1, 0, 0)
PHASES = (0.25, 1.0)


def same_weights(one: SegModel, other: SegModel) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.golden("DMT schedules")
def test_partners_label_with_their_networks_of_the_former_phase(make_lab: Make) -> None:
    lab = make_lab(labeled=5, unlabeled=7)
    DMT(ratios=PHASES).run(lab)
    assert lab.steps == [
        *("baseline-a", "baseline-b"),
        *("label-1-by-b", "phase-1-a", "label-1-by-a", "phase-1-b"),
        *("label-2-by-b", "phase-2-a", "label-2-by-a", "phase-2-b"),
    ]
    labelers = {step: network for step, (network, _) in lab.labelings.items()}
    assert labelers == {
        "label-1-by-b": lab.fits["baseline-b"].selected,
        "label-1-by-a": lab.fits["baseline-a"].selected,
        "label-2-by-b": lab.fits["phase-1-b"].selected,
        "label-2-by-a": lab.fits["phase-1-a"].selected,
    }
    for step, start in {
        "phase-1-a": "baseline-a",
        "phase-1-b": "baseline-b",
        "phase-2-a": "phase-1-a",
        "phase-2-b": "phase-1-b",
    }.items():
        assert lab.learners[step].model is lab.fits[start].selected
    stores = {step: store for step, (_, store) in lab.labelings.items()}
    assert lab.released == list(stores.values())
    for step, source in {"phase-1-a": "label-1-by-b", "phase-2-b": "label-2-by-a"}.items():
        assert {item.labels for item in lab.streams[step].streams["pseudo"].items} == {stores[source]}
    assert all(store.ids == lab.split.unlabeled for store in stores.values())


def test_partners_begin_from_their_own_weights(make_lab: Make) -> None:
    lab = make_lab(labeled=5, unlabeled=7)
    DMT(ratios=[1.0], weights_a="coco", weights_b="imagenet").run(lab)
    assert lab.weights == {"a": "coco", "b": "imagenet"}
    first = [
        sorted(item.id for item in lab.streams[f"baseline-{tag}"].streams["labeled"].items) for tag in "ab"
    ]
    assert first == [sorted(lab.split.labeled)] * 2


def test_partners_that_differ_by_data_learn_two_samples_once(make_lab: Make) -> None:
    lab = make_lab(labeled=10, unlabeled=7)
    DMT(ratios=[1.0], difference="data").run(lab)
    expected = difference_maximized((), lab.split.labeled, "1/4", "0")
    for tag, sample in zip("ab", expected, strict=True):
        assert len(sample) == 8
        assert [item.id for item in lab.streams[f"baseline-{tag}"].streams["labeled"].items] == list(sample)
        phase = lab.streams[f"phase-1-{tag}"].streams["labeled"]
        assert [item.id for item in phase.items] == list(lab.split.labeled)


def test_one_partner_labels_for_itself(make_lab: Make) -> None:
    lab = make_lab(labeled=5, unlabeled=7)
    model = DMT(partners=1, gamma_agree=0, gamma_disagree=0, ratios=PHASES).run(lab)
    assert lab.steps == ["baseline-a", "label-1-by-a", "phase-1-a", "label-2-by-a", "phase-2-a"]
    assert lab.labelings["label-2-by-a"][0] is lab.fits["phase-1-a"].selected
    assert model is lab.fits["phase-2-a"].selected


def test_online_labels_nothing_beforehand(make_lab: Make) -> None:
    lab = make_lab(labeled=5, unlabeled=7)
    model = DMT(partners=1, variant="online", phase_epochs=20, threshold=0.5).run(lab)
    assert lab.steps == ["baseline-a", "online"]
    assert model is lab.fits["online"].selected
    assert set(lab.streams["online"].streams) == {"unlabeled", "labeled"}
    assert (lab.streams["baseline-a"].iterations, lab.streams["online"].iterations) == (3 * 1, 20 * 3)


@pytest.mark.parametrize(
    ("report", "scores", "expected"),
    [
        ("a", {"phase-1-a": 0.1, "phase-1-b": 0.9}, "phase-1-a"),
        ("b", {"phase-1-a": 0.9, "phase-1-b": 0.1}, "phase-1-b"),
        ("better", {"phase-1-a": 0.1, "phase-1-b": 0.9}, "phase-1-b"),
        ("better", {"phase-1-a": 0.5, "phase-1-b": 0.5}, "phase-1-a"),
        ("better", {"phase-1-a": float("nan"), "phase-1-b": 0.5}, "phase-1-b"),
        ("better", {}, "phase-1-a"),
    ],
)
def test_the_reported_partner(report: Any, scores: dict[str, float], expected: str, make_lab: Make) -> None:
    lab = make_lab(labeled=5, unlabeled=7)
    lab.scores = scores
    model = DMT(ratios=[1.0], report=report).run(lab)
    assert model is lab.fits[expected].selected


def test_fits_have_lengths_rates_and_intervals_of_their_own(make_lab: Make) -> None:
    lab = make_lab(labeled=9, unlabeled=7)
    method = DMT(
        ratios=[1.0],
        baseline_epochs=5,
        phase_epochs=2,
        baseline_lr=0.02,
        phase_lr=0.01,
        baseline_eval_every=4,
        phase_eval_every=3,
    )
    method.run(lab)
    for tag in "ab":
        baseline, phase = f"baseline-{tag}", f"phase-1-{tag}"
        # 9 images in batches of 5, 7 in batches of 3, the last ones short.
        assert (lab.streams[baseline].iterations, lab.streams[phase].iterations) == (5 * 2, 2 * 3)
        assert lab.options[baseline] == {"lr": 0.02, "eval_every": 4}
        assert lab.options[phase] == {"lr": 0.01, "eval_every": 3}


def test_iterations_win_over_the_epochs_of_the_method(make_lab: Make) -> None:
    lab = make_lab(labeled=9, unlabeled=7)
    lab.budget = Budget(iterations=4)
    DMT(ratios=[1.0], baseline_epochs=50, phase_epochs=20).run(lab)
    assert {streams.iterations for streams in lab.streams.values()} == {4}


def test_batches_join_both_kinds_behind_each_other(make_lab: Make) -> None:
    lab = make_lab(labeled=5, unlabeled=7)
    DMT(ratios=[1.0]).run(lab)
    sizes = {name: stream.batch_size for name, stream in lab.streams["phase-1-a"].streams.items()}
    assert sizes == {"pseudo": 3, "labeled": 2}
    assert lab.streams["baseline-a"].streams["labeled"].batch_size == 5


def test_labeled_images_are_never_pseudo_labeled(make_lab: Make) -> None:
    lab = make_lab(labeled=3, unlabeled=4)
    lab.split = replace(lab.split, unlabeled=lab.split.labeled + lab.split.unlabeled)
    DMT(ratios=[1.0]).run(lab)
    assert {store.ids for _, store in lab.labelings.values()} == {("u0", "u1", "u2", "u3")}


def test_kept_shares_grow_with_the_ratio(make_lab: Make) -> None:
    lab = make_lab(labeled=3, unlabeled=6)
    DMT(ratios=[0.2, 0.6, 1.0]).run(lab)
    shares = []
    for phase in (1, 2, 3):
        _, store = lab.labelings[f"label-{phase}-by-a"]
        kept = [(store.label(image_id) != 255).mean() for image_id in store.ids]
        shares.append(sum(kept) / len(kept))
    assert 0.1 < shares[0] < shares[1] < shares[2] <= 1


def pseudo_batch(make_batch: Make) -> dict[str, Any]:
    batch = make_batch("pseudo", "labeled", n=3)
    generator = torch.Generator().manual_seed(1)
    batch["pseudo"]["label"] = torch.randint(0, 4, (3, 16, 16), generator=generator)
    batch["pseudo"]["label"][:, 4:8] = 255
    batch["pseudo"]["confidence"] = torch.rand(3, 16, 16, generator=generator)
    return batch


def joined_logits(model: SegModel, batch: dict[str, Any], first: str) -> Tensor:
    return model(torch.cat([batch[first]["image"], batch["labeled"]["image"]]))


@pytest.mark.parametrize("variant", ["dmt", "flip", "naive"])
def test_one_step_is_the_mutual_loss_of_one_pass(variant: Any, make_model: Make, make_batch: Make) -> None:
    model, batch = make_model(0), pseudo_batch(make_batch)
    method = DMT(gamma_agree=3.0, gamma_disagree=1.0, variant=variant)
    learner = MutualLearner(model, method, LabeledLoss(method))
    output = learner(batch, PROGRESS)
    logits = joined_logits(model, batch, "pseudo")
    target = torch.cat([batch["pseudo"]["label"], batch["labeled"]["label"]])
    confidence = torch.cat([batch["pseudo"]["confidence"], torch.zeros(3, 16, 16)])
    expected, statistics = dynamic_mutual_loss(
        logits, target, confidence, torch.tensor([True] * 3 + [False] * 3), 3.0, 1.0, variant
    )
    assert list(output.losses) == ["mutual"]
    torch.testing.assert_close(output.total, expected)
    valid = int((target[:3] != 255).sum())
    assert output.scalars["pseudo_used"] == pytest.approx(0.75)
    assert output.scalars["disagreement"] == pytest.approx(int(statistics.disagreements) / valid)
    won = int(statistics.wins) / int(statistics.disagreements)
    assert output.scalars["disagreement_won"] == pytest.approx(won)
    assert torch.equal(output.scalars["weight"], statistics.mean_weight)
    assert torch.equal(output.scalars["cross_entropy"], statistics.cross_entropy)


def test_a_baseline_step_is_cross_entropy(make_model: Make, make_batch: Make) -> None:
    model, batch = make_model(0), make_batch("labeled")
    output = MutualLearner(model, DMT(), LabeledLoss(DMT()))(batch, PROGRESS)
    torch.testing.assert_close(
        output.total, cross_entropy(model(batch["labeled"]["image"]), batch["labeled"]["label"])
    )
    assert list(output.losses) == ["supervised"]


def test_an_online_step_learns_what_the_network_is_sure_of(make_model: Make, make_batch: Make) -> None:
    model, batch = make_model(0), make_batch("unlabeled", "labeled", n=2)
    method = DMT(partners=1, variant="online", threshold=0.4)
    output = MutualLearner(model, method, LabeledLoss(method))(batch, PROGRESS)
    logits = joined_logits(model, batch, "unlabeled")
    own = confident_labels(logits[:2], 0.4)
    assert 0 < (own != 255).float().mean() < 1
    expected = cross_entropy(logits, torch.cat([own, batch["labeled"]["label"]]))
    torch.testing.assert_close(output.total, expected)


def test_a_step_never_waits_for_the_device(make_model: Make, make_batch: Make, wait_counter: Any) -> None:
    batch, online = pseudo_batch(make_batch), DMT(partners=1, variant="online")
    with wait_counter:
        MutualLearner(make_model(0), DMT(), LabeledLoss(DMT()))(batch, PROGRESS).total.backward()
        MutualLearner(make_model(0), online, LabeledLoss(online))(
            make_batch("unlabeled", "labeled"), PROGRESS
        ).total.backward()
    assert wait_counter.seen == []


def test_partners_with_two_conventions_learn_from_the_same_batch(make_model: Make, make_batch: Make) -> None:
    """A network in the COCO convention whose first layer undoes the difference computes the same."""
    rgb, bgr = make_model(0), make_model(0)
    coco = InputConvention("BGR", 1.0, (104.008, 116.669, 122.675), (1.0, 1.0, 1.0))
    bgr.set_convention(coco)
    batch = pseudo_batch(make_batch)
    image = batch["pseudo"]["image"]
    seen = bgr.normalize(image)
    torch.testing.assert_close(seen[:, 0] + 104.008, image[:, 2].float())
    mean, std = torch.tensor(rgb.convention.mean), torch.tensor(rgb.convention.std)
    torch.testing.assert_close(rgb.normalize(image)[:, 0], (image[:, 0] / 255 - mean[0]) / std[0])
    with torch.no_grad():
        weight = rgb.backbone.conv.weight
        # Without bias the layers agree up to a constant a channel, which batch norm removes.
        bgr.backbone.conv.weight.copy_((weight / (255 * std.view(1, 3, 1, 1))).flip(1))
    outputs = [MutualLearner(model, DMT(), LabeledLoss(DMT()))(batch, PROGRESS).total for model in (rgb, bgr)]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)


def test_labels_come_from_the_evaluators_view(make_model: Make) -> None:
    model = make_model(0).eval()
    images = torch.randint(0, 256, (1, 3, 11, 13), dtype=torch.uint8)
    settings = EvaluatorSettings(pad="size", pad_to=20)
    label, confidence = ClassBalanced(0.5, settings)(model, images)
    with torch.no_grad():
        best = model(torch.nn.functional.pad(images, (0, 7, 0, 9)))[0, :, :11, :13].softmax(0).max(0)
    assert torch.equal(label.long(), best.indices)
    torch.testing.assert_close(confidence, best.values)
    assert label.dtype == torch.uint8


@pytest.mark.parametrize(
    "arguments",
    [
        {"partners": 3},
        {"gamma_agree": -1},
        {"gamma_disagree": float("inf")},
        {"ratios": []},
        {"ratios": [0.5, 1.1]},
        {"ratios": [0.0]},
        {"variant": "soft"},
        {"difference": "luck"},
        {"report": "c"},
        {"threshold": 1.0},
        {"baseline_epochs": 0},
        {"phase_eval_every": 0},
        {"phase_lr": 0.0},
        {"difference": "data", "partners": 1},
        {"weights_b": "imagenet", "partners": 1},
        {"report": "b", "partners": 1},
        {"variant": "online"},
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(arguments))):
        DMT(**arguments)


def test_batches_that_cannot_be_accumulated_are_refused() -> None:
    assert DMT().batch_sizes(TrainerSettings(batch_size=1, unlabeled_batch_size=7)) == {
        "trainer.batch_size + trainer.unlabeled_batch_size": 8
    }
    with pytest.raises(UserError, match=r"trainer.accumulate=2: .* trainer.batch_size is 1"):
        DMT().batch_sizes(TrainerSettings(batch_size=1, unlabeled_batch_size=7, accumulate=2))


def test_splits_that_cannot_be_learned_from_are_refused() -> None:
    DMT().check_split(Split(("a",), ("b",), ()))
    with pytest.raises(UserError, match="unlabeled and not labeled"):
        DMT().check_split(Split(("a",), ("a",), ()))
    with pytest.raises(UserError, match=r"method.difference=data"):
        DMT(difference="data").check_split(Split(("a",), ("b",), ()))


def test_a_short_batch_that_is_too_small_for_the_decoder_is_dropped(
    make_lab: Make, make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_epoch = []
    for smallest in (1, 2):
        monkeypatch.setattr(type(make_model(0).decoder), "smallest_batch", smallest, raising=False)
        lab = make_lab(labeled=6, unlabeled=7)
        DMT(ratios=[1.0]).run(lab)
        per_epoch.append(lab.streams["baseline-a"].iterations_per_epoch)
    assert per_epoch == [2, 1]
