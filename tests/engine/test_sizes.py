"""Numbers of trained and frozen parameters in a plan."""

from functools import partial

import torch
from torch import nn

from semiseg.engine.ema import EMA
from semiseg.engine.sizes import render_sizes, trained_networks
from semiseg.models.bundle import segmentation_model
from semiseg.models.heads import Projector
from semiseg.models.pspnet import PSPNet
from semiseg.models.segmodel import SegModel
from semiseg.models.tiny import Tiny
from semiseg.models.tuning import Tuning


def network(**settings: object) -> SegModel:
    backbone = Tiny(4).tune(Tuning(**settings))  # type: ignore[arg-type]
    return segmentation_model(backbone, partial(PSPNet, pool_channels=4, channels=8), 3)


def test_parameters_are_counted_by_part_for_networks_that_are_trained() -> None:
    learner = nn.Module()
    learner.first, learner.second, learner.frozen = network(), network(), network(freeze="all")
    learner.average = EMA(learner.first)
    learner.frozen.attach("projector", Projector(8, 4, 4))
    sizes = {size.name: size for size in trained_networks(learner)}
    assert list(sizes) == ["first", "second", "frozen"]
    for name, size in sizes.items():
        count = sum(each.numel() for each in getattr(learner, name).parameters())
        assert sum(size.trained.values()) + sum(size.frozen.values()) == count
    backbone = sum(each.numel() for each in Tiny(4).parameters())
    assert sizes["first"].trained == {
        "backbone": backbone,
        "decoder": sizes["frozen"].trained["decoder"],
        "classifier": 8 * 3 + 3,
    }
    assert sizes["frozen"].frozen == {"backbone": backbone}
    assert sizes["frozen"].trained["heads"] == 8 * 4 + 4 + 4 * 4 + 4
    lines = render_sizes(sizes.values())
    assert lines[0].startswith(f"first, second: backbone {backbone:,} trained; decoder ")
    assert lines[1].startswith(f"frozen: backbone {backbone:,} frozen; decoder ")
    assert len(lines) == 2
    with torch.no_grad():
        learner.first.backbone.stem.requires_grad_(False)
    assert f"backbone {backbone - 116:,} trained and 116 frozen" in render_sizes(trained_networks(learner))[0]
