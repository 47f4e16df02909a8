"""Numbers recorded from the original networks of UniMatch (its first version), in double precision."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unimatch_inputs import fill, images, labels, noise

from semiseg.engine.optim import SGD
from semiseg.models.bundle import segmentation_model
from semiseg.models.deeplabv3plus import DeepLabV3Plus
from semiseg.models.resnet import ResNet
from semiseg.models.segmodel import InputConvention, SegModel
from semiseg.models.xception import Xception

pytestmark = pytest.mark.golden("UniMatch networks")

DECODER = partial(DeepLabV3Plus, aspp_dropout=0.0, dropout=0.0)
BACKBONES: dict[str, Any] = {
    "resnet50s": partial(ResNet, 50, stem="deep"),
    "resnet101s": partial(ResNet, 101, stem="deep"),
    "xception65": Xception,
}
EXPECTED: dict[str, dict[str, Sequence[float]]] = {
    "resnet50s": {
        "counts": (40_475_957, 23_631_808, 386, 165, 29),
        "maps": (0.43493967253885296, 3.42012862144679),
        "eval": (
            0.2181084283907207, 1.5901540224812438, 0.9312866883732022, 3.2596723017373526, -0.7852433567572712
        ),
        "perturbed": (
            -0.020162248851479752, 2.2196675450509575, 2.3687493332785086, 1.4769460351504218, -1.2422423011582018
        ),
        "train": (3.3256141780924335, 0.29326502877185034, 86.3929183086349, 86.36253023723833),
        "after": (
            0.020050037127075947, 0.2948325105721434, 0.296759180089512, 0.6061642113921979, -0.14593972180690037
        ),
    },
    "resnet101s": {
        "counts": (59_468_085, 42_623_936, 692, 318, 29),
    },
    "xception65": {
        "counts": (54_711_461, 37_867_312, 848, 396, 29),
        "maps": (0.003099686613909816, 7.5945339881184015),
        "eval": (
            0.09622734311741067, 3.49982113424554, 1.6268962097766084, 0.8801642156302806, -0.7210545648025527
        ),
        "perturbed": (
            0.36831457784107763, 5.378330888653586, 4.754753544320375, 0.3586528743144011, -1.7732360023035794
        ),
        "train": (3.357753306022397, 0.29341701222317546, 82.42610544203711, 82.37370067872084),
        "after": (
            0.1156606249138999, 3.8340139759512906, 1.785039434144715, 1.0135284509540017, -0.7386505182438726
        ),
    },
}  # fmt: skip


def close(values: Sequence[float]) -> object:
    return pytest.approx(values, rel=1e-6, abs=1e-7)


def statistics(logits: Tensor) -> list[float]:
    samples = (logits[0, 0, 0, 0], logits[1, 10, 32, 40], logits[0, 20, 64, 80])
    return [value.item() for value in (logits.mean(), logits.std(), *samples)]


def norm(module: nn.Module) -> float:
    return torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in module.parameters()])).item()


def network(name: str) -> SegModel:
    return segmentation_model(BACKBONES[name](), DECODER, 21)


def masked(maps: Sequence[Tensor]) -> list[Tensor]:
    """The maps that are decoded, and behind them the same with channels dropped; c2 and c3 are not read."""
    result = list(maps)
    for place, which in ((0, 0), (-1, 1)):
        n, channels = maps[place].shape[:2]
        mask = 2.0 * (noise(n * channels, 800 + which) > 0).reshape(n, channels, 1, 1).double()
        result[place] = torch.cat([maps[place], maps[place] * mask])
    return result


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50s", "xception65"])
def test_outputs_and_gradients(name: str) -> None:
    expected = EXPECTED[name]
    model = network(name).double()
    fill(model)
    # The recorded images are normalized.
    model.set_convention(InputConvention("RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    x, label = images(2, 65, 81, 1), labels(2, 65, 81, 21, 1)
    model.eval()
    with torch.no_grad():
        maps = model.encode(x)
        assert [tuple(each.shape[1:]) for each in (maps[0], maps[-1])] == [(256, 17, 21), (2048, 5, 6)]
        assert [maps[0].mean().item(), maps[-1].mean().item()] == close(expected["maps"])
        plain = model.classify(model.decode(maps), (65, 81))
        assert statistics(plain) == close(expected["eval"])
        clean, perturbed = model.classify(model.decode(masked(maps)), (65, 81)).chunk(2)
        assert np.allclose(clean, plain, rtol=1e-12, atol=1e-12)
        assert statistics(perturbed) == close(expected["perturbed"])
    logits = model.train()(x)
    loss = F.cross_entropy(logits, label, ignore_index=255)
    loss.backward()
    observed = (loss.item(), logits.mean().item(), norm(model), norm(model.backbone))
    assert observed == close(expected["train"])
    with torch.no_grad():
        assert statistics(model.eval()(x)) == close(expected["after"])


@pytest.mark.parametrize("name", BACKBONES)
def test_counts(name: str) -> None:
    with torch.device("meta"):
        model = network(name)
    groups = SGD(lr=0.001, head_multiplier=10).groups(model)
    assert tuple(EXPECTED[name]["counts"]) == (
        sum(p.numel() for p in model.parameters()),
        sum(p.numel() for p in model.backbone.parameters()),
        len(model.state_dict()),
        *(len(group["params"]) for group in groups),
    )


def test_81_classes_of_coco() -> None:
    with torch.device("meta"):
        small, large = (segmentation_model(Xception(), DECODER, classes) for classes in (21, 81))
    sizes = [sum(p.numel() for p in model.parameters()) for model in (small, large)]
    assert sizes[1] - sizes[0] == 15_420
