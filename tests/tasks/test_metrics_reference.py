"""Scores against scikit-learn: random label maps with void, absent classes and classes that are never predicted."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from semiseg.contracts.dataset import DatasetInfo
from semiseg.contracts.score_names import TOTALS, ScoreNames, absent_remark, segmentation_scores
from semiseg.errors import UserError
from semiseg.settings import EvaluatorSettings, PrimaryScore
from semiseg.tasks.evaluate import Measurement
from semiseg.tasks.metrics import ConfusionMatrix, foreground_labels

VOID = 255
CLASSES = 5
INFO = DatasetInfo("toy", ("ground", "crack", "rust", "bolt", "paint"), ((0, 0, 0),) * CLASSES)

KINDS = {
    "all classes": ((0, 1, 2, 3, 4), (0, 1, 2, 3, 4)),
    "a class that no mask holds": ((0, 1, 2, 3), (0, 1, 2, 3)),
    "a class that is predicted and in no mask": ((0, 1, 2, 3), (0, 1, 2, 3, 4)),
    "a class that is never predicted": ((0, 1, 2, 3, 4), (0, 1, 2, 3)),
    "two absent classes, one predicted": ((0, 1, 2), (0, 1, 2, 4)),
    "ground alone": ((0,), (0,)),
    "ground alone, everything predicted": ((0,), (0, 1, 2, 3, 4)),
    "everything there, ground predicted": ((0, 1, 2, 3, 4), (0,)),
    "a rare class": ((0,) * 60 + (1,), (0,) * 40 + (1,)),
    "rare and never hit": ((0,) * 60 + (1,), (0,) * 60 + (2,)),
}
"""Classes that true and predicted pixels are drawn from."""


def maps(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted label maps, every seventh true pixel void."""
    rng = np.random.default_rng(seed)
    truth, prediction = (rng.choice(classes, (3, 20, 30)).astype(np.uint8) for classes in KINDS[kind])
    right = rng.random(truth.shape) < 0.5
    prediction = np.where(right & np.isin(truth, KINDS[kind][1]), truth, prediction)
    truth[rng.random(truth.shape) < 1 / 7] = VOID
    return truth, prediction


def counted(truth: np.ndarray, prediction: np.ndarray, **rule: object) -> ConfusionMatrix:
    matrix = ConfusionMatrix(CLASSES, **rule)
    for one, other in zip(prediction, truth, strict=True):
        matrix.update(torch.from_numpy(one), torch.from_numpy(other))
    return matrix


