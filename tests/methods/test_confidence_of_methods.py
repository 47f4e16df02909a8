"""Settings of confident pseudo-labels that every method with them follows, or refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from semiseg.contracts.dataset import Split
from semiseg.contracts.training import Progress
from semiseg.data.augment import Augment
from semiseg.data.geometry import RandomCrop
from semiseg.errors import UserError
from semiseg.methods.augseg import AugSeg, AugSegLearner
from semiseg.methods.corrmatch import CorrMatch, CorrMatchLearner, attach
from semiseg.methods.cutmix_seg import CutMixSeg, CutMixSegLearner
from semiseg.methods.fixmatch import FixMatch, FixMatchLearner
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.mean_teacher import MeanTeacher, MeanTeacherLearner
from semiseg.settings import TrainerSettings

Make = Callable[..., Any]
METHODS: dict[str, tuple[Any, Any]] = {
    "fixmatch": (FixMatch, FixMatchLearner),
    "mean_teacher": (MeanTeacher, MeanTeacherLearner),
    "cutmix_seg": (CutMixSeg, CutMixSegLearner),
    "augseg": (AugSeg, AugSegLearner),
}


def batch_of(make_batch: Make) -> dict[str, Any]:
    batch: dict[str, Any] = make_batch("labeled", "unlabeled", "unlabeled_2", "mixed")
    batch["held_out"] = batch.pop("mixed")
    for name in ("unlabeled", "unlabeled_2"):
        image = batch[name]["image"]
        batch[name] |= {"strong_1": 255 - image, "valid": torch.ones(len(image), 16, 16, dtype=torch.bool)}
        batch[name]["box_1"] = torch.zeros(len(image), 4, dtype=torch.int64)
    return batch


@pytest.mark.parametrize("name", METHODS)
def test_the_gate_measures_on_labeled_images_that_are_not_trained_on(
    name: str, make_lab: Make, make_model: Make, make_batch: Make
) -> None:
    method, learner = METHODS[name]
    lab = make_lab(10, 12)
    lab.augment, lab.trainer = Augment(RandomCrop(8)), TrainerSettings(batch_size=2, unlabeled_batch_size=2)
    method(gate_share=0.2).run(lab)
    streams = lab.streams["train"].streams
    known, held = ({item.id for item in streams[each].items} for each in ("labeled", "held_out"))
    assert known | held == set(lab.split.labeled)
    assert not known & held
    settings = method(gate_share=0.2)
    made = learner(make_model(), settings, LabeledLoss(settings))
    batch = batch_of(make_batch)
    made(batch, Progress(0, 10, 0, 0))
    assert float(made.labeler.gate_counts.sum()) == int((batch["held_out"]["label"] != 255).sum())


@pytest.mark.parametrize("name", [*METHODS, "corrmatch"])
def test_alignment_knows_the_labeled_classes(name: str, make_model: Make, make_batch: Make) -> None:
    method, learner = METHODS.get(name, (CorrMatch, CorrMatchLearner))
    model = make_model()
    options = {}
    if name == "corrmatch":
        attach(model)
        options = {"partner": "reversed", "regions": 4}
    settings = method(align="labeled", **options)
    made = learner(model, settings, LabeledLoss(settings))
    batch = batch_of(make_batch)
    del batch["held_out"]
    batch["labeled"]["label"][:] = 2
    made(batch, Progress(0, 10, 0, 0))
    assert made.labeler.labeled_classes[2] == 1
    assert made.labeler.labeled_classes.sum() == 1


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"threshold_rule": "adaptive"}, "threshold_rule"),
        ({"threshold_rule": "class_balanced"}, "threshold_rule"),
        ({"gate_share": 0.2}, "gate_share"),
    ],
)
def test_corrmatch_refuses_rules_beside_its_own_threshold(settings: Any, key: str) -> None:
    with pytest.raises(UserError, match=key):
        CorrMatch(**settings)


@pytest.mark.parametrize("name", METHODS)
def test_the_better_network_needs_validation_images(name: str) -> None:
    split = Split(labeled=("a",), unlabeled=("b",), val=(), name="1/2")
    method = METHODS[name][0]
    method().check_split(split)
    with pytest.raises(UserError, match="report=better"):
        method(report="better").check_split(split)
