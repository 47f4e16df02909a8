"""A memory of features and their labels over steps and ranks, first in first out."""

import torch
from torch import Tensor, distributed, nn


class FeatureBank(nn.Module):
    """The newest entries that were pushed, oldest first, as buffers: a checkpoint holds them.

    Args:
        capacity: entries that it holds; of all ranks together.
        channels: D of a feature.
    """

    features: Tensor
    labels: Tensor
    filled: Tensor

    def __init__(self, capacity: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(capacity, channels))
        self.register_buffer("labels", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @property
    def capacity(self) -> int:
        """Entries that it holds at most."""
        return len(self.labels)

    @property
    def valid(self) -> Tensor:
        """``(capacity,) bool``: entries that exist; they come first."""
        return torch.arange(self.capacity, device=self.filled.device) < self.filled

    @property
    def fill(self) -> Tensor:
        """Share of the capacity that is filled, a scalar."""
        return self.filled / self.capacity

    @torch.no_grad()
    def push(self, features: Tensor, labels: Tensor) -> None:
        """Append entries, those of all ranks in their order; the oldest ones make room.

        Args:
            features: ``(n, D)`` floating point, the same n on all ranks.
            labels: ``(n,)`` integers.

        Raises:
            ValueError: more entries than the capacity.
        """
        features = over_ranks(features.detach().to(self.features.dtype))
        labels = over_ranks(labels.detach().to(self.labels.dtype))
        count, capacity = len(labels), self.capacity
        if count > capacity:
            raise ValueError(f"{count} entries do not fit into a bank of {capacity}")
        # All of this stays on the device: how full the bank is would make the host wait.
        places = torch.arange(capacity, device=labels.device)
        dropped = (self.filled + count - capacity).clamp_min(0)
        moved = (places + dropped).clamp_max(capacity - 1)
        begin = self.filled - dropped
        self.features = self.features.index_select(0, moved).index_copy_(0, places[:count] + begin, features)
        self.labels = self.labels.index_select(0, moved).index_copy_(0, places[:count] + begin, labels)
        self.filled = begin + count


def ranks() -> int:
    """Processes that train together."""
    return distributed.get_world_size() if _together() else 1


def over_ranks(values: Tensor) -> Tensor:
    """Concatenate the tensors ``(n, ...)`` of all ranks in their order, without gradient."""
    if not _together():
        return values
    with torch.no_grad():
        parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(ranks())]
        distributed.all_gather(parts, values.contiguous())
        return torch.cat(parts)


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