def by_sklearn(truth: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of each class by the names of ours; 0 where one is not defined."""
    known = truth != VOID
    pair, options = (truth[known], prediction[known]), {"labels": range(CLASSES), "average": None}
    return {
        "iou": sklearn_metrics.jaccard_score(*pair, **options, zero_division=0),
        "dice": sklearn_metrics.f1_score(*pair, **options, zero_division=0),
        "class_precision": sklearn_metrics.precision_score(*pair, **options, zero_division=0),
        "class_recall": sklearn_metrics.recall_score(*pair, **options, zero_division=0),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("absent", ["true_only", "skip", "zero"])
def test_scores_equal_those_of_scikit_learn(kind: str, absent: str) -> None:
    truth, prediction = maps(kind, len(kind))
    found, right = counted(truth, prediction, absent=absent).compute(), by_sklearn(truth, prediction)
    known = truth != VOID
    there = set(np.unique(truth[known]).tolist())
    seen = there | set(np.unique(prediction[known]).tolist())
    over = sorted({"true_only": there, "skip": seen, "zero": set(range(CLASSES))}[absent])
    assert found.counted == over
    assert found.absent == sorted(set(range(CLASSES)) - there)
    for key, values in right.items():
        total = f"m{key.removeprefix('class_')}"
        assert found.totals[total] == pytest.approx(values[over].mean()), total
        told = [0.0 if share is None else share for share in found.classes[key]]
        kept = over if key in ("iou", "dice") and absent == "true_only" else range(CLASSES)
        assert [told[label] for label in kept] == pytest.approx([values[label] for label in kept])
    pair = truth[known], prediction[known]
    assert found.accuracy == pytest.approx(sklearn_metrics.accuracy_score(*pair))
    weighted = sklearn_metrics.jaccard_score(*pair, average="weighted", zero_division=0)
    assert found.totals["fwiou"] == pytest.approx(weighted)
    if absent == "true_only":
        balanced = np.mean([right["class_recall"][label] for label in there])
        assert found.totals["mrecall"] == pytest.approx(balanced)
    values = found.as_dict()
    assert values["true_pixels"] == [int((truth[known] == label).sum()) for label in range(CLASSES)]
    assert values["predicted_pixels"] == [int((prediction[known] == label).sum()) for label in range(CLASSES)]


@pytest.mark.parametrize("kind", ["all classes", "a rare class", "two absent classes, one predicted"])
def test_foreground_scores_are_means_over_the_chosen_classes(kind: str) -> None:
    truth, prediction = maps(kind, 5)
    found = counted(truth, prediction, absent="true_only", foreground=(1, 2)).compute()
    right, there = by_sklearn(truth, prediction), [label for label in (1, 2) if (truth == label).any()]
    for key, values in right.items():
        total = f"foreground_{key.removeprefix('class_')}"
        assert found.totals[total] == pytest.approx(values[there].mean())


def test_a_class_in_no_mask_is_left_out_and_its_false_positives_stay_visible() -> None:
    truth, better = torch.zeros(1, 10, 10, dtype=torch.uint8), torch.zeros(1, 10, 10, dtype=torch.uint8)
    better[0, 0, :3] = 1
    for absent, score in (("true_only", 0.97), ("skip", 0.485), ("zero", 0.485)):
        matrix = ConfusionMatrix(2, absent=absent)
        matrix.update(better, truth)
        assert matrix.compute().miou == pytest.approx(score)
    matrix = ConfusionMatrix(2, absent="true_only")
    matrix.update(better, truth)
    found = matrix.compute()
    assert (found.iou, found.classes["dice"], found.classes["class_recall"]) == (
        [0.97, None],
        [2 * 97 / 197, None],
        [0.97, None],
    )
    assert found.classes["class_precision"] == [1.0, 0.0]
    assert found.as_dict()["predicted_pixels"] == [97, 3]


def test_nothing_counted_gives_no_score() -> None:
    for absent in ("true_only", "skip", "zero"):
        matrix = ConfusionMatrix(2, absent=absent, foreground=(1,))
        matrix.update(torch.zeros(4, dtype=torch.int64), torch.full((4,), VOID))
        found = matrix.compute()
        assert all(math.isnan(score) for score in found.totals.values())
        assert (found.counted, found.absent) == ([], [0, 1])


def test_every_selectable_score_has_a_name_and_a_value() -> None:
    assert set(TOTALS) == set(PrimaryScore.__args__)
    truth, prediction = (torch.from_numpy(each) for each in maps("all classes", 1))
    for key in TOTALS:
        settings = EvaluatorSettings(
            primary=key, metrics=["boundary_iou", "calibration"], foreground=["crack", "rust"]
        )
        names = segmentation_scores(settings)
        measurement = Measurement(INFO, settings, torch.device("cpu"))
        measurement.update(prediction, truth, torch.full(truth.shape, 0.5))
        found = measurement.compute()
        values = names.summarized(found.as_dict(), INFO.classes)
        assert values[key] == found.primary == found.totals[key]
        assert {each.key for each in names.totals} == {*TOTALS, "ece"}
        assert len({each.name for each in (*names.totals, *names.of_each_class)}) == len(
            {*names.totals, *names.of_each_class}
        )
        assert values[names.by_class.key].keys() == set(INFO.classes)
        assert ScoreNames.of(names.as_dict()) == names


def test_names_of_earlier_runs_are_read() -> None:
    plain = {"primary": {"key": "miou", "name": "mIoU"}, "by_class": {"key": "iou", "name": "IoU"}}
    names = ScoreNames.of({**plain, "secondary": [{"key": "accuracy", "name": "pixel accuracy"}]})
    assert [each.key for each in names.totals] == ["miou", "accuracy"]
    assert names.secondary_by_class == ()
    assert names.summarized({"miou": 0.5, "accuracy": 0.6, "iou": [0.5, None]}, ("a", "b")) == {
        "miou": 0.5,
        "accuracy": 0.6,
        "iou": {"a": 0.5, "b": None},
    }


def test_a_foreground_class_must_be_there() -> None:
    with pytest.raises(UserError, match=r"'crak' is no class of dataset 'toy'\. Did you mean crack\?"):
        foreground_labels(EvaluatorSettings(foreground=["crak"]), INFO)
    assert foreground_labels(EvaluatorSettings(foreground=["rust", "crack"]), INFO) == (2, 1)


def test_the_sentence_about_absent_classes() -> None:
    names = segmentation_scores(EvaluatorSettings())
    summary = {
        "iou": {"ground": 1.0, "disk": None},
        "absent_classes": ["disk"],
        "counted_classes": ["ground"],
    }
    assert absent_remark(summary, names) == "no validation image holds disk: mIoU is over 1 of 2 classes"
    zero = summary | {"counted_classes": ["ground", "disk"]}
    assert str(absent_remark(zero, names)).endswith("mIoU is over 2 of 2 classes and counts disk as 0")
    assert absent_remark({"iou": {"ground": 1.0}}, names) is None
