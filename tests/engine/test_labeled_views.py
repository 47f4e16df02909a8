"""Labels on a network's grid, and labeled images in the sizes and windows of the evaluation."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from semiseg.engine.labeled_views import labeled_views, labels_at
from semiseg.models.bundle import segmentation_model
from semiseg.models.linear import Linear
from semiseg.models.segmodel import InputConvention, SegModel
from semiseg.models.tiny import Tiny
from semiseg.settings import EvaluatorSettings


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"), [(33, 50, 9, 13), (7, 8, 7, 8), (48, 31, 12, 2)]
)
def test_labels_lie_where_the_logits_are_resized_to(
    height: int, width: int, rows: int, columns: int, align: bool
) -> None:
    """A map of the positions of the grid, resized as logits are, has each position's own number at its label."""
    mask = np.arange(height * width).reshape(height, width)
    found = labels_at(mask, (rows, columns), align)
    assert found.shape == (rows, columns)
    assert found.dtype == torch.int64
    for count, own, axis in ((rows, found // width, 0), (columns, found % width, 1)):
        ramp = torch.arange(count, dtype=torch.float64).view((1, 1, -1, 1) if axis == 0 else (1, 1, 1, -1))
        ramp = ramp.expand(1, 1, rows, columns)
        resized = F.interpolate(ramp, (height, width), mode="bilinear", align_corners=align)[0, 0]
        at_label = resized.flatten()[found.flatten()].view(rows, columns)
        # A pixel is off by half at most, which is this share of a position.
        allowed = 0.5 * count / (height, width)[axis] + 1e-6
        assert (at_label - ramp[0, 0]).abs().max() <= allowed, (own, axis)


@pytest.mark.parametrize("align", [True, False])
def test_small_grids_and_masks(align: bool) -> None:
    mask = np.arange(35).reshape(5, 7)
    assert labels_at(mask, (1, 1), align).tolist() == [[17]]  # the middle
    assert labels_at(mask, (5, 7), align).tolist() == mask.tolist()
    assert labels_at(np.full((1, 1), 4), (3, 2), align).tolist() == [[4, 4]] * 3
    assert labels_at(mask, (2, 1), True)[:, 0].tolist() == [3, 31]


def network(convention: InputConvention | None = None) -> SegModel:
    backbone = Tiny(width=4)
    if convention is not None:
        backbone.convention = convention
    return segmentation_model(backbone, Linear, 3)


def views(
    height: int, width: int, model: SegModel, scales: tuple[float, ...] = (1.0,), **settings: Any
) -> list[tuple[torch.Tensor, np.ndarray]]:
    """Views of an image whose first channel is its label."""
    label = (np.arange(height * width).reshape(height, width) // 4 % 200).astype(np.uint8)
    image = torch.from_numpy(label).expand(1, 3, height, width)
    return list(labeled_views(image, label, EvaluatorSettings(**settings), scales, model))


def test_whole_images_at_each_scale_in_sides_of_the_network() -> None:
    model = network()
    assert [tuple(image.shape) for image, _ in views(30, 45, model)] == [(1, 3, 30, 45)]
    model.backbone.size_multiple = 14
    found = views(30, 45, model, (0.5, 1.0, 2.0), resize_to=[30, 45])
    assert [tuple(image.shape[-2:]) for image, _ in found] == [(14, 14), (28, 42), (56, 84)]
    found = [
        *labeled_views(found[0][0], found[0][1], EvaluatorSettings(scales=[1.0, 2.0]), (1.0, 3.0), model)
    ]
    assert [tuple(image.shape[-2:]) for image, _ in found] == [(14, 14), (42, 42), (28, 28), (84, 84)]
    found = views(30, 45, model, (0.25, 1.0, 2.0))
    assert [tuple(image.shape[-2:]) for image, _ in found] == [(14, 14), (28, 42), (56, 84)]
    assert {label.shape for _, label in found} == {(30, 45)}
    (resized,) = views(30, 45, model, resize_to=[28, 14])
    assert tuple(resized[0].shape[-2:]) == (28, 14)


def test_windows_cover_each_pixel_with_its_label() -> None:
    found = views(30, 45, network(), mode="slide", window=20)
    assert [tuple(image.shape[-2:]) for image, _ in found] == [(20, 20)] * 6
    seen = set()
    for image, label in found:
        assert (image[0, 0].numpy() == label).all()
        seen |= {*label.flatten().tolist()}
    assert len(seen) == 200


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_small_images_are_padded_with_what_becomes_zero(order: str) -> None:
    model = network(InputConvention(order, 255.0, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))
    ((image, label),) = views(10, 17, model, mode="slide", window=24)
    assert tuple(image.shape) == (1, 3, 24, 24)
    assert (label[10:] == 255).all()
    assert (label[:, 17:] == 255).all()
    assert (image[0, 0, :10, :17].numpy() == label[:10, :17]).all()
    normalized = model.normalize(image)
    assert normalized[..., 10:, :].abs().max() < 1e-5
    assert normalized[..., 17:].abs().max() < 1e-5
