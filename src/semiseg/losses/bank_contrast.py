"""Contrast of pixels with the mean of their class and with a memory of pixels that are not of it (U2PL)."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.contracts.training import SumCount
from semiseg.declare import Gt, record
from semiseg.losses.reduction import Reduction, reduced, reducible
from semiseg.settings import Count

AnchorClass = Literal["position", "class"]

Draw = Callable[[Tensor, int], Tensor]
"""Function that draws ``(K, number) int64`` uniformly from 0 to bound - 1 for each of K bounds; 0 for a bound of 0."""

MIN_LENGTH = 1e-8
"""Length below which vectors are not stretched to unit length, as in ``torch.cosine_similarity``."""


@record
class BankContrastSettings:
    """Settings of ``bank_contrast``, for methods to inherit."""

    num_anchors: Count = 256
    """Anchors of each class in each step. Published: 256."""
    num_negatives: Count = 50
    """Negatives of each anchor. Published: 50."""
    temperature: Annotated[float, Gt(0)] = 0.5
    """Divisor of the cosine similarities. Published: 0.5."""
    anchor_class: AnchorClass = "class"
    """Anchors of the i-th class that is present: by mistake those of class i of all ("position"), as published, or
    those of its own "class" (the default)."""
    channels: Count = 256
    """Channels of the representation, and between its convs. Published: 256."""
    bank_size: Count = 30_000
    """Stored negatives of each class. Published: 30000, which with 256 channels are 31 MB for each class, on the device
    and in the training state."""
    bank_size_0: Count = 50_000
    """Stored negatives of class 0, the background of VOC. Published: 50000."""

    def bank(self, num_classes: int) -> "ClassBank":
        """Return an empty memory."""
        return ClassBank([self.bank_size_0, *[self.bank_size] * (num_classes - 1)], self.channels)


class ClassBank(nn.Module):
    """The newest vectors of each class, first in, first out, as buffers: a checkpoint holds them.

    Each class has a ring of its own in one tensor, so that nothing moves when entries are added, and all work stays on
    the device without reading back how many there are.

    Args:
        capacities: number of entries of each of the K classes.
        channels: channels D of an entry.
    """

    features: Tensor
    filled: Tensor
    following: Tensor
    first: Tensor
    room: Tensor

    def __init__(self, capacities: Sequence[int], channels: int) -> None:
        super().__init__()
        self.capacities = tuple(capacities)
        room = torch.tensor(self.capacities)
        self.register_buffer("features", torch.zeros(sum(self.capacities), channels))
        self.register_buffer("filled", torch.zeros_like(room))
        self.register_buffer("following", torch.zeros_like(room))
        self.register_buffer("room", room, persistent=False)
        self.register_buffer("first", room.cumsum(0) - room, persistent=False)

    @torch.no_grad()
    def append(self, features: Tensor, chosen: Tensor) -> None:
        """Append the chosen vectors of each class in their order, and drop its oldest where it is full.

        Args:
            features: vectors ``(P, D)``, floating point.
            chosen: ``(K, P) bool``.
        """
        order = chosen.cumsum(1)
        count = order[:, -1]
        features = features.to(self.features.dtype)
        first = 0
        for number, capacity in enumerate(self.capacities):
            # The most that can be new; what is less keeps the old entry at its place. So shapes never depend on data.
            most = min(capacity, len(features))
            entry = torch.arange(most, device=count.device) - most + count[number]
            source = torch.searchsorted(order[number], (entry + 1).clamp_min(1)).clamp_max(len(features) - 1)
            place = first + (self.following[number] + entry) % capacity
            new = torch.where(
                (entry >= 0)[:, None],
                features.index_select(0, source),
                self.features.index_select(0, place),
            )
            self.features.index_copy_(0, place, new)
            first += capacity
        self.filled.copy_(torch.minimum(self.filled + count, self.room))
        self.following.copy_((self.following + count) % self.room)

    def at(self, classes: Tensor, positions: Tensor) -> Tensor:
        """Return entries ``(R, M, D)`` of classes ``(R,)`` at positions ``(R, M)``, 0 for the oldest."""
        oldest = self.following - self.filled
        place = (oldest[classes, None] + positions) % self.room[classes, None] + self.first[classes, None]
        return self.features.index_select(0, place.flatten()).view(*place.shape, self.features.shape[1])


@reducible(Tensor, SumCount)
def bank_contrast(
    features: Tensor,
    keys: Tensor,
    own: Tensor,
    anchors: Tensor,
    bank: ClassBank,
    draw: Draw,
    settings: BankContrastSettings,
    *,
    reduction: Reduction = "mean",
) -> Tensor | SumCount:
    """Pull anchors of each class to the mean of its pixels, away from the entries of its bank (arXiv 2203.03884).

    For each of the V classes that have own pixels, ``num_anchors`` anchors are drawn and ``num_negatives`` entries for
    each of them, with replacement. The loss of an anchor is the cross entropy of cosine similarities / temperature
    with the positive first. The means of the classes are added up and divided by V; a class without anchors or
    without entries adds 0. With V below 2 the loss is 0. Anchors alone carry a gradient.

    Args:
        features: vectors ``(P, D)`` that learn, floating point.
        keys: vectors ``(P, D)`` of the teacher at the same pixels.
        own: ``(K, P) bool``, pixels whose mean key is the positive of each class.
        anchors: ``(K, P) bool``, pixels that may be drawn.
        bank: negatives of each class.
        draw: source of the draws; called for the anchors, then for the entries. Rows that are left out have bound 0.
        settings: numbers, temperature and rule of the anchors.
        reduction: ``"mean"`` or ``"sum_count"``; the count is V, 0 where it is 1.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features if features.dtype == torch.float64 else features.float()
        # Published code: u2pl/utils/loss_helper.py, compute_contra_memobank_loss.
        sizes = own.sum(1)
        positives = own.to(features.dtype) @ keys.detach().to(features.dtype) / sizes.clamp_min(1)[:, None]
        present = (sizes > 0).sum()
        banks, exists = torch.arange(len(own), device=own.device), sizes > 0
        if settings.anchor_class == "position":
            exists, banks = banks < present, (~exists).byte().argsort(dim=0, stable=True)
        order, number = anchors.cumsum(1), settings.num_anchors
        available, stored = order[:, -1], bank.filled[banks]
        counted = exists & (available > 0) & (stored > 0) & (present > 1)
        drawn = draw(available * counted, number)
        places = torch.searchsorted(order, drawn + 1).clamp_max(order.shape[1] - 1)
        entries = draw(stored * counted, number * settings.num_negatives)
        negatives = bank.at(banks, entries).to(features.dtype).view(*drawn.shape, -1, features.shape[1])
        # By an index: its gradient is summed in a fixed order on CUDA, unlike that of index_select.
        query = F.normalize(features[places], dim=2, eps=MIN_LENGTH)
        positive = torch.einsum("kqd,kd->kq", query, F.normalize(positives, dim=1, eps=MIN_LENGTH))
        # Not normalized before: they are by far the largest tensor, and a second one of their size is saved.
        lengths = torch.linalg.vector_norm(negatives, dim=3).clamp_min(MIN_LENGTH)
        negative = torch.einsum("kqd,kqmd->kqm", query, negatives) / lengths
        energy = torch.cat([positive[..., None], negative], 2) / settings.temperature
        losses = (energy.logsumexp(2) - energy[..., 0]).mean(1)
        total = torch.where(counted, losses, 0.0).sum()
    return reduced(SumCount(total, present * (present > 1)), reduction)


def uniform_draw(generator: torch.Generator) -> Draw:
    """Return a ``Draw`` from a generator, on its device."""

    def draw(bounds: Tensor, number: int) -> Tensor:
        # Integers of 31 bits times a number of pixels: exact, unlike float32, whose product may round up to the bound.
        shape = (len(bounds), number)
        drawn = torch.randint(2**31, shape, generator=generator, device=generator.device)
        return drawn * bounds[:, None] >> 31

    return draw
