"""Masks of CutMix: boxes drawn as a few integers on the host, and painted where the images are."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from semiseg.contracts.training import Progress
from semiseg.pseudo.draws import on_device, own_rows, step_generator

BoxPlace = Literal["inside", "outside", "outside_clipped"]


def box_masks(
    generator: np.random.Generator | np.random.RandomState,
    n: int,
    size: tuple[int, int],
    boxes: int = 3,
    area_range: tuple[float, float] = (0.25, 0.5),
    place: BoxPlace = "inside",
) -> Tensor:
    """Draw CutMix masks; True takes the second image. ``step_masks`` draws those of a training step.

    Each box has ``a / boxes`` of the area with a ~ U(area_range), a random shape and position, and toggles
    what it covers, so overlaps cancel: with the defaults the mean share of True is about 0.25, not 0.375. The
    masks equal those of CPS for the same NumPy generator (draw order: all areas, all shapes, all positions), and with
    one box of area 0.5 those of CutMix-Seg.

    Args:
        generator: source of all draws.
        n: number of masks.
        size: (height, width) in pixels.
        boxes: number of boxes of a mask.
        area_range: bounds of the area of all boxes together, as a share of the image.
        place: "inside" of the image; or "outside", centered at any pixel, where the published code of CutMix-Seg takes
            the rows and columns before the first one from the end, so that most such boxes are lost;
            "outside_clipped" keeps their visible part.

    Returns:
        Masks ``(n, 1, height, width) bool`` on the CPU.
    """
    return _painted(_drawn(generator, n, size, boxes, area_range, place), size)


def step_masks(
    images: Tensor,
    progress: Progress,
    boxes: int = 3,
    area_range: tuple[float, float] = (0.25, 0.5),
    place: BoxPlace = "inside",
) -> Tensor:
    """Draw the CutMix masks of a batch of images, ``(N, 1, H, W) bool``, without waiting for their device.

    They are those of ``box_masks`` for the generator "cutmix" of the pass.

    Args:
        images: images ``(N, C, H, W)`` of this process.
        progress: the pass, which determines all draws.
        boxes: number of boxes of a mask.
        area_range: bounds of the area of all boxes together, as a share of the image.
        place: see ``box_masks``.
    """
    size = images.shape[2], images.shape[3]
    # Drawn for all ranks and cut: the masks of an image must not depend on how many processes share the batch.
    total, rows = own_rows(progress, len(images))
    spans = _drawn(step_generator(progress, "cutmix"), total, size, boxes, area_range, place)
    return _painted(on_device(spans[rows], images.device), size)


def _drawn(
    generator: np.random.Generator | np.random.RandomState,
    n: int,
    size: tuple[int, int],
    boxes: int,
    area_range: tuple[float, float],
    place: BoxPlace,
) -> Tensor:
    """Draw the boxes of n masks: ``(n, boxes, 4) int64`` of (top, left, bottom, right), none beyond the image."""
    # published code of CPS: mask_gen.py, BoxMaskGenerator.generate_params, the same as that of CutMix-Seg
    area = generator.uniform(*area_range, size=(n, boxes))
    exponent = generator.uniform(size=(n, boxes))
    height = area**exponent
    # A box without area has no shape.
    width = np.divide(area, height, out=np.zeros_like(area), where=area > 0)
    shares = np.stack([np.where(area > 0, height, 0), width], axis=2) * np.sqrt(1 / boxes)
    extents = np.round(shares * np.asarray(size))
    position = generator.uniform(size=(n, boxes, 2))
    if place == "inside":
        corners = np.round((np.asarray(size) - extents) * position)
    else:
        corners = np.round(np.asarray(size) * position) - extents / 2
    spans = np.concatenate([corners, corners + extents], axis=2).astype(np.int64)
    sides = np.tile(np.asarray(size), 2)
    if place == "outside":
        # The published code cuts arrays with these numbers, and negative ones count from the end there.
        spans = np.where(spans < 0, spans + sides, spans)
    return torch.from_numpy(spans.clip(0, sides))


def _painted(spans: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the masks ``(n, 1, height, width) bool`` of boxes ``(n, boxes, 4)``, on their device."""
    rows, columns = (torch.arange(side, device=spans.device) for side in size)
    mask = torch.zeros(len(spans), 1, *size, dtype=torch.bool, device=spans.device)
    for box in spans.unbind(1):
        top, left, bottom, right = (edge[:, None] for edge in box.unbind(1))
        high, wide = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
        mask = mask ^ (high[:, None, :, None] & wide[:, None, None, :])
    return mask
