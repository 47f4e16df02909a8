"""CorrMatch against numbers recorded from its published code: threshold, correlation, steps and a training."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import wave_inputs as inputs
from torch import Tensor

from semiseg.contracts.training import Progress, StepOutput
from semiseg.engine.moving_threshold import MovingThreshold
from semiseg.methods.confidence import Guess
from semiseg.methods.corrmatch import HEAD, CorrMatch, CorrMatchLearner, Logits, attach
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.models.bundle import segmentation_model
from semiseg.models.deeplabv3plus import DeepLabV3Plus
from semiseg.models.heads import CorrelationHead
from semiseg.models.resnet import ResNet
from semiseg.models.segmodel import SegModel
from semiseg.pseudo import correlated_regions, correlation_map, propagated

PUBLISHED: dict[str, Any] = {
    "partner": "same_images",
    "kl_target": "unmixed",
    "threshold_mask": "mixed",
    "propagate": "scatter",
}


def exactly(value: float, relative: float = 1e-8) -> Any:
    return pytest.approx(value, rel=relative)


def change(tensor: Tensor) -> float:
    assert tensor.grad is not None
    return float(tensor.grad.abs().sum())


@pytest.mark.golden("CorrMatch threshold")
def test_threshold_after_three_batches_and_after_padding_alone() -> None:
    threshold = MovingThreshold(0.85, 0.999)
    valid = torch.ones(2, 6, 7, dtype=torch.bool)
    valid[0, :, 3:] = False
    for phase, expected in ((0.3, 0.8498980881), (0.8, 0.8499386901), (1.3, 0.8498670144)):
        logits = inputs.logits(2, 5, 6, 7, phase, 2)
        logits[:, 1] -= 10
        confidence, label = logits.softmax(1).max(1)
        assert float(threshold(confidence, label, valid, 5)) == exactly(expected)
    before = threshold.value.clone()
    assert torch.equal(threshold(confidence, label, torch.zeros_like(valid), 5), before)


@pytest.mark.golden("CorrMatch correlation")
def test_correlation_propagation_and_regions() -> None:
    head = CorrelationHead(256, 5).double()
    inputs.fill(head)
    feature = (0.5 * inputs.logits(2, 256, 5, 6, 0.6, 1)).requires_grad_()
    correlation = correlation_map(head.conv1(feature), head.conv2(feature))
    assert float(correlation.sum(1).max().detach()) == exactly(1.314486820)
    small = F.interpolate(inputs.logits(2, 5, 17, 21, 0.2, 3), (5, 6), mode="bilinear", align_corners=True)
    spread = propagated(small, correlation)
    assert spread.shape == (2, 5, 5, 6)
    assert inputs.moments(spread) == [exactly(each) for each in (-0.09195387, 0.4766223986, 127.1022426)]
    regions = correlated_regions(correlation, inputs.draws(0, 29, 128), (5, 6), (17, 21))
    assert (int(regions.sum()), inputs.digest(regions)) == (29460, "0a0c262b96e480c3")
    assert regions[0, :6].flatten(1).sum(1).tolist() == [106, 142, 153, 199, 138, 114]
    (spread**2).mean().backward()
    found = [change(each) for each in (feature, head.conv1.weight, head.conv2.weight)]
    assert found == [exactly(each) for each in (1.649694214, 1.438407659, 1.390358193)]


@dataclass(frozen=True)
class Case:
    """One recorded step: its inputs and what came out."""

    step: int
    start: float
    amplitude: float
    threshold: float
    counts: tuple[int, int, int]
    labels: tuple[str, str]
    keep: str
    losses: tuple[float, ...]
    total: float
    gradients: tuple[float, ...]


A0 = Case(
    0, 0.85, 6, 0.8501052235, (263, 277, 3),
    ("582da51806d0f7c8", "be44df82f5c73908"), "0d7440649a0667c4",
    (2.368204450, 2.358801279, 0.2409264867, 0.07258092819, 0.04298124127, 0.2935173447, 0.2286356000),
    1.258947073,
    (0.3994927954, 0.3985565916, 0.009824544093, 0.02260526708, 0.06035409122, 0.02696676163),
)  # fmt: skip
A1 = Case(
    1, 0.85, 6, 0.8502086080, (240, 240, 0),
    ("abc7c33c96be38b6", "abc7c33c96be38b6"), "af2070d2e6f3b2d8",
    (2.474962121, 2.468615006, 0.1664528420, 0.06709291521, 0.04629237002, 0.2559191577, 0.2230313524),
    1.300808455,
    (0.4018467842, 0.4015190379, 0.01046871152, 0.02181849651, 0.05156156901, 0.02403667529),
)  # fmt: skip
B = Case(
    0, 0.6, 4, 0.6002796878, (364, 420, 79),
    ("e30bf498795375f8", "f74712e56bf3b4eb"), "74824c2d0d413096",
    (2.368204450, 2.358801279, 0.9698606419, 0.02998317598, 0.1919181867, 1.048715089, 0.3867538021),
    1.420438488,
    (0.3994927954, 0.3985565916, 0.03984211929, 0.03610262428, 0.1068302110, 0.05565729737),
)  # fmt: skip
TERMS = ("labeled", "labeled_spread", "strong", "divergence", "features", "strong_spread", "weak_spread")
LEARNED = ("labeled", "labeled_spread", "perturbed", "weak_spread", "strong", "strong_spread")


def step_logits(step: int, amplitude: float) -> Logits:
    def wave(phase: float, height: float) -> Tensor:
        return inputs.logits(2, 5, 14, 18, phase + 0.5 * step, height).requires_grad_()

    return Logits(
        labeled=wave(0.2, 2),
        weak=wave(1.0, amplitude).detach(),
        perturbed=wave(1.15, amplitude),
        strong=wave(1.1, 3),
        labeled_spread=wave(0.4, 2),
        weak_spread=wave(1.3, 2.5),
        strong_spread=wave(1.4, 2.5),
        partner=wave(2.0, amplitude).detach(),
    )


def step_regions(weak: Tensor) -> Tensor:
    y, x = inputs.grid(14, 18)
    label = weak.max(1).indices
    regions = torch.zeros(2, 7, 14, 18, dtype=torch.bool)
    for image, n in ((0, 2), (1, 3)):
        for r in range(7):
            near = (y - (2 * r + 3 * n) % 14) ** 2 + (x - (5 * r + n) % 18) ** 2
            regions[image, r] = near <= (3 + r % 4) ** 2
        regions[image, 0] = label[image] == label[image, 7, 9]
        regions[image, 6] |= label[image] == label[image, 1, 1]
    return regions


def step_batch(step: int) -> dict[str, Any]:
    valid, other = torch.ones(2, 2, 14, 18, dtype=torch.bool)
    valid[0, :, -3:] = False
    other[0, 7:] = False
    box = torch.tensor([[2, 3, 7, 6], [0, 0, 0, 0]])
    return {
        "labeled": {"label": inputs.labels(2, 14, 18, 5, step)},
        "unlabeled": {"box_1": box, "valid": valid},
        "partner": {"valid": other},
    }


def learner(start: float) -> CorrMatchLearner:
    model = inputs.tiny(5)
    method = CorrMatch(threshold=start, **PUBLISHED)
    return CorrMatchLearner(model, method, LabeledLoss(method))


def noted(learner: CorrMatchLearner, monkeypatch: pytest.MonkeyPatch) -> dict[str, Guess]:
    """The pseudo-labels that the strong views learn, by the loss that used them last."""
    found = {}
    for name in ("guessed_loss", "divergence"):
        original = getattr(learner.method, name)

        def spy(*args: Any, name: str = name, original: Any = original) -> Any:
            found.setdefault(name, args[-1])
            return original(*args)

        monkeypatch.setattr(type(learner.method), name, lambda self, *args, spy=spy: spy(*args))
    return found


@pytest.mark.golden("CorrMatch step")
@pytest.mark.parametrize("steps", [(A0, A1), (B,)], ids=["a", "b"])
def test_step(steps: tuple[Case, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    trained = learner(steps[0].start)
    for case in steps:
        with monkeypatch.context() as patch:
            found = noted(trained, patch)
            logits = step_logits(case.step, case.amplitude)
            output: StepOutput = trained.compare(logits, step_regions(logits.weak), step_batch(case.step))
        sure, spread = found["divergence"], found["guessed_loss"]
        assert float(trained.threshold.value) == exactly(case.threshold)
        assert int(sure.valid.sum()) == 450
        counts = (sure.keep.sum(), spread.keep.sum(), (spread.label != sure.label).sum())
        assert tuple(map(int, counts)) == case.counts
        assert (inputs.digest(sure.label), inputs.digest(spread.label)) == case.labels
        assert inputs.digest(spread.keep) == case.keep
        means = [float(output.losses[name].mean.detach()) for name in TERMS]
        assert means == [exactly(each) for each in case.losses]
        assert float(output.total.detach()) == exactly(case.total)
        output.total.backward()  # type: ignore[no-untyped-call]
        assert [change(getattr(logits, name)) for name in LEARNED] == [
            exactly(each) for each in case.gradients
        ]
        assert logits.weak.grad is None


class Recorded(CorrMatchLearner):
    """Drops no features, and takes the recorded positions."""

    def feature_masks(self, maps: Any, progress: Progress) -> list[Tensor]:
        return [torch.ones(each.shape[:2]) for each in maps]

    def region_rows(self, positions: int, progress: Progress) -> Tensor:
        return inputs.draws(0, positions - 1, self.method.regions)


def bare(depth: Any, classes: int) -> SegModel:
    def decoder(stages: Any) -> DeepLabV3Plus:
        return DeepLabV3Plus(stages, aspp_dropout=0.0, dropout=0.0)

    backbone = ResNet(depth, output_stride=8, stem="deep")
    backbone.convention = inputs.PLAIN
    model = segmentation_model(backbone, decoder, classes)
    attach(model)
    return model


def network(depth: Any, classes: int) -> SegModel:
    model = bare(depth, classes)
    model.heads[HEAD].proj[3].p = 0.0  # type: ignore[index, union-attr]
    model.double()
    inputs.fill(model)
    return model


@pytest.mark.golden("CorrMatch network")
@pytest.mark.slow
def test_network() -> None:
    with torch.device("meta"):
        assert sum(each.numel() for each in bare(101, 21).parameters()) == 64_198_239
    model = network(50, 21)
    assert sum(each.numel() for each in model.parameters()) == 45_206_111
    head: Any = model.heads[HEAD]
    method = CorrMatch(**PUBLISHED)
    trained = Recorded(model, method, LabeledLoss(method))
    model.eval()
    image = inputs.images(1, 65, 81, 4)
    with torch.no_grad():
        logits = model(image)
        evaluated = (-0.02809426606, 0.1642468583, 13759.11342)
        assert inputs.moments(logits) == [exactly(each, 1e-6) for each in evaluated]
        maps = model.encode(image)
        spread, correlation = trained._spread(maps, logits)
        assert inputs.moments(spread) == [
            exactly(each, 1e-6) for each in (-0.02981371376, 0.165717228, 13721.63491)
        ]
        rows = trained.region_rows(correlation.shape[1], Progress(0, 1, 0, 0))
        regions = correlated_regions(correlation, rows, (9, 11), (65, 81))
        assert int(regions.sum()) == 561783
    model.train()
    image, label = inputs.images(2, 65, 81, 0), inputs.labels(2, 65, 81, 21, 0)
    maps = model.encode(image)
    # The published network decodes perturbed features too, which count in its statistics; here they are the same.
    features = model.decode([torch.cat([each, each]) for each in maps])
    logits = model.classify(features, (65, 81))[:2]
    total = (
        F.cross_entropy(each, label, ignore_index=255) for each in (logits, trained._spread(maps, logits)[0])
    )
    mean = sum(total) / 2
    assert float(mean.detach()) == exactly(3.488331607, 1e-6)
    mean.backward()
    parts = (model.backbone, head.proj, torch.nn.ModuleList([head.conv1, head.conv2]), model.classifier)
    found = [
        torch.stack([each.grad.square().sum() for each in part.parameters() if each.grad is not None])
        .sum()
        .sqrt()
        for part in parts
    ]
    norms = (81.68637401, 1.691361556, 0.2405502380, 0.5381685867)
    assert [float(each) for each in found] == [exactly(each, 1e-6) for each in norms]
    model.eval()
    with torch.no_grad():
        after = inputs.moments(model(inputs.images(1, 65, 81, 4)))
    assert after == [exactly(each, 1e-6) for each in (-0.03435035807, 0.1562858997, 11952.68647)]


STEPS = (
    (5.104048066, 3.547638014, 2.345787472, 2.343928093, 0.2810652758, 1.391885553, 2.958254819, 7239),
    (5.118603666, 3.183768483, 2.937719132, 2.470456547, 0.2750125890, 1.197184202, 2.935639596, 7863),
    (5.396375498, 4.267356909, 0.7852842209, 1.131880884, 0.1071132283, 0.5588836004, 2.738828343, 7861),
    (6.662573732, 5.488738286, 1.027458453, 1.755397630, 0.1977720059, 0.9407849467, 3.528004634, 7860),
    (4.778934462, 3.490947628, 1.556433403, 1.859061259, 0.1996029657, 0.9422906156, 2.637144053, 7863),
)
THRESHOLDS = (0.3506493142, 0.3512982281, 0.3519326574, 0.3525798593, 0.3532272010)


def scaled(start: float) -> Tensor:
    n = torch.arange(2, dtype=torch.float64)[:, None, None, None]
    return inputs.images(2, 65, 65, start) * (0.5 + 1.5 * n) + 0.7 * n


def trace_batch(step: int) -> dict[str, Any]:
    valid = torch.ones(2, 65, 65, dtype=torch.bool)
    valid[1, :, -9:] = False
    first = 5 * step
    return {
        "labeled": {"image": scaled(first), "label": inputs.labels(2, 65, 65, 5, step)},
        "unlabeled": {
            "image": scaled(first + 1),
            "strong_1": scaled(first + 2),
            "box_1": torch.tensor([[5 + 3 * step, 10, 25, 30], [0, 0, 0, 0]]),
            "valid": valid,
        },
        "partner": {"image": scaled(first + 3), "strong_1": scaled(first + 4), "valid": valid},
    }


RELATIVE = (1e-8, 1e-8, 1e-7, 1e-6, 3e-3)
"""Tolerance of each step. Rounding grows: a first weight changed by 1e-14 moves losses of the last step by 1e-3."""


@pytest.mark.slow
@pytest.mark.golden("CorrMatch training")
def test_five_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(50, 5)
    with torch.no_grad():
        model.classifier.weight.mul_(5)
    method = CorrMatch(threshold=0.35, **PUBLISHED)
    trained = Recorded(model, method, LabeledLoss(method))
    backbone = list(model.backbone.parameters())
    own = {id(each) for each in backbone}
    others = [each for each in model.parameters() if id(each) not in own]
    groups = [{"params": backbone, "lr": 0.001}, {"params": others, "lr": 0.01}]
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4)
    for step, (expected, threshold) in enumerate(zip(STEPS, THRESHOLDS, strict=True)):
        # The published schedule runs after the step: steps 0 and 1 both have the first rate.
        factor = (1 - max(step - 1, 0) / 5) ** 0.9
        for group, rate in zip(optimizer.param_groups, (0.001, 0.01), strict=True):
            group["lr"] = rate * factor
        trained.train()
        with monkeypatch.context() as patch:
            found = noted(trained, patch)
            output = trained(trace_batch(step), Progress(step, 5, 0, 0))
        means = {name: float(output.losses[name].mean.detach()) for name in TERMS}
        measured = (
            *(means[name] for name in ("labeled", "labeled_spread", "strong", "divergence", "features")),
            (means["strong_spread"] + means["weak_spread"]) / 2,
            float(output.total.detach()),
        )
        assert measured == tuple(exactly(each, RELATIVE[step]) for each in expected[:-1]), step
        assert int(found["guessed_loss"].keep.sum()) == expected[-1]
        assert float(trained.threshold.value) == exactly(threshold, 1e-6)
        optimizer.zero_grad()
        output.total.backward()
        optimizer.step()
    assert [inputs.l1(backbone), inputs.l1(others)] == [
        exactly(879940.8187, 1e-6),
        exactly(245697.1000, 1e-6),
    ]
