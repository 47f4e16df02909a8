"""The learner and the method of Mean Teacher."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import albumentations
import pytest
import torch
import torch.nn.functional as F

from semiseg.contracts.dataset import Split
from semiseg.contracts.training import Progress
from semiseg.data.augment import Augment, Photometric
from semiseg.data.geometry import RandomCrop
from semiseg.data.views import Weak, WeakStrong
from semiseg.engine.step import forward_backward
from semiseg.errors import UserError
from semiseg.losses import ramp_up
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.mean_teacher import MeanTeacher, MeanTeacherLearner

Make = Callable[..., Any]
PROGRESS = Progress(iteration=3, total=10, epoch=0, seed=123)
PUBLISHED: dict[str, Any] = {
    "distance": "mse_mean",
    "threshold": 0.0,
    "student_view": "weak",
    "labeled_in_consistency": True,
    "padding": "counted",
    "ema_decay": 0.99,
    "ema_first": "constant",
    "ema_buffers": "own",
    "ema_when": "before_step",
    "teacher_mode": "train",
    "report": "student",
}


@pytest.fixture
def batch(make_batch: Make) -> dict[str, Any]:
    """Labeled images, and unlabeled ones in two views with padding on the right."""
    made: dict[str, Any] = make_batch("labeled", "unlabeled")
    for part in made.values():
        part["valid"] = torch.ones(4, 16, 16, dtype=torch.bool)
        part["valid"][..., 12:] = False
    made["unlabeled"]["strong_1"] = 255 - made["unlabeled"]["image"]
    return made


def make_learner(make_model: Make, **options: Any) -> MeanTeacherLearner:
    method = MeanTeacher(**options)
    learner = MeanTeacherLearner(make_model(0), method, LabeledLoss(method))
    with torch.no_grad():
        # Apart, as after some steps.
        for each in learner.average.teacher.parameters():
            each.add_(0.3 * torch.randn(each.shape, generator=torch.Generator().manual_seed(each.numel())))
    learner.train()
    return learner


def passes(learner: MeanTeacherLearner, batch: dict[str, Any]) -> list[tuple[str, str, bool, bool]]:
    """Network, images, gradient and training mode of every pass of a step."""
    found: list[tuple[str, str, bool, bool]] = []
    named = {(name, key): value for name, part in batch.items() for key, value in part.items()}

    def record(network: str) -> Any:
        def hook(model: Any, arguments: Any) -> None:
            (images,) = (
                " ".join(name)
                for name, value in named.items()
                if isinstance(value, torch.Tensor) and torch.equal(value, arguments[0])
            )
            found.append((network, images, torch.is_grad_enabled(), model.training))

        return hook

    for name, model in learner.predictors().items():
        model.register_forward_pre_hook(record(name))
    learner(batch, PROGRESS)
    return found


def test_passes_of_the_default(make_model: Make, batch: dict[str, Any]) -> None:
    assert passes(make_learner(make_model), batch) == [
        ("model", "labeled image", True, True),
        ("average", "unlabeled image", False, False),
        ("model", "unlabeled strong_1", True, True),
    ]


def test_passes_of_the_published_form(make_model: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(make_model, **PUBLISHED)
    assert passes(learner, batch) == [
        ("model", "labeled image", True, True),
        ("average", "labeled image", False, True),
        ("average", "unlabeled image", False, True),
        ("model", "unlabeled image", True, True),
    ]
    norms = [model.backbone.norm for model in learner.predictors().values()]
    assert [norm.num_batches_tracked.item() for norm in norms] == [2, 2]


@pytest.mark.parametrize("padding", ["counted", "masked"])
@pytest.mark.parametrize("labeled", [False, True])
def test_the_total_is_the_sum_of_cross_entropy_and_squared_differences(
    padding: Any, labeled: bool, make_model: Make, batch: dict[str, Any]
) -> None:
    settings = {**PUBLISHED, "padding": padding, "labeled_in_consistency": labeled, "ema_when": "after_step"}
    learner = make_learner(make_model, **settings, weight=100.0, gradient_scale=0.25)
    student, teacher = copy.deepcopy(learner.model), copy.deepcopy(learner.average.teacher)
    known, own = batch["labeled"], batch["unlabeled"]
    names = (known, own) if labeled else (own,)
    squared = [
        (student(part["image"]).softmax(1) - teacher(part["image"]).softmax(1)).square().mean(1)
        for part in names
    ]
    columns = 16 if padding == "counted" else 12
    consistency = torch.cat(squared)[..., :columns].mean()
    supervised = F.cross_entropy(student(known["image"]), known["label"], ignore_index=255)
    expected = 0.25 * (supervised + 100 * consistency)
    torch.testing.assert_close(learner(batch, PROGRESS).total, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("confidence", ["pixel", "batch_mean"])
def test_threshold_of_hard_labels(confidence: Any, make_model: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(make_model, confidence=confidence, threshold=0.6)
    student, teacher = copy.deepcopy(learner.model), copy.deepcopy(learner.average.teacher).eval()
    output = learner(batch, PROGRESS)
    best, label = teacher(batch["unlabeled"]["image"]).softmax(1).max(1)
    student(batch["labeled"]["image"])
    entropy = F.cross_entropy(student(batch["unlabeled"]["strong_1"]), label, reduction="none")
    keep = (best >= 0.6).float()
    assert 0 < keep.mean() < 1
    factor = keep if confidence == "pixel" else keep.mean()
    expected = (entropy * factor)[..., :12].mean()
    torch.testing.assert_close(output.losses["consistency"].mean, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output.scalars["unlabeled_used"], keep[..., :12].mean())


def test_nothing_confident_is_zero_with_zero_gradient(make_model: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(make_model, threshold=1.0)
    batch["labeled"]["label"].fill_(255)
    output = learner(batch, PROGRESS)
    output.total.backward()
    assert output.total.item() == 0
    assert all(not each.grad.any() for each in learner.model.parameters())
    assert all(each.grad is None for each in learner.average.parameters())


@pytest.mark.parametrize("when", ["before_step", "after_step"])
def test_time_of_the_average(when: Any, make_model: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(make_model, ema_when=when)
    weight: Any = learner.average.teacher.get_parameter("classifier.weight")
    moved = []
    for iteration in range(2):
        before = weight.detach().clone()
        # Two passes that accumulate one step.
        for _ in range(2):
            learner(batch, Progress(iteration, 10, 0, 1))
        moved.append(not torch.equal(weight, before))
        before = weight.detach().clone()
        learner.model.get_parameter("classifier.weight").data.add_(0.1)
        learner.after_step(PROGRESS)
        moved.append(not torch.equal(weight, before))
    assert moved == [when == "before_step", when == "after_step"] * 2
    assert learner.average.updates == 2


def test_ramp_of_the_weight(make_model: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(make_model, weight=2.0, rampup_epochs=10)
    weights = [
        learner(batch, Progress(0, 10, epoch, 0)).losses["consistency"].weight for epoch in (0, 5, 10, 99)
    ]
    assert weights == pytest.approx([2 * ramp_up(epoch, 10) for epoch in (0, 5, 10, 99)])
    assert weights[2:] == [2, 2]
    linear = make_learner(make_model, weight=2.0, rampup_epochs=10, ramp="linear")
    assert linear(batch, Progress(0, 10, 5, 0)).losses["consistency"].weight == 1


@pytest.mark.parametrize("report", ["student", "teacher", "better"])
def test_reported_network(report: Any, make_model: Make) -> None:
    learner = make_learner(make_model, report=report)
    first = next(iter(learner.predictors().values()))
    assert first is (learner.model if report == "student" else learner.average.teacher)
    assert set(learner.predictors()) == {"model", "average"}
    assert len(learner.candidates()) == (2 if report == "better" else 1)
    assert next(iter(learner.candidates().values())) is first


def test_better_needs_validation_images() -> None:
    split = Split(labeled=("a",), unlabeled=("b",), val=(), name="1/2")
    MeanTeacher().check_split(split)
    with pytest.raises(UserError, match="report=better"):
        MeanTeacher(report="better").check_split(split)


def test_own_statistics_need_a_teacher_in_training_mode() -> None:
    with pytest.raises(UserError, match="ema_buffers=own"):
        MeanTeacher(ema_buffers="own")
    MeanTeacher(ema_buffers="own", teacher_mode="train")


@pytest.mark.parametrize("settings", [{}, PUBLISHED])
def test_a_step_never_waits_for_the_device(
    settings: dict[str, Any], make_model: Make, batch: dict[str, Any], wait_counter: Any
) -> None:
    learner = make_learner(make_model, **settings)
    for iteration in range(2):
        if iteration:
            wait_counter.__enter__()
        learner(batch, Progress(iteration, 10, 0, 1)).total.backward()
        learner.after_step(PROGRESS)
    wait_counter.__exit__(None, None, None)
    assert wait_counter.seen == []


def test_students_in_half_precision_learn_from_all_images(make_model: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(make_model, threshold=0.3)
    with torch.autocast("cpu", torch.bfloat16):
        output = learner(batch, PROGRESS)
    output.total.backward()
    assert output.total.dtype == torch.float32
    assert all(each.grad.isfinite().all() and each.grad.any() for each in learner.model.parameters())


@pytest.mark.parametrize("settings", [{"threshold": 0.5}, {"distance": "mse_mean", "threshold": 0.0}])
def test_accumulated_parts_add_up(settings: dict[str, Any], make_model: Make, batch: dict[str, Any]) -> None:
    gradients = []
    batch["labeled"]["valid"][0] = False
    for parts in (1, 2):
        learner = make_learner(make_model, labeled_in_consistency=True, **settings).double()
        # Batch norm sees the parts alone.
        learner.model.backbone.norm.eval()  # type: ignore[operator]
        forward_backward(learner, batch, PROGRESS, parts, _plain)
        gradients.append(torch.cat([each.grad.flatten() for each in learner.model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-8)


def _plain() -> Any:
    return torch.autocast("cpu", enabled=False)


def augmentation() -> Augment:
    return Augment(RandomCrop(8), Photometric([albumentations.InvertImg(p=1.0)]))


@pytest.mark.parametrize("view", ["weak", "strong"])
@pytest.mark.parametrize("labeled", [False, True])
def test_streams(view: Any, labeled: bool, make_lab: Make) -> None:
    lab = make_lab(labeled=4, unlabeled=12)
    lab.augment = augmentation()
    model = MeanTeacher(student_view=view, labeled_in_consistency=labeled).run(lab)
    assert model is lab.fits["train"].selected
    streams = lab.streams["train"]
    kinds = {name: type(stream.items[0].view) for name, stream in streams.streams.items()}
    assert kinds == {"labeled": Weak, "unlabeled": WeakStrong if view == "strong" else Weak}
    found = streams.batch(lab.dataset, 0, "train", 0)
    assert ("valid" in found["labeled"]) == labeled
    own = found["unlabeled"]
    assert own["valid"].dtype == torch.bool
    assert "label" not in own
    if view == "strong":
        assert torch.equal(own["strong_1"], 255 - own["image"])
    assert MeanTeacher().batch_sizes(SimpleNamespace(batch_size=2, unlabeled_batch_size=3)) == {  # type: ignore[arg-type]
        "trainer.batch_size": 2,
        "trainer.unlabeled_batch_size": 3,
    }


@pytest.mark.slow
def test_a_student_learns(make_model: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(make_model, threshold=0.3, ema_decay=0.9)
    batch["unlabeled"]["strong_1"] = batch["unlabeled"]["image"] // 8 * 8
    optimizer = torch.optim.SGD(learner.model.parameters(), 0.05, momentum=0.9)
    losses = []
    for step in range(60):
        learner.train()
        optimizer.zero_grad()
        output = learner(batch, Progress(step, 60, 0, step))
        output.total.backward()
        optimizer.step()
        learner.after_step(Progress(step, 60, 0, step))
        losses.append(output.losses["supervised"].mean.item())
    assert losses[-1] < losses[0] / 2
    teacher = learner.average.teacher.eval()
    label = batch["labeled"]["label"]
    with torch.no_grad():
        right = teacher(batch["labeled"]["image"]).argmax(1) == label
    assert right[label != 255].float().mean() > 0.8


@pytest.mark.parametrize(
    "arguments",
    [
        {"weight": -1},
        {"gradient_scale": 0},
        {"distance": "mse"},
        {"ema_when": "never"},
        {"padding": "reflected"},
        {"threshold": 1.5},
        {"rampup_epochs": -1},
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(arguments))):
        MeanTeacher(**arguments)
