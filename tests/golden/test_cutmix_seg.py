"""CutMix-Seg against numbers recorded from its published code: masks, losses, averages and five training steps."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from averaged_networks import absolute_sum, square_sum, tiny
from torch import Tensor
from wave_inputs import grid, images, labels, logits

from semiseg.contracts.training import Progress
from semiseg.data.geometry import RandomCrop, ScaleChoice, SourcePlacement
from semiseg.engine.ema import EMA
from semiseg.engine.schedule import Cosine, Poly
from semiseg.losses import consistency_loss
from semiseg.methods.cutmix_seg import CutMixSeg, CutMixSegLearner
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.pseudo import box_masks
from semiseg.tasks.metrics import ConfusionMatrix

HALF = (0.5, 0.5)


@pytest.mark.golden("CutMix-Seg boxes")
@pytest.mark.parametrize(
    ("seed", "n", "size", "options", "sums", "digest"),
    [
        (0, 2, (16, 16), {}, [132, 132], "73dfa4d98e4a872a"),
        (1, 2, (321, 321), {}, [51681, 51480], "249a93f362c74504"),
        (2, 3, (40, 56), {}, [1140, 1110, 1120], "5c4271c90202dc35"),
        (0, 2, (16, 16), {"area_range": (0, 1)}, [143, 182], "82b26a514b1e509b"),
        (0, 2, (16, 16), {"boxes": 3}, [98, 54], "7f77743cce2a6333"),
        (0, 2, (16, 16), {"place": "outside"}, [132, 88], "3b63d348cd773ff0"),
        (0, 2, (16, 16), {"place": "outside_clipped"}, [132, 88], "3b63d348cd773ff0"),
    ],
)
def test_boxes(seed: int, n: int, size: Any, options: Any, sums: list[int], digest: str) -> None:
    masks = box_masks(np.random.RandomState(seed), n, size, **{"boxes": 1, "area_range": HALF, **options})
    assert masks.sum((1, 2, 3)).tolist() == sums
    assert hashlib.sha1(masks.numpy().astype(np.uint8).tobytes()).hexdigest()[:16] == digest


def confident(teacher: Tensor, threshold: float) -> Tensor:
    return teacher.softmax(1).max(1).values >= threshold


def measured(student: Tensor, *arguments: Any) -> tuple[float, float]:
    student.requires_grad_().grad = None
    value = consistency_loss(student, *arguments)
    value.backward()
    assert student.grad is not None
    return value.item(), student.grad.abs().sum().item()


class PublishedDraws:
    """The draws of a crop by the published code, offered as Python's generator offers them."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.RandomState(seed)

    def choice(self, values: Sequence[float]) -> float:
        return values[self.generator.randint(0, 11)]

    def randint(self, low: int, high: int) -> int:
        return round((high - low) * self.generator.uniform())

    def random(self) -> float:
        return 1.0


