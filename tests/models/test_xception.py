from pathlib import Path

import pytest
import torch
from torch import nn

from semiseg.errors import UserError
from semiseg.models.xception import Xception


def dilations(backbone: nn.Module) -> list[int]:
    """Of block 3, block 4, block 20 and the last conv."""
    names = ("block3.sepconv1", "block4.sepconv3", "block20.sepconv1", "conv5")
    return [backbone.get_submodule(f"{name}.depthwise").dilation[0] for name in names]


@pytest.mark.parametrize(
    ("output_stride", "exit_dilation", "expected"),
    [
        (8, "kept", [1, 2, 2, 2]),
        (8, "doubled", [1, 2, 2, 4]),
        (16, "kept", [1, 1, 1, 1]),
        (16, "doubled", [1, 1, 1, 2]),
        (32, "kept", [1, 1, 1, 1]),
        (32, "doubled", [1, 1, 1, 1]),
    ],
)
def test_dilations(output_stride: int, exit_dilation: str, expected: list[int]) -> None:
    with torch.device("meta"):
        backbone = Xception(output_stride=output_stride, exit_dilation=exit_dilation)
        maps = backbone(torch.empty(1, 3, 64, 96))
    assert dilations(backbone) == expected
    assert [m.shape[-1] for m in maps] == [96 // stage.stride for stage in backbone.stages]
    assert [m.shape[1] for m in maps] == [stage.channels for stage in backbone.stages]


@pytest.mark.parametrize(
    ("batch_norm", "expected"), [("unimatch", (1e-5, 3e-4)), ("tensorflow", (1e-3, 0.1))]
)
def test_numbers_of_the_batch_norms(batch_norm: str, expected: tuple[float, float]) -> None:
    with torch.device("meta"):
        backbone = Xception(batch_norm=batch_norm)
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {expected}


def timm_name(name: str) -> str:
    """timm's name of an entry of a block or of one of the first and last convs."""
    first, rest = name.split(".", 1)
    if first in ("conv1", "bn1", "conv2", "bn2"):
        return f"stem.{int(first[-1]) - 1}.{first[:-1]}.{rest}"
    separable = {"depthwise": "conv_dw", "bn1": "bn_dw", "pointwise": "conv_pw", "bn2": "bn_pw"}
    if first in ("conv3", "conv4", "conv5"):
        part, kind = rest.split(".")
        return f"blocks.20.stack.conv{int(first[-1]) - 2}.{separable[part]}.{kind}"
    block = f"blocks.{int(first.removeprefix('block')) - 1}"
    if rest.startswith("skip"):
        part, kind = rest.split(".")
        return f"{block}.shortcut.{'bn' if part == 'skipbn' else 'conv'}.{kind}"
    conv, part, kind = rest.split(".")
    return f"{block}.stack.{conv.removeprefix('sep')}.{separable[part]}.{kind}"


TENSORFLOW = {"shortcut": "plain", "exit_dilation": "doubled", "batch_norm": "tensorflow"}


def varied(backbone: Xception) -> Xception:
    """Give batch norms numbers with which neither signals vanish nor small differences of epsilon."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_var.fill_(0.02)
    return backbone.eval()


@pytest.mark.parametrize("output_stride", [8, 16])
def test_all_three_switches_together_are_timms_network(output_stride: int) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    own = varied(Xception(output_stride=output_stride, **TENSORFLOW))
    theirs = timm.create_model("xception65", output_stride=output_stride, num_classes=0, global_pool="")
    theirs.load_state_dict({timm_name(name): value for name, value in own.state_dict().items()})
    x = torch.randn(1, 3, 33, 33)
    with torch.inference_mode():
        expected, observed = theirs.eval()(x), own(x)[-1]
    assert torch.allclose(observed, expected, rtol=1e-3, atol=1e-3 * expected.std())


@pytest.mark.parametrize("switch", ["shortcut", "exit_dilation", "batch_norm"])
def test_every_switch_changes_the_result(switch: str) -> None:
    torch.manual_seed(0)
    first = varied(Xception(**TENSORFLOW))
    with torch.device("meta"):
        second = Xception(**{key: value for key, value in TENSORFLOW.items() if key != switch}).eval()
    second.load_state_dict(first.state_dict(), assign=True)
    x = torch.randn(1, 3, 33, 33)
    with torch.inference_mode():
        one, other = first(x)[-1], second(x)[-1]
    assert (one - other).abs().mean() > 0.01 * one.abs().mean()


def test_the_shortcut_with_a_conv_is_never_rectified() -> None:
    torch.manual_seed(0)
    one, other = (Xception(shortcut=shortcut).eval() for shortcut in ("rectified", "plain"))
    other.load_state_dict(one.state_dict())
    x = torch.randn(1, 3, 33, 33)
    with torch.inference_mode():
        first, second = one(x), other(x)
    assert torch.equal(first[1], second[1])
    assert first[0].min() < 0
    assert not torch.equal(first[2], second[2])


def test_parts_are_the_whole_backbone() -> None:
    with torch.device("meta"):
        backbone = Xception()
    named = [
        p for modules in backbone.part_modules().values() for module in modules for p in module.parameters()
    ]
    assert len(named) == len({id(p) for p in named}) == len(list(backbone.parameters()))


class TestWeights:
    def test_backbone_without_counters(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        state = {k: v for k, v in Xception().state_dict().items() if not k.endswith("tracked")}
        torch.save(state, tmp_path / "xception.pth")
        backbone = Xception(weights=str(tmp_path / "xception.pth"))
        assert all(torch.equal(backbone.state_dict()[key], value) for key, value in state.items())

    def test_another_network_is_refused(self, tmp_path: Path) -> None:
        state = Xception().state_dict()
        del state["block7.sepconv2.pointwise.weight"]
        torch.save(state, tmp_path / "xception.pth")
        with (
            torch.device("meta"),
            pytest.raises(
                UserError, match=r"does not fit Xception-65(?s:.*)block7\.sepconv2\.pointwise\.weight"
            ),
        ):
            Xception(weights=str(tmp_path / "xception.pth"))


def test_bad_arguments() -> None:
    with torch.device("meta"), pytest.raises(UserError, match="rectified, plain"):
        Xception(shortcut="relu")  # type: ignore[arg-type]
