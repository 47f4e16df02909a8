"""The CPS learner and its method."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from semiseg.contracts.training import Progress
from semiseg.errors import UserError
from semiseg.methods.cps import CPS, CPSLearner
from semiseg.methods.labeled_loss import LabeledLoss

Make = Callable[..., Any]
PROGRESS = Progress(iteration=3, total=10, epoch=0, seed=123)
STREAMS = {False: ("labeled", "unlabeled"), True: ("labeled", "unlabeled", "unlabeled_2")}


def make_learner(make_model: Make, cutmix: bool, **options: Any) -> CPSLearner:
    method = CPS(cutmix=cutmix, **options)
    return CPSLearner(make_model(0), make_model(1), method, LabeledLoss(method))


def watch(learner: CPSLearner, batch: dict[str, Any]) -> list[tuple[str, str, bool, bool]]:
    """Record (branch, stream, with gradient, training mode) of every pass through a network."""
    passes: list[tuple[str, str, bool, bool]] = []

    def record(branch: str) -> Any:
        def hook(model: Any, arguments: Any) -> None:
            names = [name for name, part in batch.items() if torch.equal(part["image"], arguments[0])]
            passes.append((branch, names[0] if names else "mixed", torch.is_grad_enabled(), model.training))

        return hook

    for branch, model in learner.predictors().items():
        model.register_forward_pre_hook(record(branch))
    return passes


def test_order_of_the_passes_without_cutmix(make_model: Make, make_batch: Make) -> None:
    learner, batch = make_learner(make_model, cutmix=False), make_batch(*STREAMS[False])
    passes = watch(learner, batch)
    learner(batch, PROGRESS)
    assert passes == [
        ("branch_1", "labeled", True, True),
        ("branch_1", "unlabeled", True, True),
        ("branch_2", "labeled", True, True),
        ("branch_2", "unlabeled", True, True),
    ]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_order_of_the_passes_with_cutmix(mode: Any, make_model: Make, make_batch: Make) -> None:
    learner, batch = make_learner(make_model, cutmix=True, teacher_mode=mode), make_batch(*STREAMS[True])
    passes = watch(learner, batch)
    learner(batch, PROGRESS)
    teaching = mode == "train"
    assert passes == [
        ("branch_1", "unlabeled", False, teaching),
        ("branch_1", "unlabeled_2", False, teaching),
        ("branch_2", "unlabeled", False, teaching),
        ("branch_2", "unlabeled_2", False, teaching),
        ("branch_1", "mixed", True, True),
        ("branch_2", "mixed", True, True),
        ("branch_1", "labeled", True, True),
        ("branch_2", "labeled", True, True),
    ]
    updates = [model.backbone.norm.num_batches_tracked.item() for model in learner.predictors().values()]
    assert updates == ([4, 4] if teaching else [2, 2])


def test_running_statistics_see_the_streams_in_the_published_order(
    make_model: Make, make_batch: Make
) -> None:
    learner, batch = make_learner(make_model, cutmix=True), make_batch(*STREAMS[True])
    expected, seen = make_model(0), []
    learner.branch_1.register_forward_pre_hook(lambda model, arguments: seen.append(arguments[0]))
    learner(batch, PROGRESS)
    for images in seen:
        expected(images)
    torch.testing.assert_close(learner.branch_1.state_dict(), expected.state_dict())


@pytest.mark.parametrize("cutmix", [False, True])
def test_both_branches_learn(cutmix: bool, make_model: Make, make_batch: Make) -> None:
    learner, batch = make_learner(make_model, cutmix), make_batch(*STREAMS[cutmix])
    optimizer = torch.optim.SGD(learner.parameters(), 0.05, momentum=0.9)
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        total = learner(batch, Progress(step, 40, 0, step)).total
        total.backward()
        for name, parameter in learner.named_parameters():
            assert parameter.grad.abs().sum() > 0, name
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("cutmix", [False, True])
def test_half_precision_reaches_every_parameter(cutmix: bool, make_model: Make, make_batch: Make) -> None:
    learner, batch = make_learner(make_model, cutmix), make_batch(*STREAMS[cutmix])
    with torch.autocast("cpu", torch.bfloat16):
        output = learner(batch, PROGRESS)
    output.total.backward()
    assert output.total.dtype == torch.float32
    for name, parameter in learner.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("cutmix", [False, True])
def test_without_labels_and_weight_the_gradient_is_zero(
    cutmix: bool, make_model: Make, make_batch: Make
) -> None:
    learner, batch = make_learner(make_model, cutmix, weight=0.0), make_batch(*STREAMS[cutmix])
    batch["labeled"]["label"].fill_(255)
    output = learner(batch, PROGRESS)
    output.total.backward()
    assert output.total.item() == 0
    assert output.losses["cps"].mean > 0
    assert all(torch.equal(parameter.grad, torch.zeros_like(parameter)) for parameter in learner.parameters())


@pytest.mark.parametrize("labeled_too", [False, True])
def test_the_total_is_the_published_sum(labeled_too: bool, make_model: Make, make_batch: Make) -> None:
    batch = make_batch(*STREAMS[False])
    learner = make_learner(make_model, cutmix=False, weight=1.5, labeled_in_cps=labeled_too)
    one, two = make_model(0), make_model(1)
    labeled = [model(batch["labeled"]["image"]) for model in (one, two)]
    joined = [model(batch["unlabeled"]["image"]) for model in (one, two)]
    if labeled_too:
        joined = [torch.cat(pair) for pair in zip(labeled, joined, strict=True)]
    expected = sum(F.cross_entropy(logits, batch["labeled"]["label"], ignore_index=255) for logits in labeled)
    crossed = F.cross_entropy(joined[0], joined[1].argmax(1)) + F.cross_entropy(
        joined[1], joined[0].argmax(1)
    )
    assert learner(batch, PROGRESS).total.item() == pytest.approx((expected + 1.5 * crossed).item(), rel=1e-5)


def test_masks_are_a_function_of_the_seed_of_the_iteration(make_model: Make, make_batch: Make) -> None:
    batch = make_batch(*STREAMS[True])

    def loss(seed: int) -> float:
        return make_learner(make_model, cutmix=True)(batch, Progress(0, 1, 0, seed)).losses["cps"].sum.item()

    assert loss(1) == loss(1) != loss(2)


@pytest.mark.parametrize("cutmix", [False, True])
def test_a_step_never_waits_for_the_device(
    cutmix: bool, make_model: Make, make_batch: Make, wait_counter: Any
) -> None:
    learner, batch = make_learner(make_model, cutmix, loss="ohem"), make_batch(*STREAMS[cutmix])
    with wait_counter:
        learner(batch, PROGRESS).total.backward()
    assert wait_counter.seen == []


@pytest.mark.parametrize("cutmix", [False, True])
def test_statistics_of_the_unlabeled_pixels(cutmix: bool, make_model: Make, make_batch: Make) -> None:
    learner, batch = make_learner(make_model, cutmix), make_batch(*STREAMS[cutmix])
    scalars = learner(batch, PROGRESS).scalars
    assert scalars["unlabeled_used"] == 1
    assert 0.25 < scalars["unlabeled_confidence"] < 1
    assert 0 <= scalars["branch_agreement"] < 1
    learner.branch_2.load_state_dict(learner.branch_1.state_dict())
    assert learner(batch, PROGRESS).scalars["branch_agreement"] == 1
    assert not any(value.requires_grad for value in scalars.values())


@pytest.mark.golden("CPS gradient scale")
@pytest.mark.parametrize("ranks", [4, 8])
def test_gradient_scale_is_another_rate_and_decay(ranks: int, make_model: Make, make_batch: Make) -> None:
    batch = make_batch(*STREAMS[True])

    def train(scale: float, lr: float, decay: float) -> torch.Tensor:
        learner = make_learner(make_model, cutmix=True, weight=1.5, gradient_scale=scale).double()
        optimizer = torch.optim.SGD(learner.parameters(), lr, momentum=0.9, weight_decay=decay)
        for step in range(20):
            optimizer.zero_grad()
            learner(batch, Progress(step, 20, 0, step)).total.backward()
            optimizer.step()
        return torch.cat([parameter.detach().flatten() for parameter in learner.parameters()])

    published = train(1 / ranks, 0.01, 1e-4)
    torch.testing.assert_close(published, train(1, 0.01 / ranks, 1e-4 * ranks), rtol=1e-9, atol=1e-11)
    assert not torch.allclose(published, train(1, 0.01, 1e-4), rtol=1e-4)


@pytest.mark.golden("CPS order of images")
@pytest.mark.parametrize("same_image", [False, True])
def test_cutmix_streams_share_images_by_switch_alone(same_image: bool, make_lab: Make) -> None:
    lab = make_lab(labeled=4, unlabeled=12)
    model = CPS(same_image=same_image).run(lab)
    assert model is lab.fits["train"].selected
    streams = lab.streams["train"]
    pairs = [
        (first.id, second.id)
        for iteration in range(6)
        for first, second in zip(
            streams.items("unlabeled", 0, "train", iteration),
            streams.items("unlabeled_2", 0, "train", iteration),
            strict=True,
        )
    ]
    assert all(first == second for first, second in pairs) == same_image


@pytest.mark.golden("CPS order of images")
def test_published_order_of_unlabeled_images_is_the_same_in_all_epochs(make_lab: Make) -> None:
    def orders(**switches: Any) -> list[list[str]]:
        lab = make_lab(labeled=4, unlabeled=12)
        CPS(cutmix=False, **switches).run(lab)
        streams = lab.streams["train"]
        size = streams.iterations_per_epoch
        return [
            [
                item.id
                for step in range(size)
                for item in streams.items("unlabeled", 0, "train", epoch * size + step)
            ]
            for epoch in range(2)
        ]

    frozen, drawn = orders(reshuffle_unlabeled=False), orders()
    assert frozen[0] == frozen[1]
    assert drawn[0] != drawn[1]
    assert sorted(drawn[0]) == sorted(drawn[1])


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ({"cutmix": False}, True),
        ({"cutmix": True}, False),
        ({"cutmix": True, "labeled_in_cps": True}, True),
        ({"cutmix": False, "labeled_in_cps": False}, False),
    ],
)
def test_labeled_images_in_the_unlabeled_term(
    switches: dict[str, Any], expected: bool, make_model: Make, make_batch: Make
) -> None:
    learner = make_learner(make_model, **switches)
    output = learner(make_batch(*STREAMS[switches["cutmix"]]), PROGRESS)
    assert output.losses["cps"].count == 4 * 16 * 16 * (2 if expected else 1)
    assert list(learner.predictors()) == ["branch_1", "branch_2"]


@pytest.mark.parametrize(
    "arguments", [{"weight": -1}, {"gradient_scale": 0}, {"teacher_mode": "both"}, {"loss": "dice"}]
)
def test_bad_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(arguments))):
        CPS(**arguments)


def test_all_bad_settings_are_named_at_once() -> None:
    with pytest.raises(UserError) as caught:
        CPS(weight=-1, gradient_scale=0, report="best")  # type: ignore[arg-type]
    assert [(error.key, error.value) for error in caught.value.errors] == [
        ("weight", -1),
        ("gradient_scale", 0),
        ("report", "best"),
    ]
