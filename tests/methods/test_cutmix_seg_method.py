"""The learner and the method of CutMix-Seg."""

import copy
from collections.abc import Callable
from typing import Any

import albumentations
import pytest
import torch
import torch.nn.functional as F

from semiseg.contracts.training import Progress
from semiseg.data.augment import Augment, Photometric
from semiseg.data.geometry import RandomCrop
from semiseg.engine.step import forward_backward
from semiseg.errors import UserError
from semiseg.methods.cutmix_seg import CutMixSeg, CutMixSegLearner
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.models.segmodel import InputConvention

Make = Callable[..., Any]
PROGRESS = Progress(iteration=3, total=10, epoch=0, seed=123)
PUBLISHED: dict[str, Any] = {"confidence": "batch_mean", "teacher_mode": "train", "student_view": "weak"}


@pytest.fixture
def batch(make_batch: Make) -> dict[str, Any]:
    """Labeled images, and two streams of unlabeled ones in two views, with padding on the right of the first."""
    made: dict[str, Any] = make_batch("labeled", "unlabeled", "unlabeled_2")
    for name in ("unlabeled", "unlabeled_2"):
        made[name]["valid"] = torch.ones(4, 16, 16, dtype=torch.bool)
        made[name]["strong_1"] = 255 - made[name]["image"]
    made["unlabeled"]["valid"][..., 12:] = False
    return made


def make_learner(make_model: Make, **options: Any) -> CutMixSegLearner:
    method = CutMixSeg(**options)
    learner = CutMixSegLearner(make_model(0), method, LabeledLoss(method))
    with torch.no_grad():
        # Apart, as after some steps.
        for each in learner.average.teacher.parameters():
            each.add_(0.3 * torch.randn(each.shape, generator=torch.Generator().manual_seed(each.numel())))
    learner.train()
    return learner


def watched(learner: CutMixSegLearner, batch: dict[str, Any]) -> list[tuple[str, torch.Tensor, bool, bool]]:
    """Network, images, gradient and training mode of every pass of a step."""
    found: list[tuple[str, torch.Tensor, bool, bool]] = []

    def record(network: str) -> Any:
        def hook(model: Any, arguments: Any) -> None:
            found.append((network, arguments[0], torch.is_grad_enabled(), model.training))

        return hook

    for name, model in learner.predictors().items():
        model.register_forward_pre_hook(record(name))
    learner(batch, PROGRESS)
    return found


