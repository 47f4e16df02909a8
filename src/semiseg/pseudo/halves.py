"""Mixtures of U2PL: boxes of half of an image, and half of its classes."""

from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.contracts.training import Progress
from semiseg.declare import Ge, Le, record
from semiseg.pseudo.draws import on_device, own_rows, step_generator, torch_generator
from semiseg.pseudo.mixing import box_maps, mixed

Mix = Literal["cutmix", "cutout", "classmix", "none"]


@record
class HalfMixSettings:
    """Settings of mixtures of halves, for methods to inherit."""

    mix: Mix = "cutmix"
    """Mixture of unlabeled images: with the next image by a box of half the area ("cutmix", as published) or by half of
    the classes ("classmix"); "cutout" erases the box, "none" mixes nothing."""
    mix_probability: Annotated[float, Ge(0), Le(1)] = 0.5
    """Probability that a batch is mixed. Published: 0.5."""


def half_boxes(
    generator: np.random.Generator | np.random.RandomState, n: int, size: tuple[int, int]
) -> Tensor:
    """Draw boxes of half of an image: ``(n, 4) int64`` of (top, left, height, width), on the CPU.

    The width is uniform above half of the image's, the height follows, and the place is uniform inside. They equal
    those of U2PL for the same NumPy generator.

    Args:
        generator: source of all draws.
        n: number of boxes.
        size: (height, width) of the images.
    """
    draw = generator.integers if isinstance(generator, np.random.Generator) else generator.randint
    rows, columns = size
    boxes = []
    # Published code: u2pl/dataset/augmentation.py, generate_cutout_mask.
    for _ in range(n):
        width = int(draw(min(columns // 2 + 1, columns - 1), columns))
        height = int(np.round(rows * columns / 2 / width))
        left = int(draw(0, columns - width + 1))
        top = int(draw(0, rows - height + 1))
        boxes.append((top, left, height, width))
    return torch.tensor(boxes, dtype=torch.int64).view(n, 4)


def half_of_classes(keys: Tensor, labels: Tensor) -> Tensor:
    """Choose half of the classes of each image, rounded down, and return where they are, ``(N, H, W) bool``.

    Olsson et al., ClassMix, arXiv 2007.07936, as U2PL has it.

    Args:
        keys: random numbers ``(N, K)`` of images and classes; those with the smallest are chosen.
        labels: labels ``(N, H, W) int64``; numbers of K and more, such as ignored ones, are no class.
    """
    # Published code: u2pl/dataset/augmentation.py, generate_class_mask.
    count = keys.shape[1]
    index = labels.clamp_max(count).flatten(1)
    present = torch.zeros(len(keys), count + 1, dtype=torch.bool, device=labels.device)
    present = present.scatter(1, index, True)[:, :count]
    rank = keys.masked_fill(~present, torch.inf).argsort(1).argsort(1)
    chosen = present & (rank < present.sum(1, keepdim=True) // 2)
    padded = F.pad(chosen, (0, 1))
    return padded.gather(1, index).view_as(labels)


def half_mixture(
    image: Tensor, label: Tensor, inside: Tensor, mix: Mix, convention: Any
) -> tuple[Tensor, Tensor]:
    """Mix images with the next ones of the batch, or erase a part; return them and their labels.

    Args:
        image: images ``(N, C, H, W)``.
        label: labels ``(N, H, W) int64``.
        inside: ``(N, H, W) bool``, see ``half_masks``.
        mix: "cutout" erases, all others mix.
        convention: input of the network, whose mean erased pixels get; their label is 255.
    """
    # Published code: u2pl/dataset/augmentation.py, generate_unsup_data.
    if mix == "cutout":
        erased = torch.tensor(convention.mean, dtype=torch.float64) * convention.scale
        if convention.order == "BGR":
            erased = erased.flip(0)
        if not image.is_floating_point():
            erased = erased.round()
        fill = erased.to(image.device, image.dtype, non_blocking=True).view(1, -1, 1, 1).expand_as(image)
        return mixed(image, fill, inside), label.masked_fill(inside, IGNORE_INDEX)
    return mixed(image, image.roll(-1, 0), inside), mixed(label, label.roll(-1, 0), inside)


def half_masks(
    labels: Tensor, num_classes: int, settings: HalfMixSettings, progress: Progress
) -> Tensor | None:
    """Draw where the images of a batch are mixed or erased, ``(N, H, W) bool``; ``None`` where the batch is not.

    Args:
        labels: labels ``(N, H, W) int64`` of the images.
        num_classes: number of classes K.
        settings: kind and probability: a box of half of each image for "cutmix" and "cutout", the pixels without half
            of its classes for "classmix".
        progress: the pass, which determines all draws.
    """
    generator = step_generator(progress, "mix")
    # Published code: train_semi.py draws once for the batch, with each kind of mixture.
    if generator.random() >= settings.mix_probability or settings.mix == "none":
        return None
    total, rows = own_rows(progress, len(labels))
    if settings.mix == "classmix":
        source = torch_generator(progress, "classes", labels.device)
        keys = torch.rand((total, num_classes), generator=source, device=labels.device)[rows]
        return ~half_of_classes(keys, labels)
    size = labels.shape[1], labels.shape[2]
    boxes = half_boxes(generator, total, size)[rows]
    return box_maps(on_device(boxes, labels.device), size)
