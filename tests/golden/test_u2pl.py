"""U2PL against numbers recorded from its published code: losses, masks, memory, boxes, crops, and a training."""

import copy
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from u2pl_inputs import replayed
from wave_inputs import digest as sha
from wave_inputs import fill, grid, images, labels, logits

from semiseg.contracts.dataset import DatasetInfo
from semiseg.contracts.training import Progress
from semiseg.data.geometry import RandomCrop
from semiseg.data.two_sided_scale import ScaleTwoSided
from semiseg.engine.optim import SGD
from semiseg.engine.schedule import Poly
from semiseg.losses import ClassBank, bank_contrast, ohem_cross_entropy, reliable_cross_entropy
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.u2pl import U2PL, U2PLLearner
from semiseg.models.heads import ConvHead
from semiseg.models.segmodel import Backbone, Decoder, InputConvention, SegModel, Stage
from semiseg.pseudo import class_pixels, entropy, half_boxes, masked_percentiles, one_hot
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.evaluate import evaluate
from semiseg.tasks.inference import window_spans

CLOSE = {"rel": 1e-8, "abs": 1e-12}


def gradient_size(loss: Tensor, values: Tensor) -> float:
    (gradient,) = torch.autograd.grad(loss, values)
    return gradient.abs().sum().item()


def unsupervised(student: Tensor, teacher: Tensor, label: Tensor, percent: float) -> tuple[Tensor, Tensor]:
    """The loss, and which pixels are kept."""
    amount, counted = entropy(teacher.softmax(1)), label != 255
    (bound,) = masked_percentiles(amount, counted, [percent])
    return reliable_cross_entropy(student, label, amount >= bound), counted & (amount < bound)


@pytest.mark.golden("U2PL unlabeled loss")
@pytest.mark.parametrize(
    ("percent", "corner", "loss", "gradient", "kept", "digest"),
    [
        (80, False, 0.4789589763, 0.6506630822, 192, "71a54f8cf6712780"),
        (90, True, 0.4817805694, 0.6321442775, 199, "735be4e3fc5b5e7a"),
        (100, False, 0.4162131813, None, 239, None),
    ],
)
def test_unlabeled_loss(
    percent: float, corner: bool, loss: float, gradient: float | None, kept: int, digest: str | None
) -> None:
    student = logits(2, 5, 10, 12, 0.2).requires_grad_()
    label = logits(2, 5, 10, 12, 0.45, 1.5).argmax(1)
    if corner:
        label[0, :3, :6] = 255
    found, mask = unsupervised(student, logits(2, 5, 10, 12, 0.5, 1.5), label, percent)
    assert found.item() == pytest.approx(loss, **CLOSE)
    assert mask.sum() == kept
    if gradient is not None:
        assert gradient_size(found, student) == pytest.approx(gradient, **CLOSE)
        assert sha(mask) == digest


@pytest.mark.golden("U2PL unlabeled loss")
def test_unlabeled_loss_with_ties() -> None:
    student = logits(2, 3, 4, 6, 0.2).requires_grad_()
    label = logits(2, 3, 4, 6, 0.45, 1.5).argmax(1)
    _, k, y, x = grid(2, 3, 4, 6)
    teacher = torch.where(((x + y) % 4 == 0) | (k > 0), 0.0, 2.0).double()
    found, mask = unsupervised(student, teacher, label, 80)
    assert found.item() == pytest.approx(0.428231878, **CLOSE)
    assert gradient_size(found, student) == pytest.approx(0.6050086815, **CLOSE)
    assert mask.sum() == 36


@pytest.mark.golden("U2PL unlabeled loss")
def test_unlabeled_loss_of_ignored_pixels_is_zero() -> None:
    student = logits(2, 5, 10, 12, 0.2).requires_grad_()
    label = torch.full((2, 10, 12), 255)
    found, mask = unsupervised(student, logits(2, 5, 10, 12, 0.5, 1.5), label, 80)
    assert (found.item(), gradient_size(found, student), mask.any().item()) == (0, 0, False)


