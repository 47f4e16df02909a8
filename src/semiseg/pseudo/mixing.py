"""CutMix of images and of the labels that belong to them, by one box an image."""

from collections.abc import Sequence

import torch
from torch import Tensor


def box_maps(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Return where boxes lie, ``(N, H, W) bool``.

    Args:
        boxes: (top, left, height, width) of each, ``(N, 4) int64`` in pixels; zeros for no box.
        size: (height, width) of the images.
    """
    top, left, height, width = (values[:, None, None] for values in boxes.unbind(1))
    rows = torch.arange(size[0], device=boxes.device)[None, :, None]
    columns = torch.arange(size[1], device=boxes.device)[None, None, :]
    inside: Tensor = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
    return inside


def mixed(own: Tensor, other: Tensor, inside: Tensor) -> Tensor:
    """Take ``other`` inside of the boxes, ``own`` elsewhere.

    Args:
        own: images ``(N, C, H, W)`` or maps ``(N, H, W)``.
        other: values of the partners, of the same shape and type.
        inside: ``(N, H, W) bool``, see ``box_maps``.
    """
    return torch.where(inside[:, None] if own.ndim == 4 else inside, other, own)


def reversed_within(values: Tensor, groups: int = 1) -> Tensor:
    """Return the first axis in reversed order, within each of ``groups`` equal parts of it.

    The middle image of an odd part is its own partner (UniMatch V2, ``unimatch_v2.py``: ``flip(0)`` on each GPU).
    """
    return torch.cat([part.flip(0) for part in values.chunk(groups)])
