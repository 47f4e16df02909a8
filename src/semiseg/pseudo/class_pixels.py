"""Pixels of each class that U2PL compares: anchors, those that make the positive, and negatives."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX

OneHot = Literal["first_image", "right"]
Negatives = Literal["own_label", "paper"]


class ClassPixels(NamedTuple):
    """Masks ``(K, P) bool`` of the pixels of a batch, in the order of images, rows and columns, for each class.

    Args:
        own: pixels with this label and low entropy, whose mean is the positive.
        anchors: those of them whose probability of the class is not too low.
        negatives: pixels that are unsure, or known not to be of the class.
    """

    own: Tensor
    anchors: Tensor
    negatives: Tensor


def one_hot(labels: Tensor, num_classes: int, rule: OneHot = "right") -> Tensor:
    """Return where each class is, ``(N, K, H, W) bool``.

    Args:
        labels: labels ``(N, H, W) int64``, classes or 255.
        num_classes: number of classes K.
        rule: "right"; or "first_image" as U2PL does, which writes the classes of all images into the first, 255 as
            class 0, except where the first is 255 itself, and leaves the other images empty.
    """
    ignored = labels == IGNORE_INDEX
    classes = torch.arange(num_classes, device=labels.device).view(1, -1, 1, 1)
    if rule == "right":
        return labels[:, None] == classes
    # Published code: u2pl/utils/utils.py, label_onehot.
    found = (labels.masked_fill(ignored, 0)[:, None] == classes).any(0) & ~ignored[0]
    return torch.cat([found[None], found.new_zeros(len(labels) - 1, *found.shape)])


def class_pixels(
    labels: Tensor,
    low: Tensor,
    high: Tensor,
    probabilities: Tensor,
    labeled: int,
    *,
    ranks: tuple[int, int] = (3, 20),
    anchor_threshold: float = 0.3,
    onehot: OneHot = "right",
    negatives: Negatives = "paper",
) -> ClassPixels:
    """Choose the pixels of each class (Wang et al., arXiv 2203.03884, section 3.3).

    Args:
        labels: labels and pseudo-labels ``(N, h, w) int64``, classes or 255; labeled images first.
        low: ``(N, h, w) bool``, pixels of low entropy; in labeled images all with a label.
        high: ``(N, h, w) bool``, pixels of high entropy; in labeled images all with a label.
        probabilities: class probabilities ``(N, K, h, w)`` of the teacher.
        labeled: number of labeled images.
        ranks: ranks r_l and r_h of the classes of a pixel by their probability, 0 for the best. It is a negative of a
            class that has another label and a rank below r_l, or no label and one in [r_l, r_h).
        anchor_threshold: probability that an anchor has to exceed.
        onehot: rule of ``one_hot``, within the labeled images and within the others.
        negatives: "paper"; or "own_label" as in U2PL's code, where negatives of a class have its own label too, so that
            labeled pixels never are.
    """
    count = probabilities.shape[1]
    # Published code: u2pl/utils/loss_helper.py, compute_contra_memobank_loss.
    is_class = torch.cat([one_hot(part, count, onehot) for part in (labels[:labeled], labels[labeled:])])
    rank = probabilities.argsort(dim=1, descending=True, stable=True).argsort(1)
    other = (rank[:labeled] < ranks[0]) & ~is_class[:labeled]
    unlikely = (rank[labeled:] >= ranks[0]) & (rank[labeled:] < ranks[1])
    unsure = torch.cat([other, unlikely]) & high[:, None] & (probabilities < 1)
    own = is_class & low[:, None]
    masks = (
        own,
        own & (probabilities > anchor_threshold),
        unsure & is_class if negatives == "own_label" else unsure,
    )
    return ClassPixels(*(mask.transpose(0, 1).flatten(1) for mask in masks))