@pytest.mark.golden("U2PL masks")
@pytest.mark.parametrize(
    ("epoch", "bounds", "pixels", "small", "digests"),
    [
        (1, (1.299537788, 1.470303899), (113, 113), (28, 34), ("0b5b6f2c4de6b8da", "b3ce18e47786d341")),
        (40, (1.262642708, 1.502510428), (58, 58), (26, 27), None),
    ],
)
def test_masks_of_entropy(
    epoch: int, bounds: Any, pixels: Any, small: Any, digests: tuple[str, str] | None
) -> None:
    known, amount = labels(1, 14, 21, 6, 2), entropy(logits(2, 6, 14, 21, 0.8, 1.5).softmax(1))
    label = logits(2, 6, 14, 21, 1.1, 1.5).argmax(1)
    label[0, :3, :5] = 255
    share = 20 * (1 - epoch / 80)
    found = masked_percentiles(amount, label != 255, [share, 100 - share])
    assert found.tolist() == pytest.approx(list(bounds), rel=1e-9)
    masks = (amount <= found[0]) & (label != 255), (amount >= found[1]) & (label != 255)
    assert tuple(mask.sum().item() for mask in masks) == pixels
    reduced = [nearest(torch.cat([known != 255, mask]).double(), (4, 6)) for mask in masks]
    assert tuple(int(mask.sum()) for mask in reduced) == small
    if digests is not None:
        assert tuple(sha(mask[:, None]) for mask in reduced) == digests
        low = [nearest(each.double(), (4, 6)).long() for each in (known, label)]
        assert sha(one_hot(low[0], 6)) == "d752b3c4c44dd67c"
        assert sha(one_hot(low[1], 6)) == "e1f85c8f7b4a0c24"
        assert sha(one_hot(low[1], 6, "first_image")) == "55262457931ef5a4"


def nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[:, None], size=size, mode="nearest")[:, 0]


@pytest.mark.golden("U2PL masks")
def test_one_hot_labels() -> None:
    label = labels(3, 4, 5, 3, 1)
    right, first = one_hot(label, 3), one_hot(label, 3, "first_image")
    assert (right.sum((1, 2, 3)).tolist(), sha(right)) == ([14, 16, 14], "012526a4cf67c643")
    assert (first.sum((1, 2, 3)).tolist(), sha(first)) == ([32, 0, 0], "5cc2fbb229560700")


SHIPPED = {"onehot": "first_image", "anchor_class": "position", "negatives": "own_label"}
ONE_HOT = SHIPPED | {"onehot": "right"}
INDEX = ONE_HOT | {"anchor_class": "class"}
PAPER = INDEX | {"negatives": "paper"}


def contrast_step(
    case: str, step: int, bank: ClassBank, variant: dict[str, Any]
) -> tuple[Tensor, Tensor, Any]:
    """One recorded step: loss, student features, and pixels of each class."""
    phase = 0.6 * step
    method = U2PL(low_rank=2, high_rank=6, num_anchors=12, num_negatives=5, **variant)
    known = labels(2, 7, 9, 6, step)
    guessed = logits(2, 6, 7, 9, 1.65 + phase, 1.5).argmax(1)
    n, y, x = (values.long() for values in grid(2, 7, 9))
    low, high = (2 * y + x + n + step) % 3 != 0, (y + 2 * x + n + step) % 3 != 1
    if case == "B":
        for label in (known, guessed):
            label[label == 1] = 2
            label[label == 3] = 5
        guessed[0, :, 0] = 255
        low[0, :, 0] = high[0, :, 0] = False
    probabilities = torch.cat([logits(2, 6, 7, 9, shift + phase, 1.5) for shift in (0.4, 1.3)]).softmax(1)
    pixels = class_pixels(
        torch.cat([known, guessed]),
        torch.cat([known != 255, low]),
        torch.cat([known != 255, high]),
        probabilities,
        2,
        method,
    )
    student = logits(4, 7, 7, 9, 0.9 + phase, 1).requires_grad_()
    teacher = logits(4, 7, 7, 9, 0.7 + phase, 1)
    features, keys = (each.permute(0, 2, 3, 1).flatten(0, 2) for each in (student, teacher))
    bank.append(keys, pixels.negatives)
    loss = bank_contrast(features, keys, pixels.own, pixels.anchors, bank, replayed(), method)
    return loss, student, pixels


