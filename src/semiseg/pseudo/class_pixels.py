"""Pixels of each class that U2PL compares: anchors, those that make the positive, and negatives."""

from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.declare import Ge, Le, record
from semiseg.errors import UserError
from semiseg.settings import Count

OneHot = Literal["first_image", "right"]
Negatives = Literal["own_label", "paper"]


@record
class ClassPixelSettings:
    """Settings of anchors and negatives, for methods to inherit; see ``class_pixels``."""

    anchor_threshold: Annotated[float, Ge(0), Le(1)] = 0.3
    """Probability of its class that an anchor has to exceed. Published: 0.3."""
    low_rank: Count = 3
    """Number of most probable classes that an unsure pixel may have: it is a negative of those after them. Published:
    3; has to be below the number of classes."""
    high_rank: Count = 20
    """Number of most probable classes of which a pixel can be a negative. Published: 20; at most all are used."""
    onehot: OneHot = "right"
    """Labels of the contrast: "first_image" as published, where the first image gets the classes of all by mistake; or
    "right" (the default: otherwise all other images are lost, and the first learns their classes)."""
    negatives: Negatives = "paper"
    """Negatives of a class: by mistake only pixels with its "own_label", as published, so that banks stay nearly empty;
    or by the rule of the "paper" (the default)."""

    def check_ranks(self, num_classes: int) -> None:
        """Require that there are classes between both ranks.

        Raises:
            UserError: no unlabeled pixel could ever be a negative.
        """
        end = min(num_classes, self.high_rank)
        if self.low_rank >= end:
            raise UserError(
                f"leaves no class that an unlabeled pixel is surely not of: it has to be below {end}, the smaller of "
                f"{num_classes} classes and method.high_rank={self.high_rank}. Give {max(end - 1, 1)} or less (the "
                "authors: 1 for two classes), or method.contrast_weight=0.",
                key="method.low_rank",
                value=self.low_rank,
            )


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
    settings: ClassPixelSettings,
) -> ClassPixels:
    """Choose the pixels of each class (arXiv 2203.03884, section 3.3).

    Anchors have low entropy, the label of the class, and a probability above the threshold. A labeled pixel is a
    negative of the other classes among its ``low_rank`` most probable ones; an unlabeled one of high entropy is one of
    the classes after those, up to ``high_rank``.

    Args:
        labels: labels and pseudo-labels ``(N, h, w) int64``, classes or 255; labeled images first.
        low: ``(N, h, w) bool``, pixels of low entropy; in labeled images all with a label.
        high: ``(N, h, w) bool``, pixels of high entropy; in labeled images all with a label.
        probabilities: class probabilities ``(N, K, h, w)`` of the teacher.
        labeled: number of labeled images.
        settings: ranks, threshold and rules.
    """
    count, first = probabilities.shape[1], settings.low_rank
    # Published code: u2pl/utils/loss_helper.py, compute_contra_memobank_loss.
    is_class = torch.cat(
        [one_hot(part, count, settings.onehot) for part in (labels[:labeled], labels[labeled:])]
    )
    rank = probabilities.argsort(dim=1, descending=True, stable=True).argsort(1)
    other = (rank[:labeled] < first) & ~is_class[:labeled]
    unlikely = (rank[labeled:] >= first) & (rank[labeled:] < settings.high_rank)
    unsure = torch.cat([other, unlikely]) & high[:, None] & (probabilities < 1)
    own = is_class & low[:, None]
    masks = (
        own,
        own & (probabilities > settings.anchor_threshold),
        unsure & is_class if settings.negatives == "own_label" else unsure,
    )
    return ClassPixels(*(mask.transpose(0, 1).flatten(1) for mask in masks))
