"""The learner and the method of CCT beyond its golden numbers."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import semiseg
from semiseg.cli import main
from semiseg.contracts.training import Progress
from semiseg.engine.optim import SGD
from semiseg.engine.step import forward_backward
from semiseg.errors import UserError
from semiseg.losses import annealed_cross_entropy, decoder_consistency
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
from semiseg.models.pixel_shuffle import PixelShuffleClassifier, ShuffleDecoders, cell_order, enlarged_maps
from semiseg.models.segmodel import SegModel

Make = Callable[..., Any]
PROGRESS = Progress(iteration=3, total=10, epoch=0, seed=123)
PLAIN = DecoderCounts(vat=0, dropout=0, cutout=0, context=0, object=0, feature_drop=0, noise=1)
EVERY = DecoderCounts(vat=1, dropout=2, cutout=1, context=1, object=1, feature_drop=2, noise=2)


@pytest.fixture
def batch(make_batch: Make) -> dict[str, Any]:
    """Labeled images, and unlabeled ones with padding on the right."""
    made: dict[str, Any] = make_batch("labeled", "unlabeled")
    made["unlabeled"]["valid"] = torch.ones(4, 16, 16, dtype=torch.bool)
    made["unlabeled"]["valid"][..., 12:] = False
    return made


def make_learner(make_model: Make, stages: int = 2, **options: Any) -> CCTLearner:
    method = CCT(**({"decoders": EVERY} | options))
    model: SegModel = make_model(0)
    if stages:
        model.classifier = PixelShuffleClassifier(8, model.num_classes, stages)
    attach_decoders(model, method.decoders.total)
    return CCTLearner(model, method, LabeledLoss(method)).train()


def gradients(loss: Tensor, module: torch.nn.Module) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True))


@pytest.mark.parametrize("stages", [0, 2])
def test_the_main_decoder_learns_from_labels_alone(
    stages: int, make_model: Make, batch: dict[str, Any]
) -> None:
    learner = make_learner(make_model, stages)
    model = learner.model
    losses = learner(batch, PROGRESS).losses
    supervised, unlabeled = losses["supervised"].mean, losses["consistency"].mean
    assert all(each is None for each in gradients(unlabeled, model.classifier))
    assert all(each is None for each in gradients(supervised, model.heads[HEAD]))
    for loss, part in ((supervised, model.classifier), (unlabeled, model.heads[HEAD])):
        assert any(each is not None and each.any() for each in gradients(loss, part))
    for loss in (supervised, unlabeled):
        assert all(each is not None and each.any() for each in gradients(loss, model.backbone))
    # The whole is what acts.
    assert all(each.grad is None for each in learner.parameters())


@pytest.mark.parametrize("padding", ["counted", "masked"])
@pytest.mark.parametrize("stages", [0, 2])
def test_loss_of_a_step(padding: Any, stages: int, make_model: Make, batch: dict[str, Any]) -> None:
    """One decoder with noise, against the perturbed map in the plain module."""
    learner = make_learner(make_model, stages, decoders=PLAIN, padding=padding, weight=7.0, rampup=0.6)
    model = copy.deepcopy(learner.model)
    output = learner(batch, PROGRESS)
    logits = model(batch["labeled"]["image"])
    expected = F.cross_entropy(logits, batch["labeled"]["label"], ignore_index=255)
    features = model.features(batch["unlabeled"]["image"])
    noise = (
        learner.draw(features, logits.argmax(1) > 0, PROGRESS).noise.view(1, 16, 16, 8).permute(0, 3, 1, 2)
    )
    assert noise.abs().max() <= 0.3
    target = model.classifier(features).softmax(1)
    (found,) = model.heads[HEAD](features * (1 + noise))
    squared = (found.softmax(1) - target.detach()).square().mean(1)
    side = 2**stages
    valid = batch["unlabeled"]["valid"].float().repeat_interleave(side, 1).repeat_interleave(side, 2)
    unlabeled = (squared * valid).sum() / valid.sum() if padding == "masked" else squared.mean()
    expected = expected + 7 * torch.exp(torch.tensor(-5 * 0.5**2)) * unlabeled
    torch.testing.assert_close(output.total, expected, rtol=1e-5, atol=1e-6)


def test_terms_on_request(make_model: Make, batch: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = make_learner(make_model)
    learner = CCTLearner(plain.model, replace(plain.method, pairwise_weight=2.0), plain.loss)
    assert "pairwise" not in plain(batch, PROGRESS).losses
    losses = learner(batch, PROGRESS).losses
    found = [
        None if each is None else each.abs().sum()
        for each in gradients(losses["pairwise"].mean, learner.decoders)
    ]
    assert all(each is not None and each > 0 for each in found)
    assert losses["pairwise"].weight == 2
    annealed = CCTLearner(plain.model, replace(plain.method, annealed=True), plain.loss)
    # At step 3 of 10 the threshold is 0.25 + 0.65 (1 - exp(-5 * 3 / 4)).
    expected = annealed_cross_entropy(
        annealed.model(batch["labeled"]["image"]), batch["labeled"]["label"], 0.8847134
    )
    torch.testing.assert_close(annealed(batch, PROGRESS).losses["supervised"].mean, expected)


def test_annealed_cross_entropy_of_a_batch_in_parts() -> None:
    """Two processes with half of the images each leave out the pixels that one with all of them does."""
    generator = torch.Generator().manual_seed(0)
    # Sure of most pixels, so that the fifth-smallest probability is the bound.
    label = torch.randint(0, 3, (4, 5, 5), generator=generator)
    logits = F.one_hot(label, 3).movedim(-1, 1) * (4 + torch.rand(4, 1, 5, 5, generator=generator))
    label[1] = 255
    halves = [annealed_parts(logits[rows], label[rows], logits, label) for rows in (slice(0, 2), slice(2, 4))]
    whole = annealed_cross_entropy(logits, label, 0.5, reduction="sum_count")
    assert whole.counted == 4
    assert sum(each.counted for each in halves) == 4
    torch.testing.assert_close(halves[0].total + halves[1].total, whole.total)


def annealed_parts(logits: Tensor, label: Tensor, all_logits: Tensor, all_labels: Tensor) -> Any:
    """The loss of a half of the batch, to which the other half is joined."""
    valid = all_labels != 255
    loss = F.cross_entropy(all_logits, all_labels, ignore_index=255, reduction="none")
    probability = torch.where(valid, (-loss).exp(), torch.inf)
    counts = valid.view(2, -1).sum(1)

    def joined(values: Tensor) -> Tensor:
        return probability.flatten() if values.is_floating_point() else counts

    return annealed_cross_entropy(logits, label, 0.5, reduction="sum_count", joined=joined)


def test_draws_do_not_depend_on_the_number_of_ranks(make_model: Make) -> None:
    learner = make_learner(make_model)
    features = torch.rand(4, 8, 40, 40, generator=torch.Generator().manual_seed(0))
    y, x = torch.meshgrid(torch.arange(160), torch.arange(160), indexing="ij")
    objects = ((y - 80) ** 2 + (x - 80) ** 2 < 60**2).expand(4, -1, -1)
    whole = learner.draw(features, objects, PROGRESS)
    assert not whole.kept.all((2, 3)).any()
    assert len({tuple(each.flatten().tolist()) for each in whole.channels.transpose(0, 1)}) == 4
    parts = [
        learner.draw(features[2 * rank : 2 * rank + 2], objects[:2], replace(PROGRESS, rank=rank, ranks=2))
        for rank in range(2)
    ]
    for name, axis in (("start", 1), ("channels", 1), ("kept", 1)):
        joined = torch.cat([getattr(each, name) for each in parts], axis)
        assert torch.equal(joined, getattr(whole, name)), name
    for name in ("share", "noise"):
        for each in parts:
            assert torch.equal(getattr(each, name), getattr(whole, name))
    other = learner.draw(features, objects, replace(PROGRESS, seed=124))
    assert not any(torch.equal(one, two) for one, two in zip(whole, other, strict=True))
    assert ((whole.share >= 0.7) & (whole.share <= 0.9)).all()
    assert whole.start.abs().max() <= 0.5


class Repeated(CCTLearner):
    """A learner with the same draws for every image."""

    def draw(self, features: Tensor, objects: Tensor, progress: Progress) -> FeatureDraws:
        drawn = super().draw(features[:1], objects[:1], PROGRESS)
        n = len(features)
        kept = torch.ones(drawn.kept.shape[0], *objects.shape, dtype=torch.bool)
        return drawn._replace(
            start=drawn.start.expand(-1, n, -1, -1), channels=drawn.channels.expand(-1, n, -1), kept=kept
        )


@pytest.mark.parametrize("options", [{}, {"threshold": 0.3}, {"distance": "kl", "threshold": 0.3}])
def test_parts_of_a_batch_add_up(options: dict[str, Any], make_model: Make, batch: dict[str, Any]) -> None:
    base = make_learner(make_model, **options)
    found = []
    for parts in (1, 2):
        learner = Repeated(copy.deepcopy(base.model), base.method, base.loss).eval()
        output = forward_backward(
            learner, batch, PROGRESS, parts, lambda: torch.autocast("cpu", torch.bfloat16, enabled=False)
        )
        found.append((output.total.detach(), [each.grad for each in learner.parameters()]))
    torch.testing.assert_close(found[1][0], found[0][0])
    for one, two in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_low_precision_keeps_losses_and_shifts(make_model: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(make_model)
    with torch.autocast("cpu", torch.bfloat16):
        rough = learner(batch, PROGRESS)
        features = learner.model.features(batch["unlabeled"]["image"])
        assert features.dtype == torch.bfloat16
        start = torch.rand(1, 4, 256, 8) - 0.5
        rows = features.permute(0, 2, 3, 1).flatten(0, 2)
        maps = learner.decoders.first[:1] @ rows.mT
        assert maps.dtype == torch.bfloat16
        moved = learner.shifted(maps, start) - maps
    # The shift is not lost to the few bits of the maps.
    expected = learner.shifted(maps.float(), start) - maps
    torch.testing.assert_close(moved, expected)
    assert moved.abs().max() > 0.01
    exact = learner(batch, PROGRESS)
    assert rough.total.dtype == moved.dtype == torch.float32
    torch.testing.assert_close(rough.total, exact.total, rtol=0.03, atol=0.01)


def test_a_step_waits_for_outlines_alone(make_model: Make, batch: dict[str, Any], wait_counter: Any) -> None:
    """Of the main prediction a copy goes to the CPU, which is not counted; nothing else is read back."""
    learner = make_learner(make_model)
    with wait_counter:
        learner(batch, PROGRESS).total.backward()  # type: ignore[no-untyped-call]
    assert wait_counter.seen == []


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_the_order_of_cells_is_that_of_the_products(stages: int) -> None:
    torch.manual_seed(0)
    decoders, features = ShuffleDecoders(6, 3, 4, stages), torch.randn(2, 6, 4, 5)
    shown = decoders(features)
    assert shown.shape == (4, 2, 3, 4 * 2**stages, 5 * 2**stages)
    rows = features.permute(0, 2, 3, 1).flatten(0, 2)
    found = enlarged_maps(decoders.first @ rows.mT, decoders.stage_parameters())
    for one, two in zip(found, shown, strict=True):
        assert torch.equal(one, cell_order(two, stages))


def test_rates_and_heads_of_a_network(make_model: Make) -> None:
    learner = make_learner(make_model)
    spec = SGD(lr=0.1, head_multiplier=10, decay="conv")
    groups = {each["name"]: each for each in learner.param_groups(spec)}
    own = set(learner.decoders.parameters())
    assert own <= {each for name in ("head", "head_no_decay") for each in groups[name]["params"]}
    assert set(learner.decoders.biases) <= set(groups["head_no_decay"]["params"])
    assert groups["head"]["lr"] == pytest.approx(1.0)
    apart = replace(spec, multipliers={f"heads.{HEAD}": 0.1})
    named = {each["name"]: each["lr"] for each in learner.param_groups(apart)}
    assert named[f"heads.{HEAD}"] == pytest.approx(0.1)
    before = learner.model.eval()(torch.zeros(1, 3, 8, 8))
    with torch.no_grad():
        learner.decoders.first.fill_(9)
    assert torch.equal(learner.model(torch.zeros(1, 3, 8, 8)), before)


@pytest.mark.parametrize("distance", ["mse", "kl", "js"])
def test_no_pixel_gives_zero(distance: Any) -> None:
    logits = torch.randn(2, 3, 5, requires_grad=True)
    target = torch.randn(1, 3, 5).softmax(1)
    loss = decoder_consistency(logits, target, distance, valid=torch.zeros(1, 5, dtype=torch.bool))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()
    target = torch.full((2, 3, 2, 2), 255)[:, 0]
    empty = annealed_cross_entropy(torch.randn(2, 3, 2, 2), target, 0.5)
    assert empty == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distance": "js", "threshold": 0.5}, "method.threshold"),
        ({"annealed": True, "loss": "ohem"}, "method.annealed"),
        ({"annealed": True, "dice_weight": 1.0}, "method.annealed"),
        ({"annealed": True, "label_smoothing": 0.1}, "method.annealed"),
    ],
)
def test_values_that_are_wrong_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CCT(**options)


def test_no_decoder_is_refused() -> None:
    with pytest.raises(UserError, match="decoders"):
        DecoderCounts(
            **dict.fromkeys(("vat", "dropout", "cutout", "context", "object", "feature_drop", "noise"), 0)
        )


RUN = (
    *(
        "dataset=shapes",
        "dataset.train=18",
        "dataset.val=2",
        "dataset.test=0",
        "dataset.size=32",
        "split=1/3",
    ),
    *("backbone.width=4", "model=pspnet_cct", "model.channels=8", "model.pool_channels=4"),
    *(
        "trainer.crop_size=32",
        "trainer.iterations=4",
        "trainer.batch_size=4",
        "trainer.unlabeled_batch_size=4",
    ),
    *("trainer.threads=1", "trainer.device=cpu", "tracker.mode=disabled", "trainer.accumulate=2"),
)


def test_a_run_and_its_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", "method=cct", f"run_dir={run}", *RUN]) == 0
    assert "heads" in capsys.readouterr().out
    network = semiseg.load(run)
    assert network.predict(torch.zeros(32, 40, 3, dtype=torch.uint8).numpy()).label.shape == (32, 40)
    assert main(["train", "method=cct", *RUN, "method.background=7", f"run_dir={tmp_path / 'other'}"]) == 2
    assert "method.background" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("distance", "threshold"), [("mse", None), ("mse", 0.4), ("kl", None), ("kl", 0.4), ("js", None)]
)
def test_gradients_and_counts_of_distances(distance: Any, threshold: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(1, 4, 5, generator=generator, dtype=torch.float64).softmax(1)
    valid = torch.tensor([[True, True, False, True, True]])
    for counted in (None, valid):

        def loss(values: Tensor, counted: Tensor | None = counted) -> Tensor:
            return decoder_consistency(values, target, distance, threshold, counted)

        assert torch.autograd.gradcheck(loss, logits)
        total, count = decoder_consistency(
            logits, target, distance, threshold, counted, reduction="sum_count"
        )
        assert not count.is_floating_point()
        torch.testing.assert_close(total / count, loss(logits))
        # Each decoder counts the same: the mean over decoders is the mean of their means.
        means = torch.stack([loss(each[None]) for each in logits])
        torch.testing.assert_close(means.mean(), loss(logits))
    rough = decoder_consistency(logits.detach().bfloat16(), target.bfloat16(), distance, threshold)
    assert rough.dtype == torch.float32


def test_the_published_shift_leaves_features_as_they_are(make_model: Make) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(2 * 256, 8, generator=generator)
    start = torch.rand(1, 2, 256, 8, generator=generator) - 0.5
    sizes = []
    for vat in (AdversarialShift(xi=1e-6, norm_eps=1e-8), AdversarialShift()):
        learner = make_learner(make_model, vat=vat)
        with torch.no_grad():
            maps = learner.decoders.first[:1] @ features.mT
            sizes.append((learner.shifted(maps, start) - maps).norm().item())  # type: ignore[no-untyped-call]
    published, acting = sizes
    assert published < 0.05 * acting