@pytest.mark.golden("U2PL contrast")
@pytest.mark.parametrize(
    ("case", "variant", "losses", "gradients", "added"),
    [
        (
            "A",
            SHIPPED,
            [0.3928589807, 0.3652649241, 0.7615848607],
            [0.1794363515, 0.2685231321, 0.6861083913],
            [0, 0, 3, 13, 17, 6],
        ),
        (
            "A",
            ONE_HOT,
            [0.5377634430, 0.8408222799, 1.033977749],
            [0.4046896255, 0.6097865251, 0.9587024696],
            [0, 0, 2, 1, 0, 1],
        ),
        (
            "A",
            INDEX,
            [0.5377634430, 0.8408222799, 1.033977749],
            [0.4046896255, 0.6097865251, 0.9587024696],
            [0, 0, 2, 1, 0, 1],
        ),
        (
            "A",
            PAPER,
            [1.219871075, 1.089543480, 1.378911352],
            [1.513316236, 1.280601181, 1.929435134],
            [110, 104, 83, 66, 64, 88],
        ),
        ("B", SHIPPED, [0, 0, 0.2037174455], [0, 0, 0.4064946010], [0, 0, 3, 0, 17, 1]),
        ("B", ONE_HOT, [0, 0, 0], [0, 0, 0], [0, 0, 2, 0, 0, 12]),
        (
            "B",
            INDEX,
            [0.4190095107, 0.7027990978, 0.8307748830],
            [0.3590995505, 0.9771294008, 0.6094555264],
            [0, 0, 2, 0, 0, 12],
        ),
        (
            "B",
            PAPER,
            [1.090237636, 1.347677335, 1.676724895],
            [1.309865361, 1.665371855, 1.776210656],
            [110, 108, 78, 61, 59, 71],
        ),
    ],
)
def test_contrast(case: str, variant: Any, losses: Any, gradients: Any, added: Any) -> None:
    bank = ClassBank([60, *[40] * 5], 7).double()
    for step in range(3):
        loss, student, pixels = contrast_step(case, step, bank, variant)
        assert loss.item() == pytest.approx(losses[step], **CLOSE)
        assert gradient_size(loss, student) == pytest.approx(gradients[step], **CLOSE)
        if step == 0:
            assert pixels.negatives.sum(1).tolist() == added
            if case == "A" and variant is ONE_HOT:
                assert pixels.anchors.sum(1).tolist() == [18, 3, 0, 11, 28, 34]
                assert pixels.own.sum(1).tolist() == [28, 14, 23, 31, 43, 51]
    if case == "A" and variant is ONE_HOT:
        assert bank.filled.tolist() == [0, 3, 3, 6, 0, 1]


@pytest.mark.golden("U2PL contrast")
def test_memory_after_a_step() -> None:
    bank = ClassBank([60, *[40] * 5], 7).double()
    contrast_step("A", 0, bank, PAPER)
    assert bank.filled.tolist() == [60, *[40] * 5]
    entries = [stored(bank, number) for number in range(6)]
    expected = [-1.568059955, -5.689371079, -5.011023489, -1.315196776, 5.928389345, 0.9550491618]
    assert [each.sum().item() for each in entries] == pytest.approx(expected, **CLOSE)
    oldest = [each[0].sum().item() for each in entries[:2]]
    assert oldest == pytest.approx([-2.520356290, -0.04714473368], **CLOSE)


def stored(bank: ClassBank, number: int) -> Tensor:
    """Entries of a class, oldest first."""
    return bank.at(torch.tensor([number]), torch.arange(int(bank.filled[number]))[None])[0]


@pytest.mark.golden("U2PL hard pixels")
def test_hard_pixels_of_both_heads() -> None:
    main, auxiliary = logits(2, 7, 9, 11, 0.7).requires_grad_(), logits(2, 7, 9, 11, 1.9).requires_grad_()
    n, y, x = (values.long() for values in grid(2, 9, 11))
    target = labels(2, 9, 11, 7, 1)
    easy = ((x + 2 * y + n) % 3 != 0) & (target != 255)
    target = torch.where(easy, main.detach().argmax(1), target)
    for least, expected in ((60, 3.503166656), (1000, 3.196342520)):
        parts = [
            ohem_cross_entropy(each, target, 0.7, least, reduction="sum_count") for each in (main, auxiliary)
        ]
        loss = parts[0].mean + 0.4 * parts[1].mean
        assert loss.item() == pytest.approx(expected, **CLOSE)
        if least == 60:
            assert [int(part.counted) for part in parts] == [147, 173]
            gradients = torch.autograd.grad(loss, [main, auxiliary])
            sizes = [each.abs().sum().item() for each in gradients]
            assert sizes == pytest.approx([1.213491211, 0.7182845145], **CLOSE)


