"""The CAC learner: passes, gradients, bank, groups, and where two crops overlap."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.training import Progress
from semiseg.data.geometry import LongSide
from semiseg.data.overlap import OverlapPair
from semiseg.losses import directional_contrast
from semiseg.methods.cac import CAC, HEAD, CACLearner, FeatureBank, common_cells
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.models.heads import Projector

Make = Callable[..., Any]
SIZE, STRIDE, PAIRS, WIDTH = 16, 2, 4, 6
CELLS = (SIZE // STRIDE) ** 2
WARM, LATER = Progress(2, 100, 4, 1), Progress(7, 100, 5, 7)


def make_pairs(n: int = PAIRS, seed: int = 0, size: int = SIZE) -> dict[str, Any]:
    rng = random.Random(seed)
    view = OverlapPair(size, LongSide(size, 0.7, 2.0), stride=STRIDE)
    images = np.random.RandomState(seed).randint(0, 256, (n, 20, 24, 3)).astype(np.uint8)
    pairs = [view(image, rng) for image in images]

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([np.array(getattr(pair, name)) for pair in pairs]))

    part: dict[str, Any] = {name: stack(name) for name in ("box_1", "box_2", "flip_1", "flip_2")}
    part |= {name: stack(name).permute(0, 3, 1, 2) for name in ("image_1", "image_2")}
    return part | {"id": [f"u{index}" for index in range(n)]}


@pytest.fixture
def batch(make_batch: Make) -> dict[str, Any]:
    return {**make_batch("labeled", size=SIZE), "unlabeled": make_pairs()}


@pytest.fixture
def make_learner(make_model: Make) -> Make:
    def make(steps: int = 2, pairs: int = PAIRS, per_view: int = CELLS, **options: Any) -> CACLearner:
        model = make_model(0)
        torch.manual_seed(1)
        model.heads[HEAD] = Projector(8, 8, WIDTH)
        bank = FeatureBank(steps * 2 * pairs * per_view, WIDTH)
        method = CAC(**{"positive_threshold": 0.3} | options)
        return CACLearner(model, bank, method, LabeledLoss(method), STRIDE)

    return make


def sliced(part: dict[str, Any], maps: tuple[Tensor, Tensor], stride: int) -> list[tuple[Tensor, Tensor]]:
    """The common parts of two maps ``(N, h, w)``, image by image, cut out of the flipped-back maps."""
    found = []
    for index in range(len(part["box_1"])):
        cut = []
        for view, values in enumerate(maps, start=1):
            upright = values[index].flip(-1) if part[f"flip_{view}"][index] else values[index]
            top, left, bottom, right = (part[f"box_{view}"][index] // stride).tolist()
            cut.append(upright[top:bottom, left:right].flatten())
        found.append((cut[0], cut[1]))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_common_cells_equal_cutting_out(seed: int) -> None:
    part = make_pairs(9, seed)
    side = SIZE // STRIDE
    numbers = torch.arange(9 * side * side).view(9, side, side)
    cells_1, cells_2, inside = common_cells(part, (side, side), STRIDE)
    expected = sliced(part, (numbers, numbers), STRIDE)
    assert inside.any()
    assert cells_1[inside].tolist() == torch.cat([one for one, _ in expected]).tolist()
    assert cells_2[inside].tolist() == torch.cat([two for _, two in expected]).tolist()


def test_common_cells_show_the_same_pixels() -> None:
    part = make_pairs(9, seed=3)
    maps = [part[name].float().mean(1)[:, ::STRIDE, ::STRIDE] for name in ("image_1", "image_2")]
    # Cells of mirrored crops begin at the other end.
    for view, name in enumerate(("image_1", "image_2")):
        mirrored = part[name].float().mean(1).flip(-1)[:, ::STRIDE, ::STRIDE].flip(-1)
        maps[view] = torch.where(part[f"flip_{view + 1}"][:, None, None], mirrored, maps[view])
    cells_1, cells_2, inside = common_cells(part, (SIZE // STRIDE,) * 2, STRIDE)
    assert torch.equal(maps[0].flatten()[cells_1[inside]], maps[1].flatten()[cells_2[inside]])


@pytest.mark.parametrize(
    ("progress", "expected"), [(WARM, ["image"]), (LATER, ["image", "image_1", "image_2"])]
)
def test_passes_and_statistics_come_in_the_published_order(
    progress: Progress, expected: list[str], make_learner: Make, make_model: Make, batch: dict[str, Any]
) -> None:
    learner, twin = make_learner(), make_model(0)
    parts = [("image", batch["labeled"]), ("image_1", batch["unlabeled"]), ("image_2", batch["unlabeled"])]
    seen = []
    encode = learner.model.features
    learner.model.features = lambda images: (seen.append(images), encode(images))[1]
    learner(batch, progress)
    names = [next(name for name, part in parts if torch.equal(part[name], images)) for images in seen]
    assert names == expected
    for images in seen:
        twin(images)
    found, wanted = learner.model.backbone.state_dict(), twin.backbone.state_dict()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_the_warm_up_has_the_supervised_loss_alone(make_learner: Make, batch: dict[str, Any]) -> None:
    learner = make_learner()
    assert list(learner(batch, WARM).losses) == ["supervised"]
    assert learner.bank.filled == 0
    assert list(learner(batch, LATER).losses) == ["supervised", "contrast_1", "contrast_2"]
    assert list(make_learner(warmup_epochs=0)(batch, Progress(0, 9, 0, 0)).losses)[1:] == [
        "contrast_1",
        "contrast_2",
    ]


def test_the_total_is_the_published_sum(make_learner: Make, batch: dict[str, Any]) -> None:
    output = make_learner(weight=0.3)(batch, LATER)
    parts = {name: float(term.mean.detach()) for name, term in output.losses.items()}
    assert min(parts.values()) > 0
    expected = parts["supervised"] + 0.3 * (parts["contrast_1"] + parts["contrast_2"])
    assert float(output.total.detach()) == pytest.approx(expected)


def test_contrast_equals_the_loss_on_cut_out_parts(make_learner: Make, batch: dict[str, Any]) -> None:
    learner, twin = make_learner(), make_learner()
    output = learner(batch, LATER)
    twin.model(batch["labeled"]["image"])
    part, columns = batch["unlabeled"], []
    for view in (1, 2):
        features = F.avg_pool2d(twin.model.features(part[f"image_{view}"]), 2)
        unit = F.normalize(twin.model.heads[HEAD](features), dim=1)
        confidence, labels = twin.model.classifier(features).softmax(1).max(1)
        columns.append((*unit.unbind(1), labels, confidence))
    cut = [
        [torch.cat(values) for values in zip(*sliced(part, pair, STRIDE), strict=True)]
        for pair in zip(*columns, strict=True)
    ]
    bank = torch.cat([torch.stack(column[:WIDTH], 1).permute(0, 2, 3, 1).flatten(0, 2) for column in columns])
    labels = torch.cat([column[WIDTH].flatten() for column in columns])
    torch.testing.assert_close(learner.bank.features[: len(bank)], bank)
    assert torch.equal(learner.bank.labels[: len(bank)], labels)
    expected = directional_contrast(
        torch.stack([one for one, _ in cut[:WIDTH]], 1),
        torch.stack([two for _, two in cut[:WIDTH]], 1),
        *cut[WIDTH],
        *cut[WIDTH + 1],
        bank,
        labels,
        positive_threshold=0.3,
        reduction="sum_count",
    )
    for view, (total, count) in enumerate(expected, start=1):
        term = output.losses[f"contrast_{view}"]
        assert term.count == count > 0
        torch.testing.assert_close(term.sum, total)


@pytest.mark.parametrize("normalizer", ["anchors", "overlap"])
def test_normalizers(normalizer: Any, make_learner: Make, batch: dict[str, Any]) -> None:
    output = make_learner(normalizer=normalizer)(batch, LATER)
    inside = int(common_cells(batch["unlabeled"], (SIZE // STRIDE,) * 2, STRIDE)[2].sum())
    counts = [int(output.losses[f"contrast_{view}"].count) for view in (1, 2)]
    if normalizer == "overlap":
        assert counts == [inside, inside]
    else:
        assert sum(counts) == int(output.scalars["anchors"]) < inside
    assert float(output.scalars["unlabeled_used"]) == pytest.approx(int(output.scalars["anchors"]) / inside)
    sums = [float(output.losses[f"contrast_{view}"].sum.detach()) for view in (1, 2)]
    other = make_learner()(batch, LATER)
    assert sums == pytest.approx(
        [float(other.losses[f"contrast_{view}"].sum.detach()) for view in (1, 2)], rel=1e-5
    )


def test_contrast_reaches_backbone_and_projector_but_not_the_classifier(
    make_learner: Make, batch: dict[str, Any]
) -> None:
    learner = make_learner()
    output = learner(batch, LATER)
    (output.losses["contrast_1"].mean + output.losses["contrast_2"].mean).backward()
    for name, parameter in learner.model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == (not name.startswith("classifier")), name


def test_negatives_and_targets_carry_no_gradient(make_learner: Make, batch: dict[str, Any]) -> None:
    learner = make_learner()
    maps: list[Tensor] = []
    encode = learner.encode
    learner.encode = lambda images: maps.append(encode(images).detach().requires_grad_()) or maps[-1]
    output = learner(batch, LATER)
    output.total.backward()
    assert not learner.bank.features.requires_grad
    cells_1, cells_2, inside = common_cells(batch["unlabeled"], (SIZE // STRIDE,) * 2, STRIDE)
    with torch.no_grad():
        confidence = [learner.look(values).confidence for values in maps]
    own, theirs = confidence[0][cells_1], confidence[1][cells_2]
    for values, cells, learns in (
        (maps[0], cells_1, inside & (own < theirs) & (theirs > 0.3)),
        (maps[1], cells_2, inside & (theirs < own) & (own > 0.3)),
    ):
        assert values.grad is not None
        reached = values.grad.permute(0, 2, 3, 1).flatten(0, 2).abs().sum(1) > 0
        assert set(reached.nonzero().flatten().tolist()) == set(cells[learns].tolist())


def test_the_bank_keeps_the_newest_steps_in_order(make_learner: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(steps=3)
    step = 2 * PAIRS * CELLS
    pushed: list[Tensor] = []
    push = learner.bank.push
    learner.bank.push = lambda features, labels: (pushed.append(features.clone()), push(features, labels))
    for number in range(5):
        batch["unlabeled"] = make_pairs(seed=number)
        output = learner(batch, LATER)
        kept = min(number + 1, 3)
        assert int(learner.bank.filled) == kept * step
        assert float(output.scalars["bank_fill"]) == pytest.approx(kept / 3)
        assert int(learner.bank.valid.sum()) == kept * step
        assert torch.equal(learner.bank.features[: kept * step], torch.cat(pushed[-kept:]))
        assert not learner.bank.features[kept * step :].any()


def test_a_bank_takes_pieces_of_any_size() -> None:
    bank, pushed = FeatureBank(7, 1), []
    for count in (2, 3, 1, 4, 7, 1):
        values = torch.rand(count, 1)
        pushed += values[:, 0].tolist()
        bank.push(values, torch.full((count,), count))
        assert bank.features[: int(bank.filled), 0].tolist() == pytest.approx(pushed[-7:])
    with pytest.raises(ValueError, match="8 entries"):
        bank.push(torch.rand(8, 1), torch.zeros(8))


def test_a_checkpoint_holds_the_bank(make_learner: Make, batch: dict[str, Any]) -> None:
    learner, resumed = make_learner(), make_learner()
    learner(batch, LATER)
    resumed.load_state_dict(learner.state_dict())
    one, other = learner(batch, LATER), resumed(batch, LATER)
    assert torch.equal(one.total, other.total)
    assert torch.equal(learner.bank.features, resumed.bank.features)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_average_as_so_many_devices(groups: int, make_learner: Make, batch: dict[str, Any]) -> None:
    learner = make_learner(groups=groups)
    output = learner(batch, LATER)
    part, pairs = batch["unlabeled"], PAIRS // groups
    expected = [0.0, 0.0]
    for group in range(groups):
        # The others' pairs do not overlap: what is left is one device that sees the joint bank.
        alone = make_learner()
        boxes = {name: part[name].clone() for name in ("box_1", "box_2")}
        for box in boxes.values():
            box[: group * pairs] = 0
            box[(group + 1) * pairs :] = 0
        found = alone({**batch, "unlabeled": part | boxes}, LATER)
        for view in (1, 2):
            expected[view - 1] += float(found.losses[f"contrast_{view}"].mean.detach()) / groups
    assert [float(output.losses[f"contrast_{view}"].mean.detach()) for view in (1, 2)] == pytest.approx(
        expected, rel=1e-5
    )
    if groups > 1:
        assert output.losses["contrast_1"].count == groups


@pytest.mark.parametrize("groups", [1, 2])
def test_selected_cells_are_a_random_share_without_repetition(
    groups: int, make_learner: Make, batch: dict[str, Any]
) -> None:
    def entries(seed: int, selected: int | None) -> list[tuple[float, ...]]:
        learner = make_learner(
            steps=1, pairs=1, per_view=groups * (selected or 100), groups=groups, selected=selected
        )
        learner(batch, Progress(0, 100, 5, seed))
        assert int(learner.bank.filled) == learner.bank.capacity
        return [tuple(row) for row in learner.bank.features.round(decimals=4).tolist()]

    everything = make_learner(steps=1)
    everything(batch, LATER)
    rows = [tuple(row) for row in everything.bank.features.round(decimals=4).tolist()]
    size = PAIRS * CELLS // groups
    drawn = entries(1, 9)
    assert drawn == entries(1, 9)
    assert drawn != entries(2, 9)
    for group in range(groups):
        for view in range(2):
            source = rows[view * PAIRS * CELLS :][group * size : (group + 1) * size]
            chosen = drawn[(2 * group + view) * 9 :][:9]
            assert len(set(chosen)) == 9
            assert set(chosen) <= set(source)


def test_half_precision(make_learner: Make, batch: dict[str, Any]) -> None:
    learner = make_learner()
    with torch.autocast("cpu", torch.bfloat16):
        output = learner(batch, LATER)
    output.total.backward()
    assert output.total.dtype == learner.bank.features.dtype == torch.float32
    for name, parameter in learner.model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("groups", [1, 2])
def test_the_host_waits_once_a_group(
    groups: int, make_learner: Make, batch: dict[str, Any], wait_counter: Any
) -> None:
    learner = make_learner(groups=groups, selected=5)
    with wait_counter:
        learner(batch, LATER).total.backward()
    assert wait_counter.seen == ["nonzero"] * groups


def test_no_overlap_and_no_confidence_are_zero(make_learner: Make, batch: dict[str, Any]) -> None:
    nothing = {name: torch.zeros(PAIRS, 4, dtype=torch.int64) for name in ("box_1", "box_2")}
    for learner, part in (
        (make_learner(), batch["unlabeled"] | nothing),
        (make_learner(positive_threshold=0.999), batch["unlabeled"]),
    ):
        output = learner({**batch, "unlabeled": part}, LATER)
        output.total.backward()
        assert [float(output.losses[f"contrast_{view}"].mean.detach()) for view in (1, 2)] == [0, 0]
        assert not any(parameter.grad.any() for parameter in learner.model.heads[HEAD].parameters())


def test_it_learns_both_tasks(make_learner: Make, batch: dict[str, Any]) -> None:
    def cosine() -> float:
        """Mean over cells that show the same place, less that over any two cells."""
        maps = [learner.encode(batch["unlabeled"][f"image_{view}"]) for view in (1, 2)]
        one, two = (learner.look(values).features for values in maps)
        cells_1, cells_2, inside = common_cells(batch["unlabeled"], (SIZE // STRIDE,) * 2, STRIDE)
        same = (one[cells_1] * two[cells_2]).sum(1)[inside].mean()
        return float((same - (one @ two.T).mean()).detach())

    learner = make_learner(weight=1.0)
    optimizer = torch.optim.SGD(learner.parameters(), 0.05, momentum=0.9)
    before, losses = cosine(), []
    for step in range(60):
        optimizer.zero_grad()
        output = learner(batch, Progress(step, 60, 5, step))
        output.total.backward()
        optimizer.step()
        losses.append(float(output.losses["supervised"].mean.detach()))
    assert losses[-1] < losses[0] / 1.5
    assert cosine() > 2 * before
    assert list(learner.predictors()) == ["model"]
