"""Correlation matching: labels that spread over an image by the likeness of its positions (CorrMatch)."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Spread = Literal["scatter", "columns", "gather"]
ROUNDING = 1000
"""Steps of floating-point rounding, by whose multiple a row that is constant may vary."""


def correlation_map(embeddings: Tensor) -> Tensor:
    """Return how much each position of a map attends to each other one (Sun et al., arXiv 2306.04300).

    Args:
        embeddings: ``(N, 2 K, h, w)``, both embeddings of ``semiseg.models.heads.CorrelationHead``.

    Returns:
        ``(N, h w, h w)``, at least float32; each row sums to 1: softmax(F1^T F2 / sqrt(K)) over the last index.
    """
    first, second = embeddings.flatten(2).chunk(2, 1)
    logits = first.transpose(1, 2) @ second / math.sqrt(first.shape[1])
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)


def propagated_logits(
    logits: Tensor, correlation: Tensor, size: Sequence[int], spread: Spread = "scatter"
) -> Tensor:
    """Return logits that each position gets from the positions that it is like; only the correlation gets a gradient.

    Args:
        logits: ``(N, K, H, W)``, resized to the size of the map first (bilinear, ``align_corners=True``).
        correlation: ``(N, h w, h w)`` of ``correlation_map``.
        size: height h and width w of the map.
        spread: "scatter", the published code: position i gives its logits to j with the weight M[i, j], and the weights
            that a position gets do not sum to 1; "columns", the same with weights that do; "gather": position i takes
            the logits of j with the weight M[i, j], a mean.

    Returns:
        Logits ``(N, K, h, w)`` in the dtype of the correlation.

    Raises:
        ValueError: the correlation is not of a map of this size, or there is no such spread.
    """
    height, width = size
    if correlation.shape[-2:] != (height * width, height * width):
        raise ValueError(f"correlation {tuple(correlation.shape)} is not that of a map of {height}x{width}")
    if spread not in get_args(Spread):
        raise ValueError(f"spread {spread!r}: choose one of {', '.join(get_args(Spread))}")
    small = F.interpolate(logits.detach(), (height, width), mode="bilinear", align_corners=True)
    small = small.flatten(2).to(correlation.dtype)
    if spread == "columns":
        correlation = correlation / correlation.sum(1, keepdim=True)
    result = small @ (correlation.transpose(1, 2) if spread == "gather" else correlation)
    return result.reshape(*result.shape[:2], height, width)


def draw_rows(generator: torch.Generator, positions: int, count: int = 128, *, last: bool = False) -> Tensor:
    """Draw positions of a map with replacement, whose regions are looked at; the same for all images of a pass.

    Args:
        generator: source of the draws.
        positions: number of positions of the map, 2 at least.
        count: number of draws.
        last: whether the last position may be drawn; in the published code it never is.

    Returns:
        Indices ``(count,) int64`` on the device of the generator.
    """
    return torch.randint(
        positions if last else positions - 1, (count,), generator=generator, device=generator.device
    )


@torch.no_grad()
def correlation_regions(
    correlation: Tensor, rows: Tensor, size: Sequence[int], image_size: Sequence[int]
) -> Tensor:
    """Return the pixels that are like given positions of a map.

    A row of the correlation is resized to the image (bilinear, ``align_corners=True``) and scaled to 0-1; the region
    is what lies above 0.5. A row that is constant up to rounding is like nothing: its region is empty.

    Args:
        correlation: ``(N, h w, h w)`` of ``correlation_map``.
        rows: positions ``(R,) int64`` in ``0 .. h w - 1``.
        size: height h and width w of the map.
        image_size: height H and width W of the image.

    Returns:
        Regions ``(N, R, H, W) bool``.
    """
    found = []
    # One image at a time: the maps of all are large.
    for chosen in correlation[:, rows].reshape(len(correlation), len(rows), *size):
        low, high = chosen.amin((1, 2)), chosen.amax((1, 2))
        constant = high - low <= ROUNDING * torch.finfo(chosen.dtype).eps * high
        maps = F.interpolate(chosen[None], tuple(image_size), mode="bilinear", align_corners=True)[0]
        least, most = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        found.append(((maps - least) / (most - least) > 0.5) & ~constant[:, None, None])
    return torch.stack(found)
