"""Logit adjustment in the methods: each of them learns labeled pixels by the shares of the classes of its lab."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from semiseg.contracts.training import LossTerm, Progress, StepOutput
from semiseg.data.augment import Augment
from semiseg.data.geometry import RandomCrop
from semiseg.engine.step import forward_backward
from semiseg.losses import cross_entropy
from semiseg.methods.augseg import AugSeg
from semiseg.methods.cac import CAC
from semiseg.methods.corrmatch import CorrMatch
from semiseg.methods.cps import CPS
from semiseg.methods.cutmix_seg import CutMixSeg
from semiseg.methods.dmt import DMT
from semiseg.methods.dmtc import DMTC
from semiseg.methods.fixmatch import FixMatch
from semiseg.methods.mean_teacher import MeanTeacher
from semiseg.methods.prevmatch import PrevMatch
from semiseg.methods.stpp import SelfTraining
from semiseg.methods.supervised import Supervised, SupervisedLearner
from semiseg.methods.u2pl import U2PL
from semiseg.methods.unimatch import UniMatch
from semiseg.methods.unimatch_v2 import UniMatchV2
from semiseg.settings import TrainerSettings

Make = Callable[..., Any]
SHARES = np.array([0.7, 0.2, 0.09, 0.01])
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "supervised": (Supervised, {}),
    "st": (SelfTraining, {"plus": False}),
    "fixmatch": (FixMatch, {}),
    "unimatch": (UniMatch, {}),
    "unimatch_v2": (UniMatchV2, {}),
    "prevmatch": (PrevMatch, {}),
    "corrmatch": (CorrMatch, {"regions": 4}),
    "mean_teacher": (MeanTeacher, {}),
    "cutmix_seg": (CutMixSeg, {}),
    "augseg": (AugSeg, {}),
    "cps": (CPS, {}),
    "u2pl": (U2PL, {"low_rank": 1}),
    "cac": (CAC, {}),
    "dmt": (DMT, {"ratios": [0.5]}),
    "dmtc": (DMTC, {"ratios": [0.5]}),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_first_step_learns_adjusted_logits(name: str, make_lab: Make) -> None:
    kind, options = METHODS[name]
    found = {}
    for strength in (0.0, 1.5):
        lab = make_lab(6, 8)
        lab.augment, lab.trainer = (
            Augment(RandomCrop(8)),
            TrainerSettings(batch_size=2, unlabeled_batch_size=2),
        )
        if strength:  # otherwise the lab has no shares, and nobody may ask for them
            lab.class_shares = SHARES
        steps = watched(lab)
        kind(logit_adjustment=strength, **options).run(lab)
        found[strength] = steps
    for strength, steps in found.items():
        added = strength * torch.from_numpy(SHARES).log().float()
        assert steps
        for calls, terms in steps:
            assert calls
            for seen, target in calls:
                expected = cross_entropy(seen + added[:, None, None], target, reduction="sum_count")
                assert any(
                    torch.isclose(term.sum, expected.total) and term.count == expected.counted
                    for term in terms
                )
    # Network, images and draws are those without the setting.
    assert torch.equal(found[0.0][0][0][0][0], found[1.5][0][0][0][0])


def watched(lab: Any) -> list[tuple[list[tuple[Tensor, Tensor]], list[LossTerm]]]:
    """Note what the loss of labeled pixels sees in each step that has it, and all terms of the step."""
    fit, noted = lab.fit, []

    def watching(name: str, learner: Any, *arguments: Any, **options: Any) -> Any:
        seen: list[tuple[Tensor, Tensor]] = []

        def note(_: Any, __: Any, output: StepOutput) -> None:
            if seen:
                noted.append((seen.copy(), list(output.losses.values())))
            seen.clear()

        learner.loss.register_forward_pre_hook(lambda _, given: seen.append(given))
        learner.register_forward_hook(note)
        return fit(name, learner, *arguments, **options)

    lab.fit = watching
    return noted


def test_accumulated_batches_sum_up_to_the_whole_one(
    make_lab: Make, make_model: Make, make_batch: Make
) -> None:
    lab = make_lab(6, 0)
    lab.class_shares = SHARES
    found = []
    for parts in (1, 2):
        model = make_model(0)
        # Without batch norm, whose statistics are those of a part.
        model.backbone.norm = torch.nn.Identity()
        learner = SupervisedLearner(model, Supervised(logit_adjustment=1).labeled_loss(lab))
        output = forward_backward(learner, make_batch("labeled"), Progress(0, 1, 0, 0), parts, nullcontext)
        found.append([output.total.detach(), *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(found[0], found[1])
