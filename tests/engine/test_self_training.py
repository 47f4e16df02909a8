"""Self-training of a linear discriminant on pixels of unlabeled images."""

import numpy as np
import pytest
import torch

from semiseg.engine import self_training
from semiseg.engine.self_training import UnlabeledPixels, read_ids
from semiseg.models.discriminant import ClassMoments, Discriminant

CLASSES = 3


def cloud(count: int, seed: int, classes: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes of long clouds side by side, which few pixels do not show the direction of."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    features = generator.normal(size=(count, 8)) * [1, 6, 6, 6, 6, 6, 6, 6]
    features[:, 0] += 5 * labels
    return torch.from_numpy(features), torch.from_numpy(labels)


def moments_of(features: torch.Tensor, labels: torch.Tensor) -> ClassMoments:
    found = ClassMoments(CLASSES, torch.zeros(8))
    found.add(features, labels)
    return found


def accuracy(found: Discriminant) -> float:
    features, labels = cloud(2000, 9)
    return float(((features @ found.weight.T + found.bias).argmax(1) == labels).double().mean())


def test_unlabeled_pixels_make_it_better() -> None:
    labeled = moments_of(*cloud(12, 0))
    first = labeled.solve(0.1)
    pixels = UnlabeledPixels(1)
    pixels.add(cloud(3000, 1)[0], 1)
    second = pixels.train(labeled, first, 1.0, rounds=5, threshold=0.8)
    assert accuracy(second) > accuracy(first) + 0.03
    assert second.weight[2].any().item() is False  # a class without labels is never guessed


def test_labeled_and_guessed_pixels_weigh_the_same_in_total() -> None:
    features, labels = cloud(40, 0)
    labeled = moments_of(features, labels)
    pixels = UnlabeledPixels(1)
    more = cloud(200, 1)[0]
    pixels.add(more, 1)
    first = labeled.solve(0.1)
    guessed = (more.float() @ first.weight.T.float() + first.bias.float()).argmax(1)
    both = moments_of(features, labels)
    both.merge(moments_of(more.float(), guessed), 40 / 200)
    found = pixels.train(labeled, first, 3.0, rounds=1, threshold=0.0)
    for one, other in zip(found, both.solve(0.1), strict=True):
        torch.testing.assert_close(one, other)


def test_without_rounds_or_confident_pixels_it_stays() -> None:
    labeled = moments_of(*cloud(30, 0))
    first = labeled.solve(0.1)
    pixels = UnlabeledPixels(0)
    assert pixels.train(labeled, first, 1.0, 2, 0.5) is first
    pixels = UnlabeledPixels(2)
    pixels.add(torch.empty(0, 8), 1)
    pixels.add(cloud(5, 1)[0], 1)
    assert pixels.train(labeled, first, 1.0, 0, 0.5) is first
    assert pixels.train(labeled, first, 1e6, 3, 0.9) is first


def test_images_are_spread_over_the_list() -> None:
    assert read_ids([]) == []
    assert read_ids(["a", "b"]) == ["a", "b"]
    found = read_ids([str(number) for number in range(1000)])
    assert len(found) == len(set(found)) == 400
    assert (found[0], found[200]) == ("0", "500")


def test_windows_share_what_is_kept_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_training, "NUMBERS", 8 * 100)
    kept = {}
    for views in (1, 4):
        pixels = UnlabeledPixels(1)
        for seed in range(views):
            pixels.add(cloud(500, seed)[0], views)
        kept[views] = sum(map(len, pixels.parts))
    assert kept == {1: 100, 4: 100}