@pytest.mark.parametrize(("settings", "view"), [({}, "strong_1"), (PUBLISHED, "image")])
def test_passes_of_a_step(
    settings: dict[str, Any], view: str, make_model: Make, batch: dict[str, Any]
) -> None:
    learner = make_learner(make_model, **settings)
    mask = learner.masks(batch["unlabeled"]["image"], PROGRESS)
    passes = watched(learner, batch)
    mode = view == "image"
    assert [(name, gradient, training) for name, _, gradient, training in passes] == [
        ("model", True, True),
        ("average", False, mode),
        ("average", False, mode),
        ("model", True, True),
    ]
    first, second = batch["unlabeled"], batch["unlabeled_2"]
    images = [images for _, images, _, _ in passes]
    assert torch.equal(images[0], batch["labeled"]["image"])
    assert torch.equal(images[1], first["image"])
    assert torch.equal(images[2], second["image"])
    assert torch.equal(images[3], torch.where(mask[:, None], second[view], first[view]))
    assert (mask.float().mean((1, 2)) - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("confidence", ["batch_mean", "pixel"])
def test_loss_of_a_step(confidence: Any, make_model: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(make_model, confidence=confidence, threshold=0.6, weight=3.0)
    student, teacher = copy.deepcopy(learner.model), copy.deepcopy(learner.average.teacher).eval()
    mask = learner.masks(batch["unlabeled"]["image"], PROGRESS)
    output = learner(batch, PROGRESS)
    first, second = batch["unlabeled"], batch["unlabeled_2"]
    expected = F.cross_entropy(
        student(batch["labeled"]["image"]), batch["labeled"]["label"], ignore_index=255
    )
    target = torch.where(mask[:, None], teacher(second["image"]), teacher(first["image"])).softmax(1)
    mixed = torch.where(mask[:, None], second["strong_1"], first["strong_1"])
    keep = (target.max(1).values >= 0.6).float()
    valid = torch.where(mask, second["valid"], first["valid"])
    assert 0 < keep.mean() < 1
    factor = keep.mean() if confidence == "batch_mean" else keep
    squared = (student(mixed).softmax(1) - target).square().sum(1)
    expected = expected + 3 * (squared * valid * factor).mean()
    torch.testing.assert_close(output.total, expected, rtol=1e-5, atol=1e-6)
    used = (keep * valid).sum() / valid.sum()
    torch.testing.assert_close(output.scalars["unlabeled_used"], used)
    output.total.backward()
    assert all(each.grad is None for each in learner.average.parameters())
    assert all(each.grad.any() for each in learner.model.parameters())


def test_cutout_shows_the_student_the_inside_of_the_boxes(make_model: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(make_model, mode="zero", threshold=0.0, distance="mse_mean")
    student, teacher = copy.deepcopy(learner.model), copy.deepcopy(learner.average.teacher).eval()
    own = batch["unlabeled"]
    mask = learner.masks(own["image"], PROGRESS)
    del batch["unlabeled_2"]
    output = learner(batch, PROGRESS)
    student(batch["labeled"]["image"])
    seen = torch.where(mask[:, None], student.normalize(own["strong_1"]), 0.0)
    logits = student.classify(student.decode(student.backbone(seen)), (16, 16))
    squared = (logits.softmax(1) - teacher(own["image"]).softmax(1)).square().mean(1)
    expected = (squared * (mask & own["valid"])).mean()
    torch.testing.assert_close(output.losses["consistency"].mean, expected, rtol=1e-4, atol=1e-7)
    shares = [learner.masks(own["image"], Progress(0, 1, 0, seed)).float().mean((1, 2)) for seed in range(50)]
    assert torch.cat(shares).min() < 0.1
    assert torch.cat(shares).max() > 0.9


@pytest.mark.parametrize(
    "convention",
    [InputConvention(), InputConvention("BGR", 1.0, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0))],
    ids=["RGB", "BGR"],
)
def test_what_cutout_erases_is_zero_for_the_network(convention: InputConvention, make_model: Make) -> None:
    model = make_model(0)
    model.set_convention(convention)
    assert model.normalize(model.mean_color.expand(1, 3, 4, 4)).abs().max() < 1e-5


def test_masks_are_a_function_of_the_seed_and_of_no_part_of_the_batch(make_model: Make) -> None:
    learner = make_learner(make_model, boxes=2, box_area=(0.2, 0.4), box_place="outside_clipped")
    images = torch.zeros(4, 3, 16, 16)
    whole = learner.masks(images, PROGRESS)
    parts = [learner.masks(images[:2], Progress(3, 10, 0, 123, rank, 2)) for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(learner.masks(images, Progress(3, 10, 0, 124)), whole)


@pytest.mark.parametrize("settings", [{}, PUBLISHED, {"mode": "zero"}], ids=["default", "published", "zero"])
def test_a_step_never_waits_for_the_device(
    settings: dict[str, Any], make_model: Make, batch: dict[str, Any], wait_counter: Any
) -> None:
    learner = make_learner(make_model, **settings)
    learner.after_step(PROGRESS)
    with wait_counter:
        learner(batch, PROGRESS).total.backward()
        learner.after_step(PROGRESS)
    assert wait_counter.seen == []


@pytest.mark.parametrize("mode", ["mix", "zero"])
def test_students_in_half_precision_learn(mode: Any, make_model: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(make_model, mode=mode, threshold=0.3)
    with torch.autocast("cpu", torch.bfloat16):
        output = learner(batch, PROGRESS)
    output.total.backward()
    assert output.total.dtype == torch.float32
    assert all(each.grad.isfinite().all() and each.grad.any() for each in learner.model.parameters())


@pytest.mark.parametrize("confidence", ["pixel", "batch_mean"])
def test_accumulated_parts_add_up_but_for_the_confidence_of_a_batch(
    confidence: Any, make_model: Make, batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = make_learner(make_model).masks(batch["unlabeled"]["image"], PROGRESS)
    batch["unlabeled"]["image"][:2] = 0
    for name in ("unlabeled", "unlabeled_2"):
        batch[name]["strong_1"] = batch[name]["image"]
    gradients = []
    for parts in (1, 2):
        learner = make_learner(make_model, confidence=confidence, threshold=0.6).double()
        pieces = iter(mask.chunk(parts))
        monkeypatch.setattr(learner, "masks", lambda images, progress, pieces=pieces: next(pieces))
        learner.model.backbone.norm.eval()  # type: ignore[operator]
        forward_backward(learner, batch, PROGRESS, parts, lambda: torch.autocast("cpu", enabled=False))
        gradients.append(torch.cat([each.grad.flatten() for each in learner.model.parameters()]))  # type: ignore[union-attr]
    close = torch.allclose(*gradients, rtol=1e-5, atol=1e-7)
    # The share of confident pixels is that of each part.
    assert close == (confidence == "pixel")


@pytest.mark.parametrize("mode", ["mix", "zero"])
def test_streams(mode: Any, make_lab: Make) -> None:
    lab = make_lab(labeled=4, unlabeled=12)
    lab.augment = Augment(RandomCrop(8), Photometric([albumentations.InvertImg(p=1.0)]))
    model = CutMixSeg(mode=mode, iterations_per_epoch=7).run(lab)
    assert model is lab.fits["train"].selected
    streams = lab.streams["train"]
    names = ["labeled", "unlabeled", *(["unlabeled_2"] if mode == "mix" else [])]
    assert list(streams.streams) == names
    assert (streams.iterations_per_epoch, streams.iterations) == (7, 21)
    ids = [[item.id for item in streams.items(name, 0, "train", 0)] for name in names[1:]]
    assert len(ids) == 1 or ids[0] != ids[1]
    CutMixSeg(mode=mode).run(lab)
    assert lab.streams["train"].iterations_per_epoch == 4


@pytest.mark.parametrize(
    "arguments",
    [
        {"mode": "mixup"},
        {"box_area": (0.5, 0.2)},
        {"box_area": (0.5,)},
        {"boxes": 0},
        {"box_place": "top"},
        {"ema_decay": 1.0},
        {"ema_buffers": "own"},
        {"iterations_per_epoch": 0},
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(arguments))):
        CutMixSeg(**arguments)
