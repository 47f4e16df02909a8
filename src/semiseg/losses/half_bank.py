"""A bank of negatives that is compared with products of 16-bit numbers and float32 sums, in few passes."""

import torch
import torch.nn.functional as F
from torch import Tensor

FAR = 1024.0
"""What the exponent of an entry that does not count is lowered by: its exponential is 0."""

LOWEST_TEMPERATURE = 0.1
"""Temperature from which the exponentials of all energies, e^-10 to e^10, are inside of float16."""

BLOCK = 8
"""Number that the sides of a product have to be multiples of for tensor cores."""


class HalfBank:
    """Negatives ``(N, D)`` of length 1 in 16 bits, with columns that do the masking within the product.

    A row of the bank is followed by its class as a one-hot vector and by ``FAR`` where it does not exist; an anchor by
    ``-FAR`` at its class and -1. Their product is the energy, far below for the entries that don't count. A column
    of ones gives the sum of the exponentials in one product with the weighted sum of the entries, both float32. All
    else is float16, which has three bits more than bfloat16.

    Args:
        features: entries ``(N, D)``, float32.
        labels: classes ``(N,)``, integers below ``num_classes``.
        valid: entries that exist, ``(N,) bool``; ``None`` for all.
        num_classes: number of classes.
        max_block: number of entries that are compared at once, and that the peak is taken from.
    """

    def __init__(
        self, features: Tensor, labels: Tensor, valid: Tensor | None, num_classes: int, max_block: int
    ) -> None:
        self.features, self.num_classes, self.max_block = features, num_classes, max_block
        missing = labels.new_zeros(len(labels)) if valid is None else ~valid
        self.keys = _columns(features, F.one_hot(labels, num_classes), missing[:, None] * FAR)
        self.values = _columns(features, torch.ones_like(features[:, :1]))

    def compare(
        self, query: Tensor, target: Tensor, positive: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the peak ``(M,)``, the vector it comes from, and the sums over the entries of other classes.

        Args:
            query: anchors by the temperature, at least ``LOWEST_TEMPERATURE``, ``(M, D)`` float32.
            target: the other views ``(M, D)``.
            positive: their products ``(M,)``.
            labels: classes ``(M,)`` of the anchors.
        """
        own, existing = F.one_hot(labels, self.num_classes) * -FAR, -torch.ones_like(query[:, :1])
        asked = _columns(query, own, existing)
        peak, nearest = positive, target
        sums = query.new_zeros(len(query), self.values.shape[1])
        for begin in range(0, len(self.keys), self.max_block):
            part = slice(begin, begin + self.max_block)
            if begin == 0:
                # Over all classes, unlike the sums.
                of_all = _columns(query, own * 0, existing)
                highest, place = _energies(of_all, self.keys[part]).max(1)
                above = highest > positive
                peak = torch.where(above, highest.float(), positive)
                nearest = torch.where(above[:, None], self.features[place], target)
            energy = _energies(asked, self.keys[part])
            sums += _sums(energy.exp_(), self.values[part])
        sums *= (-peak).exp()[:, None]
        channels = query.shape[1]
        return peak, nearest, sums[:, channels], sums[:, :channels]


def _energies(queries: Tensor, keys: Tensor) -> Tensor:
    """Multiply float16 with float32 sums, which are rounded at the end."""
    if queries.is_cuda:
        return queries @ keys.T
    return (queries.float() @ keys.float().T).half()


def _sums(weights: Tensor, values: Tensor) -> Tensor:
    """Multiply float16 with sums and result in float32."""
    if weights.is_cuda:
        return torch.mm(weights, values, out_dtype=torch.float32)
    return weights.float() @ values.float()


def _columns(*columns: Tensor) -> Tensor:
    """Concatenate columns as float16, with zeros up to a multiple of ``BLOCK``."""
    joined = torch.cat([each.half() for each in columns], 1)
    return F.pad(joined, (0, -joined.shape[1] % BLOCK))
