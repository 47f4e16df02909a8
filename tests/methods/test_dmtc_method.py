"""DMTC: the representation head of DMT's networks, and where its contrast is part of the loss."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from semiseg.contracts.training import Progress
from semiseg.errors import UserError
from semiseg.losses import pixel_contrast
from semiseg.methods.dmt import Kind
from semiseg.methods.dmtc import DMTC, HEAD, ContrastLearner, PixelContrast, attach
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.seeding import derive_seed

Make = Callable[..., Any]
PROGRESS = Progress(iteration=0, total=1, epoch=0, seed=5)


@pytest.fixture
def make_learner(make_model: Make) -> Make:
    def make(contrast: PixelContrast, kind: Kind = "baseline") -> ContrastLearner:
        model = make_model(0)
        attach(model, seed=1, channels=contrast.channels)
        method = DMTC(contrast=contrast)
        return method.learner(model, LabeledLoss(method), kind)

    return make


def test_the_contrast_is_a_term_beside_the_labels(make_learner: Make, make_batch: Make) -> None:
    settings = PixelContrast(num_queries=8, num_negatives=16, baseline_weight=0.7)
    learner, batch = make_learner(settings), make_batch("labeled")
    output = learner(batch, PROGRESS)
    assert set(output.losses) == {"supervised", "contrast"}
    assert output.losses["contrast"].weight == 0.7
    assert output.losses["contrast"].count == len(batch["labeled"]["label"].unique()) - 1

    images = batch["labeled"]["image"]
    features = learner.model.features(images)
    expected = pixel_contrast(
        learner.model.heads[HEAD](features),
        batch["labeled"]["label"],
        learner.model.classify(features, images.shape[-2:]).softmax(1),
        8,
        16,
        0.5,
        0.97,
        torch.Generator().manual_seed(derive_seed(PROGRESS.seed, "contrast")),
    )
    torch.testing.assert_close(output.losses["contrast"].mean, expected)
    torch.testing.assert_close(output.total, output.losses["supervised"].mean + 0.7 * expected)


def test_the_contrast_trains_head_and_backbone_but_not_the_classifier(
    make_learner: Make, make_batch: Make
) -> None:
    learner = make_learner(PixelContrast(num_queries=8, num_negatives=16))
    learner(make_batch("labeled"), PROGRESS).losses["contrast"].mean.backward()
    model = learner.model
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.heads[HEAD].parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.backbone.parameters())
    assert all(parameter.grad is None for parameter in model.classifier.parameters())


@pytest.mark.parametrize(
    ("settings", "baselines", "phases"),
    [({}, 1.0, 0.0), ({"phases": True}, 1.0, 0.1), ({"baseline": False, "phases": True}, 0.0, 0.1)],
)
def test_where_the_contrast_is_trained(
    settings: dict[str, bool], baselines: float, phases: float, make_learner: Make
) -> None:
    learners = [make_learner(PixelContrast(**settings), kind) for kind in ("baseline", "phase")]
    assert [learner.weight for learner in learners] == [baselines, phases]


def test_an_untrained_head_follows_the_features_and_keeps_its_weights(
    make_learner: Make, make_batch: Make
) -> None:
    learner = make_learner(PixelContrast(num_queries=8, num_negatives=16), "phase")
    head = learner.model.heads[HEAD]
    before = {name: value.clone() for name, value in head.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], 0.1, weight_decay=0.1)
    output = learner(make_batch("labeled"), PROGRESS)
    assert set(output.losses) == {"supervised"}
    output.total.backward()
    optimizer.step()
    changed = {name for name, value in head.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "running" in name or "num_batches" in name}


def test_a_frozen_head_learns_again_in_a_fit_that_trains_it(make_learner: Make) -> None:
    contrast = PixelContrast(baseline=False, phases=True)
    learner = make_learner(contrast, "baseline")
    assert not any(parameter.requires_grad for parameter in learner.model.heads.parameters())
    DMTC(contrast=contrast).learner(learner.model, learner.loss, "phase")
    assert all(parameter.requires_grad for parameter in learner.model.heads.parameters())


def test_the_head_depends_on_the_seed_alone(make_model: Make) -> None:
    def head(seed: int, drawn: int) -> torch.Tensor:
        model = make_model(0)
        torch.rand(drawn)
        attach(model, seed, channels=3)
        return torch.cat([parameter.flatten() for parameter in model.heads[HEAD].parameters()])

    assert torch.equal(head(1, 1), head(1, 2))
    assert not torch.equal(head(1, 1), head(2, 1))


def test_ignored_pixels_count_as_class_0_on_request(make_learner: Make, make_batch: Make) -> None:
    batch = make_batch("labeled")
    batch["labeled"]["label"][batch["labeled"]["label"] == 0] = 255
    counts = [
        make_learner(PixelContrast(num_queries=4, num_negatives=4, ignored_as_class_0=published))(
            batch, PROGRESS
        )
        .losses["contrast"]
        .count.item()
        for published in (True, False)
    ]
    assert counts == [4, 3]


@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": 0},
        {"num_queries": 0},
        {"num_negatives": -1},
        {"baseline_weight": 0.0},
        {"phase_weight": float("nan")},
        {"temperature": 0.0},
        {"strong_threshold": 1.5},
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"^{next(iter(arguments))}="):
        PixelContrast(**arguments)