@pytest.mark.golden("CutMix-Seg crops")
@pytest.mark.parametrize(
    ("seed", "side", "place"), [(0, 65, (8, 30)), (2, 50, (5, 47)), (3, 43, (2, 48)), (5, 81, (0, 16))]
)
def test_scaled_crop(seed: int, side: int, place: tuple[int, int]) -> None:
    y, x = np.mgrid[:75, :100]
    image = np.stack([(3 * x + 5 * y) % 256, (7 * x + 2 * y + 40) % 256, x * y % 256], -1).astype(np.uint8)
    label = np.where(x % 37 == 0, 255, (x // 13 + y // 11) % 21).astype(np.uint8)
    scales = ScaleChoice([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
    rule = RandomCrop(65, scales, window="source", pad="centered")
    draws: Any = PublishedDraws(seed)
    drawn = rule.draw(75, 100, draws)
    assert isinstance(drawn, SourcePlacement)
    assert (drawn.window, (drawn.top, drawn.left)) == ((side, side), place)
    rows = slice(place[0], place[0] + side)
    columns = slice(place[1], place[1] + side)
    above = max(0, side - 75) // 2
    borders = (above, max(0, side - 75) - above, 0, 0)
    expected = cv2.copyMakeBorder(image, *borders, cv2.BORDER_CONSTANT, value=(124, 116, 104))[rows, columns]
    assert np.array_equal(drawn.image(image), cv2.resize(expected, (65, 65), interpolation=cv2.INTER_LINEAR))
    known = cv2.copyMakeBorder(label, *borders, cv2.BORDER_CONSTANT, value=255)[rows, columns]  # type: ignore[call-overload]
    known = cv2.resize(known, (65, 65), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(drawn.map(label, 255), known)
    inside = cv2.copyMakeBorder(np.ones_like(label), *borders, cv2.BORDER_CONSTANT, value=0)[rows, columns]  # type: ignore[call-overload]
    inside = cv2.resize(inside, (65, 65), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(drawn.valid(), inside == 1)
    assert drawn.valid().all() == (side < 75)


@pytest.mark.golden("CutMix-Seg loss")
@pytest.mark.parametrize(
    ("mode", "distance", "confidence", "expected"),
    [
        ("mix", "mse_sum", "batch_mean", (0.1046676172, 0.1025585986)),
        ("mix", "mse_sum", "pixel", (0.1551013976, 0.1117288660)),
        ("mix", "mse_sum", None, (0.3239711962, 0.3174432815)),
        ("mix", "logits", "batch_mean", (8.896666476, 4.125341903)),
        ("mix", "smooth_l1", "batch_mean", (1.768909275, 0.5745403345)),
        ("mix", "bce", "batch_mean", (0.5325014997, 0.3544980814)),
        ("mix", "kl", "batch_mean", (0.2127027547, 0.2042547522)),
        ("zero", "mse_sum", "batch_mean", (0.01250481119, 0.04310146563)),
        ("zero", "mse_sum", "pixel", (0.01003103566, 0.03404116611)),
        ("zero", "mse_sum", None, (0.03067217839, 0.1057205761)),
    ],
)
def test_loss(mode: str, distance: Any, confidence: Any, expected: tuple[float, float]) -> None:
    first, second = logits(2, 5, 10, 13, 0.5, 7), logits(2, 5, 10, 13, 1.7, 7)
    n, y, x = grid(2, 10, 13)
    valid, valid_2 = ((x + n) / 3).clamp(max=1), ((9 - y) / 2).clamp(max=1)
    mask = box_masks(np.random.RandomState(3), 2, (10, 13), 1, HALF)
    if mode == "mix":
        teacher = torch.where(mask, second, first)
        weights = torch.where(mask[:, 0], valid_2, valid)
    else:
        teacher, weights = first, valid * mask[:, 0]
    keep = None if confidence is None else confident(teacher, 0.97)
    student = logits(2, 5, 10, 13, 0.6, 3)
    found = measured(student, teacher, keep, weights, distance, confidence or "pixel")
    assert found == pytest.approx(expected, rel=1e-8)
    if keep is not None:
        share = 0.3230769231 if mode == "mix" else 0.4076923077
        assert keep.double().mean().item() == pytest.approx(share, rel=1e-9)
    if (mode, confidence) == ("mix", "pixel"):
        assert student.grad is not None
        assert (student.grad.abs().sum(1) > 0).sum() == 79


@pytest.mark.golden("CutMix-Seg loss")
@pytest.mark.parametrize(("threshold", "expected"), [(0.5, (0.2755400981, 0.2103057687)), (0.6, (0.0, 0.0))])
def test_loss_where_the_confidence_equals_the_threshold(
    threshold: float, expected: tuple[float, float]
) -> None:
    teacher = torch.zeros(2, 2, 4, 5, dtype=torch.float64)
    found = measured(logits(2, 2, 4, 5, 0.3), teacher, confident(teacher, threshold))
    assert found == pytest.approx(expected, rel=1e-8)


@pytest.mark.golden("CutMix-Seg average")
def test_average() -> None:
    student: Any = tiny(3, 1.0)
    average = EMA(student, 0.99, first="constant", buffers="average")
    teacher: Any = average.teacher

    def sums() -> list[float]:
        norm = teacher.backbone.norm
        return [absolute_sum(teacher), norm.running_mean.sum().item(), norm.running_var.sum().item()]

    assert sums() == pytest.approx([74.43440634, -0.1857758284, 22.20782558], rel=1e-8)
    assert square_sum(teacher) == pytest.approx(31.17451775, rel=1e-8)
    expected = [
        [74.41740634, -0.1697758284, 22.31886471],
        [74.37347596, -0.1379358284, 22.59535214],
        [74.29599466, -0.0904142284, 23.11891273],
    ]
    for update, values in enumerate(expected):
        with torch.no_grad():
            for each in student.parameters():
                each.add_(0.1 * (update + 1))
            student.backbone.norm.running_mean.add_(0.2)
            student.backbone.norm.running_var.mul_(1.5)
        average.update(student)
        assert sums() == pytest.approx(values, rel=1e-8)
        assert teacher.backbone.norm.num_batches_tracked == 0


@pytest.mark.golden("CutMix-Seg schedules")
def test_schedules() -> None:
    poly = [0.1 * Poly().factor(step, 20) for step in (0, 1, 2, 10, 19)]
    expected = [0.1, 0.09548853816, 0.09095325761, 0.05358867313, 0.006746414238]
    assert poly == pytest.approx(expected, rel=1e-9)
    cosine = [0.1 * Cosine().factor(step, 20) for step in (0, 1, 2, 10, 19)]
    expected = [0.1, 0.09938441703, 0.09755282581, 0.05, 0.0006155829702]
    assert cosine == pytest.approx(expected, rel=1e-9)


@pytest.mark.golden("CutMix-Seg metric")
def test_metric() -> None:
    matrix = ConfusionMatrix(4, absent="zero")
    truth, found = [[0, 1, 2, 2], [0, 1, 255, 1]], [[0, 1, 1, 2], [0, 2, 2, 1]]
    matrix.update(torch.tensor(found), torch.tensor(truth))
    scores = matrix.compute()
    assert scores.miou == pytest.approx(0.4583333333, rel=1e-9)
    assert list(scores.iou)[:3] == pytest.approx([1, 1 / 2, 1 / 3])


Optimizer = torch.optim.Optimizer


def adam(repeats: int) -> Callable[[Any], Optimizer]:
    """Adam as the published code applies it, one parameter after the other, whatever is listed how often."""

    def build(model: Any) -> Optimizer:
        groups = [
            {"params": [model.backbone.conv.weight] * repeats, "lr": 0.002},
            {"params": list(model.classifier.parameters()), "lr": 0.02},
        ]
        return torch.optim.Adam(groups, foreach=False)

    return build


def sgd(model: Any) -> Optimizer:
    groups = [
        {"params": list(model.backbone.parameters()), "lr": 0.005},
        {"params": list(model.classifier.parameters()), "lr": 0.05},
    ]
    return torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=5e-4)


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
@pytest.mark.golden("CutMix-Seg steps")
@pytest.mark.parametrize(
    ("build", "frozen", "supervised", "consistency", "sums", "answer"),
    [
        (
            adam(1),
            True,
            [6.341992407, 6.619042220, 5.379885941, 6.659838554, 4.198300761],
            [0.2826846829, 0.1226381910, 0.2807298807, 0.1193195556, 0.1884444031],
            [256.6426438, 1402.470314, 258.0367211],
            [0.7473591946, 10.17566307, 7109.608805],
        ),
        (
            adam(3),
            True,
            [6.341992407, 6.288782653, 4.726541746, 5.692605884, 3.213419069],
            [0.2826846829, 0.1270128824, 0.3106372697, 0.1486257749, 0.2512954755],
            [256.2662022, 1402.472810, 258.0252953],
            [0.7449315845, 10.11467958, 7068.155048],
        ),
        (
            sgd,
            False,
            [11.42707428, 9.435501070, 8.624841061, 7.799246269, 6.601764528],
            [0.4633867691, 0.2436994038, 0.4424561530, 0.4791193671, 0.3567512495],
            [257.5938874, 1416.767829, 258.0604131],
            [1.220436707, 11.89974348, 8521.866175],
        ),
    ],
    ids=["adam", "adam-listed-three-times", "sgd"],
)
def test_five_steps(
    build: Callable[[Any], Optimizer],
    frozen: bool,
    supervised: list[float],
    consistency: list[float],
    sums: list[float],
    answer: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    published = CutMixSeg(
        threshold=0.5,
        confidence="batch_mean",
        teacher_mode="train",
        student_view="weak",
        ema_decay=0.99,
        ema_first="constant",
        ema_buffers="average",
    )
    learner = CutMixSegLearner(tiny(4, 12.0, frozen), published, LabeledLoss(published))
    generator = np.random.RandomState(5)
    monkeypatch.setattr(
        learner, "masks", lambda shown, progress: box_masks(generator, 2, (13, 17), 1, HALF)[:, 0]
    )
    model: Any = learner.model
    optimizer = build(model)
    rates = [group["lr"] for group in optimizer.param_groups]
    found: list[list[float]] = [[], []]
    for step in range(5):
        factor = 1.0 if frozen else Poly().factor(step, 5)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        valid = torch.ones(2, 13, 17, dtype=torch.bool)
        valid[0, :, :step] = False
        batch = {
            "labeled": {"image": images(2, 13, 17, 3 * step), "label": labels(2, 13, 17, 4, step)},
            "unlabeled": {"image": images(2, 13, 17, 3 * step + 20), "valid": valid},
            "unlabeled_2": {"image": images(2, 13, 17, 3 * step + 41), "valid": torch.ones_like(valid)},
        }
        progress = Progress(step, 5, 0, step)
        learner.train()
        optimizer.zero_grad()
        output = learner(batch, progress)
        output.total.backward()
        optimizer.step()
        learner.after_step(progress)
        found[0].append(output.losses["supervised"].mean.item())
        found[1].append(output.losses["consistency"].mean.item())
    assert found[0] == pytest.approx(supervised, rel=1e-8)
    assert found[1] == pytest.approx(consistency, rel=1e-8)
    teacher = next(iter(learner.predictors().values()))
    counted = [absolute_sum(model), square_sum(model), absolute_sum(teacher)]
    assert counted == pytest.approx(sums, rel=1e-8)
    teacher.eval()
    with torch.no_grad():
        result = teacher(images(1, 13, 17, 90))
    assert [result.mean().item(), result.std().item(), result.abs().sum().item()] == pytest.approx(
        answer, rel=1e-8
    )
