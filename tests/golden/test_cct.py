"""CCT against numbers recorded from its published code: network, perturbations, losses, ramps, and a training."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from wave_inputs import PLAIN, digest, fill, grid, images, l1, labels, logits, moments, noise

from semiseg.contracts.training import Progress
from semiseg.engine.optim import SGD
from semiseg.engine.schedule import Poly
from semiseg.losses import (
    annealed_cross_entropy,
    annealed_threshold,
    decoder_consistency,
    decoder_variance,
    ramp_up,
)
from semiseg.methods.cct import (
    CCT,
    HEAD,
    AdversarialShift,
    CCTLearner,
    DecoderCounts,
    FeatureDraws,
    attach_decoders,
)
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.models.bundle import segmentation_model
from semiseg.models.pixel_shuffle import PixelShuffleClassifier, ShuffleDecoders, enlarged_maps
from semiseg.models.pspnet import PSPNet
from semiseg.models.resnet import ResNet
from semiseg.models.segmodel import Backbone, Decoder, SegModel, Stage
from semiseg.pseudo import adversarial_shift, object_boxes, object_cutout, weakly_active

CLOSE: dict[str, Any] = {"rel": 1e-8, "abs": 1e-12}


def feature_map(n: int, c: int, h: int, w: int, start: int) -> Tensor:
    return (noise(n * c * h * w, 900 + start) + 0.3).clamp_min(0).view(n, c, h, w)


def flat(features: Tensor) -> Tensor:
    return features.permute(0, 2, 3, 1).flatten(1, 2)


FEATURES = feature_map(2, 512, 12, 14, 1)
PERTURBATION = 0.3 * noise(512 * 12 * 14, 31).view(512, 12, 14)


@torch.no_grad()
def filled_decoders(classes: int, count: int, stages: int = 3, channels: int = 512) -> ShuffleDecoders:
    """Decoders whose weights are all those of one filled classifier."""
    one = PixelShuffleClassifier(channels, classes, stages).double()
    fill(one)
    found = ShuffleDecoders(channels, classes, count, stages).double()
    found.first.copy_(one.first.weight[..., 0, 0].expand_as(found.first))
    convs = [layer for layer in one.enlarge if isinstance(layer, nn.Conv2d)]
    for conv, weight, bias in zip(convs, found.weights, found.biases, strict=True):
        assert conv.bias is not None
        weight.copy_(conv.weight[..., 0, 0].expand_as(weight))
        bias.copy_(conv.bias.repeat(count))
    return found


def network() -> SegModel:
    backbone = ResNet(50, output_stride=8, stem="deep")
    backbone.convention = PLAIN
    model = segmentation_model(
        backbone,
        lambda stages: PSPNet(stages, dropout=0.0, align_corners=False, classifier="pixel_shuffle"),
        21,
    ).double()
    fill(model)
    return model


@pytest.mark.golden("CCT network")
def test_network_in_evaluation_mode() -> None:
    model = network().eval()
    attach_decoders(model, 30)
    sizes = {part.name: sum(each.numel() for each in part.parameters) for part in model.parts()}
    assert sizes["decoder"] == 23_073_792
    assert sizes["classifier"] == 16_296
    assert sum(sizes.values()) == 47_210_776 - 30 * 16_296 + sizes[f"heads.{HEAD}"]
    assert sizes[f"heads.{HEAD}"] == 30 * 16_296
    with torch.no_grad():
        found = model.classifier(model.features(images(1, 65, 81, 4)))
    assert found.shape == (1, 21, 72, 88)
    assert moments(found) == pytest.approx([0.2009151118, 0.3297977813, 26732.96112], **CLOSE)


@pytest.mark.golden("CCT network")
@pytest.mark.slow
def test_network_in_training_mode() -> None:
    model = network()
    loss = F.cross_entropy(model(images(2, 65, 81, 0)), labels(2, 65, 81, 21, 0), ignore_index=255)
    assert loss.item() == pytest.approx(3.248879952, **CLOSE)
    loss.backward()  # type: ignore[no-untyped-call]
    for part, expected in (
        (model.backbone, 27.57131879),
        (model.decoder, 1.394756928),
        (model.classifier, 0.7590424021),
    ):
        squares = [each.grad.square().sum() for each in part.parameters() if each.grad is not None]
        assert torch.stack(squares).sum().sqrt().item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.golden("CCT network")
def test_decoder() -> None:
    one = PixelShuffleClassifier(512, 5).double()
    fill(one)
    with torch.no_grad():
        found = one(FEATURES)
        many = filled_decoders(5, 3)(FEATURES)
    assert found.shape == (2, 5, 96, 112)
    assert moments(found) == pytest.approx([0.2515191844, 0.5449886972, 27043.34271], **CLOSE)
    for each in many:
        torch.testing.assert_close(each, found)


@pytest.mark.golden("CCT network")
def test_start_of_weights() -> None:
    torch.manual_seed(0)
    for weight, bias in [
        (conv.weight[..., 0, 0], conv.bias)
        for conv in PixelShuffleClassifier(512, 21).enlarge
        if isinstance(conv, nn.Conv2d)
    ] + [
        (weight[2], bias.view(4, -1)[2]) for weight, bias in ShuffleDecoders(512, 21, 4, 3).stage_parameters()
    ]:
        assert bias is not None
        cells = weight.unflatten(0, (21, 4))  # type: ignore[no-untyped-call]
        assert torch.equal(cells, cells[:, :1].expand_as(cells))
        assert cells.std().item() == pytest.approx((2 / 21) ** 0.5, rel=0.2)
        assert len(bias.unique()) == 84
        assert bias.abs().max() <= 21**-0.5
    for first in (PixelShuffleClassifier(512, 21).first.weight, ShuffleDecoders(512, 21, 4, 3).first):
        assert first.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.05)


@pytest.mark.golden("CCT perturbations")
def test_dropped_positions() -> None:
    shares = torch.tensor([0.7, 0.8, 0.9, 0.97], dtype=torch.float64)
    kept = weakly_active(FEATURES, shares).sum((2, 3))
    assert kept.tolist() == [[0, 0], [7, 3], [130, 104], [167, 163]]
    share = torch.tensor([np.random.RandomState(0).uniform(0.7, 0.9)])
    (kept,) = weakly_active(FEATURES, share)
    assert kept.sum((1, 2)).tolist() == [13, 4]
    assert (FEATURES * kept[:, None]).sum().item() == pytest.approx(3327.519747, rel=1e-9)


def discs() -> Tensor:
    """Logits of two images with discs of classes 1, 2, ... on class 0."""
    found = torch.zeros(2, 5, 96, 112, dtype=torch.float64)
    found[:, 0] = 2
    _, y, x = grid(1, 96, 112)
    for image, places in enumerate([[(40, 50, 28), (80, 20, 9)], [(48, 60, 33)]]):
        for number, (row, column, radius) in enumerate(places):
            found[image, 1 + number][(y[0] - row) ** 2 + (x[0] - column) ** 2 <= radius**2] = 4
    return found


def learner(classes: int = 5, **options: Any) -> CCTLearner:
    """A learner whose decoders are filled, on the features as they are."""
    method = CCT(**options)
    decoder = Passed(Strided8.stages)
    model = SegModel(Strided8(), decoder, PixelShuffleClassifier(512, classes), classes).double()
    fill(model)
    model.attach(HEAD, filled_decoders(classes, method.decoders.total))
    return CCTLearner(model, method, LabeledLoss(method))


class Strided8(Backbone):
    stages = (Stage(512, 8),)
    convention = PLAIN

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 512, 3, 8, 1, bias=False), nn.BatchNorm2d(512)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.relu(self.bn(self.conv(x)))]


class Passed(Decoder):
    out_channels = 512

    def forward(self, maps: Any) -> Tensor:
        return maps[0]


KIND_NAMES = ("vat", "dropout", "cutout", "context", "object", "feature_drop", "noise")


def empty_draws(n: int, size: tuple[int, int], cells: int, noises: Tensor | None = None) -> FeatureDraws:
    return FeatureDraws(
        torch.zeros(0, n, cells, 512),
        torch.zeros(0, n, 512),
        torch.zeros((0, n, *size), dtype=torch.bool),
        torch.zeros(0),
        torch.zeros(0, cells, 512) if noises is None else noises,
    )


def plain_maps(features: Tensor) -> Tensor:
    """What the first conv of a filled decoder makes of features, ``(K, N * h * w)``."""
    return filled_decoders(5, 1).first[0] @ flat(features).flatten(0, 1).mT


KINDS: list[tuple[str, Callable[[FeatureDraws], FeatureDraws], Callable[[Tensor], Tensor]]] = [
    ("noise", lambda draws: draws._replace(noise=flat(PERTURBATION[None])), lambda x: x + x * PERTURBATION),
    ("context", lambda draws: draws, lambda x: x * F.interpolate(objects(), (12, 14))),
    ("object", lambda draws: draws, lambda x: x * (1 - F.interpolate(objects(), (12, 14)))),
    (
        "feature_drop",
        lambda draws: draws._replace(share=torch.tensor([0.9])),
        lambda x: x * (x.mean(1, keepdim=True) < 0.9 * x.mean(1).amax((1, 2))[:, None, None, None]),
    ),
    (
        "dropout",
        lambda draws: draws._replace(channels=2.0 * (noise(1024, 3).view(1, 2, 512) > 0)),
        lambda x: x * 2.0 * (noise(1024, 3).view(2, 512, 1, 1) > 0),
    ),
    (
        "cutout",
        lambda draws: draws._replace(kept=noise(21504, 4).view(1, 2, 96, 112) > 0),
        lambda x: x * (noise(21504, 4).view(2, 1, 96, 112) > 0)[..., ::8, ::8],
    ),
]


def objects() -> Tensor:
    return (discs().argmax(1, keepdim=True) > 0).double()


@pytest.mark.golden("CCT perturbations")
@pytest.mark.parametrize(("kind", "drawn", "changed"), KINDS, ids=[kind for kind, _, _ in KINDS])
def test_perturbed_features(kind: str, drawn: Any, changed: Any) -> None:
    """Decoders that work before or behind the perturbation give the same."""
    counts = DecoderCounts(**{name: int(name == kind) for name in KIND_NAMES})
    draws = drawn(empty_draws(2, (96, 112), 168))
    found = learner(decoders=counts).perturbed(FEATURES, objects()[:, 0].bool(), draws)
    torch.testing.assert_close(found[0], plain_maps(changed(FEATURES)))
    assert not torch.allclose(found[0], plain_maps(FEATURES))
    expected = {"noise": 69042.36467, "context": 22220.40234, "object": 50617.84689}
    if kind in expected:
        assert changed(FEATURES).sum().item() == pytest.approx(expected[kind], rel=1e-9)


@pytest.mark.golden("CCT perturbations")
def test_noise() -> None:
    found = moments(FEATURES + FEATURES * PERTURBATION)
    assert found == pytest.approx([0.4013344301, 0.4162957531, 69042.36467], **CLOSE)


@pytest.mark.golden("CCT perturbations")
def test_parts_of_objects_are_cut_out() -> None:
    draws, masks = random.Random(0), objects()[:, 0].bool()
    assert masks[:, ::8, ::8].sum((1, 2)).tolist() == [47, 56]
    boxes = [object_boxes(mask.numpy()) for mask in masks]
    # The outline of the small disc has 20 points.
    assert [len(each) for each in boxes] == [1, 1]
    kept = torch.from_numpy(np.stack([object_cutout(each, (96, 112), draws) for each in boxes]))[:, None]
    assert (~kept).sum((1, 2, 3)).tolist() == [484, 676]
    assert digest(kept) == "2761c8deeee78d06"
    small = kept[..., ::8, ::8]
    assert (~small).sum((1, 2, 3)).tolist() == [9, 12]
    assert digest(small) == "d79fc278567245f7"


@pytest.mark.golden("CCT perturbations")
def test_rectangles_are_never_cut() -> None:
    mask = np.zeros((96, 112), np.bool_)
    mask[10:80, 10:90] = True
    assert object_boxes(mask) == []


def shift(xi: float, norm_eps: float) -> Tensor:
    """The shift of the features, ``(1, 2, 168, 512)``."""
    decoders = filled_decoders(5, 1)
    first = decoders.first.detach()
    stages = [(weight.detach(), bias.detach()) for weight, bias in decoders.stage_parameters()]
    start = flat(0.5 * noise(2 * 512 * 12 * 14, 7).view(2, 512, 12, 14))
    start = start / (start.norm(dim=(1, 2), keepdim=True) + norm_eps)  # type: ignore[no-untyped-call]
    found = adversarial_shift(
        lambda values: enlarged_maps(values.flatten(2), stages),
        first_maps(flat(FEATURES), first),
        first_maps(start, first),
        first @ first.mT,
        xi,
        2.0,
        norm_eps,
    )
    return torch.einsum("dkc,dknp->dnpc", first, found)


def first_maps(positions: Tensor, first: Tensor) -> Tensor:
    return torch.einsum("dkc,npc->dknp", first, positions)


@pytest.mark.golden("CCT perturbations")
def test_adversarial_shift() -> None:
    found = shift(0.1, 1e-8)
    expected = [4.571568634e-05, 0.006819169725, 835.9354611]
    assert moments(found) == pytest.approx(expected, **CLOSE)
    norms = found.norm(dim=(2, 3))[0].tolist()  # type: ignore[no-untyped-call]
    assert norms == pytest.approx([1.999998287, 1.999998237], rel=1e-9)


@pytest.mark.golden("CCT perturbations")
def test_the_published_adversarial_shift_is_nothing() -> None:
    norms = shift(1e-6, 1e-8).norm(dim=(2, 3))[0].tolist()  # type: ignore[no-untyped-call]
    assert norms == pytest.approx([0.000233351551, 0.0002264020808], rel=1e-3)
    corrected = shift(0.1, AdversarialShift().norm_eps)
    assert corrected.norm(dim=(2, 3))[0].tolist() == pytest.approx([2.0, 2.0], rel=1e-9)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("margins", [(30.0, 30.0), (60.0, 60.0), (80.0, 80.0), (30.0, 100.0)])
def test_the_shift_of_a_sure_decoder_has_its_length(margins: tuple[float, float]) -> None:
    """The squares of such gradients are 0 in float32."""
    maps = torch.zeros(1, 5, 2, 7)
    maps[:, 0] = torch.linspace(*margins, 7)
    found = sure_shift(maps)
    assert found.square().sum((1, 3)).sqrt().flatten().tolist() == pytest.approx([2.0, 2.0], rel=1e-5)


def test_a_gradient_of_zero_shifts_nothing() -> None:
    maps = torch.zeros(1, 5, 2, 7)
    maps[:, 0, 0], maps[:, 0, 1] = 1000.0, 2.0
    found = sure_shift(maps)
    assert not found[:, :, 0].any()
    assert found[:, :, 1].square().sum().sqrt().item() == pytest.approx(2.0, rel=1e-5)


def sure_shift(maps: Tensor) -> Tensor:
    """The shift of features that are logits."""
    start = noise(maps.numel(), 7).view(maps.shape).float()
    start = start / start.square().sum((1, 3), keepdim=True).sqrt()
    corrected = AdversarialShift()
    return adversarial_shift(
        lambda values: values.flatten(2),
        maps,
        start,
        torch.eye(5)[None],
        corrected.xi,
        corrected.radius,
        corrected.norm_eps,
    )


def value_and_gradient(loss: Callable[[Tensor], Tensor]) -> list[float]:
    values = logits(2, 5, 7, 9, 0.3, 3).requires_grad_()
    found = loss(values)
    (gradient,) = torch.autograd.grad(found, values)
    return [found.item(), gradient.abs().sum().item()]


@pytest.mark.golden("CCT losses")
@pytest.mark.parametrize(
    ("distance", "threshold", "expected"),
    [
        ("mse", None, [0.04234611255, 0.06427972168]),
        ("mse", 0.6, [0.04128246915, 0.06591556185]),
        ("kl", None, [0.07947811153, 0.1216125747]),
        ("kl", 0.6, [0.2977809946, 0.4737564164]),
        ("js", None, [0.02182374929, 0.03405086516]),
    ],
)
def test_distances(distance: Any, threshold: float | None, expected: list[float]) -> None:
    target = logits(2, 5, 7, 9, 0.9, 3).softmax(1)
    assert (target.amax(1) > 0.6).sum() == 103

    def loss(values: Tensor) -> Tensor:
        return decoder_consistency(values, target, distance, threshold)

    assert value_and_gradient(loss) == pytest.approx(expected, **CLOSE)


@pytest.mark.golden("CCT losses")
def test_variance_of_decoders() -> None:
    found = [logits(2, 5, 7, 9, phase, 3).requires_grad_() for phase in (0.3, 0.6, 0.9)]
    loss = decoder_variance(torch.stack([each.transpose(0, 1) for each in found]))
    assert loss.item() == pytest.approx(0.03658983676, **CLOSE)
    gradients = torch.autograd.grad(loss, found)
    assert l1(gradients) == pytest.approx(0.1281192599, **CLOSE)


@pytest.mark.golden("CCT losses")
def test_annealed_cross_entropy() -> None:
    length = 0.4 * 80 * 100
    places = ((0, 0), (1, 0), (10, 50), (31, 99), (32, 0), (79, 99))
    found = [annealed_threshold(100 * epoch + iteration, length, 5) for epoch, iteration in places]
    expected = [0.2, 0.3012582709, 0.7642988101, 0.8952760617, 0.8952834371, 0.8952834371]
    assert found == pytest.approx(expected, rel=1e-9)
    target = labels(2, 7, 9, 5, 0)
    for epoch, wanted, pixels in (
        (0, [4.052533761, 1.917144251], 82),
        (3, [3.879416084, 1.880520047], 87),
        (20, [3.353878222, 1.679591738], 102),
    ):
        threshold = annealed_threshold(100 * epoch, length, 5)

        def loss(values: Tensor, threshold: float = threshold) -> Tensor:
            return annealed_cross_entropy(values, target, threshold)

        assert value_and_gradient(loss) == pytest.approx(wanted, **CLOSE)
        _, count = annealed_cross_entropy(
            logits(2, 5, 7, 9, 0.3, 3), target, threshold, reduction="sum_count"
        )
        assert count == pixels


@pytest.mark.golden("CCT losses")
def test_ramps() -> None:
    found = [30 * ramp_up(step, 0.1 * 8000) for step in (0, 50, 400, 799, 800)]
    assert found == pytest.approx([0.20213841, 0.3703399659, 8.595143906, 29.99976563, 30], rel=1e-9)
    # With K = 1e12 and the highest 1 the threshold is the share of the way.
    rise = [annealed_threshold(step, 10, 10**12, 1.0) for step in (0, 3, 10, 12)]
    assert rise == pytest.approx([0, 0.7768698399, 0.993262053, 0.993262053], abs=1e-9)


class Replayed(CCTLearner):
    """A learner with the draws of the recorded training."""

    def draw(self, features: Tensor, objects: Tensor, progress: Progress) -> FeatureDraws:
        n, channels, height, width = features.shape
        start = 0.5 * noise(features.numel(), 7).view(features.shape)
        wave = 0.3 * noise(channels * height * width, 31).view(1, channels, height, width)
        return FeatureDraws(
            flat(start)[None],
            torch.ones(1, n, channels),
            torch.ones((0, *objects.shape), dtype=torch.bool),
            torch.tensor([0.8], dtype=torch.float64),
            flat(wave),
        )


TRACE = {
    False: (
        (2.709483275, 2.644182949, 2.428636217, 2.232678478),
        (0.004925336647, 0.039654905, 0.160810439, 0.3723862238),
    ),
    True: (
        (3.792833969, 2.789602844, 2.437531236, 2.180430622),
        (0.004925336647, 0.03743780591, 0.1465211865, 0.3493243158),
    ),
}
RATES = (0.01, 0.009095325761, 0.008180521461, 0.007254178469)


@pytest.mark.golden("CCT training")
@pytest.mark.parametrize("annealed", [False, True])
def test_four_steps(annealed: bool) -> None:
    counts = DecoderCounts(vat=1, dropout=1, cutout=0, context=1, object=1, feature_drop=1, noise=1)
    shift = AdversarialShift(norm_eps=1e-8)
    base = learner(4, decoders=counts, vat=shift, rampup=0.4, padding="counted", annealed=annealed)
    fit = Replayed(base.model, base.method, base.loss)
    model = fit.model
    with torch.no_grad():
        model.classifier.first.weight.mul_(3)  # type: ignore[union-attr,operator]
    spec = SGD(lr=0.001, head_multiplier=10, weight_decay=1e-4)
    optimizer = spec.build(fit.param_groups(spec))
    assert [group["lr"] for group in optimizer.param_groups] == [0.001, 0.01]
    for step in range(4):
        factor = Poly().factor(step, 10)
        assert 0.01 * factor == pytest.approx(RATES[step], rel=1e-9)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        batch = {
            "labeled": {"image": images(2, 64, 64, 3 * step), "label": labels(2, 64, 64, 4, step)},
            "unlabeled": {"image": images(2, 64, 64, 3 * step + 20)},
        }
        output = fit(batch, Progress(step, 10, step // 2, 0))
        terms = [term.weight * float(term.mean.detach()) for term in output.losses.values()]
        assert terms == pytest.approx([TRACE[annealed][part][step] for part in (0, 1)], rel=1e-7)
        optimizer.zero_grad()
        output.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found = model.eval()(images(1, 64, 64, 50))
    if annealed:
        assert l1(list(model.parameters())) == pytest.approx(5766.652015, rel=1e-7)
        assert moments(found) == pytest.approx([0.4076778384, 1.062450965, 6679.393704], rel=1e-7)
        return
    assert l1(list(model.parameters())) == pytest.approx(5766.933941, rel=1e-7)
    squares = sum(each.detach().square().sum().item() for each in model.parameters())
    assert squares == pytest.approx(2448.129723, rel=1e-7)
    assert l1(list(model.classifier.parameters())) == pytest.approx(465.9641974, rel=1e-7)
    assert l1(list(model.heads.parameters())) == pytest.approx(1451.458765, rel=1e-7)
    backbone: Any = model.backbone
    assert backbone.bn.running_mean.sum().item() == pytest.approx(0.3213928804, rel=1e-7)
    assert backbone.bn.running_var.sum().item() == pytest.approx(940.2280842, rel=1e-7)
    assert moments(found) == pytest.approx([0.4804446375, 1.215582344, 7871.60494], rel=1e-7)
