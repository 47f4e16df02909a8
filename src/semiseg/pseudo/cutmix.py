"""Masks of CutMix."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

BoxPlace = Literal["inside", "outside", "outside_clipped"]


def box_masks(
    generator: np.random.Generator | np.random.RandomState,
    n: int,
    size: tuple[int, int],
    boxes: int = 3,
    area_range: tuple[float, float] = (0.25, 0.5),
    place: BoxPlace = "inside",
) -> Tensor:
    """Draw CutMix masks; True takes the second image.

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
    spans = np.concatenate([corners, corners + extents], axis=2).astype(int)
    if place == "outside_clipped":
        spans = spans.clip(0)
    masks = np.zeros((n, 1, *size), dtype=bool)
    for mask, drawn in zip(masks[:, 0], spans, strict=True):
        for top, left, bottom, right in drawn:
            mask[top:bottom, left:right] ^= True
    return torch.from_numpy(masks)
