"""Plain transformers, exported for images of any size and of one, and compared at sizes that tracing did not see."""

from functools import partial
from typing import Any

import pytest
import torch

from semiseg.errors import UserError
from semiseg.export import graph
from semiseg.export.verification import compare_predictions
from semiseg.models.bundle import segmentation_model
from semiseg.models.dpt import DPT
from semiseg.models.linear import Linear
from semiseg.models.segmodel import SegModel
from semiseg.models.vit import ViT
from semiseg.settings import EvaluatorSettings

pytest.importorskip("timm")

DINO = {"network": "vit_small_patch14_dinov2", "image_size": 70}
ROTARY = {"network": "vit_small_patch16_dinov3"}
SMALL = {"embed_dim": 32, "depth": 4, "num_heads": 2}
WINDOWS = {"mode": "slide", "window": 42, "window_sum": "probabilities", "stride_rounding": "down"}


def network(decoder: type[DPT | Linear], options: dict[str, Any]) -> SegModel:
    torch.manual_seed(0)
    made = partial(decoder, features=8) if decoder is DPT else decoder
    model = segmentation_model(ViT(**options, **SMALL), made, 5)
    with torch.no_grad():
        # Of a size that makes positions and attention matter.
        for name, parameter in model.named_parameters():
            if "qkv.weight" in name:
                parameter.normal_(0, 0.4)
            elif "pos_embed" in name or "gamma" in name or "classifier" in name:
                parameter.normal_(0, 0.5)
    return model.eval()


def check(
    model: SegModel, settings: EvaluatorSettings, forms: str, size: tuple[int, int] | None = None
) -> None:
    smallest = graph.smallest_side(model, settings)
    program = graph.trace(model, settings, size)
    for form in forms.split():
        content = graph.as_onnx(program, {}, size) if form == "onnx" else graph.as_torch(program, {})
        found = compare_predictions(graph.opened(content, form), model, settings, smallest, size)  # type: ignore[arg-type]
        assert len(found) == (2 if size else 3)
        assert max(each.difference for each in found) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decoder", "options", "changes", "forms"),
    [
        (DPT, DINO, {"fit": "resize"}, "onnx torch"),
        (Linear, ROTARY, {}, "onnx"),
        (Linear, {**DINO, "position_resize": "antialiased"}, {"flip": True}, "onnx"),
    ],
    ids=["published rule", "rotary", "antialiased"],
)
def test_any_size(
    decoder: type[DPT | Linear], options: dict[str, Any], changes: dict[str, Any], forms: str
) -> None:
    pytest.importorskip("onnxruntime")
    check(network(decoder, options), EvaluatorSettings(**changes), forms)


@pytest.mark.slow
def test_windows_on_one_size() -> None:
    """Whole images of one size are exported in tests/test_vit_run.py."""
    check(network(Linear, DINO), EvaluatorSettings(**WINDOWS), "torch", (42, 60))


def test_windows_need_a_size() -> None:
    with pytest.raises(UserError, match="--size HEIGHT WIDTH for images of one size"):
        graph.trace(network(Linear, DINO), EvaluatorSettings(mode="slide", window=42))


def test_smallest_images() -> None:
    """No map may shrink to one pixel: that of DPT is half as fine as the patches."""
    assert graph.smallest_side(network(DPT, DINO), EvaluatorSettings()) == 56
    assert graph.smallest_side(network(Linear, DINO), EvaluatorSettings(fit="resize")) == 28


def test_open_grid_of_rotary_positions_is_that_of_timm() -> None:
    from timm.layers import pos_embed_sincos

    original = pos_embed_sincos._build_grid
    with graph._open_sizes():
        for shape in ((3, 5), (16, 16), (1, 7)):
            for kind in ({"grid_type": "centered"}, {"grid_type": "centered", "grid_indexing": "xy"}, {}):
                found = pos_embed_sincos._build_grid(shape, **kind)
                torch.testing.assert_close(found, original(shape, **kind), rtol=0, atol=1e-7)
    assert pos_embed_sincos._build_grid is original
