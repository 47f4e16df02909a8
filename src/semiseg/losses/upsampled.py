"""Vectors, lengths and sums of a bilinearly upsampled map, without making the map."""

from collections.abc import Iterable

import torch
from torch import Tensor


class Upsampled:
    """A feature map that stands for its bilinear upsampling with aligned corners.

    Upsampling is linear and each pixel is a mean of four cells, so vectors, lengths and sums of pixels follow from
    the cells. Pixels are numbered ``(n * H + y) * W + x``, and cells ``(n * h + y) * w + x``.

    Args:
        values: feature map ``(N, D, h, w)``, floating point.
        size: height and width ``(H, W)`` of the upsampled map.
    """

    def __init__(self, values: Tensor, size: tuple[int, int]) -> None:
        self.cells = values.permute(0, 2, 3, 1).flatten(0, 2)
        self._shape = values.shape
        self._size = size
        (h, w), (height, width) = values.shape[2:], size
        self._top, self._down = _positions(h, height, values)
        self._left, self._right = _positions(w, width, values)
        # A single row or column has no neighbor, whose share is 0 there: it may point at the cell itself.
        step_x, step_y = min(w - 1, 1), w * min(h - 1, 1)
        self.steps = (0, step_x, step_y, step_x + step_y)
        self._first = self._top[:, None] * w + self._left
        up, left = 1 - self._down[:, None], 1 - self._right
        down, right = self._down[:, None], self._right
        self._shares = torch.stack([up * left, up * right, down * left, down * right], -1)

    def corners(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cells ``(...) int64`` above and left of pixels, and the shares ``(..., 4)`` of their corners.

        The corners are these cells plus ``steps``: the cell itself, right of it, below, and below to the right.
        """
        area = self._size[0] * self._size[1]
        image = pixels // area
        within = pixels - image * area
        first = pick(self._first.flatten(), within) + image * (self._shape[2] * self._shape[3])
        return first, pick(self._shares.flatten(0, 1), within)

    def at(self, pixels: Tensor) -> Tensor:
        """Return the vectors ``(..., D)`` of pixels, with gradient."""
        first, shares = self.corners(pixels)
        corners = [self.cells[first + step] for step in self.steps]
        return sum_of_products(corners, shares.unsqueeze(-2).unbind(-1))

    def sums(self, groups: Tensor, number: int) -> Tensor:
        """Sum the vectors of each group of pixels, without gradient.

        Args:
            groups: group ``(N, H, W) int64`` of each pixel, 0 to ``number - 1``, or ``number`` for none.
            number: number of groups.

        Returns:
            Sums ``(number, D)``.
        """
        cells = self.cells.detach()
        images = torch.arange(len(groups), device=groups.device) * (self._shape[2] * self._shape[3])
        first = (groups * len(cells) + images.view(-1, 1, 1) + self._first).flatten()
        total = cells.new_zeros((number + 1) * len(cells))
        for step, share in zip(self.steps, self._shares.unbind(-1), strict=True):
            total[step:].scatter_add_(0, first, share.expand(groups.shape).flatten())
        return total.view(number + 1, -1)[:number] @ cells

    def squared_lengths(self) -> Tensor:
        """Return ``(N * H * W,)`` squared Euclidean lengths of all pixels, without gradient."""
        n, _, h, w = self._shape
        here = self.cells.detach().view(n, h, w, -1)
        right = here[:, :, _following(w, here)]
        below = here[:, _following(h, here)]
        across = below[:, :, _following(w, here)]
        along = _squares(_dot(here, here), 2 * _dot(here, right), self._left, self._right, 2)
        between = _dot(here, across) + _dot(right, below)
        down = _squares(_dot(here, below), between, self._left, self._right, 2)
        return _squares(along, 2 * down, self._top, self._down, 1).flatten()


def pick(table: Tensor, index: Tensor) -> Tensor:
    """Return ``table[index]``, the rows of a table; several times faster on a CPU."""
    return table.index_select(0, index.flatten()).view(*index.shape, *table.shape[1:])


def sum_of_products(one: Iterable[Tensor], other: Iterable[Tensor]) -> Tensor:
    """Add up the products of two equally long series of tensors."""
    products = [a * b for a, b in zip(one, other, strict=True)]
    return sum(products[1:], products[0])


def _positions(cells: int, pixels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cell before each of the pixels of an axis, and the share of the cell after it."""
    spacing = (cells - 1) / max(pixels - 1, 1)
    position = torch.arange(pixels, dtype=torch.float64, device=like.device) * spacing
    # The last pixel belongs to the last pair of cells, with a share of 1, so that both cells exist.
    first = position.floor().clamp_max(max(cells - 2, 0))
    return first.long(), (position - first).to(like.dtype)


def _following(cells: int, like: Tensor) -> Tensor:
    return (torch.arange(cells, device=like.device) + 1).clamp_max(cells - 1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


def _squares(own: Tensor, mixed: Tensor, first: Tensor, share: Tensor, axis: int) -> Tensor:
    """Interpolate a square along an axis: (1 - s)^2 own[i] + s^2 own[i + 1] + s (1 - s) mixed[i]."""
    following = (first + 1).clamp_max(own.shape[axis] - 1)
    if axis == 1:
        share = share.unsqueeze(1)
    before, after = own.index_select(axis, first), own.index_select(axis, following)
    return (
        (1 - share) ** 2 * before + share**2 * after + share * (1 - share) * mixed.index_select(axis, first)
    )
