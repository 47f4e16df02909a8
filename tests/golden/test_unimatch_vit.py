"""Five steps of UniMatch V2 on a small DINOv2 with DPT against numbers of the original program."""

from functools import partial
from typing import Any

import pytest
import torch
import unimatch_inputs as given
from noise_fill import complementary_masks, fill, noise
from torch import Tensor

from semiseg.contracts.training import Progress
from semiseg.engine.optim import AdamW
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.unimatch_v2 import UniMatchV2, UniMatchV2Learner
from semiseg.models.bundle import segmentation_model
from semiseg.models.dpt import DPT
from semiseg.models.segmodel import InputConvention, SegModel
from semiseg.models.vit import ViT

pytest.importorskip("timm")
pytestmark = pytest.mark.golden("UniMatch trainings")

# What the published network holds and never uses: two convs of the coarsest level, 8 to 8 channels, 3x3.
_UNUSED = torch.cat([noise(8 * 8 * 9, 3 * 8 + 5 * 8 + 7 * 3) * (6 / 72) ** 0.5, 0.05 * noise(8, 5)]).repeat(2)


class WithMasks(UniMatchV2Learner):
    step = 0

    def feature_masks(self, maps: Any, progress: Progress) -> list[Tensor]:
        return [complementary_masks(len(maps[0]) // 2, 16, self.step)] * len(maps)


def network() -> SegModel:
    backbone = ViT("vit_small_patch14_dinov2", image_size=70, embed_dim=16, depth=12, num_heads=2)
    model = fill(segmentation_model(backbone, partial(DPT, features=8, channels=[4, 6, 8, 10]), 4))
    # The recorded images are normalized.
    model.set_convention(InputConvention("RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    with torch.no_grad():
        model.classifier.weight.mul_(0.15)
    return model


def sums(model: Any) -> list[float]:
    """Sum and absolute sum of the backbone, and of the head with what the published one never uses."""
    named = list(model.named_parameters())
    backbone = torch.cat([each.detach().flatten() for name, each in named if name.startswith("backbone")])
    head = [each.detach().flatten() for name, each in named if not name.startswith("backbone")]
    whole = torch.cat([*head, _UNUSED])
    return [float(value) for part in (backbone, whole) for value in (part.sum(), part.abs().sum())]


def test_five_steps() -> None:
    method = UniMatchV2(threshold=0.6, ema_buffers="average_truncate")
    learner = WithMasks(network(), method, LabeledLoss(method))
    spec = AdamW(lr=0.0005, head_multiplier=10, decay="all")
    optimizer = spec.build(learner.param_groups(spec))
    assert sums(learner.model) == pytest.approx(
        [460.2540809883671, 10546.245338036162, 39.863989445885466, 2341.971920245725]
    )
    found = []
    for step in range(5):
        learner.step = step
        batch = given.step_batch(step, n=2, h=70, w=70, classes=4, salt=450)
        del batch["partner"]
        output = learner(batch, Progress(step, 16, 0, 0))
        optimizer.zero_grad()
        output.total.backward()
        factor = (1 - (step - 1) / 16) ** 0.9 if step else 1.0
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        optimizer.step()
        learner.after_step(Progress(step, 16, 0, 0))
        found.append(output)
    near = {"rel": 1e-8, "abs": 1e-9}
    assert [float(each.total.detach()) for each in found] == pytest.approx(
        [2.664361792241405, 1.935216921937679, 1.2215359124518064, 1.0304297708858512, 0.7650403724542496],
        **near,
    )
    assert [float(each.losses["strong_1"].mean.detach()) for each in found] == pytest.approx(
        [
            0.08979729229877684,
            0.04214140785633813,
            0.20849457335336066,
            0.5284843320915287,
            0.09015196325118106,
        ],
        **near,
    )
    assert [float(each.losses["strong_2"].mean.detach()) for each in found] == pytest.approx(
        [
            0.31230598607761095,
            0.1719955382639122,
            0.2677740645874076,
            0.4958964959220847,
            0.04868006219645437,
        ],
        **near,
    )
    assert sums(learner.model) == pytest.approx(
        [459.7708820994021, 10545.723877788598, 19.652173616083974, 2336.6713789977816], **near
    )
    assert learner.average is not None
    assert sums(learner.average.teacher) == pytest.approx(
        [459.9027745673947, 10545.82516293458, 29.872130718019935, 2338.8481958288194], **near
    )
