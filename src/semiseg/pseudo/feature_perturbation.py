"""Perturbations of a feature map that decoders have to withstand (CCT, arXiv 2003.09005)."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

LEAST_OUTLINE = 50
"""Points that the outline of an object must exceed for a part of it to be cut out."""

CUT_SHARE = 0.4
"""Share of each side of an object's box that is cut out."""


class ObjectBox(NamedTuple):
    """Box of an object: its first column and row, and the distances to its last ones."""

    left: int
    top: int
    width: int
    height: int


def object_boxes(foreground: NDArray[np.bool_]) -> list[ObjectBox]:
    """Return the boxes of the objects of a mask ``(H, W)`` whose outline has more than 50 points.

    Points on a straight line are left out of an outline, so that straight-edged objects have few, whatever their size.
    """
    # Published code: guided_cutout() in models/decoders.py; the contours are in OpenCV's order.
    outlines, _ = cv2.findContours(foreground.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    boxes = []
    for outline in outlines:
        if len(outline) > LEAST_OUTLINE:
            low, high = outline[:, 0].min(0), outline[:, 0].max(0)
            boxes.append(ObjectBox(int(low[0]), int(low[1]), *(int(each) for each in high - low)))
    return boxes


def object_cutout(
    boxes: Sequence[ObjectBox], size: tuple[int, int], generator: random.Random
) -> NDArray[np.bool_]:
    """Draw what is left of an image after a part of each object was cut out, ``(H, W) bool``.

    Args:
        boxes: boxes of the objects.
        size: (height, width) of the mask.
        generator: source of the column and then the row of each part.
    """
    kept = np.ones(size, np.bool_)
    for box in boxes:
        left = box.left + generator.randint(0, int(box.width * (1 - CUT_SHARE)))
        top = box.top + generator.randint(0, int(box.height * (1 - CUT_SHARE)))
        kept[top : top + int(box.height * CUT_SHARE), left : left + int(box.width * CUT_SHARE)] = False
    return kept


def weakly_active(features: Tensor, share: Tensor) -> Tensor:
    """Return the positions whose mean activation is below a share of the largest of their image (F-Drop).

    Args:
        features: feature map ``(N, C, h, w)``, floating point.
        share: shares ``(D,)``, one for each decoder.

    Returns:
        What is kept, ``(D, N, h, w) bool``.
    """
    # Published code: feature_dropout() in models/decoders.py.
    precise = features if features.dtype == torch.float64 else features.float()
    activation = precise.mean(1)
    return activation < share[:, None, None, None] * activation.amax((1, 2), keepdim=True)


def adversarial_shift(
    decode: Callable[[Tensor], Tensor],
    maps: Tensor,
    start: Tensor,
    gram: Tensor,
    xi: float,
    radius: float,
    norm_eps: float,
) -> Tensor:
    """Return the shifts of features that change the predictions of D decoders most (I-VAT), without gradient.

    Each decoder begins with a linear map W ``(K, C)`` of the features F of each of P positions. All is computed behind
    it, where features are much smaller: the result is S ``(D, K, N, P)``, for shifts of the features of W^T S.

    Args:
        decode: function that maps ``(D, K, N, P)`` to logits ``(D, K, M)``; its parameters must need no gradient.
        maps: W F, ``(D, K, N, P)``, which get no gradient.
        start: W d of random directions d whose length in each image is 1, ``(D, K, N, P)``.
        gram: W W^T, ``(D, K, K)``.
        xi: length at which the direction of steepest change is measured.
        radius: length of the shift in each image.
        norm_eps: number that is added to the length of the gradient before it divides; a gradient of 0 gives a shift
            of 0 without it too.
    """
    # Published code: get_r_adv() in models/decoders.py, one iteration.
    maps = maps.detach()
    with torch.no_grad():
        clean = decode(maps).softmax(1)
    changed = (maps + xi * start).requires_grad_()
    with torch.enable_grad():
        divergence = F.kl_div(decode(changed).log_softmax(1), clean, reduction="sum") / maps.shape[2]
        (gradient,) = torch.autograd.grad(divergence, changed)
    # The gradient of d is W^T gradient. Measured against its largest entry: where a decoder is sure everywhere, float32
    # can't hold its squares.
    gradient = xi * gradient
    largest = gradient.abs().amax((1, 3), keepdim=True)
    largest = torch.where(largest > 0, largest, 1.0)
    gradient = gradient / largest
    squares = (gradient * (gram @ gradient.flatten(2)).view_as(gradient)).sum((1, 3), keepdim=True)
    length = squares.clamp_min(0).sqrt() + norm_eps / largest
    return radius * gradient / torch.where(length > 0, length, 1.0)
