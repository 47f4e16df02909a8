"""The parts of U2PL by themselves: percentiles, memory, contrast, mixtures and classes of pixels."""

from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semiseg.contracts.training import Progress
from semiseg.losses import ClassBank, bank_contrast, reliable_cross_entropy
from semiseg.losses.bank_contrast import BankContrastSettings, uniform_draw
from semiseg.models.segmodel import InputConvention
from semiseg.pseudo import (
    class_pixels,
    half_boxes,
    half_masks,
    half_mixture,
    half_of_classes,
    masked_percentiles,
    one_hot,
)
from semiseg.pseudo.class_pixels import ClassPixelSettings
from semiseg.pseudo.entropy import EntropySettings
from semiseg.pseudo.halves import HalfMixSettings


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0, 7.5]), min_size=1, max_size=30),
    percents=st.lists(st.floats(0, 100), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_percentiles_equal_those_of_numpy(values: list[float], percents: list[float], seed: int) -> None:
    counted = np.random.default_rng(seed).random(len(values)) < 0.6
    found = masked_percentiles(torch.tensor(values).double(), torch.from_numpy(counted), percents)
    if not counted.any():
        assert found.isinf().all()
        return
    expected = np.percentile(np.array(values)[counted], percents)
    assert found.numpy() == pytest.approx(expected, rel=1e-12)


def test_extreme_percentiles_are_values_themselves() -> None:
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    low, high = masked_percentiles(values, torch.ones(1000, dtype=torch.bool), [0, 100])
    assert (low, high) == (values.min(), values.max())


def test_percents_fall_and_ignored_pixels_are_neither_sure_nor_unsure() -> None:
    amount = torch.arange(100.0).view(1, 10, 10)
    label = torch.zeros(1, 10, 10, dtype=torch.int64)
    rule = EntropySettings(unreliable_percent=30)
    low, high, unreliable = rule.reliability(amount, label, 1.0)
    assert [mask.sum().item() for mask in (low, high, unreliable)] == [20, 20, 30]
    low, high, unreliable = rule.reliability(amount, label, 0.5)
    assert [mask.sum().item() for mask in (low, high, unreliable)] == [10, 10, 15]
    assert (low & high).sum() == 0
    label[0, :2] = 255
    masks = rule.reliability(amount, label, 1.0)
    assert [mask.sum().item() for mask in masks] == [16, 16, 24]
    assert not any((mask & (label == 255)).any() for mask in masks)


@settings(deadline=None, max_examples=40)
@given(
    capacities=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    seed=st.integers(0, 999),
    steps=st.lists(st.integers(1, 9), min_size=1, max_size=6),
)
def test_memory_keeps_the_newest_in_order(capacities: list[int], seed: int, steps: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    bank = ClassBank(capacities, 2)
    expected = [deque[list[float]](maxlen=capacity) for capacity in capacities]
    for count in steps:
        features = torch.rand(count, 2, generator=generator)
        chosen = torch.rand(len(capacities), count, generator=generator) < 0.5
        bank.append(features, chosen)
        for rows, entries in zip(chosen, expected, strict=True):
            entries.extend(features[rows].tolist())
    for number, entries in enumerate(expected):
        assert bank.filled[number] == len(entries)
        positions = torch.arange(len(entries))[None]
        assert bank.at(torch.tensor([number]), positions)[0].tolist() == list(entries)


def contrast_problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, ClassBank]:
    generator = torch.Generator().manual_seed(seed)
    features, keys = torch.randn(2, 30, 4, generator=generator, dtype=torch.float64)
    own = torch.rand(3, 30, generator=generator) < 0.4
    anchors = own & (torch.rand(3, 30, generator=generator) < 0.7)
    bank = ClassBank([9, 6, 6], 4).double()
    bank.append(keys.roll(7, 0), torch.rand(3, 30, generator=generator) < 0.3)
    return features, keys, own, anchors, bank


RULE = BankContrastSettings(num_anchors=5, num_negatives=3)


def first_entries(bounds: Tensor, number: int) -> Tensor:
    return torch.arange(number) % bounds.clamp_min(1)[:, None]


def test_contrast_is_the_cross_entropy_of_cosines() -> None:
    features, keys, own, anchors, bank = contrast_problem()
    expected = []
    for number in range(3):
        chosen = features[anchors[number]]
        chosen = chosen[torch.arange(5) % len(chosen)]
        stored = bank.at(torch.tensor([number]), torch.arange(int(bank.filled[number]))[None])[0]
        others = stored[torch.arange(15) % len(stored)].view(5, 3, 4)
        positive = keys[own[number]].mean(0).expand(5, 1, 4)
        cosines = torch.cosine_similarity(chosen[:, None], torch.cat([positive, others], 1), dim=2)
        expected.append(torch.nn.functional.cross_entropy(cosines / 0.5, torch.zeros(5, dtype=torch.int64)))
    found = bank_contrast(features, keys, own, anchors, bank, first_entries, RULE)
    assert torch.isclose(found, torch.stack(expected).mean())


def test_contrast_of_classes_that_lack_something() -> None:
    features, keys, own, anchors, bank = contrast_problem()
    features.requires_grad_()
    whole = bank_contrast(features, keys, own, anchors, bank, first_entries, RULE, reduction="sum_count")
    assert whole.counted == 3
    anchors[1] = False
    part = bank_contrast(features, keys, own, anchors, bank, first_entries, RULE, reduction="sum_count")
    assert part.counted == 3
    assert 0 < part.total < whole.total
    own[1] = False
    less = bank_contrast(features, keys, own, anchors, bank, first_entries, RULE, reduction="sum_count")
    assert less.counted == 2
    assert torch.isclose(less.total, part.total)
    own[2] = anchors[2] = False
    alone = bank_contrast(features, keys, own, anchors, bank, first_entries, RULE)
    (gradient,) = torch.autograd.grad(alone, features)
    assert (alone.item(), gradient.abs().sum().item()) == (0, 0)
    empty = ClassBank([9, 6, 6], 4).double()
    features, keys, own, anchors, _ = contrast_problem()
    assert bank_contrast(features, keys, own, anchors, empty, first_entries, RULE) == 0


def test_only_anchors_learn() -> None:
    features, keys, own, anchors, bank = contrast_problem()
    features.requires_grad_()
    keys.requires_grad_()
    loss = bank_contrast(features, keys, own, anchors, bank, first_entries, RULE)
    loss.backward()
    assert keys.grad is None
    assert features.grad is not None
    assert (features.grad.abs().sum(1)[~anchors.any(0)] == 0).all()
    assert torch.autograd.gradcheck(
        lambda x: bank_contrast(x, keys, own, anchors, bank, first_entries, RULE),
        features.detach().requires_grad_(),
    )


def test_contrast_in_bfloat16_and_in_one_graph() -> None:
    features, keys, own, anchors, bank = contrast_problem()
    half = features.float().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = bank_contrast(half, keys, own, anchors, bank, first_entries, RULE)
    assert found.dtype == torch.float32
    assert torch.equal(found, bank_contrast(half.float(), keys, own, anchors, bank, first_entries, RULE))
    compiled = torch.compile(bank_contrast, fullgraph=True, backend="eager")
    plain = bank_contrast(features, keys, own, anchors, bank, first_entries, RULE)
    assert torch.equal(compiled(features, keys, own, anchors, bank, first_entries, RULE), plain)


def test_draws_are_uniform_below_their_bounds() -> None:
    draw = uniform_draw(torch.Generator().manual_seed(0))
    drawn = draw(torch.tensor([0, 1, 4]), 4000)
    assert drawn.shape == (3, 4000)
    assert (drawn[:2] == 0).all()
    assert drawn[2].bincount().tolist() == pytest.approx([1000] * 4, rel=0.1)


def test_reliable_cross_entropy_weighs_by_what_is_left() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    label = torch.randint(0, 3, (2, 4, 5), generator=generator)
    label[0, 0] = 255
    unreliable = torch.rand(2, 4, 5, generator=generator) < 0.5
    losses = torch.nn.functional.cross_entropy(logits, label, ignore_index=255, reduction="none")
    kept = ~unreliable & (label != 255)
    expected = 40 * losses[kept].sum() / kept.sum() ** 2
    assert torch.isclose(reliable_cross_entropy(logits, label, unreliable), expected)
    # Two parts that are added up weigh their own values by what each has left.
    parts = [
        reliable_cross_entropy(
            logits[n : n + 1], label[n : n + 1], unreliable[n : n + 1], reduction="sum_count"
        )
        for n in range(2)
    ]
    counts = [int(part.counted) for part in parts]
    mean = sum(part.mean * count for part, count in zip(parts, counts, strict=True)) / sum(counts)
    assert torch.isclose(parts[0].plus(parts[1]).mean, mean)


def test_boxes_cover_half_of_the_image() -> None:
    boxes = half_boxes(np.random.default_rng(0), 300, (33, 47))
    top, left, height, width = boxes.unbind(1)
    assert (width >= 24).all()
    assert (width < 47).all()
    assert (top + height <= 33).all()
    assert (left + width <= 47).all()
    assert ((height * width / (33 * 47) - 0.5).abs() < 0.02).all()
    assert len({tuple(box) for box in boxes.tolist()}) > 250


def test_half_of_the_classes_of_each_image() -> None:
    labels = torch.tensor([[[0, 1], [2, 3]], [[4, 4], [2, 255]], [[1, 1], [1, 1]]])
    seen = set()
    for seed in range(40):
        keys = torch.rand(3, 5, generator=torch.Generator().manual_seed(seed))
        found = half_of_classes(keys, labels)
        assert found[0].sum() == 2
        assert set(labels[1][found[1]].tolist()) in ({2}, {4})
        assert not found[2].any()
        seen.add(tuple(found[0].flatten().tolist()))
    assert len(seen) == 6


def progress(seed: int = 0) -> Progress:
    return Progress(0, 10, 0, seed)


@pytest.mark.parametrize("mix", ["cutmix", "cutout", "classmix"])
def test_mixtures(mix: Any) -> None:
    label = torch.arange(4)[:, None, None].expand(4, 8, 10).clone()
    label[:, ::2] += 4
    image = label[:, None].expand(-1, 3, -1, -1).to(torch.uint8)
    inside = half_masks(label, 8, HalfMixSettings(mix=mix, mix_probability=1), progress())
    assert inside is not None
    assert (inside.double().mean((1, 2)) - 0.5).abs().max() < 0.06
    images, labels = half_mixture(image, label, inside, mix, InputConvention())
    assert images.dtype == torch.uint8
    if mix == "cutout":
        assert (images.permute(0, 2, 3, 1)[inside] == torch.tensor([124, 116, 104])).all()
        assert (labels[inside] == 255).all()
    else:
        assert torch.equal(images[:, 0].long(), labels)
        assert torch.equal(labels[inside], label.roll(-1, 0)[inside])
    assert torch.equal(labels[~inside], label[~inside])
    assert torch.equal(images[:, 0][~inside], image[:, 0][~inside])


def test_half_of_the_batches_are_mixed() -> None:
    label = torch.zeros(1, 8, 8, dtype=torch.int64)
    drawn = [half_masks(label, 2, HalfMixSettings(), progress(seed)) is not None for seed in range(400)]
    assert sum(drawn) == pytest.approx(200, abs=40)
    assert half_masks(label, 2, HalfMixSettings(mix="none", mix_probability=1), progress()) is None


@pytest.mark.parametrize(("rank", "ranks"), [(0, 2), (1, 2)])
@pytest.mark.parametrize("mix", ["cutmix", "classmix"])
def test_masks_do_not_depend_on_the_number_of_processes(mix: Any, rank: int, ranks: int) -> None:
    label = torch.arange(8)[None, None].repeat(4, 8, 1)
    rule = HalfMixSettings(mix=mix, mix_probability=1)
    whole = half_masks(label, 8, rule, progress())
    part = half_masks(label[:2], 8, rule, Progress(0, 10, 0, 0, rank, ranks))
    assert whole is not None
    assert part is not None
    assert torch.equal(part, whole[2 * rank : 2 * rank + 2])


def test_which_pixels_are_negatives() -> None:
    # Classes 0 to 3 in the order of their probability, at every pixel of one labeled and one unlabeled image.
    probabilities = torch.tensor([0.4, 0.3, 0.2, 0.1]).view(1, 4, 1, 1).expand(2, 4, 1, 3)
    labels = torch.tensor([[[0, 1, 255]], [[0, 0, 0]]])
    low = torch.tensor([[[True, True, False]], [[True, False, False]]])
    high = torch.tensor([[[True, True, False]], [[False, True, False]]])
    found = class_pixels(labels, low, high, probabilities, 1, ClassPixelSettings(low_rank=2))
    assert found.own.tolist()[0] == [True, False, False, True, False, False]
    assert found.own.tolist()[1] == [False, True, False, False, False, False]
    # 0.3 is not above the threshold.
    assert found.anchors.sum(1).tolist() == [2, 0, 0, 0]
    assert found.negatives.tolist() == [
        [False, True, False, False, False, False],
        [True, False, False, False, False, False],
        [False, False, False, False, True, False],
        [False, False, False, False, True, False],
    ]
    fewer = class_pixels(labels, low, high, probabilities, 1, ClassPixelSettings(low_rank=2, high_rank=3))
    assert fewer.negatives.sum(1).tolist() == [1, 1, 1, 0]
    own = class_pixels(
        labels, low, high, probabilities, 1, ClassPixelSettings(low_rank=2, negatives="own_label")
    )
    assert not own.negatives.any()


def test_published_one_hot_labels_are_in_the_first_image() -> None:
    labels = torch.tensor([[[0, 255]], [[1, 1]], [[255, 0]]])
    assert one_hot(labels, 2).long().sum((1, 2, 3)).tolist() == [1, 2, 1]
    first = one_hot(labels, 2, "first_image")
    assert first[0].tolist() == [[[True, False]], [[True, False]]]
    assert not first[1:].any()
