"""CutMix masks and the stability score beyond their golden numbers."""

from typing import Any

import numpy as np
import pytest
import torch

from semiseg.contracts.training import Progress
from semiseg.pseudo import box_masks, stability_score, step_generator, step_masks
from semiseg.pseudo.cutmix import BoxPlace


def test_masks_depend_on_the_generator_alone() -> None:
    first, second = (box_masks(np.random.default_rng(3), 5, (12, 20)) for _ in range(2))
    assert first.shape == (5, 1, 12, 20)
    assert first.dtype == torch.bool
    assert torch.equal(first, second)
    assert not torch.equal(first, box_masks(np.random.default_rng(4), 5, (12, 20)))


def test_masks_cover_a_quarter_on_average() -> None:
    share = box_masks(np.random.default_rng(0), 2000, (32, 32)).float().mean(dim=(1, 2, 3))
    assert share.mean().item() == pytest.approx(0.25, abs=0.01)
    assert share.min() > 0.04
    assert share.max() < 0.52


def test_one_box_has_the_area_that_was_asked_for() -> None:
    share = (
        box_masks(np.random.default_rng(0), 200, (100, 100), boxes=1, area_range=(0.4, 0.4))
        .float()
        .mean(dim=(1, 2, 3))
    )
    assert share.min() > 0.38
    assert share.max() < 0.42


def test_boxes_outside_keep_their_visible_part_by_switch_alone() -> None:
    def share(place: Any) -> torch.Tensor:
        generator = np.random.default_rng(0)
        masks = box_masks(generator, 500, (40, 40), boxes=1, area_range=(0.3, 0.3), place=place)
        return masks.float().mean((1, 2, 3))

    inside, published, clipped = share("inside"), share("outside"), share("outside_clipped")
    assert inside.min() > 0.28
    assert clipped.min() > 0.05
    assert clipped.max() <= inside.max()
    # Rows and columns before the first are taken from the end: nothing is left of most such boxes.
    assert (published <= clipped).all()
    assert 0.3 < (published == 0).float().mean() < 0.9


def test_boxes_without_area_are_empty() -> None:
    assert not box_masks(np.random.default_rng(0), 3, (8, 9), area_range=(0, 0)).any()


def test_stability_skips_absent_classes_and_counts_the_background() -> None:
    last = torch.tensor([[0, 0], [7, 7]])
    assert stability_score([last, last]) == 1
    assert stability_score([torch.zeros_like(last), last]).item() == pytest.approx((0.5 + 0) / 2)
    assert stability_score([last, torch.zeros_like(last), last]).item() == pytest.approx((1 + 0.25) / 2)


def test_stability_equals_the_mean_over_a_confusion_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 6, (3, 20, 30), generator=generator)
    scores = []
    for earlier in maps[:-1]:
        matrix = np.zeros((6, 6))
        np.add.at(matrix, (maps[-1].numpy(), earlier.numpy()), 1)
        union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
        scores.append((np.diag(matrix) / union).mean())
    assert stability_score(list(maps.to(torch.uint8))).item() == pytest.approx(np.mean(scores))


def test_stability_needs_two_predictions() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        stability_score([torch.zeros(2, 2)])


def test_stability_never_waits_for_the_device(wait_counter: Any) -> None:
    maps = list(torch.randint(0, 4, (3, 8, 8)))
    with wait_counter:
        stability_score(maps)
    assert wait_counter.seen == []


@pytest.mark.parametrize("place", ["inside", "outside", "outside_clipped"])
def test_masks_of_a_step_are_those_of_its_generator_over_all_ranks(place: BoxPlace) -> None:
    images = torch.zeros(2, 3, 12, 20)
    whole = box_masks(
        step_generator(Progress(0, 1, 0, 7), "cutmix"), 4, (12, 20), area_range=(0.4, 1), place=place
    )
    found = [
        step_masks(images, Progress(0, 1, 0, 7, rank, 2), area_range=(0.4, 1), place=place) for rank in (0, 1)
    ]
    assert torch.equal(torch.cat(found), whole)
    assert whole.any()
    assert not whole.all()


def test_a_box_that_begins_before_the_image_is_cut_as_an_array_is() -> None:
    """Numbers below zero count from the end, so that most such boxes are lost, as in the published code."""

    class Given:
        """Draws of one box of a quarter of the area around a pixel."""

        def __init__(self, center: float) -> None:
            self.draws = [np.full((1, 1), 0.25), np.full((1, 1), 0.5), np.full((1, 1, 2), center)]

        def uniform(self, *arguments: object, size: object) -> object:
            return self.draws.pop(0)

    def drawn(center: float, place: BoxPlace) -> torch.Tensor:
        generator: Any = Given(center)
        return box_masks(generator, 1, (16, 16), 1, place=place)[0, 0]

    assert not drawn(0.125, "outside").any()
    clipped = drawn(0.125, "outside_clipped")
    assert clipped[:6, :6].all()
    assert clipped.sum() == 36
    assert drawn(0.5, "outside").sum() == 64
