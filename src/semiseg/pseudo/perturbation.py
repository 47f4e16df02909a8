"""Masks that drop whole channels of feature maps, and double the others."""

from typing import Literal

import torch
from torch import Tensor

Undropped = Literal["half", "bernoulli", "none"]


def channel_masks(generator: torch.Generator, n: int, channels: int) -> Tensor:
    """Draw channel dropout with probability 1/2: ``(n, channels) float32`` of 0 and 2, on the generator's device."""
    kept = torch.randint(0, 2, (n, channels), generator=generator, device=generator.device)
    return 2.0 * kept


def undropped_images(generator: torch.Generator, n: int, rule: Undropped = "half", groups: int = 1) -> Tensor:
    """Draw the images of which complementary dropout drops nothing, ``(n,) bool``.

    Args:
        generator: source of the draws; the result is on its device.
        n: number of images.
        rule: "half" of them rounded down, as published, so that a single image is always dropped; each with probability
            1/2 ("bernoulli"); or "none".
        groups: equal parts of the images, in each of which "half" holds.
    """
    draws = torch.rand((groups, n // groups), generator=generator, device=generator.device)
    if rule == "half":
        # The ranks of random numbers are a random permutation, without reading anything back.
        chosen = draws.argsort(1).argsort(1) < n // groups // 2
    else:
        chosen = draws < (0.5 if rule == "bernoulli" else 0.0)
    return chosen.flatten()


def complementary_masks(generator: torch.Generator, undropped: Tensor, channels: int) -> Tensor:
    """Draw channel dropout for two views of n images, of which each channel is dropped in one (UniMatch V2).

    Args:
        generator: source of the draws; the masks are on its device.
        undropped: images of which nothing is dropped, ``(n,) bool``, see ``undropped_images``.
        channels: number of channels.

    Returns:
        The masks of the first views, then of the second, ``(2 n, channels) float32`` of 0, 1 and 2.
    """
    # Published code: model/semseg/dpt.py of UniMatch V2, forward(comp_drop=True).
    first = channel_masks(generator, len(undropped), channels)
    return torch.cat([torch.where(undropped[:, None], 1.0, mask) for mask in (first, 2 - first)])
