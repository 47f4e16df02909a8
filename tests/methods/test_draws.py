"""Draws of a training step do not depend on how many processes share its batch."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from semiseg.contracts.training import Batch, Learner, Progress
from semiseg.engine.step import micro_batches
from semiseg.methods.cac import CAC, HEAD, CACLearner, FeatureBank
from semiseg.methods.cps import CPS, CPSLearner
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.models.heads import Projector
from semiseg.pseudo import box_masks, own_rows, step_generator, torch_generator
from semiseg.seeding import derive_seed

Make = Callable[..., Any]
WHOLE = Progress(iteration=5, total=10, epoch=9, seed=7)
CPU = torch.device("cpu")


def shares(ranks: int) -> list[Progress]:
    return [replace(WHOLE, rank=rank, ranks=ranks) for rank in range(ranks)]


def on_ranks(learner: Learner, batch: Batch, ranks: int) -> None:
    """Give every rank its part of the batch, one after the other."""
    for part, progress in zip(micro_batches(batch, ranks), shares(ranks), strict=True):
        learner(part, progress)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_rows_of_the_ranks_are_those_of_the_whole(ranks: int) -> None:
    whole = box_masks(step_generator(WHOLE, "cutmix"), 6, (12, 20))
    rows = []
    for progress in shares(ranks):
        total, own = own_rows(progress, 6 // ranks)
        assert total == 6
        rows.append(box_masks(step_generator(progress, "cutmix"), total, (12, 20))[own])
    assert torch.equal(torch.cat(rows), whole)


def test_generators_are_functions_of_seed_and_name() -> None:
    assert step_generator(WHOLE, "a").random() == np.random.default_rng(derive_seed(7, "a")).random()
    seeds = {
        torch_generator(progress, name, CPU).initial_seed()
        for name in ("a", "b")
        for progress in (WHOLE, *shares(3), replace(WHOLE, iteration=6))
    }
    assert seeds == {derive_seed(7, "a"), derive_seed(7, "b")}
    assert step_generator(replace(WHOLE, seed=8), "a").random() != step_generator(WHOLE, "a").random()


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_cps_mixes_the_same_images_on_every_number_of_ranks(
    ranks: int, make_model: Make, make_batch: Make
) -> None:
    batch = make_batch("labeled", "unlabeled", "unlabeled_2")

    def mixtures(count: int) -> Tensor:
        learner = CPSLearner(make_model(0), make_model(1), CPS(), LabeledLoss(CPS()))
        passes: list[Tensor] = []
        learner.branch_1.register_forward_pre_hook(lambda _, arguments: passes.append(arguments[0]))
        on_ranks(learner, batch, count)
        return torch.cat(passes[2::4])  # after the first and second images, before the labeled ones

    whole = mixtures(1)
    first = batch["unlabeled"]["image"]
    assert 0 < (whole == first).float().mean() < 1
    assert torch.equal(mixtures(ranks), whole)


def test_cac_selects_the_same_cells_where_a_group_lies_on_a_rank(make_model: Make, make_batch: Make) -> None:
    pair = make_batch("unlabeled")["unlabeled"]
    second = make_batch("unlabeled", seed=1)["unlabeled"]["image"]
    box, flip = torch.tensor([[0, 0, 16, 16]] * 4), torch.zeros(4, dtype=torch.bool)
    crops = {"image_1": pair["image"], "image_2": second, "id": pair["id"]}
    batch = make_batch("labeled") | {
        "unlabeled": crops | {"box_1": box, "box_2": box, "flip_1": flip, "flip_2": flip}
    }

    def bank(ranks: int) -> Tensor:
        model = make_model(0)
        torch.manual_seed(1)
        model.heads[HEAD] = Projector(8, 8, 6)
        method = CAC(warmup_epochs=0, groups=2 // ranks, selected=9)
        learner = CACLearner(model, FeatureBank(4 * 9, 6), method, LabeledLoss(method), stride=2).eval()
        on_ranks(learner, batch, ranks)
        return learner.bank.features

    assert bank(1).any()
    torch.testing.assert_close(bank(2), bank(1))