@pytest.mark.golden("U2PL boxes")
@pytest.mark.parametrize(
    ("size", "corners"),
    [
        ((33, 47), [(0, 5, 22, 41), (4, 11, 31, 40), (8, 15, 32, 47), (9, 8, 32, 42)]),
        ((513, 513), [(117, 47, 424, 476), (9, 140, 457, 434), (72, 15, 382, 440), (0, 131, 362, 494)]),
    ],
)
def test_boxes(size: tuple[int, int], corners: list[tuple[int, ...]]) -> None:
    for seed, expected in enumerate(corners):
        top, left, height, width = half_boxes(np.random.RandomState(seed), 1, size)[0].tolist()
        assert (top, left, top + height, left + width) == expected


CROPS = [
    (0, (131, 175), True, "38bce604cbb8c30c", 0),
    (1, (69, 92), False, "8a9d55d72d1141b9", 81),
    (2, (146, 194), True, "9c7780142b8ae9b5", 0),
    (3, (57, 77), True, "53e51a7417e45edf", 601),
]


def picture(width: int, height: int) -> tuple[Any, Any]:
    y, x = np.mgrid[:height, :width]
    image = np.stack([(3 * x + 5 * y) % 256, (7 * x + 2 * y + 40) % 256, x * y % 256], -1)
    mask = np.where(x % 37 == 0, 255, (x // 13 + y // 11) % 21)
    return image.astype(np.uint8), mask.astype(np.uint8)


@pytest.mark.golden("U2PL crops")
@pytest.mark.parametrize(("seed", "size", "flipped", "digest", "zeros"), CROPS)
def test_crops(seed: int, size: tuple[int, int], flipped: bool, digest: str, zeros: int) -> None:
    rule = RandomCrop(
        65,
        ScaleTwoSided(interpolation="torch"),
        flip="second",
        pad="centered",
        pad_label=0,
    )
    placement = rule.draw(75, 100, random.Random(seed))
    assert (placement.size, placement.flip) == (size, flipped)
    _, label = rule(*picture(100, 75), random.Random(seed))
    assert label is not None
    assert (label == 0).sum() == zeros
    assert sha(torch.from_numpy(label)) == digest


@pytest.mark.golden("U2PL crops")
def test_crop_in_the_middle() -> None:
    image, mask = picture(40, 50)
    info = DatasetInfo("one", tuple(map(str, range(21))), ((0, 0, 0),) * 21)
    dataset: Any = SimpleNamespace(info=info, image=lambda _: image, mask=lambda _: mask)
    network = SegModel(Stem(), Same(Stem().stages), nn.Conv2d(8, 21, 1), 21)
    seen: list[Tensor] = []
    rule = EvaluatorSettings(center_crop=65, crop_margin="class_0")
    evaluate(
        network, dataset, ["a"], rule, torch.device("cpu"), watch=lambda _, __, truth: seen.append(truth[0])
    )
    assert ((seen[0] == 0).sum(), (seen[0] == 255).sum()) == (2357, 100)
    assert sha(seen[0]) == "d7c3d17ffb5ab758"


@pytest.mark.golden("U2PL schedule and windows")
def test_schedule() -> None:
    rates = {
        1: 9.999802631e-4,
        2: 9.999605262e-4,
        570: 9.887429363e-4,
        22800: 5.358867313e-4,
        45599: 6.411086575e-8,
    }
    for step, rate in rates.items():
        assert 0.001 * Poly().factor(step, 570 * 80) == pytest.approx(rate, rel=1e-8)


@pytest.mark.golden("U2PL schedule and windows")
def test_windows() -> None:
    spans = [window_spans(length, 769, EvaluatorSettings().stride) for length in (1024, 2048)]
    assert [[first for first, _ in each] for each in spans] == [[0, 255], [0, 513, 1026, 1279]]


class Stem(Backbone):
    """One convolution of stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = (Stage(8, 2),)
        self.convention = InputConvention(scale=1, mean=(0, 0, 0), std=(1, 1, 1))
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.layers(x)]


class Same(Decoder):
    """Hands on the last map."""

    out_channels = 8

    def forward(self, maps: Any) -> Tensor:
        last: Tensor = maps[-1]
        return last


class Replayed(U2PLLearner):
    """A learner with the recorded draws."""

    def draws(self, progress: Progress, device: torch.device) -> Any:
        return replayed()


def make_learner(method: U2PL, kind: type[U2PLLearner] = Replayed) -> U2PLLearner:
    """A student with recorded weights, and a teacher with -1/2 of them."""
    backbone = Stem()
    model = SegModel(backbone, Same(backbone.stages), nn.Conv2d(8, 4, 1), 4)
    model.attach("representation", ConvHead(8, 8, 6, nn.Conv2d(8, 6, 1)))
    model.double()
    model.set_convention(backbone.convention)
    fill(model)
    teacher = copy.deepcopy(model)
    model.classifier.weight.data *= 6
    for parameter in teacher.parameters():
        parameter.data *= -0.5
    return kind(model, method, LabeledLoss(method), 4, teacher).double().train()


def recorded_batch(step: int) -> dict[str, Any]:
    known = {"image": images(2, 15, 19, 3 * step), "label": labels(2, 15, 19, 4, step)}
    unlabeled = {"image": images(2, 15, 19, 3 * step + 11), "valid": torch.ones(2, 15, 19, dtype=torch.bool)}
    return {"labeled": known, "unlabeled": unlabeled}


def size_of(network: nn.Module) -> float:
    return sum(parameter.abs().sum().item() for parameter in network.parameters())


TRACES = {
    "shipped": {
        "supervised": [5.992153216, 4.380349012, 4.568063127, 3.037986513, 2.236345725, 1.973975772],
        "unlabeled": [0.5560580696, 2.302356878, 1.218201867, 0.9909297390],
        "contrast": [0.5174191108, 0.7364424506, 0.6371502631, 0.6390069966],
        "student": [183.0879179, 182.0727037, 181.8518785],
        "teacher": [51.48206272, 182.0727037, 181.8847347],
        "mean": [-0.1709967875, -0.06634635967, 0.009003067614],
        "bank": [9, 2, 0, 8],
    },
    "paper": {
        "supervised": [5.992153216, 4.380349012, 4.568063127, 3.057223663, 2.224320061, 2.006366832],
        "unlabeled": [0.5560580696, 2.448761678, 1.292662700, 0.9523089072],
        "contrast": [1.492994410, 1.487127990, 1.483379211, 1.534720142],
        "student": [183.0879179, 181.9315354, 181.4523217],
        "teacher": [51.48206272, 181.9315354, 181.6753422],
        "mean": [-0.1709967875, -0.06693352416, 0.008338899919],
        "bank": [50, 30, 30, 30],
    },
}


@pytest.mark.golden("U2PL training")
@pytest.mark.parametrize("variant", ["shipped", "paper"])
def test_training(variant: str) -> None:
    method = U2PL(
        low_rank=1,
        high_rank=3,
        num_anchors=8,
        num_negatives=4,
        channels=6,
        bank_size=30,
        bank_size_0=50,
        warmup_decay=True,
        teacher_init="random",
        mix="none",
        **(SHIPPED if variant == "shipped" else PAPER),
    )
    learner = make_learner(method)
    expected = TRACES[variant]
    groups = SGD(lr=0.02, weight_decay=0.01, head_multiplier=10).groups(learner.model)
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    found: dict[str, list[float]] = {name: [] for name in expected}
    for step in range(6):
        progress = Progress(step, 8, step // 2, 0)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1 - step / 8) ** 0.9
        output = learner(recorded_batch(step % 2), progress)
        optimizer.zero_grad()
        output.total.backward()
        optimizer.step()
        learner.after_step(progress)
        for name in ("supervised", "unlabeled", "contrast"):
            if name in output.losses and (step >= 2 or name == "supervised"):
                found[name].append(output.losses[name].mean.item())
        if step % 2:
            found["student"].append(size_of(learner.model))
            found["teacher"].append(size_of(learner.teacher))
            found["mean"].append(
                sum(
                    v.sum().item()
                    for n, v in learner.teacher.named_buffers()
                    if "mean" in n and v.numel() == 8
                )
            )
    assert learner.bank is not None
    found["bank"] = learner.bank.filled.tolist()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, **CLOSE), name
